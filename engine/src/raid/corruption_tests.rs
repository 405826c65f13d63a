//! What devices hold changes behind the group's back: found, mended, or refused, and never handed out.

use super::tests::{Bench, MEMBER, read, run, write};
use super::{GroupState, Level};
use crate::device::memory::MemoryDevice;
use crate::raid::group::Group;
use crate::raid::scrub::{ScrubFindings, ScrubMode, ScrubStep};
use crate::types::{ByteRange, DeviceId, IdSource, OperationId};
use uuid::Uuid;

const SHAPES: [(Level, u32); 7] = [
    (Level::Raid1, 2),
    (Level::Raid1, 3),
    (Level::Raid10, 4),
    (Level::Raid3, 3),
    (Level::Raid5, 4),
    (Level::Raid6, 4),
    (Level::Raid6, 5),
];

fn pattern(len: u64) -> Vec<u8> {
    (0..len)
        .map(|at| u8::try_from(at / 4096 * 7 % 251 + 1).unwrap())
        .collect()
}

/// A group that is written whole, and what it holds. Nothing is left in the journal.
fn full(bench: &Bench) -> Vec<u8> {
    let group = bench.open();
    let bytes = pattern(group.capacity());
    write(&group, 0, &bytes).unwrap();
    settle(&group);
    bytes
}

/// Everything is in place, and no mark is left.
fn settle(group: &Group) {
    run(async {
        let mut last = 0;
        for _pass in 0..2 {
            group.take_back_marks(&mut last).await.unwrap();
        }
    });
    assert_eq!(group.marked_regions(), 0);
}

impl Bench {
    fn flip(&self, member: usize, at: u64) {
        let at = usize::try_from(at).unwrap();
        let device = &self.devices[member].1;
        let byte = device.content(at, 1)[0];
        device.scribble(at, &[byte ^ 0x10]);
    }

    fn all(&self, member: usize) -> Vec<u8> {
        let data = self.record().data_of(member);
        let checksums = self.record().checksums_of(member).unwrap();
        let part = |range: ByteRange| {
            let [start, len] = [range.start(), range.len()].map(|it| usize::try_from(it).unwrap());
            self.devices[member].1.content(start, len)
        };
        [part(data), part(checksums)].concat()
    }
}

fn reads(group: &Group, at: u64, len: u64) -> bool {
    run(group.read(ByteRange::between(at, at + len))).is_ok()
}

#[test]
fn a_flipped_bit_of_any_member_is_not_read_and_is_mended_by_reading() {
    for (level, members) in SHAPES {
        for member in 0..members as usize {
            let bench = Bench::new(level, members);
            let bytes = full(&bench);
            let before = bench.all(member);
            let data = bench.record().data_of(member);
            for at in [0, 5000, MEMBER / 2 + 77, MEMBER - 1] {
                bench.flip(member, data.start() + at);
            }
            let group = bench.open();
            for _turn in 0..2 {
                assert!(read_of(&group, bytes.len()) == bytes, "{level:?} member {member}");
            }
            // Sums are not read while all data is there, and of copies only one at a time.
            scan(&group);
            settle(&group);
            assert!(bench.all(member) == before, "{level:?} member {member}");
            assert_eq!(group.state(), GroupState::Optimal);
        }
    }
}

fn read_of(group: &Group, len: usize) -> Vec<u8> {
    let segments = run(group.read(ByteRange::between(0, len as u64))).unwrap();
    let mut out = vec![0xaa; len];
    crate::io::copy_segments(&segments, &mut out);
    out
}

/// Looks at every member.
fn scan(group: &Group) -> ScrubFindings {
    group.set_scrub(Some(group.new_scrub(OperationId(Uuid::nil()), ScrubMode::Repair)));
    run(async { while group.scrub_on().await.unwrap() == ScrubStep::On {} });
    group.scrub().unwrap().findings
}

#[test]
fn a_damaged_page_of_checksums_costs_no_data_and_is_mended() {
    for (level, members) in SHAPES {
        let bench = Bench::new(level, members);
        let bytes = full(&bench);
        let before = bench.all(0);
        let page = bench.record().checksums_of(0).unwrap();
        for at in [0, 9, 40, 77] {
            bench.flip(0, page.start() + at);
        }
        let group = bench.open();
        assert!(read_of(&group, bytes.len()) == bytes, "{level:?}");
        scan(&group);
        settle(&group);
        assert!(bench.all(0) == before, "{level:?}");
    }
}

#[test]
fn a_page_of_checksums_that_cannot_be_read_is_made_anew() {
    for (level, members) in SHAPES.into_iter().chain([(Level::Raid0, 2)]) {
        let bench = Bench::new(level, members);
        let bytes = full(&bench);
        let page = bench.record().checksums_of(1).unwrap();
        bench.devices[1].1.spoil(page);
        let group = bench.open();
        assert!(read_of(&group, bytes.len()) == bytes, "{level:?}");
        write(&group, 0, &bytes).unwrap();
        bench.devices[1].1.spoil(ByteRange::between(0, 0));
        settle(&group);
        drop(group);
        assert!(read_of(&bench.open(), bytes.len()) == bytes, "{level:?}");
    }
}

#[test]
fn without_redundancy_a_damaged_block_is_an_error_until_it_is_written_whole() {
    let bench = Bench::new(Level::Raid0, 2);
    let bytes = full(&bench);
    bench.flip(0, bench.record().data_of(0).start() + 4096 + 5);
    let group = bench.open();
    assert!(reads(&group, 0, 4096) && reads(&group, 8192, MEMBER));
    assert!(!reads(&group, 4096, 512) && !reads(&group, 0, 8192));
    assert!(run(group.write(4096, crate::io::IoBuf::zeroed(512).into_slice(), false)).is_err());
    write(&group, 4096, &bytes[4096..8192]).unwrap();
    assert!(read_of(&group, bytes.len()) == bytes);
}

