//! A device that an administrator took out of service stays out until it is returned, whatever becomes of the process.

use serde_json::{Value, json};

use ashlar_tests::api::Api;
use ashlar_tests::ground::{VOLUME, add_device, device_id, group_id, small};
use ashlar_tests::load::{ledger, verify, write_all_and_flush};
use ashlar_tests::server::Home;

fn device(number: u32) -> String {
    format!("/devices/{}", device_id(number))
}

/// State, reason and membership of device 1, and how its group is.
fn assert_is_out(api: &Api) {
    let shown = api.get(&device(1)).granted();
    assert_eq!(
        (&shown["state"], &shown["taken_out"]),
        (&json!("failed"), &json!(true))
    );
    assert_eq!(shown["failure"], "taken out of service by an administrator");
    assert_eq!(shown["membership"]["state"], "out");
    assert_eq!(shown["holds_metadata"], false);
    let group = api.get(&format!("/raid-groups/{}", group_id(0))).granted();
    assert_eq!(group["state"], "degraded");
    assert_eq!(api.get("/appliance").granted()["state"], "serving");
}

#[test]
fn a_device_that_is_away_is_taken_out_and_is_not_taken_back_when_it_comes() {
    let home = Home::new();
    let server = home.start();
    small(&home, &server.api());
    // With a third device there, most of those that hold the metadata are.
    add_device(&home, &server.api(), 2);
    server.stop();
    let aside = home.device("aside");
    std::fs::rename(home.device("1"), &aside).expect("the device is a file");
    let server = home.start();
    let api = server.api();
    assert_eq!(api.get("/appliance").granted()["state"], "waiting");
    let taken_out = api.post(&format!("{}/fail", device(1)), &Value::Null).granted();
    assert_eq!(
        (&taken_out["state"], &taken_out["taken_out"]),
        (&json!("failed"), &json!(true))
    );
    assert_is_out(&api);
    server.kill();
    std::fs::rename(&aside, home.device("1")).expect("the device is a file");
    let server = home.start();
    assert_is_out(&server.api());
    server
        .api()
        .post(&format!("{}/return", device(1)), &Value::Null)
        .granted();
    server.stop();
}

#[test]
fn a_device_that_was_taken_out_stays_out_over_kills_and_absence_until_it_is_returned_and_resynced() {
    let home = Home::new();
    let server = home.start();
    small(&home, &server.api());
    server
        .api()
        .post(&format!("{}/fail", device(1)), &Value::Null)
        .granted();
    let mut written = ledger(VOLUME);
    write_all_and_flush(&server.nbd(), &mut written);
    server.kill();

    let server = home.start();
    assert_is_out(&server.api());
    assert_eq!(verify(&server.nbd(), &mut written), written.blocks());
    server.kill();

    // Also where it is not even there.
    let aside = home.device("aside");
    std::fs::rename(home.device("1"), &aside).expect("the device is a file");
    let server = home.start();
    assert_is_out(&server.api());
    server.stop();
    std::fs::rename(&aside, home.device("1")).expect("the device is a file");

    let server = home.start();
    let api = server.api();
    assert_is_out(&api);
    let events = api.get("/events?limit=1000").granted();
    let is_told = |event: &Value| {
        event["kind"] == "device.failed" && event["data"]["why"] == "taken out of service by an administrator"
    };
    let items = events["items"].as_array().expect("a page has items");
    assert!(items.iter().any(is_told), "{events:#}");
    let returned = api.post(&format!("{}/return", device(1)), &Value::Null).granted();
    assert_eq!(
        (&returned["state"], &returned["taken_out"]),
        (&json!("in_service"), &json!(false))
    );
    let group = format!("/raid-groups/{}", group_id(0));
    let begun = std::time::Instant::now();
    while api.get(&group).granted()["state"] != "optimal" {
        assert!(
            begun.elapsed().as_secs() < 60,
            "the returned member does not get in sync"
        );
    }
    // Each is told once: that it serves by the engine, that it may by who asked for that.
    let told = |kind: &str| {
        let events = api.get(&format!("/events?limit=1000&kind={kind}")).granted();
        events["items"].as_array().expect("a page has items").len()
    };
    while told("device.returned") == 0 {
        assert!(begun.elapsed().as_secs() < 60, "the return is not told of");
    }
    assert_eq!((told("device.returned"), told("device.taken_back")), (1, 1));
    // The other one goes: what it holds is everything.
    api.post(&format!("{}/fail", device(0)), &Value::Null).granted();
    assert_eq!(verify(&server.nbd(), &mut written), written.blocks());
    server.stop();
}
