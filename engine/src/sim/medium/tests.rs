//! What survives a crash of a simulated device, and what does not.

use super::*;
use crate::sim::dice::Stream;

fn dice(seed: u64) -> Dice {
    Dice::new(seed, Stream::Devices)
}

fn write(medium: &mut Medium, op: u64, byte: u8, durable: bool) {
    medium
        .begin(op, ByteRange::between(0, 1024), Some(&[byte; 1024]))
        .unwrap();
    medium.complete(op, durable);
}

fn first_bytes(medium: &Medium) -> [u8; 2] {
    let mut bytes = [0; 1024];
    medium.read(0, &mut bytes);
    [bytes[0], bytes[512]]
}

/// Everything that the two sectors are seen to hold after `prepare` and a crash, over many seeds.
fn after_crash(kind: CrashKind, prepare: impl Fn(&mut Medium)) -> std::collections::BTreeSet<[u8; 2]> {
    (0..300)
        .map(|seed| {
            let mut medium = Medium::new(Background::Zeros);
            prepare(&mut medium);
            medium.crash(kind, 30, &mut dice(seed));
            first_bytes(&medium)
        })
        .collect()
}

#[test]
fn a_loss_of_power_keeps_any_sectors_of_unflushed_writes() {
    let seen = after_crash(CrashKind::PowerLoss, |medium| {
        write(medium, 1, 1, false);
        write(medium, 2, 2, false);
    });
    assert_eq!(seen.len(), 9, "each sector is old, first or second: {seen:?}");
}

#[test]
fn a_flushed_write_survives() {
    let seen = after_crash(CrashKind::PowerLoss, |medium| {
        write(medium, 1, 1, false);
        medium.flush(medium.mark());
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [[1, 1]]);
}

#[test]
fn a_flush_covers_only_what_completed_before_it_was_submitted() {
    let seen = after_crash(CrashKind::PowerLoss, |medium| {
        let mark = medium.mark();
        write(medium, 1, 1, false);
        medium.flush(mark);
    });
    assert!(seen.contains(&[0, 0]));
}

#[test]
fn an_older_unflushed_write_does_not_come_back_over_a_durable_one() {
    let seen = after_crash(CrashKind::PowerLoss, |medium| {
        write(medium, 1, 1, false);
        write(medium, 2, 2, true);
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [[2, 2]]);
}

#[test]
fn a_killed_process_loses_no_completed_write_but_it_is_still_not_durable() {
    let seen = after_crash(CrashKind::Killed, |medium| write(medium, 1, 1, false));
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [[1, 1]]);
    let seen = after_crash(CrashKind::PowerLoss, |medium| {
        write(medium, 1, 1, false);
        medium.crash(CrashKind::Killed, 30, &mut dice(0));
    });
    assert!(seen.contains(&[0, 0]));
}

#[test]
fn a_write_that_runs_at_the_crash_lands_in_part() {
    let seen = after_crash(CrashKind::Killed, |medium| {
        medium
            .begin(1, ByteRange::between(0, 1024), Some(&[1; 1024]))
            .unwrap();
    });
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn what_a_failed_flush_lost_is_readable_until_the_power_goes() {
    let seen = after_crash(CrashKind::PowerLoss, |medium| {
        write(medium, 1, 1, false);
        medium.fail_flush(&mut dice(3));
        assert_eq!(first_bytes(medium), [1, 1]);
        medium.flush(medium.mark());
    });
    assert_eq!(seen.len(), 1, "decided by the failed flush: {seen:?}");
    let lost = (0..20).any(|seed| {
        let mut medium = Medium::new(Background::Zeros);
        write(&mut medium, 1, 1, false);
        medium.fail_flush(&mut dice(seed));
        medium.flush(medium.mark());
        medium.crash(CrashKind::PowerLoss, 100, &mut dice(seed));
        first_bytes(&medium) != [1, 1]
    });
    assert!(lost);
}

#[test]
fn overlapping_writes_that_run_together_are_reported() {
    let mut medium = Medium::new(Background::Zeros);
    medium.begin(1, ByteRange::between(0, 1024), None).unwrap();
    assert!(medium.begin(2, ByteRange::between(512, 2048), None).is_err());
    medium.complete(1, false);
    medium.begin(3, ByteRange::between(512, 2048), None).unwrap();
}
