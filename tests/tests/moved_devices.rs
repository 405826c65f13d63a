//! An appliance's devices are taken to another machine: its new data folder takes them over with all they hold.

use serde_json::{Value, json};

use ashlar_tests::ground::{VOLUME, add_device, create_volume, export_id, file_source, small, volume_id};
use ashlar_tests::load::{ledger, verify, write_all_and_flush};
use ashlar_tests::nbd::Client;
use ashlar_tests::server::Home;

fn sources(home: &Home, names: &[&str]) -> Value {
    let sources: Vec<_> = names
        .iter()
        .map(|name| file_source(&home.device(name), None))
        .collect();
    json!({"sources": sources})
}

fn move_devices(from: &Home, to: &Home) {
    for name in ["0", "1"] {
        std::fs::rename(from.device(name), to.device(name)).expect("both are on one file system");
    }
}

#[test]
fn imported_devices_bring_objects_and_data_and_offer_nothing_before_they_are_told_to() {
    let (old, new) = (Home::new(), Home::new());
    let server = old.start();
    small(&old, &server.api());
    let id = server.api().get("/appliance").granted()["id"].clone();
    let mut written = ledger(VOLUME);
    write_all_and_flush(&server.nbd(), &mut written);
    server.stop();
    move_devices(&old, &new);

    let server = new.start();
    let api = server.api();
    let imported = api
        .post("/appliance/import", &sources(&new, &["0", "1"]))
        .granted();
    assert_eq!((&imported["id"], &imported["state"]), (&id, &json!("serving")));
    for path in ["/devices", "/raid-groups", "/volumes", "/exports"] {
        for item in api.get(path).granted()["items"]
            .as_array()
            .expect("a page has items")
        {
            assert_eq!(item["presence"], "present", "{path}: {item:#}");
        }
    }
    let export = format!("/exports/{}", export_id(0));
    let shown = api.get(&export).granted();
    assert_eq!(
        (&shown["enabled"], &shown["offered"]),
        (&json!(false), &json!(false))
    );
    assert!(
        Client::attach(&server.nbd(), "vol0").is_err(),
        "nothing is offered yet"
    );
    // Nor after a restart.
    server.stop();
    let server = new.start();
    assert!(
        Client::attach(&server.nbd(), "vol0").is_err(),
        "nothing is offered yet"
    );
    let api = server.api();
    api.with("if-match", "*")
        .patch(&export, &json!({"enabled": true}))
        .granted();
    assert_eq!(verify(&server.nbd(), &mut written), written.blocks());
    create_volume(&api, 1, "later");
    server.stop();
}

#[test]
fn a_device_that_an_import_did_not_find_is_taken_in_at_the_start_at_which_it_is_there() {
    let (old, new) = (Home::new(), Home::new());
    let server = old.start();
    small(&old, &server.api());
    // Most of the devices are there without device 1.
    add_device(&old, &server.api(), 2);
    server.stop();
    for name in ["0", "2"] {
        std::fs::rename(old.device(name), new.device(name)).expect("both are on one file system");
    }
    let server = new.start();
    let api = server.api();
    let imported = api
        .post("/appliance/import", &sources(&new, &["0", "1", "2"]))
        .granted();
    assert_eq!(imported["state"], "waiting");
    server.stop();
    std::fs::rename(old.device("1"), new.device("1")).expect("both are on one file system");
    let server = new.start();
    let api = server.api();
    assert_eq!(api.get("/appliance").granted()["state"], "serving");
    for device in api.get("/devices").granted()["items"]
        .as_array()
        .expect("a page has items")
    {
        assert_eq!(device["state"], "in_service", "{device:#}");
        assert_ne!(device["location"], "unknown", "{device:#}");
    }
    server.stop();
}

#[test]
fn of_an_import_and_an_addition_at_once_one_decides_what_the_appliance_is() {
    let (old, new) = (Home::new(), Home::new());
    let server = old.start();
    small(&old, &server.api());
    let theirs = server.api().get("/appliance").granted()["id"].clone();
    server.stop();
    move_devices(&old, &new);
    let server = new.start();
    let added = json!({"source": file_source(&new.device("2"), Some(64 << 20))});
    let (imported, added) = std::thread::scope(|scope| {
        let importing = scope.spawn(|| {
            server
                .api()
                .post("/appliance/import", &sources(&new, &["0", "1"]))
        });
        let adding = scope.spawn(|| server.api().post("/devices", &added));
        let answers = (importing.join(), adding.join());
        (
            answers.0.expect("it is answered"),
            answers.1.expect("it is answered"),
        )
    });
    // What comes second is refused or is about the appliance that came first.
    added.granted();
    if imported.status != 200 {
        assert_eq!(imported.refused(), "appliance-not-blank");
    }
    let id = server.api().get("/appliance").granted()["id"].clone();
    assert_eq!(id == theirs, imported.status == 200);
    server.stop();
    let server = new.start();
    let appliance = server.api().get("/appliance").granted();
    assert_eq!((&appliance["id"], &appliance["state"]), (&id, &json!("serving")));
    server.stop();
}

