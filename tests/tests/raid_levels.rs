//! What each RAID level bears, seen through the API and a host, over the program's death.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use ashlar_tests::api::{Answer, Api};
use ashlar_tests::appliance::{Appliance, Setup, Store, folder};
use ashlar_tests::ground::{
    VOLUME, add_device, create_export, create_group, create_volume, device_id, group_id,
};
use ashlar_tests::ledger::Ledger;
use ashlar_tests::load::{ledger, verify, write_all_and_flush, write_unflushed};
use ashlar_tests::process::{command, run};
use ashlar_tests::server::{Home, Managed};

const MIB: u64 = 1 << 20;

/// A group of so many devices with an exported volume on it, written.
fn written(home: &Home, level: &str, members: u32) -> (Managed, Ledger) {
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
    let mut written = ledger(VOLUME);
    write_all_and_flush(&server.nbd(), &mut written);
    (server, written)
}

fn device(api: &Api, number: u32, verb: &str) -> Answer {
    api.post(&format!("/devices/{}/{verb}", device_id(number)), &Value::Null)
}

/// Waits until the group is in this state; that takes as long as copying does.
fn becomes(api: &Api, state: &str) {
    let begun = Instant::now();
    loop {
        let group = api.get(&format!("/raid-groups/{}", group_id(0))).granted();
        if group["state"] == state {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{group:#}");
    }
}

/// Loses `first`, which is as many as the level bears, keeps serving over a crash, gets them back, and loses `second`.
/// `too_much` would be one more than it bears.
fn bears(level: &str, members: u32, first: &[u32], too_much: &[u32], second: &[u32]) {
    let home = Home::new();
    let (server, mut written) = written(&home, level, members);
    let api = server.api();
    first
        .iter()
        .for_each(|&number| drop(device(&api, number, "fail").granted()));
    for &number in too_much {
        assert_eq!(device(&api, number, "fail").refused(), "would-lose-data");
    }
    assert_eq!(verify(&server.nbd(), &mut written), written.blocks());
    write_all_and_flush(&server.nbd(), &mut written);
    server.kill();

    let server = home.start();
    let api = server.api();
    becomes(&api, "degraded");
    assert_eq!(verify(&server.nbd(), &mut written), written.blocks());
    write_unflushed(&server.nbd(), &mut written, 40);
    first
        .iter()
        .for_each(|&number| drop(device(&api, number, "return").granted()));
    becomes(&api, "optimal");
    second
        .iter()
        .for_each(|&number| drop(device(&api, number, "fail").granted()));
    assert_eq!(verify(&server.nbd(), &mut written), written.blocks());
    server.kill();

    let server = home.start();
    becomes(&server.api(), "degraded");
    assert_eq!(verify(&server.nbd(), &mut written), written.blocks());
    server.stop();
}

#[test]
fn a_stripe_of_mirrors_bears_the_loss_of_a_member_of_each_pair_and_refuses_that_of_the_other() {
    bears("10", 4, &[1, 2], &[0, 3], &[0, 3]);
}

#[test]
fn a_stripe_with_its_sum_on_one_member_bears_the_loss_of_any_one() {
    bears("3", 4, &[3], &[0, 1, 2], &[1]);
}

#[test]
fn a_stripe_with_its_sum_on_each_in_turn_bears_the_loss_of_any_one() {
    bears("5", 5, &[2], &[0, 4], &[0]);
}

#[test]
fn a_stripe_with_two_sums_bears_the_loss_of_any_two() {
    bears("6", 5, &[0, 3], &[1, 2, 4], &[2, 4]);
}

#[test]
fn a_stripe_of_mirrors_needs_pairs() {
    let home = Home::new();
    let server = home.start();
    let api = server.api();
    (0..5).for_each(|number| add_device(&home, &api, number));
    let of = |members: u32| {
        let members: Vec<_> = (0..members).map(device_id).collect();
        api.post("/raid-groups", &json!({"level": "10", "members": members}))
    };
    for members in [2, 3, 5] {
        assert_eq!(of(members).refused(), "too-few-members", "{members}");
    }
    server.stop();
}

/// More at once than the journals have room for: who waits for room must not keep it from being freed.
#[test]
fn a_copy_much_larger_than_the_journals_comes_to_its_end_and_is_whole() {
    let appliance = Appliance::create(&Setup {
        members: 4,
        size: 192 << 20,
        ..Setup::new(5)
    });
    let server = appliance.serve(&[]);
    let folder = folder(Store::Memory);
    let image = folder.path().join("image");
    for fill in [0x5a, 0xa5] {
        std::fs::write(&image, vec![fill; 192 << 20]).expect("a file can be written");
        run(command("nbdcopy", ["--flush"]).arg(&image).arg(server.uri()));
        run(command("qemu-img", ["compare", "-f", "raw", "-F", "raw"])
            .arg(&image)
            .arg(server.uri()));
    }
    server.stop();
}
