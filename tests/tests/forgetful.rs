//! A member behind an NBD server that drops unflushed writes when it is killed, as a disk does with its cache when
//! the power goes: what was flushed through the appliance is there.

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ashlar_tests::appliance::{Appliance, MIB, Setup, Store, folder};
use ashlar_tests::binaries;
use ashlar_tests::load::{ledger, verify, write_all_and_flush, write_unflushed, write_until};
use ashlar_tests::process::{end, follow};
use tempfile::TempDir;

const SIZE: u64 = 64 * MIB;

/// The forgetful server; killed with the test.
struct Forgetful {
    dir: TempDir,
    child: Option<Child>,
}

impl Forgetful {
    fn start() -> Self {
        let mut server = Self {
            dir: folder(Store::Memory),
            child: None,
        };
        server.restart();
        server
    }

    fn restart(&mut self) {
        let mut command = binaries::forgetful_nbd();
        command
            .args([self.dir.path().join("s"), self.dir.path().join("file")])
            .arg((2 * SIZE).to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let child = self.child.insert(child);
        let lines = follow(child.stdout.take().expect("stdout is a pipe"), &Arc::default());
        let line = lines.recv_timeout(Duration::from_secs(30));
        assert_eq!(line.as_deref(), Ok("ready"), "the forgetful server is not ready");
    }

    fn uri(&self) -> String {
        format!("nbd+unix:///x?socket={}", self.dir.path().join("s").display())
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child);
        }
    }
}

impl Drop for Forgetful {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Member 1, or the only one, is the forgetful server.
fn setup(level: u8, forgetful: &Forgetful) -> Setup {
    let members = if level == 0 { 1 } else { 2 };
    let remote = vec![forgetful.uri()];
    Setup {
        members,
        remote,
        size: SIZE,
        third_holder: level == 1,
        ..Setup::new(level)
    }
}

#[test]
fn what_was_flushed_is_there_after_a_disk_forgot_the_rest() {
    let mut disk = Forgetful::start();
    let appliance = Appliance::create(&setup(0, &disk));
    let mut ledger = ledger(SIZE);
    let server = appliance.serve(&[]);
    write_all_and_flush(&server.unix(), &mut ledger);
    let blocks = ledger.blocks();
    write_unflushed(&server.unix(), &mut ledger, blocks);
    server.kill();
    disk.kill();

    disk.restart();
    let server = appliance.serve(&[]);
    assert_eq!(verify(&server.unix(), &mut ledger), blocks);
    let forgotten = ledger.blocks_at_risk();
    println!("{forgotten} of {blocks} unflushed writes were forgotten");
    assert!(
        forgotten > 0,
        "the forgetful server forgot nothing, so this has shown nothing"
    );
    server.stop();
}

#[test]
fn a_mirror_with_a_forgetful_member_keeps_what_was_flushed_also_on_that_member_alone() {
    let mut disk = Forgetful::start();
    let appliance = Appliance::create(&setup(1, &disk));
    let mut ledger = ledger(SIZE);
    for round in 0..4 {
        let without: &[&str] = if round == 3 { &["--without", "0"] } else { &[] };
        let server = appliance.serve(without);
        verify(&server.unix(), &mut ledger);
        write_until(&server.unix(), &mut ledger, 60 + 23 * round, || {
            server.kill();
            disk.kill();
        });
        assert!(
            ledger.blocks_flushed() > 100 && ledger.blocks_at_risk() > 0,
            "nothing was at stake"
        );
        disk.restart();
    }
    let server = appliance.serve(&[]);
    assert!(verify(&server.unix(), &mut ledger) > 100);
    server.stop();
}

#[test]
fn a_member_that_dies_meanwhile_brings_nothing_old_back() {
    let mut disk = Forgetful::start();
    let appliance = Appliance::create(&setup(1, &disk));
    let mut ledger = ledger(SIZE);
    let server = appliance.serve(&[]);
    write_all_and_flush(&server.unix(), &mut ledger);
    disk.kill();
    // The mirror goes on without it, and these writes it never sees.
    write_all_and_flush(&server.unix(), &mut ledger);
    server.kill();

    disk.restart();
    let server = appliance.serve(&[]);
    assert_eq!(verify(&server.unix(), &mut ledger), ledger.blocks());
    assert_eq!(ledger.blocks_at_risk(), 0, "all was flushed");
    server.stop();
}
