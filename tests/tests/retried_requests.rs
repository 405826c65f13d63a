//! Every change that the engine takes part in, cut off by a crash between any two of its steps and asked for again:
//! it is made once, answered as the first time, and leaves nothing over.

use serde_json::{Value, json};

use ashlar_tests::api::Api;
use ashlar_tests::appliance::MIB;
use ashlar_tests::ground::{
    DEVICE, VOLUME, device_id, empty_file, export_id, file_source, group_id, small, volume_id, whole,
};
use ashlar_tests::retry::Case;
use ashlar_tests::server::{Home, KILL_AT_STEP, Managed};

fn blank(_: &Home, _: &Api) {}

/// The file of a device that is to be added exists.
fn with_file(home: &Home) {
    empty_file(&home.device("new"));
}

fn new_file(home: &Home) -> Value {
    json!({"name": "new", "source": file_source(&home.device("new"), Some(DEVICE))})
}

fn old_file(home: &Home) -> Value {
    json!({"name": "new", "source": file_source(&home.device("new"), None)})
}

fn device(number: u32, verb: &str) -> String {
    format!("/devices/{}{verb}", device_id(number))
}

fn group(number: u32, verb: &str) -> String {
    format!("/raid-groups/{}{verb}", group_id(number))
}

fn volume(number: u32, verb: &str) -> String {
    format!("/volumes/{}{verb}", volume_id(number))
}

#[test]
fn the_first_device_with_its_file_is_made_once() {
    let case = Case::new("POST", "/devices", blank).body(new_file).creates();
    case.survives_every_crash();
}

#[test]
fn the_first_device_in_an_existing_file_is_added_once() {
    let case = Case::new("POST", "/devices", |home, _| with_file(home));
    case.body(old_file).creates().survives_every_crash();
}

#[test]
fn a_further_device_with_its_file_is_made_once() {
    let case = Case::new("POST", "/devices", small).body(new_file).creates();
    case.survives_every_crash();
}

#[test]
fn a_further_device_in_an_existing_file_is_added_once() {
    let case = Case::new("POST", "/devices", |home, api| {
        small(home, api);
        with_file(home);
    });
    case.body(old_file).creates().survives_every_crash();
}

#[test]
fn a_device_is_renamed_once() {
    let case = Case::new("PATCH", device(2, ""), whole);
    case.body(|_| json!({"name": "renamed"})).survives_every_crash();
}

#[test]
fn a_device_is_taken_out_of_service_once() {
    Case::new("POST", device(1, "/fail"), whole).survives_every_crash();
}

#[test]
fn a_device_is_returned_once() {
    let case = Case::new("POST", device(6, "/return"), whole).with_device_away("6");
    case.survives_every_crash();
}

#[test]
fn a_device_is_made_a_spare_once() {
    let case = Case::new("POST", device(2, "/spare"), whole);
    case.body(|_| json!({"spare": {"kind": "raid_group", "raid_group": group_id(0)}}))
        .survives_every_crash();
}

#[test]
fn a_device_is_removed_once() {
    Case::new("DELETE", device(3, ""), whole).survives_every_crash();
}

#[test]
fn a_raid_group_is_made_once() {
    let case = Case::new("POST", "/raid-groups", whole).body(|_| {
        let members = [device_id(2), device_id(3)];
        json!({"name": "new", "level": "1", "members": members, "slice_length_bytes": MIB})
    });
    case.creates().survives_every_crash();
}

#[test]
fn a_raid_group_is_renamed_once() {
    let case = Case::new("PATCH", group(0, ""), whole);
    case.body(|_| json!({"name": "renamed"})).survives_every_crash();
}

#[test]
fn a_raid_groups_limit_is_changed_once() {
    let case = Case::new("PATCH", group(0, ""), whole);
    case.body(|_| json!({"rate_limit_bytes_per_s": MIB}))
        .survives_every_crash();
}

#[test]
fn what_a_raid_group_does_about_lost_members_is_changed_once() {
    let case = Case::new("PATCH", group(0, ""), whole);
    case.body(|_| json!({"spare_after_seconds": 5, "replace_suspect": true, "suspect_after": 0}))
        .survives_every_crash();
}