#[test]
fn damage_of_several_members_is_mended_where_it_is_not_in_the_same_row() {
    for (level, members) in SHAPES {
        for spoil in [false, true] {
            let bench = Bench::new(level, members);
            let bytes = full(&bench);
            let before: Vec<Vec<u8>> = (0..members as usize).map(|member| bench.all(member)).collect();
            for member in 0..members as usize {
                let start = bench.record().data_of(member).start() + member as u64 * 4096;
                if spoil {
                    bench.devices[member]
                        .1
                        .spoil(ByteRange::between(start, start + 512));
                } else {
                    bench.flip(member, start);
                }
            }
            let group = bench.open();
            assert!(read_of(&group, bytes.len()) == bytes, "{level:?} {spoil}");
            for member in &bench.devices {
                member.1.spoil(ByteRange::between(0, 0));
            }
            scan(&group);
            settle(&group);
            for (member, before) in before.iter().enumerate() {
                assert!(bench.all(member) == *before, "{level:?} {spoil} member {member}");
            }
        }
    }
}

#[test]
fn a_block_that_is_lost_does_not_keep_a_member_from_joining_and_stays_an_error() {
    for (level, members) in SHAPES.into_iter().filter(|(level, _)| *level != Level::Raid6) {
        let copies = bench_copies(level, members);
        if copies > 2 {
            continue;
        }
        let bench = Bench::new(level, members);
        let bytes = full(&bench);
        let record = bench.record();
        // What member 0 has there is on member 1, or in the sums that need it.
        bench.flip(0, record.data_of(0).start() + 8192);
        let group = bench.open_without(&[1]);
        let fresh = MemoryDevice::new(usize::try_from(record.data_of(0).end()).unwrap());
        let id = DeviceId::random(&IdSource::from_seed(77));
        run(async {
            group
                .replace(1, Bench::member(id, record.members[1].log.len()))
                .await
                .unwrap();
            group.join(1, fresh.open_as(id)).await.unwrap();
            group.sync().await.unwrap();
        });
        assert_eq!(group.state(), GroupState::Optimal, "{level:?}");
        let blocks: Vec<u64> = (0..bytes.len() as u64 / 4096).collect();
        let lost: Vec<u64> = blocks
            .iter()
            .copied()
            .filter(|block| !reads(&group, block * 4096, 4096))
            .collect();
        assert!((1..=2).contains(&lost.len()), "{level:?} {lost:?}");
        for block in blocks.iter().filter(|block| !lost.contains(block)) {
            let at = usize::try_from(block * 4096).unwrap();
            assert_eq!(
                read(&group, block * 4096, 4096),
                bytes[at..at + 4096],
                "{level:?} {block}"
            );
        }
        if level.sums() == 0 {
            let at = usize::try_from(lost[0] * 4096).unwrap();
            write(&group, lost[0] * 4096, &bytes[at..at + 4096]).unwrap();
            assert!(read_of(&group, bytes.len()) == bytes, "{level:?}");
        }
    }
}

fn bench_copies(level: Level, members: u32) -> usize {
    Bench::new(level, members).record().layout.copies()
}

#[test]
fn a_write_of_less_than_a_block_does_not_take_over_what_is_damaged_around_it() {
    for (level, members) in SHAPES {
        let bench = Bench::new(level, members);
        let mut bytes = full(&bench);
        for at in (0..MEMBER).step_by(4096) {
            bench.flip(0, bench.record().data_of(0).start() + at + 1000);
        }
        let group = bench.open();
        for at in (0..bytes.len()).step_by(4096) {
            write(&group, at as u64, &[0xcc; 512]).unwrap();
            bytes[at..at + 512].fill(0xcc);
        }
        assert!(read_of(&group, bytes.len()) == bytes, "{level:?}");
        scan(&group);
        for member in 0..members as usize {
            let others: Vec<usize> = (0..members as usize).filter(|other| *other != member).collect();
            if level != Level::Raid6 && !others.is_empty() {
                drop(settle_and_close(&bench));
                let group = bench.open_without(&[member]);
                assert!(
                    read_of(&group, bytes.len()) == bytes,
                    "{level:?} without {member}"
                );
                bench.return_all(&group);
            }
        }
    }
}

fn settle_and_close(bench: &Bench) -> Vec<u8> {
    let group = bench.open();
    run(group.sync()).unwrap();
    settle(&group);
    Vec::new()
}

#[test]
fn a_block_that_a_crash_left_torn_is_not_taken_for_damaged() {
    for (level, members) in [(Level::Raid0, 1), (Level::Raid1, 2), (Level::Raid10, 4)] {
        let bench = Bench::new(level, members);
        let bytes = full(&bench);
        let group = bench.open();
        write(&group, 0, &[9; 4096]).unwrap();
        drop(group);
        let start = usize::try_from(bench.record().data_of(0).start()).unwrap();
        bench.devices[0].1.scribble(start, &bytes[..2048]);
        let group = bench.open();
        let first = read(&group, 0, 4096);
        assert!(first[..2048] == bytes[..2048] || first[..2048] == [9; 2048]);
        run(group.sync()).unwrap();
        settle(&group);
        drop(group);
        assert_eq!(read(&bench.open(), 0, 4096), first, "{level:?}");
    }
}
