//! What a sector may return, in which order, and what it may return after a crash.

use super::*;

fn id(number: u64) -> WriteId {
    WriteId(number)
}

/// Writes from `start` to `end`.
fn write(register: &mut Register, number: u64, start: u64, end: u64, durable: bool) {
    register.begin_write(id(number), false, start);
    assert!(register.end_write(id(number), Outcome::Done { durable }, end));
}

fn reads(register: &Register, number: u64, start: u64) -> bool {
    register
        .clone()
        .read(Content::Written(id(number)), start, start + 1)
}

#[test]
fn an_acknowledged_write_is_read_and_the_old_content_is_not() {
    let mut register = Register::default();
    write(&mut register, 1, 1, 2, false);
    assert!(reads(&register, 1, 3));
    assert!(!register.read(Content::Zeros, 3, 4));
    assert!(
        register.read(Content::Zeros, 1, 4),
        "a read that began before the write may be older"
    );
}

#[test]
fn a_running_write_is_old_or_new_but_not_new_and_then_old() {
    let mut register = Register::default();
    register.begin_write(id(1), false, 1);
    assert!(register.clone().read(Content::Zeros, 2, 3));
    assert!(register.read(Content::Written(id(1)), 4, 5));
    assert!(!register.read(Content::Zeros, 6, 7));
}

#[test]
fn of_two_concurrent_writes_the_one_seen_last_stays() {
    let mut register = Register::default();
    register.begin_write(id(1), false, 1);
    register.begin_write(id(2), false, 2);
    assert!(register.end_write(id(1), Outcome::Done { durable: false }, 3));
    assert!(register.end_write(id(2), Outcome::Done { durable: false }, 4));
    assert!(reads(&register, 1, 5) && reads(&register, 2, 5));
    assert!(register.read(Content::Written(id(1)), 5, 6));
    assert!(!reads(&register, 2, 7));
}

#[test]
fn what_was_never_written_is_not_read() {
    let mut register = Register::default();
    write(&mut register, 1, 1, 2, false);
    assert!(!reads(&register, 9, 3));
    assert!(!register.read(Content::Garbage, 3, 4));
}

#[test]
fn a_loss_of_power_may_lose_what_was_not_flushed_and_nothing_else() {
    let mut register = Register::default();
    write(&mut register, 1, 1, 2, false);
    register.flushed(3);
    write(&mut register, 2, 4, 5, false);
    write(&mut register, 3, 6, 7, false);
    register.crash(CrashKind::PowerLoss, 10);
    assert!([1, 2, 3].into_iter().all(|number| reads(&register, number, 11)));
    assert!(!register.read(Content::Zeros, 11, 12));
}

#[test]
fn a_write_acknowledged_while_the_flush_ran_is_not_covered_by_it() {
    let mut register = Register::default();
    write(&mut register, 1, 1, 4, false);
    register.flushed(3);
    register.crash(CrashKind::PowerLoss, 10);
    assert!(register.read(Content::Zeros, 11, 12));
}

#[test]
fn the_first_read_after_a_crash_decides_for_good() {
    let mut register = Register::default();
    write(&mut register, 1, 1, 2, true);
    register.begin_write(id(2), false, 3);
    register.crash(CrashKind::PowerLoss, 10);
    assert!(register.read(Content::Written(id(2)), 11, 12));
    assert!(!reads(&register, 1, 13));
    register.crash(CrashKind::PowerLoss, 20);
    assert!(!reads(&register, 1, 21), "and for the lives after it");
}

#[test]
fn two_reads_at_once_after_a_crash_agree() {
    let mut register = Register::default();
    write(&mut register, 1, 1, 2, false);
    register.crash(CrashKind::PowerLoss, 10);
    assert!(register.read(Content::Written(id(1)), 11, 15));
    assert!(!register.read(Content::Zeros, 12, 16));
}

#[test]
fn what_a_killed_process_left_unflushed_can_still_be_lost_until_a_flush() {
    let mut register = Register::default();
    write(&mut register, 1, 1, 2, false);
    register.crash(CrashKind::Killed, 10);
    assert!(register.read(Content::Written(id(1)), 11, 12));
    let mut unflushed = register.clone();
    unflushed.crash(CrashKind::PowerLoss, 20);
    assert!(unflushed.read(Content::Zeros, 21, 22));
    register.flushed(13);
    register.crash(CrashKind::PowerLoss, 20);
    assert!(!register.read(Content::Zeros, 21, 22));
}

#[test]
fn a_failed_write_lands_at_once_or_never() {
    let mut register = Register::default();
    write(&mut register, 1, 1, 2, true);
    register.begin_write(id(2), false, 3);
    assert!(register.end_write(id(2), Outcome::Failed, 4));
    assert!(reads(&register, 2, 5));
    assert!(register.read(Content::Written(id(1)), 5, 6));
    assert!(!reads(&register, 2, 7));
}

#[test]
fn a_refused_write_that_was_seen_is_a_violation() {
    let mut register = Register::default();
    register.begin_write(id(1), true, 1);
    assert!(register.clone().end_write(id(1), Outcome::Refused, 3));
    register.begin_write(id(2), false, 1);
    assert!(register.read(Content::Written(id(2)), 2, 3));
    assert!(!register.end_write(id(2), Outcome::Refused, 4));
}

#[test]
fn a_write_that_was_seen_and_overwritten_while_it_ran_may_still_end_well() {
    let mut register = Register::default();
    register.begin_write(id(1), false, 1);
    assert!(register.read(Content::Written(id(1)), 2, 3));
    write(&mut register, 2, 4, 5, true);
    register.prune(6);
    assert!(register.end_write(id(1), Outcome::Done { durable: false }, 7));
    assert!(reads(&register, 2, 8));
}

#[test]
fn zeros_written_twice_are_one_value() {
    let mut register = Register::default();
    write(&mut register, 1, 1, 2, false);
    register.begin_write(id(2), true, 3);
    assert!(register.end_write(id(2), Outcome::Done { durable: false }, 4));
    assert!(register.read(Content::Zeros, 5, 6));
    register.crash(CrashKind::Killed, 10);
    assert!(register.read(Content::Zeros, 11, 12));
    register.crash(CrashKind::PowerLoss, 20);
    assert!(
        reads(&register, 1, 21),
        "the zeros seen may be those that were not durable"
    );
}

#[test]
fn pruning_changes_no_answer() {
    let mut register = Register::default();
    for number in 1..6 {
        write(
            &mut register,
            number,
            10 * number,
            10 * number + 1,
            number % 2 == 0,
        );
    }
    let mut pruned = register.clone();
    pruned.prune(60);
    assert!(pruned.versions.len() < register.versions.len());
    for number in 1..6 {
        assert_eq!(reads(&register, number, 60), reads(&pruned, number, 60));
    }
    register.crash(CrashKind::PowerLoss, 70);
    pruned.crash(CrashKind::PowerLoss, 70);
    for number in 1..6 {
        assert_eq!(reads(&register, number, 71), reads(&pruned, number, 71));
    }
}
