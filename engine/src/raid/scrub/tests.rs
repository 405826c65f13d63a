use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use proptest::prelude::*;
use uuid::Uuid;

use super::{ScrubFindings, ScrubMode, ScrubStep};
use crate::device::memory::MemoryDevice;
use crate::io::IoBuf;
use crate::raid::tests::{Bench, MEMBER, done, read, run, write};
use crate::raid::{Group, GroupState, Level};
use crate::types::{ByteRange, OperationId};

const LEVELS: [(Level, u32); 6] = [
    (Level::Raid1, 2),
    (Level::Raid1, 3),
    (Level::Raid10, 4),
    (Level::Raid3, 3),
    (Level::Raid5, 4),
    (Level::Raid6, 5),
];
/// Where content is changed behind the group's back: a member address.
const AT: u64 = 40_000;

fn id(number: u128) -> OperationId {
    OperationId(Uuid::from_u128(number))
}

/// Everything written, durable, and out of the journal.
fn filled(bench: &Bench) -> (Group, Vec<u8>) {
    let group = bench.open();
    let content = content(group.capacity());
    write(&group, 0, &content).unwrap();
    run(async {
        group.flush().await.unwrap();
        group.empty_journal().await.unwrap();
    });
    (group, content)
}

fn content(len: u64) -> Vec<u8> {
    (0..len)
        .map(|at| (at / 512 % 251) as u8 ^ (at % 13) as u8)
        .collect()
}

/// Scrubs to the end.
async fn scrub(group: &Group, mode: ScrubMode) -> ScrubFindings {
    group.set_scrub(Some(group.new_scrub(id(1), mode)));
    while group.scrub_on().await.unwrap() == ScrubStep::On {}
    group.scrub().expect("nobody took it away").findings
}

fn data_start(bench: &Bench, member: usize) -> u64 {
    bench.journal.newest.lock().unwrap().members[member].data_start
}

/// Changes one bit of a member's data.
fn flip(bench: &Bench, member: usize, at: u64) {
    let place = usize::try_from(data_start(bench, member) + at).unwrap();
    let device = &bench.devices[member].1;
    let byte = device.content(place, 1)[0];
    device.scribble(place, &[byte ^ 4]);
}

/// What every member holds as data.
fn members(bench: &Bench) -> Vec<Vec<u8>> {
    let len = usize::try_from(MEMBER).unwrap();
    (0..bench.devices.len())
        .map(|member| bench.data(member, 0, len))
        .collect()
}

fn blocks_of(group: &Group) -> u64 {
    group.layout.known_space() / 4096
}

#[test]
fn what_is_equal_has_nothing_to_be_found_and_all_of_it_is_looked_at() {
    for (level, count) in LEVELS.into_iter().chain([(Level::Raid0, 2)]) {
        let bench = Bench::without_checksums(level, count);
        let (group, _) = filled(&bench);
        let expected = ScrubFindings {
            checked: blocks_of(&group),
            done: group.capacity(),
            total: group.capacity(),
            ..ScrubFindings::default()
        };
        assert_eq!(run(scrub(&group, ScrubMode::Repair)), expected, "{level:?}");
    }
}

#[test]
fn a_check_finds_one_flipped_bit_on_any_member_and_changes_nothing() {
    for (level, count) in LEVELS {
        for member in 0..count as usize {
            let bench = Bench::without_checksums(level, count);
            let (group, _) = filled(&bench);
            flip(&bench, member, AT);
            let before = members(&bench);
            let findings = run(scrub(&group, ScrubMode::Check));
            assert_eq!(findings.checked, blocks_of(&group), "{level:?} {member}");
            assert_eq!(
                (findings.mismatched, findings.unreadable),
                (1, 0),
                "{level:?} {member}"
            );
            assert_eq!(
                (findings.repaired, findings.places.len()),
                (0, 1),
                "{level:?} {member}"
            );
            assert_eq!(members(&bench), before, "{level:?} {member}");
        }
    }
}

