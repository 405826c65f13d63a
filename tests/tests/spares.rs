//! Spares take the places of members that are lost, in the real program, on real files, under a host's work.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use ashlar_tests::api::Api;
use ashlar_tests::appliance::MIB;
use ashlar_tests::ground::{
    DEVICE, VOLUME, add_device, create_export, create_group, create_volume, device_id, export_id,
    file_source, group_id,
};
use ashlar_tests::load::{ledger, verify, write_all_and_flush};
use ashlar_tests::nbd::Endpoint;
use ashlar_tests::process::{command, start};
use ashlar_tests::server::Home;

fn group(api: &Api, number: u32) -> Value {
    api.get(&format!("/raid-groups/{}", group_id(number))).granted()
}

fn device(api: &Api, number: u32) -> Value {
    api.get(&format!("/devices/{}", device_id(number))).granted()
}

fn events(api: &Api, kind: &str) -> Vec<Value> {
    let told = api.get(&format!("/events?limit=1000&kind={kind}")).granted();
    told["items"].as_array().expect("a page has items").clone()
}

fn mark(api: &Api, number: u32, spare: &Value) {
    let marked = api.post(
        &format!("/devices/{}/spare", device_id(number)),
        &json!({"spare": spare}),
    );
    assert_eq!(marked.granted()["spare"], *spare);
}

/// Asks until it is so; that takes as long as copying does.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(120), "not so: {what}");
    }
}

/// Devices 0 to `count`, with small volumes allowed.
fn ground(home: &Home, api: &Api, count: u32) {
    (0..count).for_each(|number| add_device(home, api, number));
    api.with("if-match", "*")
        .patch("/appliance", &json!({"smallest_volume_bytes": MIB}))
        .granted();
}

fn cut_off(home: &Home, number: u32) {
    let file = std::fs::File::options()
        .write(true)
        .open(home.device(&number.to_string()))
        .expect("the device is a file");
    file.set_len(0).expect("the file can be cut off");
}

fn devices_of(group: &Value) -> Vec<&str> {
    let members = group["members"].as_array().expect("a group has members");
    members
        .iter()
        .map(|member| member["device"].as_str().expect("a member is a device"))
        .collect()
}

/// Eight jobs that write their parts of volume 1 and verify them, again and again.
fn fio(endpoint: &Endpoint) -> std::process::Command {
    let Endpoint::Tcp(address) = endpoint else {
        panic!("the server listens on TCP");
    };
    let mut fio = command(
        "fio",
        [
            "--name=spare",
            "--ioengine=nbd",
            "--rw=randwrite",
            "--bs=4k",
            "--verify=crc32c",
        ],
    );
    fio.args([
        "--numjobs=8",
        "--size=1m",
        "--offset_increment=1m",
        "--iodepth=1",
        "--thread",
    ]);
    fio.args(["--loops=12", "--verify_fatal=1", "--verify_state_save=0"]);
    fio.args(["--uri", &format!("nbd://{address}/other")]);
    fio
}

#[test]
fn a_spare_takes_over_for_a_member_whose_file_is_cut_off_under_fio_and_all_data_verifies() {
    for level in ["5", "6"] {
        let home = Home::new();
        let server = home.start();
        let api = server.api();
        ground(&home, &api, 6);
        create_group(&api, 0, level, &[0, 1, 2, 3]);
        create_volume(&api, 0, "vol0");
        create_export(&api, 0, 0);
        create_volume(&api, 1, "other");
        create_export(&api, 1, 1);
        let own = json!({"kind": "raid_group", "raid_group": group_id(0)});
        mark(&api, 5, &json!({"kind": "shared"}));
        mark(&api, 4, &own);
        let mut written = ledger(VOLUME);
        write_all_and_flush(&server.nbd(), &mut written);

        let writing = start(&mut fio(&server.nbd()));
        let export = format!("/exports/{}", export_id(1));
        let attached = || api.get(&export).granted()["attached"].as_u64() >= Some(8);
        until("fio writes", attached);
        cut_off(&home, 1);
        until("the spare has taken over", || {
            !events(&api, "raid_group.spare_took_over").is_empty()
        });
        until("the group is whole again", || {
            group(&api, 0)["state"] == "optimal"
        });
        let finished = writing.finish();
        assert!(finished.status.success(), "{}", finished.output());

        let now = group(&api, 0);
        assert_eq!(devices_of(&now), [0, 4, 2, 3].map(device_id));
        assert_eq!(now["members"][1]["condition"], "in_sync");
        assert_eq!(now["members"][1]["holds"], "rotating");
        let shared = json!([{"device": device_id(5), "device_number": 5, "shared": true}]);
        assert_eq!(now["spares"], shared);
        let old = device(&api, 1);
        assert_eq!(
            (&old["state"], &old["health"]),
            (&json!("failed"), &json!("failed"))
        );
        assert_eq!(
            (&old["membership"], &old["former_raid_group"]),
            (&Value::Null, &json!(group_id(0)))
        );
        assert_eq!(device(&api, 4)["spare"], json!({"kind": "none"}));
        let told = &events(&api, "raid_group.spare_took_over")[0];
        assert_eq!(told["data"], json!({"old": device_id(1), "new": device_id(4)}));

        assert_eq!(verify(&server.nbd(), &mut written), written.blocks());
        write_all_and_flush(&server.nbd(), &mut written);
        server.kill();
        let server = home.start();
        let api = server.api();
        assert_eq!(group(&api, 0)["state"], "optimal");
        // What the spare was given counts when another one goes.
        mark(&api, 5, &json!({"kind": "none"}));
        api.post(&format!("/devices/{}/fail", device_id(0)), &Value::Null)
            .granted();
        assert_eq!(verify(&server.nbd(), &mut written), written.blocks());
        server.stop();
    }
}

