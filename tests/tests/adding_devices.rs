//! What adding a device must not do: take another device's place or file, whatever was lost before and wherever it is cut
//! off.

use std::path::Path;

use serde_json::{Value, json};

use ashlar_tests::api::Api;
use ashlar_tests::appliance::MIB;
use ashlar_tests::ground::{DEVICE, add_device, device_id, empty_file, file_source, group_id, small, whole};
use ashlar_tests::nbd::Client;
use ashlar_tests::server::{Home, KILL_AT_STEP, Managed};

/// The step at which the place of a device is noted, and nothing was looked at.
const NOTED: &str = "2";

fn add(api: &Api, source: &Value) -> ashlar_tests::api::Answer {
    api.post("/devices", &json!({"source": source}))
}

fn state(api: &Api, number: u32) -> Value {
    api.get(&format!("/devices/{}", device_id(number))).granted()["state"].clone()
}

/// The appliance serves with all its devices, also after a restart.
fn serves(home: &Home, server: Managed, devices: u32) {
    server.stop();
    let server = home.start();
    let api = server.api();
    assert_eq!(api.get("/appliance").granted()["state"], "serving");
    for number in 0..devices {
        assert_eq!(state(&api, number), "in_service", "device {number}");
    }
    Client::attach(&server.nbd(), "vol0").expect("the export is offered");
    server.stop();
}

#[test]
fn an_id_that_is_a_devices_already_is_refused_and_no_file_is_touched() {
    let home = Home::new();
    let server = home.start();
    small(&home, &server.api());
    // Nobody knows any more that a request made them.
    home.query("delete from idempotency_keys; delete from operations");
    std::fs::write(home.device("other"), "somebody's").expect("the folder is ours");
    let api = server.api();
    for (name, size) in [
        ("0", Some(DEVICE)),
        ("other", Some(DEVICE)),
        ("new", Some(DEVICE)),
        ("0", None),
    ] {
        let source = file_source(&home.device(name), size);
        let refused = api.post("/devices", &json!({"id": device_id(0), "source": source}));
        assert_eq!(refused.refused(), "id-taken", "{name} {size:?}");
    }
    assert!(home.device("0").exists() && home.device("other").exists());
    assert!(!home.device("new").exists());
    serves(&home, server, 2);
}

#[test]
fn a_place_that_is_a_devices_already_is_refused_and_stays_its() {
    let home = Home::new();
    let server = home.start();
    small(&home, &server.api());
    let refused = add(&server.api(), &file_source(&home.device("1"), None));
    assert_eq!(refused.refused(), "device-known");
    assert!(
        refused.body["cause"].to_string().contains(&device_id(1)),
        "{:#}",
        refused.body
    );
    serves(&home, server, 2);
}

#[test]
fn of_two_that_add_one_place_at_once_one_is_answered_and_keeps_it() {
    let home = Home::new();
    let server = home.start();
    small(&home, &server.api());
    empty_file(&home.device("new"));
    let source = file_source(&home.device("new"), None);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let adding = || (0..4).map(|_| scope.spawn(|| add(&server.api(), &source)));
        let adding: Vec<_> = adding().collect();
        adding
            .into_iter()
            .map(|one| one.join().expect("it is answered"))
            .collect()
    });
    let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 201);
    assert_eq!(made.len(), 1);
    assert!(refused.iter().all(|answer| answer.refused() == "device-known"));
    let path = format!("/devices/{}", made[0].body["id"].as_str().expect("it has an id"));
    server.stop();
    let server = home.start();
    assert_eq!(server.api().get(&path).granted()["state"], "in_service");
    server.stop();
}

