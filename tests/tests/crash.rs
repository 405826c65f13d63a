//! SIGKILL of the server under load: what was flushed is there, nothing older and nothing foreign.
//!
//! `STRESS_ROUNDS` sets how many times each test kills (3 if unset).

use std::process::Command;

use ashlar_tests::appliance::{Appliance, MIB, Setup, Store, folder};
use ashlar_tests::load::{ledger, verify, write_until};
use ashlar_tests::process::{command, fio_report, run, run_any};

const SIZE: u64 = 256 * MIB;

fn rounds() -> usize {
    std::env::var("STRESS_ROUNDS").map_or(3, |rounds| rounds.parse().expect("STRESS_ROUNDS is a number"))
}

/// Who is away in this round: member 1 in every third, beginning with the second, where there is redundancy.
fn away(setup: &Setup, round: usize) -> &'static [&'static str] {
    if setup.level > 0 && round % 3 == 1 {
        &["--without", "1"]
    } else {
        &[]
    }
}

/// Kills once a round.
fn kill_under_load(setup: &Setup) {
    let appliance = Appliance::create(setup);
    let mut ledger = ledger(setup.size);
    for round in 0..rounds() {
        let without = away(setup, round);
        let server = appliance.serve(without);
        verify(&server.unix(), &mut ledger);
        // Another moment each round.
        let flushes = 100 + 37 * (round % 7);
        write_until(&server.tcp(), &mut ledger, flushes, || server.kill());
        let (flushed, at_risk) = (ledger.blocks_flushed(), ledger.blocks_at_risk());
        println!(
            "round {round}: killed with {flushed} blocks flushed, {at_risk} not, of {}",
            ledger.blocks()
        );
        assert!(
            flushed > 100 && at_risk > 0,
            "the kill came when nothing was at stake"
        );
    }
    let server = appliance.serve(&[]);
    let written = verify(&server.unix(), &mut ledger);
    assert!(
        written >= ledger.blocks_flushed(),
        "only {written} blocks were found written"
    );
    server.stop();
}

#[test]
fn a_mirror_keeps_what_was_flushed_over_sigkill_also_when_a_member_was_gone_meanwhile() {
    kill_under_load(&Setup {
        store: Store::Direct,
        size: SIZE,
        third_holder: true,
        ..Setup::new(1)
    });
}

#[test]
fn a_mirror_in_memory_keeps_what_was_flushed_over_sigkill() {
    kill_under_load(&Setup {
        size: SIZE,
        third_holder: true,
        ..Setup::new(1)
    });
}

#[test]
fn a_stripe_with_a_sum_keeps_what_was_flushed_over_sigkill_also_when_a_member_was_gone_meanwhile() {
    kill_under_load(&Setup {
        store: Store::Direct,
        members: 4,
        size: SIZE,
        ..Setup::new(5)
    });
}

#[test]
fn a_stripe_with_two_sums_keeps_what_was_flushed_over_sigkill_also_when_a_member_was_gone_meanwhile() {
    kill_under_load(&Setup {
        members: 5,
        size: SIZE,
        ..Setup::new(6)
    });
}

#[test]
fn a_stripe_keeps_what_was_flushed_over_sigkill() {
    kill_under_load(&Setup {
        store: Store::Direct,
        size: SIZE,
        ..Setup::new(0)
    });
}

/// fio itself kills the server in the midst of its writes, after saving which of them were answered, and verifies
/// those after the restart. A SIGKILL leaves the page cache, so that holds without a flush too, on a volume whose
/// space had been written and flushed before.
fn what_fio_was_answered_verifies(setup: &Setup) {
    let appliance = Appliance::create(setup);
    let filler = folder(Store::Memory);
    let image = filler.path().join("image");
    std::fs::write(
        &image,
        vec![0xe7; usize::try_from(SIZE).expect("it fits into memory")],
    )
    .expect("a file can be written");
    let server = appliance.serve(&[]);
    run(command("nbdcopy", ["--flush"]).arg(&image).arg(server.uri()));
    server.stop();

    for round in 0..rounds() {
        let without = away(setup, round);
        // fio keeps the state of its writes in the folder that it is started in.
        let state = folder(Store::Memory);
        let server = appliance.serve(without);
        let mut write = fio(server.uri(), round);
        write.args([
            "--do_verify=0",
            "--verify_state_save=1",
            "--rate_iops=750",
            "--trigger-timeout=2",
        ]);
        write.arg(format!("--trigger=kill -KILL {}", server.pid()));
        run_any(write.current_dir(state.path()));
        server.was_killed();

        let server = appliance.serve(without);
        let mut verify = fio(server.uri(), round);
        verify
            .args(["--verify_only", "--verify_state_load=1"])
            .current_dir(state.path());
        let report = fio_report(&mut verify);
        let jobs = report["jobs"].as_array().expect("fio lists its jobs").iter();
        let reads: u64 = jobs
            .map(|job| job["read"]["total_ios"].as_u64().expect("a number"))
            .sum();
        println!("round {round}: {reads} blocks verified");
        assert!(reads > 100, "fio verified next to nothing: {report}");
        server.stop();
    }
}

#[test]
fn what_fio_was_answered_verifies_after_sigkill_also_with_a_member_gone() {
    what_fio_was_answered_verifies(&Setup {
        store: Store::Direct,
        size: SIZE,
        third_holder: true,
        ..Setup::new(1)
    });
}

#[test]
fn what_fio_was_answered_verifies_after_sigkill_also_where_a_sum_stands_for_a_member() {
    what_fio_was_answered_verifies(&Setup {
        store: Store::Direct,
        members: 3,
        size: SIZE,
        ..Setup::new(5)
    });
}

#[test]
fn what_fio_was_answered_verifies_after_sigkill_also_where_two_sums_stand_for_a_member() {
    what_fio_was_answered_verifies(&Setup {
        store: Store::Direct,
        members: 5,
        size: SIZE,
        ..Setup::new(6)
    });
}

/// Sixteen connections, slow enough that none is through before the kill; another seed each round, so that the last
/// round's content does not pass for this one's. One write at a time on each: up to version 3.40 fio takes a write for
/// answered that stalls while enough later ones are (<https://github.com/axboe/fio/issues/1950>).
fn fio(uri: &str, round: usize) -> Command {
    let mut fio = command(
        "fio",
        [
            "--name=crash",
            "--ioengine=nbd",
            "--rw=randwrite",
            "--bs=4k",
            "--verify=crc32c",
        ],
    );
    fio.args([
        "--numjobs=16",
        "--size=16m",
        "--offset_increment=16m",
        "--iodepth=1",
        "--thread",
        "--verify_fatal=1",
    ]);
    fio.args(["--uri", uri, &format!("--randseed={}", 1000 + round)]);
    fio
}