#[test]
fn a_repair_gives_the_content_back_where_it_can_be_told_who_is_right() {
    for (level, count) in [(Level::Raid1, 3), (Level::Raid6, 5)] {
        for member in 0..count as usize {
            let bench = Bench::without_checksums(level, count);
            let (group, content) = filled(&bench);
            let before = members(&bench);
            flip(&bench, member, AT);
            let findings = run(scrub(&group, ScrubMode::Repair));
            assert_eq!(
                (findings.mismatched, findings.repaired),
                (1, 1),
                "{level:?} {member}"
            );
            let [place] = findings.places[..] else {
                panic!("{findings:?}");
            };
            assert_eq!(place.device, bench.devices[member].0, "{level:?} {member}");
            assert_eq!(place.at, data_start(&bench, member) + AT / 4096 * 4096);
            assert_eq!(members(&bench), before, "{level:?} {member}");
            assert_eq!(read(&group, 0, content.len()), content);
        }
    }
}

#[test]
fn a_repair_makes_equal_what_it_cannot_be_told_of_who_is_right() {
    for (level, count) in LEVELS {
        for member in 0..count as usize {
            let bench = Bench::without_checksums(level, count);
            let (group, _) = filled(&bench);
            flip(&bench, member, AT);
            let repaired = run(scrub(&group, ScrubMode::Repair));
            assert_eq!(
                (repaired.mismatched, repaired.repaired),
                (1, 1),
                "{level:?} {member}"
            );
            let after = run(scrub(&group, ScrubMode::Check));
            assert_eq!(after.mismatched, 0, "{level:?} {member}");
        }
    }
}

#[test]
fn what_two_wrong_columns_of_a_row_leave_gets_new_sums() {
    let bench = Bench::without_checksums(Level::Raid6, 5);
    let (group, _) = filled(&bench);
    // Row 4: the third and the fourth unit of a rotated row hold data.
    let data = |column| group.layout.member_of(AT / (8 << 10), column);
    let (one, other) = (data(0), data(1));
    flip(&bench, one, AT);
    flip(&bench, other, AT);
    let wrong = (bench.data(one, AT, 1), bench.data(other, AT, 1));
    let findings = run(scrub(&group, ScrubMode::Repair));
    assert_eq!((findings.mismatched, findings.repaired), (1, 1));
    assert_eq!((bench.data(one, AT, 1), bench.data(other, AT, 1)), wrong);
    assert_eq!(run(scrub(&group, ScrubMode::Check)).mismatched, 0);
}

#[test]
fn what_cannot_be_read_is_counted_and_written_anew_from_the_others() {
    for (level, count) in LEVELS {
        let bench = Bench::without_checksums(level, count);
        let (group, content) = filled(&bench);
        let place = data_start(&bench, 1) + AT / 4096 * 4096;
        bench.devices[1]
            .1
            .spoil(ByteRange::between(place + 512, place + 1024));
        let found = run(scrub(&group, ScrubMode::Check));
        assert_eq!((found.unreadable, found.mismatched), (1, 0), "{level:?}");
        assert_eq!((found.repaired, found.unrepairable), (0, 0), "{level:?}");
        assert!(found.places[0].unreadable && found.places[0].at == place);
        bench.devices[1].1.take_written();
        let mended = run(scrub(&group, ScrubMode::Repair));
        assert_eq!((mended.unreadable, mended.repaired), (1, 1), "{level:?}");
        let written = bench.devices[1].1.take_written();
        assert!(
            written.contains(&ByteRange::between(place, place + 4096)),
            "{level:?}"
        );
        bench.devices[1].1.spoil(ByteRange::between(0, 0));
        assert_eq!(read(&group, 0, content.len()), content, "{level:?}");
        assert_eq!(group.state(), GroupState::Optimal);
    }
}

#[test]
fn what_nobody_else_has_cannot_be_mended() {
    let bench = Bench::without_checksums(Level::Raid0, 2);
    let (group, _) = filled(&bench);
    let place = data_start(&bench, 1) + 8192;
    bench.devices[1].1.spoil(ByteRange::between(place, place + 8192));
    let findings = run(scrub(&group, ScrubMode::Repair));
    assert_eq!(
        (findings.unreadable, findings.repaired, findings.unrepairable),
        (2, 0, 2)
    );
    assert_eq!(findings.checked, blocks_of(&group));
}