#[test]
fn an_import_that_is_refused_leaves_the_appliance_blank_and_the_devices_as_they_were() {
    let (old, new) = (Home::new(), Home::new());
    let server = old.start();
    small(&old, &server.api());
    server.stop();
    std::fs::write(new.device("text"), "no device").expect("the folder is ours");

    let server = new.start();
    let api = server.api();
    for names in [vec!["absent"], vec!["text"]] {
        let refused = api.post("/appliance/import", &sources(&new, &names));
        assert_eq!(refused.refused(), "device-cannot-be-opened", "{names:?}");
        assert_eq!(api.get("/appliance").granted()["state"], "blank");
    }
    server.stop();
    let server = new.start();
    assert_eq!(server.api().get("/appliance").granted()["state"], "blank");
    server.stop();
    let server = old.start();
    assert_eq!(server.api().get("/appliance").granted()["state"], "serving");
    Client::attach(&server.nbd(), "vol0").expect("the export is offered");
    server.stop();
}

#[test]
fn a_data_folder_whose_devices_were_taken_away_says_so_and_makes_nothing_new() {
    let (old, new) = (Home::new(), Home::new());
    let server = old.start();
    small(&old, &server.api());
    server.stop();
    move_devices(&old, &new);
    let server = old.start();
    let api = server.api();
    let appliance = api.get("/appliance").granted();
    assert_eq!(appliance["state"], "unavailable");
    assert!(
        appliance["waiting_for"]
            .to_string()
            .contains(&old.device("0").display().to_string())
    );
    let source = file_source(&old.device("2"), Some(64 << 20));
    let refused = api.post("/devices", &json!({"source": source}));
    assert_eq!(refused.refused(), "appliance-unavailable");
    assert!(!old.device("2").exists(), "nothing is left over");
    let deleted = api.delete(&format!("/exports/{}", export_id(0)));
    assert_eq!(deleted.refused(), "appliance-unavailable");
    assert_eq!(unfinished(&old), 0, "what was refused is over");
    server.stop();
    // With the devices back it is as it was.
    move_devices(&new, &old);
    is_as_before(&old);
    assert!(!old.device("2").exists(), "what was refused is not made later");
}

fn unfinished(home: &Home) -> usize {
    let count = home.query("select count(*) from operations where state = 'running'");
    count.trim().parse().expect("it is a count")
}

/// Nothing that was refused is made by a start.
fn is_as_before(home: &Home) {
    let server = home.start();
    let api = server.api();
    assert_eq!(api.get("/appliance").granted()["state"], "serving");
    for (path, count) in [("/devices", 2), ("/volumes", 1), ("/exports", 1)] {
        let items = api.get(path).granted()["items"].as_array().map(Vec::len);
        assert_eq!(items, Some(count), "{path}");
    }
    let volume = api.get(&format!("/volumes/{}", volume_id(0))).granted();
    assert_eq!(volume["name"], "vol0");
    server.stop();
}

#[test]
fn what_is_refused_while_too_few_devices_hold_the_metadata_is_not_made_later() {
    let home = Home::new();
    let server = home.start();
    small(&home, &server.api());
    server.stop();
    let aside = home.device("aside");
    std::fs::rename(home.device("0"), &aside).expect("both are in one folder");
    let server = home.start();
    let api = server.api().with("if-match", "*");
    assert_eq!(api.get("/appliance").granted()["state"], "waiting");
    let renamed = api.patch(&format!("/volumes/{}", volume_id(0)), &json!({"name": "renamed"}));
    assert_eq!(renamed.refused(), "metadata-unavailable");
    let deleted = api.delete(&format!("/exports/{}", export_id(0)));
    assert_eq!(deleted.refused(), "metadata-unavailable");
    assert_eq!(unfinished(&home), 0, "what was refused is over");
    server.stop();
    std::fs::rename(&aside, home.device("0")).expect("both are in one folder");
    is_as_before(&home);
}
