//! Scrubs by the real program: what changed in a member's file behind its back is found, and mended.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use ashlar_tests::api::Api;
use ashlar_tests::ground::{
    VOLUME, add_device, create_export, create_group, create_volume, device_id, group_id,
};
use ashlar_tests::nbd::Client;
use ashlar_tests::server::{Home, Managed};

const MIB: u64 = 1 << 20;
const BLOCK: usize = 4096;
/// How long anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Every block is another one.
fn content() -> Vec<u8> {
    (0..usize::try_from(VOLUME).expect("a volume of a test fits memory") / BLOCK)
        .flat_map(|block| {
            let word = (block as u64 + 1)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .to_le_bytes();
            word.into_iter().cycle().take(BLOCK)
        })
        .collect()
}

/// A group of so many devices with an exported volume on it, written and flushed.
fn written(home: &Home, level: &str, members: u32) -> Managed {
    let server = home.start();
    let api = server.api();
    let all: Vec<u32> = (0..members).collect();
    all.iter().for_each(|&number| add_device(home, &api, number));
    api.with("if-match", "*")
        .patch("/appliance", &json!({"smallest_volume_bytes": MIB}))
        .granted();
    create_group(&api, 0, level, &all);
    create_volume(&api, 0, "vol0");
    create_export(&api, 0, 0);
    let mut host = Client::attach(&server.nbd(), "vol0").expect("the volume is exported");
    for (at, part) in (0..).step_by(1 << 20).zip(content().chunks(1 << 20)) {
        host.write(at, part).expect("the volume takes writes");
    }
    host.flush().expect("the volume can be flushed");
    server
}

fn reads_what_was_written(server: &Managed) {
    let mut host = Client::attach(&server.nbd(), "vol0").expect("the volume is exported");
    for (at, part) in (0..).step_by(1 << 20).zip(content().chunks(1 << 20)) {
        assert_eq!(host.read(at, part.len()).expect("the volume can be read"), part);
    }
}

/// Where a device's file has a block of the volume, whichever that is.
fn place_of_content(home: &Home, number: u32) -> u64 {
    let held = std::fs::read(home.device(&number.to_string())).expect("a device is a file");
    let content = content();
    let blocks = content.chunks(BLOCK);
    let at = blocks
        .filter_map(|block| held.chunks(BLOCK).position(|found| found == block))
        .next();
    (at.expect("the member has a part of the volume") * BLOCK) as u64
}

/// Changes what stands there.
fn corrupt(home: &Home, number: u32, at: u64) {
    let file = File::options().write(true).open(home.device(&number.to_string()));
    let file = file.expect("a device is a file");
    file.write_all_at(b"not what was written here", at + 100)
        .expect("the file can be written");
    file.sync_all().expect("the file can be flushed");
}

fn group(api: &Api) -> Value {
    api.get(&format!("/raid-groups/{}", group_id(0))).granted()
}

fn scrub_path() -> String {
    format!("/raid-groups/{}/scrub", group_id(0))
}

/// Scrubs to the end; what it found.
fn scrub(api: &Api, mode: &str) -> Value {
    let job = api
        .post(&format!("{}?wait=60s", scrub_path()), &json!({"mode": mode}))
        .granted();
    assert_eq!(
        (&job["kind"], &job["state"]),
        (&json!("raid_group.scrub"), &json!("succeeded"))
    );
    let last = group(api)["scrubs"]["last"].clone();
    assert_eq!((&last["mode"], &last["cancelled"]), (&json!(mode), &json!(false)));
    assert!(last["ended_at"].is_string(), "{last:#}");
    let findings = last["findings"].clone();
    assert_eq!(findings["bytes_done"], findings["bytes_total"]);
    findings
}