#[test]
fn what_a_crash_left_to_be_made_equal_is_no_mismatch() {
    let bench = Bench::without_checksums(Level::Raid1, 2);
    let (group, _) = filled(&bench);
    drop(group);
    flip(&bench, 1, AT);
    let group = bench.open();
    let findings = run(scrub(&group, ScrubMode::Repair));
    assert_eq!((findings.mismatched, findings.checked), (0, 0));
    assert_eq!(findings.left_out, group.capacity());
    run(group.sync()).unwrap();
    let findings = run(scrub(&group, ScrubMode::Check));
    assert_eq!((findings.mismatched, findings.left_out), (0, 0));
    assert_eq!(findings.checked, blocks_of(&group));
}

#[test]
fn with_a_member_missing_nothing_is_compared_but_copies_that_are_still_two() {
    for (level, count, compared) in [
        (Level::Raid1, 2, false),
        (Level::Raid1, 3, true),
        (Level::Raid5, 4, false),
        (Level::Raid6, 5, false),
    ] {
        let bench = Bench::without_checksums(level, count);
        let (group, _) = filled(&bench);
        bench.devices[0].1.fail_everything(true);
        write(&group, 0, &[1; 512]).unwrap();
        let findings = run(scrub(&group, ScrubMode::Check));
        assert_eq!(findings.mismatched, 0, "{level:?}");
        let (checked, left_out) = match compared {
            true => (blocks_of(&group), 0),
            false => (0, group.capacity()),
        };
        assert_eq!(
            (findings.checked, findings.left_out),
            (checked, left_out),
            "{level:?}"
        );
    }
}

#[test]
fn space_that_was_never_written_or_was_trimmed_is_passed_over() {
    for (level, count) in LEVELS {
        let bench = Bench::without_checksums(level, count);
        let (group, _) = filled(&bench);
        done(group.zero(ByteRange::between(0, group.capacity()), false, false)).unwrap();
        flip(&bench, 0, AT);
        let findings = run(scrub(&group, ScrubMode::Check));
        assert_eq!(findings, ScrubFindings::default(), "{level:?}");
    }
}

#[test]
fn a_scrub_that_is_paused_or_taken_away_goes_no_further_and_goes_on_where_it_stood() {
    let bench = Bench::without_checksums(Level::Raid5, 3);
    let (group, _) = filled(&bench);
    // A part that was looked at: what changes there now is not seen any more.
    let mut stood = group.new_scrub(id(7), ScrubMode::Check);
    (stood.at, stood.findings.done) = (128 << 10, 256 << 10);
    flip(&bench, 0, 4096);
    flip(&bench, 1, 200 << 10);
    stood.paused = true;
    group.set_scrub(Some(stood.clone()));
    run(async {
        assert_eq!(group.scrub_on().await.unwrap(), ScrubStep::Held);
        assert_eq!(group.scrub(), Some(stood));
        assert!(group.hold_scrub(true, None).is_none(), "it is so already");
        assert!(group.hold_scrub(false, None).is_some());
        while group.scrub_on().await.unwrap() == ScrubStep::On {}
        let findings = group.scrub().unwrap().findings;
        assert_eq!((findings.mismatched, findings.done), (1, group.capacity()));
        group.set_scrub(None);
        assert_eq!(group.scrub_on().await.unwrap(), ScrubStep::Held);
    });
}

#[test]
fn a_scrub_that_is_taken_away_in_the_middle_of_a_chunk_says_nothing_more() {
    let bench = Bench::without_checksums(Level::Raid1, 2);
    let (group, _) = filled(&bench);
    group.set_scrub(Some(group.new_scrub(id(1), ScrubMode::Check)));
    run(async {
        // A host's write is under way there.
        let claim = group
            .lock
            .claim(ByteRange::between(0, 4096), crate::io::range_lock::Mode::Shared);
        let claim = claim.await;
        let mut step = Box::pin(group.scrub_on());
        assert!((&mut step).now_or_never().is_none());
        let other = group.new_scrub(id(2), ScrubMode::Repair);
        group.set_scrub(Some(other.clone()));
        drop(claim);
        assert_eq!(step.await.unwrap(), ScrubStep::Held);
        assert_eq!(group.scrub(), Some(other));
    });
}