#[test]
fn a_device_that_is_found_elsewhere_is_brought_back_there() {
    let home = Home::new();
    let server = home.start();
    small(&home, &server.api());
    // Most of the devices are there without device 1.
    add_device(&home, &server.api(), 2);
    server.stop();
    std::fs::rename(home.device("1"), home.device("moved")).expect("the folder is ours");
    let server = home.start();
    let api = server.api();
    assert_eq!(state(&api, 1), "absent");
    let known = add(&api, &file_source(&home.device("moved"), None));
    assert_eq!(known.refused(), "device-known");
    assert!(
        known.body["correction"]["text"].to_string().contains("return"),
        "{:#}",
        known.body
    );
    let returned = api
        .post(&format!("/devices/{}/return", device_id(1)), &Value::Null)
        .granted();
    assert_eq!(returned["state"], "in_service");
    serves(&home, server, 3);
}

#[test]
fn a_new_disk_in_an_absent_devices_place_takes_it_and_a_refused_one_does_not() {
    let (other, home) = (Home::new(), Home::new());
    let server = other.start();
    small(&other, &server.api());
    server.stop();
    let server = home.start();
    small(&home, &server.api());
    // Most of the devices are there without device 1.
    add_device(&home, &server.api(), 2);
    server.stop();
    std::fs::rename(home.device("1"), home.device("kept")).expect("the folder is ours");
    std::fs::copy(other.device("0"), home.device("1")).expect("the folder is ours");
    let server = home.start();
    let api = server.api();
    assert_eq!(api.get("/appliance").granted()["state"], "waiting");
    let source = file_source(&home.device("1"), None);
    assert_eq!(add(&api, &source).refused(), "device-foreign-appliance");
    server.stop();
    std::fs::rename(home.device("kept"), home.device("1")).expect("the folder is ours");
    let server = home.start();
    assert_eq!(state(&server.api(), 1), "in_service", "its place was kept");
    server.stop();
    std::fs::remove_file(home.device("1")).expect("the folder is ours");
    empty_file(&home.device("1"));
    let server = home.start();
    let made = add(&server.api(), &source).granted();
    server.stop();
    let server = home.start();
    let path = format!("/devices/{}", made["id"].as_str().expect("it has an id"));
    assert_eq!(server.api().get(&path).granted()["state"], "in_service");
    assert_eq!(state(&server.api(), 1), "absent");
    server.stop();
}

/// A server that kills itself once the place of a device is noted.
fn start_to_be_cut_off(home: &Home) -> Managed {
    home.try_start(&[(KILL_AT_STEP, NOTED)])
        .expect("there are no steps before a request")
}

/// A data folder in which a server ran before; it has no device.
fn blank() -> Home {
    let home = Home::new();
    home.start().stop();
    home
}

/// Adds what lies at `name`, cut off right after its place is noted; then everything serves as before.
fn is_cut_off_and_serves(home: &Home, name: &str) {
    let server = start_to_be_cut_off(home);
    let new = json!({"source": file_source(&home.device(name), None)});
    assert!(server.api().request("POST", "/devices", &new).is_err());
    server.was_killed();
    let server = home.start();
    let api = server.api();
    assert_eq!(api.get("/appliance").granted()["state"], "serving", "{name}");
    let devices = api.get("/devices").granted()["items"].as_array().map(Vec::len);
    assert_eq!(devices, Some(2), "{name}");
    assert_eq!(
        home.query("select count(*) from operations where state = 'running'")
            .trim(),
        "0"
    );
    serves(home, server, 2);
}

#[test]
fn a_disk_that_was_only_about_to_be_added_hinders_no_start() {
    let (other, home) = (Home::new(), Home::new());
    let server = other.start();
    small(&other, &server.api());
    server.stop();
    let server = home.start();
    small(&home, &server.api());
    server.stop();
    let copy = |from: &Path, name: &str| {
        std::fs::copy(from, home.device(name)).expect("the folder is ours");
    };
    copy(&other.device("0"), "foreign");
    copy(&home.device("0"), "copy");
    for name in ["foreign", "copy"] {
        is_cut_off_and_serves(&home, name);
        assert!(home.device(name).exists(), "it is not the appliance's to remove");
    }
}