fn finds_and_mends(level: &str, members: u32, corrupted: u32) {
    let home = Home::new();
    let server = written(&home, level, members);
    let api = server.api();
    assert_eq!(scrub(&api, "check")["mismatched_blocks"], 0);
    let at = place_of_content(&home, corrupted);
    let right = std::fs::read(home.device(&corrupted.to_string())).expect("a device is a file");
    corrupt(&home, corrupted, at);

    let found = scrub(&api, "check");
    assert_eq!(
        (&found["mismatched_blocks"], &found["repaired"]),
        (&json!(1), &json!(0))
    );
    let place = json!({"device": device_id(corrupted), "offset": at, "unreadable": false});
    assert_eq!(
        found["places"],
        json!([place]),
        "it is told which member is wrong"
    );
    let mended = scrub(&api, "repair");
    assert_eq!(
        (&mended["mismatched_blocks"], &mended["repaired"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(scrub(&api, "check")["mismatched_blocks"], 0);
    let (from, to) = (usize::try_from(at).expect("a file of a test"), BLOCK);
    let now = std::fs::read(home.device(&corrupted.to_string())).expect("a device is a file");
    assert!(
        now[from..from + to] == right[from..from + to],
        "what was there stands there again"
    );
    reads_what_was_written(&server);
    server.stop();
}

#[test]
fn of_three_copies_the_one_that_changed_is_found_and_written_again() {
    finds_and_mends("1", 3, 0);
}

#[test]
fn with_two_sums_the_member_that_changed_is_found_and_computed_again() {
    finds_and_mends("6", 5, 2);
}

/// Waits until the group's scrubs are so.
fn until(api: &Api, is: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let scrubs = group(api)["scrubs"].clone();
        if is(&scrubs) {
            return scrubs;
        }
        assert!(begun.elapsed() < LIMIT, "{scrubs:#}");
    }
}

#[test]
fn a_scrub_is_held_up_by_its_job_and_goes_on_where_it_stood_after_the_programs_death() {
    let home = Home::new();
    let server = written(&home, "5", 3);
    let api = server.api();
    let wanted = json!({"mode": "check", "rate_limit_bytes_per_s": MIB});
    let job = api.post(&scrub_path(), &wanted).granted();
    assert_eq!(job["rate_limit_bytes_per_s"], MIB);
    assert_eq!(
        api.post(&scrub_path(), &json!({"mode": "repair"})).refused(),
        "scrub-running"
    );
    let stands = |scrubs: &Value| scrubs["running"]["findings"]["bytes_done"].as_u64().unwrap_or(0);
    until(&api, |scrubs| stands(scrubs) > MIB);
    let job = format!("/jobs/{}", job["id"].as_str().expect("a job has an id"));
    api.post(&format!("{job}/pause"), &Value::Null).granted();
    let paused = until(&api, |scrubs| scrubs["running"]["paused"] == true);
    server.kill();

    let server = home.start();
    let api = server.api();
    let now = until(&api, |scrubs| scrubs["running"]["paused"] == true);
    assert!(
        stands(&now) > 0 && stands(&now) <= stands(&paused),
        "{now:#}\n{paused:#}"
    );
    assert_eq!(now["running"]["began_at"], paused["running"]["began_at"]);
    api.with("if-match", "*")
        .patch(&job, &json!({"rate_limit_bytes_per_s": null}))
        .granted();
    api.post(&format!("{job}/resume"), &Value::Null).granted();
    let ended = api.get(&format!("{job}?wait=60s")).granted();
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    let last = group(&api)["scrubs"]["last"].clone();
    assert_eq!(last["began_at"], paused["running"]["began_at"]);
    assert_eq!(last["findings"]["mismatched_blocks"], 0);
    server.stop();
}

#[test]
fn a_scrub_is_cancelled_by_its_job() {
    let home = Home::new();
    let server = written(&home, "1", 2);
    let api = server.api();
    let slow = json!({"mode": "check", "rate_limit_bytes_per_s": 1});
    let job = api.post(&scrub_path(), &slow).granted();
    let job = format!("/jobs/{}", job["id"].as_str().expect("a job has an id"));
    api.post(&format!("{job}/cancel"), &Value::Null).granted();
    assert_eq!(
        api.get(&format!("{job}?wait=60s")).granted()["state"],
        "cancelled"
    );
    let scrubs = group(&api)["scrubs"].clone();
    assert_eq!(
        (&scrubs["running"], &scrubs["last"]["cancelled"]),
        (&Value::Null, &json!(true))
    );
    assert_eq!(scrub(&api, "check")["mismatched_blocks"], 0);
    server.stop();
}

#[test]
fn a_schedule_is_kept_and_says_when_the_next_scrub_is_due() {
    let home = Home::new();
    let server = written(&home, "1", 2);
    let api = server.api();
    let before = group(&api);
    assert_eq!(
        (&before["scrub_schedule"], &before["scrubs"]["due_at"]),
        (&Value::Null, &Value::Null)
    );
    let path = format!("/raid-groups/{}", group_id(0));
    let set = |api: &Api, schedule: Value| {
        let change = json!({"scrub_schedule": schedule});
        api.with("if-match", "*").patch(&path, &change)
    };
    let never = json!({"every_hours": 0, "mode": "check"});
    assert_eq!(set(&api, never).refused(), "invalid-value");
    let monthly = json!({"every_hours": 720, "mode": "repair"});
    let changed = set(&api, monthly.clone()).granted();
    assert_eq!(changed["scrub_schedule"], monthly);
    assert!(changed["scrubs"]["due_at"].is_string(), "{changed:#}");
    server.stop();

    let server = home.start();
    let api = server.api();
    let kept = group(&api);
    assert_eq!(kept["scrub_schedule"], monthly);
    assert_eq!(kept["scrubs"]["due_at"], changed["scrubs"]["due_at"]);
    let none = set(&api, Value::Null).granted();
    assert_eq!(
        (&none["scrub_schedule"], &none["scrubs"]["due_at"]),
        (&Value::Null, &Value::Null)
    );
    server.stop();
}