#[test]
fn a_member_is_replaced_once() {
    let case = Case::new("POST", group(0, "/replace"), whole);
    case.body(|_| json!({"old": device_id(1), "new": device_id(2)}))
        .survives_every_crash();
}

#[test]
fn a_raid_group_is_formatted_once() {
    Case::new("POST", group(0, "/format"), whole).survives_every_crash();
}

#[test]
fn a_raid_groups_schedule_is_changed_once() {
    let case = Case::new("PATCH", group(0, ""), whole);
    case.body(|_| json!({"scrub_schedule": {"every_hours": 720, "mode": "check"}}))
        .survives_every_crash();
}

#[test]
fn a_raid_group_is_scrubbed_once() {
    let case = Case::new("POST", group(0, "/scrub"), whole);
    case.body(|_| json!({"mode": "check"})).survives_every_crash();
}

#[test]
fn a_raid_group_is_deleted_once() {
    Case::new("DELETE", group(1, ""), whole).survives_every_crash();
}

#[test]
fn a_volume_is_made_once() {
    let case = Case::new("POST", "/volumes", whole).creates();
    case.body(|_| json!({"name": "new", "capacity_bytes": VOLUME, "raid_group": group_id(0)}))
        .survives_every_crash();
}

#[test]
fn a_volume_is_renamed_once() {
    let case = Case::new("PATCH", volume(0, ""), whole);
    case.body(|_| json!({"name": "renamed"})).survives_every_crash();
}

#[test]
fn a_volume_is_given_more_places_once() {
    let case = Case::new("POST", volume(2, "/placements"), whole).body(|_| {
        let range = json!({"offset": VOLUME / 2, "length": VOLUME / 2});
        json!({"placements": [{"range": range, "raid_group": group_id(0)}]})
    });
    case.survives_every_crash();
}

#[test]
fn a_volume_is_expanded_once() {
    let case = Case::new("POST", volume(1, "/expand"), whole);
    case.body(|_| json!({"capacity_bytes": 2 * VOLUME, "raid_group": group_id(0)}))
        .survives_every_crash();
}

#[test]
fn a_volume_is_deleted_once() {
    Case::new("DELETE", volume(1, ""), whole).survives_every_crash();
}

#[test]
fn an_export_is_made_once() {
    let case = Case::new("POST", "/exports", whole).creates();
    case.body(|_| json!({"volume": volume_id(1)}))
        .survives_every_crash();
}

#[test]
fn an_export_is_changed_once() {
    let case = Case::new("PATCH", format!("/exports/{}", export_id(0)), whole);
    case.body(|_| json!({"name": "renamed", "read_only": true}))
        .survives_every_crash();
}

#[test]
fn an_export_is_deleted_once() {
    Case::new("DELETE", format!("/exports/{}", export_id(0)), whole).survives_every_crash();
}

#[test]
fn the_appliance_is_changed_once() {
    let change = json!({"name": "renamed", "number": 7, "rate_limit_bytes_per_s": MIB});
    let case = Case::new("PATCH", "/appliance", whole).body(|_| change);
    case.survives_every_crash();
}

#[test]
fn an_appliance_is_imported_once() {
    let case = Case::beside("POST", "/appliance/import", small).body(|home| {
        let sources = ["0", "1"].map(|name| file_source(&home.device(name), None));
        json!({"sources": sources})
    });
    case.survives_every_crash();
}

#[test]
fn the_catalog_is_rebuilt_once() {
    Case::new("POST", "/appliance/rebuild-catalog", whole).survives_every_crash();
}

#[test]
fn requests_that_are_sent_at_the_same_time_make_one_object_and_get_one_answer() {
    let new = json!({"name": "new", "capacity_bytes": VOLUME, "raid_group": group_id(0)});
    let case = Case::new("POST", "/volumes", whole).creates();
    case.body(|_| new).is_made_once_for_many_at_once();
    let case = Case::new("POST", "/devices", blank).body(new_file).creates();
    case.is_made_once_for_many_at_once();
    let case = Case::new("POST", group(0, "/replace"), whole);
    case.body(|_| json!({"old": device_id(1), "new": device_id(2)}))
        .is_made_once_for_many_at_once();
    let case = Case::new("DELETE", volume(1, ""), whole);
    case.is_made_once_for_many_at_once();
}