#[test]
fn a_foreign_disk_that_was_to_be_the_first_device_leaves_the_appliance_blank() {
    let (other, home) = (Home::new(), blank());
    let server = other.start();
    small(&other, &server.api());
    server.stop();
    let server = start_to_be_cut_off(&home);
    let new = json!({"source": file_source(&other.device("0"), None)});
    assert!(server.api().request("POST", "/devices", &new).is_err());
    server.was_killed();
    let server = home.start();
    assert_eq!(server.api().get("/appliance").granted()["state"], "blank");
    small(&home, &server.api());
    serves(&home, server, 2);
}

#[test]
fn a_file_that_somebody_made_while_the_addition_was_cut_off_is_left_alone() {
    let home = blank();
    let server = start_to_be_cut_off(&home);
    let new = json!({"force": true, "source": file_source(&home.device("new"), Some(DEVICE))});
    assert!(server.api().request("POST", "/devices", &new).is_err());
    server.was_killed();
    let content = vec![7; usize::try_from(DEVICE).expect("it is small")];
    std::fs::write(home.device("new"), &content).expect("the folder is ours");
    let server = home.start();
    assert_eq!(server.api().get("/appliance").granted()["state"], "blank");
    assert_eq!(home.query("select state from operations").trim(), "failed");
    assert!(std::fs::read(home.device("new")).expect("it is there") == content);
    server.stop();
}

#[test]
fn a_copy_of_a_member_that_was_removed_is_refused_unless_it_is_forced() {
    let home = Home::new();
    let server = home.start();
    let api = server.api();
    whole(&home, &api);
    std::fs::copy(home.device("4"), home.device("copy")).expect("the folder is ours");
    api.delete(&format!("/raid-groups/{}", group_id(1))).granted();
    api.delete(&format!("/devices/{}", device_id(4))).granted();
    let source = file_source(&home.device("copy"), None);
    let refused = add(&api, &source);
    assert_eq!(refused.refused(), "device-foreign-appliance");
    assert!(refused.body["correction"]["text"].to_string().contains("force"));
    assert_eq!(
        home.query("select count(*) from operations where state = 'running'")
            .trim(),
        "0"
    );
    api.post("/devices", &json!({"source": source, "force": true}))
        .granted();
    server.stop();
}

#[test]
fn what_the_data_folder_holds_for_itself_becomes_no_device() {
    let home = Home::new();
    let server = home.start();
    let api = server.api();
    small(&home, &api);
    let data = home.data();
    let within = data.join("postgres/data/base.img");
    empty_file(&within);
    std::os::unix::fs::symlink(&within, home.device("link")).expect("the folder is ours");
    std::os::unix::fs::symlink(data.join("postgres"), home.device("folder")).expect("the folder is ours");
    let forced = |source: Value| api.post("/devices", &json!({"source": source, "force": true}));
    for path in [
        within.clone(),
        home.device("link"),
        home.device("folder").join("data/base.img"),
    ] {
        let refused = forced(file_source(&path, None));
        assert_eq!(refused.refused(), "invalid-value", "{}", path.display());
        assert_eq!(refused.body["pointer"], "/source/path");
    }
    for name in ["tls/new", "postgres/../postgres/new", "rate-limit.json"] {
        let refused = forced(file_source(&data.join(name), Some(DEVICE)));
        assert_eq!(refused.refused(), "invalid-value", "{name}");
        assert!(!data.join(name).exists());
    }
    for entry in std::fs::read_dir(&data).expect("the folder is ours") {
        let path = entry.expect("the folder can be read").path();
        let path = if path.is_dir() { path.join("new") } else { path };
        let refused = forced(file_source(&path, Some(DEVICE)));
        assert_eq!(refused.refused(), "invalid-value", "{}", path.display());
    }
    // The folder's other places are anybody's.
    forced(file_source(&data.join("disk.img"), Some(64 * MIB))).granted();
    server.stop();
}