#[test]
fn of_two_raid_groups_that_lose_a_member_at_once_one_gets_the_shared_spare_and_the_other_is_told_of() {
    let home = Home::new();
    let server = home.start();
    let api = server.api();
    ground(&home, &api, 5);
    create_group(&api, 0, "1", &[0, 1]);
    create_group(&api, 1, "1", &[2, 3]);
    create_volume(&api, 0, "vol0");
    create_export(&api, 0, 0);
    mark(&api, 4, &json!({"kind": "shared"}));
    let mut written = ledger(VOLUME);
    write_all_and_flush(&server.nbd(), &mut written);
    std::thread::scope(|scope| {
        for number in [1, 3] {
            let api = server.api();
            scope.spawn(move || {
                api.post(&format!("/devices/{}/fail", device_id(number)), &Value::Null)
                    .granted()
            });
        }
    });
    until("one group is without", || {
        !events(&api, "raid_group.no_spare_fits").is_empty()
    });
    let took_over = events(&api, "raid_group.spare_took_over");
    assert_eq!(took_over.len(), 1, "{took_over:#?}");
    let has = |number| devices_of(&group(&api, number)).contains(&device_id(4).as_str());
    assert!(has(0) != has(1));
    let with = u32::from(has(1));
    until("the spare is in sync", || group(&api, with)["state"] == "optimal");
    assert_eq!(group(&api, 1 - with)["state"], "degraded");
    let without = &events(&api, "raid_group.no_spare_fits")[0];
    assert_eq!(without["subject"]["id"], group_id(1 - with));
    assert_eq!(verify(&server.nbd(), &mut written), written.blocks());

    // The next spare is for the one that waits for it.
    let source = file_source(&home.device("5"), Some(DEVICE));
    api.post("/devices", &json!({"id": device_id(5), "source": source}))
        .granted();
    mark(&api, 5, &json!({"kind": "shared"}));
    until("both are whole", || group(&api, 1 - with)["state"] == "optimal");
    assert_eq!(verify(&server.nbd(), &mut written), written.blocks());
    server.stop();
}

#[test]
fn a_member_that_is_missing_at_a_start_is_replaced_after_the_time_that_is_set_and_not_taken_in_when_it_comes()
{
    let home = Home::new();
    let server = home.start();
    let api = server.api();
    ground(&home, &api, 4);
    create_group(&api, 0, "5", &[0, 1, 2]);
    create_volume(&api, 0, "vol0");
    create_export(&api, 0, 0);
    mark(&api, 3, &json!({"kind": "raid_group", "raid_group": group_id(0)}));
    let set = |after: Value| {
        let path = format!("/raid-groups/{}", group_id(0));
        let change = json!({"spare_after_seconds": after});
        api.with("if-match", "*").patch(&path, &change).granted()
    };
    assert_eq!(set(json!(1))["spare_after_seconds"], 1);
    let mut written = ledger(VOLUME);
    write_all_and_flush(&server.nbd(), &mut written);
    server.stop();
    let aside = home.device("aside");
    std::fs::rename(home.device("1"), &aside).expect("the device is a file");
    let server = home.start();
    let api = server.api();
    until("the spare has taken over", || {
        devices_of(&group(&api, 0)).contains(&device_id(3).as_str())
    });
    until("the group is whole again", || {
        group(&api, 0)["state"] == "optimal"
    });
    server.stop();
    std::fs::rename(&aside, home.device("1")).expect("the device is a file");
    let server = home.start();
    let api = server.api();
    let former = device(&api, 1);
    assert_eq!(
        (
            &former["membership"],
            &former["former_raid_group"],
            &former["state"]
        ),
        (&Value::Null, &json!(group_id(0)), &json!("in_service"))
    );
    assert_eq!(verify(&server.nbd(), &mut written), written.blocks());
    server.stop();
}
