//! What the oracle of a volume calls a broken promise.

use super::*;
use crate::io::IoBuf;

fn sectors() -> ByteRange {
    ByteRange::between(1024, 2048)
}

fn data(write: Write, first_sector: u64) -> Segments {
    let mut buf = IoBuf::new(1024);
    tag::fill(buf.as_mut_slice(), write.id, first_sector);
    Segments::from_buf([Segment::Data(buf.into_slice())])
}

fn zeros(len: u64) -> Segments {
    Segments::from_buf([Segment::Zero(len)])
}

fn written(oracle: &mut Oracle, durable: bool) -> Write {
    let write = oracle.begin_write(sectors(), false);
    oracle.end_write(write, Outcome::Done { durable }).unwrap();
    write
}

fn check(oracle: &mut Oracle, answer: &Segments) -> Result<(), Violation> {
    let read = oracle.begin_read(sectors());
    oracle.end_read(read, answer)
}

#[test]
fn what_was_written_must_be_read_at_its_place() {
    let mut oracle = Oracle::new(0);
    assert!(check(&mut oracle, &zeros(1024)).is_ok());
    let write = written(&mut oracle, false);
    assert!(check(&mut oracle, &data(write, 2)).is_ok());
    assert!(check(&mut oracle, &data(write, 3)).is_err());
    assert!(check(&mut oracle, &zeros(1024)).is_err());
}

#[test]
fn another_volumes_data_is_never_right() {
    let (mut oracle, mut other) = (Oracle::new(0), Oracle::new(1));
    written(&mut oracle, false);
    let foreign = written(&mut other, false);
    assert!(check(&mut oracle, &data(foreign, 2)).is_err());
}

#[test]
fn an_answer_of_another_length_is_a_violation() {
    let mut oracle = Oracle::new(0);
    assert!(matches!(
        check(&mut oracle, &zeros(512)),
        Err(Violation::Length { .. })
    ));
}

#[test]
fn trimmed_sectors_read_zeros() {
    let mut oracle = Oracle::new(0);
    let write = written(&mut oracle, false);
    let trim = oracle.begin_write(sectors(), true);
    oracle.end_write(trim, Outcome::Done { durable: false }).unwrap();
    assert!(check(&mut oracle, &data(write, 2)).is_err());
    assert!(check(&mut oracle, &zeros(1024)).is_ok());
}

#[test]
fn only_what_was_acknowledged_before_a_flush_began_must_survive() {
    for flush_is_later in [true, false] {
        let mut oracle = Oracle::new(0);
        let early = oracle.begin_flush();
        written(&mut oracle, false);
        let late = oracle.begin_flush();
        oracle.end_flush(if flush_is_later { late } else { early });
        oracle.crash(CrashKind::PowerLoss);
        assert_eq!(check(&mut oracle, &zeros(1024)).is_err(), flush_is_later);
    }
}

#[test]
fn a_flush_after_a_killed_process_covers_what_its_life_before_wrote() {
    let mut oracle = Oracle::new(0);
    let write = written(&mut oracle, false);
    oracle.crash(CrashKind::Killed);
    assert!(check(&mut oracle, &data(write, 2)).is_ok());
    let flush = oracle.begin_flush();
    oracle.end_flush(flush);
    oracle.crash(CrashKind::PowerLoss);
    assert!(check(&mut oracle, &zeros(1024)).is_err());
}