#[test]
fn a_device_whose_removal_was_cut_off_can_be_added_again() {
    let home = Home::new();
    let server = home.start();
    whole(&home, &server.api());
    server.stop();
    // It is blank, and still in the list of places: that is as far as the removal gets.
    let server = home
        .try_start(&[(KILL_AT_STEP, "2")])
        .expect("there are no steps before a request");
    assert!(
        server
            .api()
            .request("DELETE", &device(3, ""), &Value::Null)
            .is_err()
    );
    server.was_killed();
    let server = home.start();
    let source = file_source(&home.device("3"), None);
    let added = server
        .api()
        .post("/devices", &json!({"name": "again", "source": source}))
        .granted();
    assert_eq!(
        (&added["name"], &added["presence"]),
        (&json!("again"), &json!("present"))
    );
    server.stop();
}

#[test]
fn a_request_that_was_refused_may_be_sent_again_with_its_key_and_is_then_made() {
    let home = Home::new();
    let server = home.start();
    let api = server.api().with("idempotency-key", "the-same-each-time");
    small(&home, &server.api());
    let new = json!({"name": "vol0", "capacity_bytes": VOLUME, "raid_group": group_id(0)});
    assert_eq!(api.post("/volumes", &new).refused(), "name-taken");
    let renamed = server
        .api()
        .with("if-match", "*")
        .patch(&volume(0, ""), &json!({"name": "other"}));
    renamed.granted();
    let made = api.post("/volumes", &new).granted();
    assert_eq!(api.post("/volumes", &new).granted(), made);
    let other = json!({"name": "third", "capacity_bytes": VOLUME, "raid_group": group_id(0)});
    assert_eq!(api.post("/volumes", &other).refused(), "idempotency-key-reused");
    server.stop();
}

/// Makes the object at `path` three times with the same id, and takes it away after the first two.
fn is_made_anew(home: &Home, server: &Managed, path: &str, new: &Value) {
    let (api, one) = (
        server.api(),
        format!("{path}/{}", new["id"].as_str().expect("it has an id")),
    );
    // The engine tells what it sees at any time.
    let count = || home.query("select count(*) from events where engine_epoch is null");
    let made = api.post(path, new).granted();
    let events = count();
    assert_eq!(
        api.post(path, new).granted(),
        made,
        "it is there: the first answer"
    );
    assert_eq!(count(), events, "nothing happened");
    for _ in 0..2 {
        api.delete(&one).granted();
        assert_eq!(api.get(&one).status, 404);
        let again = api.post(path, new);
        assert_eq!(again.status, 201, "{:#}", again.body);
        let there = api.get(&one).granted();
        assert_eq!(there["id"], new["id"]);
    }
}

#[test]
fn an_id_of_something_deleted_can_be_chosen_again_and_makes_it_anew() {
    let home = Home::new();
    let server = home.start();
    whole(&home, &server.api());
    let id = uuid::Uuid::new_v4();
    let volume = json!({"id": id, "name": "anew", "capacity_bytes": VOLUME, "raid_group": group_id(0)});
    is_made_anew(&home, &server, "/volumes", &volume);
    let export = json!({"id": id, "name": "anew", "volume": id});
    is_made_anew(&home, &server, "/exports", &export);
    let group =
        json!({"id": id, "level": "1", "members": [device_id(2), device_id(3)], "slice_length_bytes": MIB});
    is_made_anew(&home, &server, "/raid-groups", &group);
    with_file(&home);
    let mut device = old_file(&home);
    device["id"] = json!(id);
    is_made_anew(&home, &server, "/devices", &device);
    let other = json!({"id": id, "name": "other", "capacity_bytes": VOLUME, "raid_group": group_id(0)});
    assert_eq!(server.api().post("/volumes", &other).refused(), "id-taken");
    // With its key it is the same request, whatever has become of what it made.
    let keyed = server.api().with("idempotency-key", "once-only");
    let new = json!({"name": "once", "capacity_bytes": VOLUME, "raid_group": group_id(0)});
    let made = keyed.post("/volumes", &new).granted();
    let id = made["volume"]["id"].as_str().expect("it has an id");
    server.api().delete(&format!("/volumes/{id}")).granted();
    assert_eq!(keyed.post("/volumes", &new).granted(), made);
    assert_eq!(server.api().get(&format!("/volumes/{id}")).status, 404);
    server.stop();
}
