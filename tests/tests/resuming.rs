//! A RAID group whose members are exports of another server resumes when that server comes back, in the real program,
//! under a host's work.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use ashlar_tests::api::Api;
use ashlar_tests::appliance::{MIB, Store, folder};
use ashlar_tests::binaries;
use ashlar_tests::ground::{
    DEVICE, VOLUME, add_device, create_export, create_group, create_volume, device_id, group_id, volume_id,
};
use ashlar_tests::load::{ledger, verify, write_all_and_flush, write_until};
use ashlar_tests::nbd::{Client, Endpoint};
use ashlar_tests::process::{end, follow};
use ashlar_tests::server::Home;

/// Servers that lose what was not flushed when they are killed, one for each member.
struct Remote {
    dir: TempDir,
    children: Vec<Child>,
}

impl Remote {
    fn start(count: u32) -> Self {
        let mut remote = Self {
            dir: folder(Store::Memory),
            children: Vec::new(),
        };
        remote.restart(count);
        remote
    }

    fn socket(&self, number: u32) -> PathBuf {
        self.dir.path().join(format!("s{number}"))
    }

    fn restart(&mut self, count: u32) {
        for number in 0..count {
            let file = self.dir.path().join(format!("f{number}"));
            let mut command: Command = binaries::forgetful_nbd();
            command.args([self.socket(number), file]).arg(DEVICE.to_string());
            command.stdin(Stdio::null()).stdout(Stdio::piped());
            let mut child = command.spawn().expect("the server starts");
            let lines = follow(child.stdout.take().expect("stdout is a pipe"), &Arc::default());
            self.children.push(child);
            let line = lines.recv_timeout(Duration::from_secs(30));
            assert_eq!(line.as_deref(), Ok("ready"), "a server is not ready");
        }
    }

    fn kill(&mut self) {
        self.children.iter_mut().for_each(end);
        self.children.clear();
    }

    fn add(&self, api: &Api, number: u32, member: u32) {
        let uri = format!("nbd+unix:///x?socket={}", self.socket(member).display());
        let new = json!({"id": device_id(number), "source": {"kind": "nbd", "uri": uri}});
        api.post("/devices", &new).granted();
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.kill();
    }
}

fn state(api: &Api) -> Value {
    api.get(&format!("/raid-groups/{}", group_id(0))).granted()["state"].clone()
}

fn told(api: &Api, kind: &str) -> usize {
    let told = api.get(&format!("/events?limit=1000&kind={kind}")).granted();
    told["items"].as_array().expect("a page has items").len()
}

fn attach(endpoint: &Endpoint) -> Client {
    Client::attach(endpoint, "vol0").expect("the volume is served")
}

/// Asks until it is so.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(120), "not so: {what}");
    }
}

#[test]
fn a_group_whose_remote_members_were_all_killed_under_load_resumes_by_itself_and_all_data_verifies() {
    for (level, count) in [("0", 2), ("1", 2), ("5", 3)] {
        let mut remote = Remote::start(count);
        let home = Home::new();
        let server = home.start();
        let api = server.api();
        // Those that hold the metadata are here.
        (0..3).for_each(|number| add_device(&home, &api, number));
        (0..count).for_each(|member| remote.add(&api, 3 + member, member));
        api.with("if-match", "*")
            .patch("/appliance", &json!({"smallest_volume_bytes": MIB}))
            .granted();
        let members: Vec<u32> = (3..3 + count).collect();
        create_group(&api, 0, level, &members);
        create_volume(&api, 0, "vol0");
        create_export(&api, 0, 0);
        let mut written = ledger(VOLUME);
        write_all_and_flush(&server.nbd(), &mut written);
        let mut idle = attach(&server.nbd());
        for times in 1..=2 {
            write_until(&server.nbd(), &mut written, 20, || remote.kill());
            until("the group has stopped", || state(&api) == "failed");
            remote.restart(count);
            until("the group has resumed", || state(&api) == "optimal");
            verify(&server.nbd(), &mut written);
            until("it was told of", || told(&api, "volume.serving") == times);
            // Its servers may have lost what this host was not told to be durable.
            idle.flush().expect_err("one flush of each host fails");
            idle.flush().expect("the next one counts anew");
        }
        write_all_and_flush(&server.nbd(), &mut written);
        assert_eq!(verify(&server.nbd(), &mut written), written.blocks());
        let volume = api.get(&format!("/volumes/{}", volume_id(0))).granted();
        assert_eq!(volume["name"], "vol0");
        server.stop();
    }
}