#[test]
fn a_repair_of_a_row_holds_also_where_the_journal_still_has_what_was_there() {
    let bench = Bench::without_checksums(Level::Raid5, 3);
    let group = bench.open();
    let content = content(group.capacity());
    write(&group, 0, &content).unwrap();
    done(group.flush()).unwrap();
    // Over what is there: through the journal.
    write(&group, 0, &[0xee; 64 << 10]).unwrap();
    let untouched = group
        .layout
        .pieces(ByteRange::between(8 << 10, 9 << 10))
        .next()
        .unwrap();
    flip(&bench, untouched.first_member, untouched.member_at);
    assert_eq!(run(scrub(&group, ScrubMode::Repair)).repaired, 1);
    drop(group);
    let group = bench.open();
    assert_eq!(run(scrub(&group, ScrubMode::Check)).mismatched, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_hosts_write_meanwhile_is_never_a_mismatch(
        (level, count) in proptest::sample::select(&LEVELS[..]),
        writes in proptest::collection::vec((0u64..400, 1u64..80, any::<u8>()), 1..40),
    ) {
        let bench = Bench::without_checksums(level, count);
        let (group, mut model) = filled(&bench);
        let group = Arc::new(group);
        let device = &bench.devices[0].1;
        let findings = run(async {
            let mut walked = Box::pin(scrub(&group, ScrubMode::Repair));
            let mut ended = None;
            for (at, len, fill) in &writes {
                let at = at * 512;
                let bytes = vec![*fill; usize::try_from((len * 512).min(group.capacity() - at)).unwrap()];
                let place = usize::try_from(at).unwrap();
                model[place..place + bytes.len()].copy_from_slice(&bytes);
                // The write comes while a chunk is being read.
                device.hold_reads();
                ended = ended.or_else(|| (&mut walked).now_or_never());
                let data = IoBuf::from_slice(&bytes).into_slice();
                let mut written = Box::pin(group.write(at, data, false));
                let answered = (&mut written).now_or_never();
                device.release_reads();
                device.answer_held();
                match (answered, ended.take()) {
                    (Some(answered), before) => {
                        answered.unwrap();
                        ended = before;
                    }
                    (None, Some(findings)) => {
                        written.await.unwrap();
                        ended = Some(findings);
                    }
                    (None, None) => match select(written, &mut walked).await {
                        Either::Left((answered, _)) => answered.unwrap(),
                        Either::Right((findings, written)) => {
                            written.await.unwrap();
                            ended = Some(findings);
                        }
                    },
                }
            }
            match ended {
                Some(findings) => findings,
                None => walked.await,
            }
        });
        prop_assert_eq!((findings.mismatched, findings.repaired), (0, 0));
        prop_assert_eq!(read(&group, 0, model.len()), model);
    }
}

#[test]
fn a_write_waits_until_the_chunk_that_is_compared_is_through() {
    let bench = Bench::without_checksums(Level::Raid1, 2);
    let (group, _) = filled(&bench);
    let device: &MemoryDevice = &bench.devices[0].1;
    run(async {
        group.set_scrub(Some(group.new_scrub(id(1), ScrubMode::Check)));
        device.hold_reads();
        let mut step = Box::pin(group.scrub_on());
        assert!((&mut step).now_or_never().is_none());
        device.take_written();
        let data = IoBuf::from_slice(&[9; 4096]).into_slice();
        let mut written = Box::pin(group.write(0, data, false));
        assert!((&mut written).now_or_never().is_none());
        assert!(device.take_written().is_empty(), "nothing went out");
        device.release_reads();
        device.answer_held();
        assert_eq!(step.await.unwrap(), ScrubStep::On);
        written.await.unwrap();
        assert_eq!(group.scrub().unwrap().findings.mismatched, 0);
    });
}

#[test]
fn a_repair_asks_no_minority_while_the_rest_is_out() {
    let bench = Bench::without_checksums(Level::Raid1, 3);
    let (group, content) = filled(&bench);
    bench.devices[2].1.fail_everything(true);
    run(group.write(0, IoBuf::from_slice(&content[..4096]).into_slice(), false)).unwrap();
    flip(&bench, 1, AT);
    let right = bench.data(0, AT, 1);
    let findings = run(scrub(&group, ScrubMode::Repair));
    assert_eq!((findings.mismatched, findings.repaired), (1, 0));
    assert_ne!(bench.data(1, AT, 1), right);
    assert_eq!(bench.data(0, AT, 1), right);
    bench.devices[2].1.fail_everything(false);
    bench.return_all(&group);
    run(scrub(&group, ScrubMode::Repair));
    assert_eq!(bench.data(1, AT, 1), right);
}
