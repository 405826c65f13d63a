use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::group::Group;
use super::membership::{Journal, JournalError, Serving};
use super::record::{GroupRecord, MemberRecord, MemberStatus, NewGroup, log_len};
use super::region_log::{self, Image, LogShape, WORDS, log_range};
use super::{GroupState, Layout, Level};
use crate::device::DeviceHandle;
use crate::device::memory::MemoryDevice;
use crate::io::{IoBuf, IoError, copy_segments};
use crate::types::{ByteRange, DeviceId, GroupId, GroupNumber, IdSource, LogicalDeviceNumber};

pub(super) const GRANULE: u64 = 8 << 10;
const REGION: u64 = 32 << 10;
pub(super) const MEMBER: u64 = 256 << 10;

/// Keeps the newest record, as metadata would.
pub(super) struct Memory {
    ids: IdSource,
    pub(super) newest: Mutex<GroupRecord>,
    refuse: Mutex<bool>,
}

impl Journal for Memory {
    fn record<'a>(
        &'a self,
        record: &'a GroupRecord,
        _members: &'a [Arc<DeviceHandle>],
    ) -> Pin<Box<dyn Future<Output = Result<(), JournalError>> + 'a>> {
        let refused = *self.refuse.lock().unwrap();
        if !refused {
            *self.newest.lock().unwrap() = record.clone();
        }
        Box::pin(std::future::ready(if refused {
            Err(JournalError("refused".into()))
        } else {
            Ok(())
        }))
    }

    fn ids(&self) -> &IdSource {
        &self.ids
    }
}

/// Devices and a record that outlive the group.
pub(super) struct Bench {
    pub(super) devices: Vec<(DeviceId, Arc<MemoryDevice>)>,
    pub(super) journal: Arc<Memory>,
}

pub(super) fn done<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("memory devices answer at once")
}

/// Runs what yields to other tasks in between.
pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

impl Bench {
    pub(super) fn new(level: Level, members: u32) -> Self {
        Self::with_checksums(level, members, true)
    }

    pub(super) fn without_checksums(level: Level, members: u32) -> Self {
        Self::with_checksums(level, members, false)
    }

    fn with_checksums(level: Level, members: u32, checksums: bool) -> Self {
        let ids = IdSource::from_seed(3);
        let layout = Layout {
            level,
            members,
            unit: 8 << 10,
            member_len: MEMBER,
        };
        let granule = if layout.sums() > 0 { GRANULE / 2 } else { GRANULE };
        let log = log_len(&layout, granule, REGION, checksums);
        let devices: Vec<_> = (0..members)
            .map(|_| {
                (
                    DeviceId::random(&ids),
                    MemoryDevice::new(usize::try_from(log + MEMBER).unwrap()),
                )
            })
            .collect();
        let members = devices
            .iter()
            .map(|(device, _)| Self::member(*device, log))
            .collect();
        let record = GroupRecord::new(
            NewGroup {
                id: GroupId::random(&ids),
                number: GroupNumber(0),
                layout,
                granule,
                region: REGION,
                slice: 64 << 10,
                first_logical_device: LogicalDeviceNumber(0),
                checksums,
                members,
            },
            &ids,
        );
        let journal = Arc::new(Memory {
            ids,
            newest: Mutex::new(record),
            refuse: Mutex::new(false),
        });
        let bench = Self { devices, journal };
        bench.begin_journals();
        bench
    }

    pub(super) fn record(&self) -> GroupRecord {
        self.journal.newest.lock().unwrap().clone()
    }

    /// Everybody who is out comes back, and gets what it lacks.
    pub(super) fn return_all(&self, group: &Group) {
        return_all(self, group);
    }

    pub(super) fn member(device: DeviceId, log: u64) -> MemberRecord {
        MemberRecord {
            device,
            status: MemberStatus::InSync,
            log: log_range(0, log),
            data_start: log,
        }
    }

    /// As a new group begins.
    fn begin_journals(&self) {
        let record = self.journal.newest.lock().unwrap().clone();
        for (member, (id, device)) in self.devices.iter().enumerate() {
            done(Group::begin_journal(&record, member, &device.open_as(*id))).unwrap();
        }
    }

    pub(super) fn open(&self) -> Group {
        self.open_without(&[])
    }

    /// Where these members are other devices by now.
    pub(super) fn open_with(&self, others: &[(usize, DeviceId, &Arc<MemoryDevice>)]) -> Group {
        let mut handles: Vec<_> = self
            .devices
            .iter()
            .map(|(id, device)| Some(device.open_as(*id)))
            .collect();
        for (member, id, device) in others {
            handles[*member] = Some(device.open_as(*id));
        }
        let journal = Arc::clone(&self.journal) as Arc<dyn Journal>;
        done(Group::open(self.record(), handles, journal)).unwrap()
    }

    /// As a start does where these members are away: they are out, and that is recorded.
    pub(super) fn open_without(&self, away: &[usize]) -> Group {
        let mut newest = self.journal.newest.lock().unwrap();
        if !away.is_empty() {
            *newest = newest.changed(&self.journal.ids, |members| {
                away.iter()
                    .for_each(|&member| members[member].status = MemberStatus::Out);
            });
        }
        let record = newest.clone();
        drop(newest);
        let there = |member: usize| !away.contains(&member);
        let handles = (0..)
            .zip(&self.devices)
            .map(|(member, (id, device))| there(member).then(|| device.open_as(*id)))
            .collect();
        done(Group::open(
            record,
            handles,
            Arc::clone(&self.journal) as Arc<dyn Journal>,
        ))
        .unwrap()
    }

    pub(super) fn data(&self, member: usize, at: u64, len: usize) -> Vec<u8> {
        let start = self.journal.newest.lock().unwrap().members[member].data_start;
        self.devices[member]
            .1
            .content(usize::try_from(start + at).unwrap(), len)
    }
}

pub(super) fn write(group: &Group, at: u64, bytes: &[u8]) -> Result<(), IoError> {
    done(group.write(at, IoBuf::from_slice(bytes).into_slice(), false))
}

pub(super) fn read(group: &Group, at: u64, len: usize) -> Vec<u8> {
    let segments = done(group.read(ByteRange::between(at, at + len as u64))).unwrap();
    let mut out = vec![0xaa; len];
    copy_segments(&segments, &mut out);
    out
}

#[test]
fn new_space_reads_zeros_whatever_the_members_hold() {
    let bench = Bench::new(Level::Raid1, 2);
    let group = bench.open();
    let log = usize::try_from(bench.journal.newest.lock().unwrap().members[0].data_start).unwrap();
    bench.devices[0].1.scribble(log, &[7; 4096]);
    assert_eq!(read(&group, 0, 4096), vec![0; 4096]);
    write(&group, 512, &[1; 512]).unwrap();
    let mut expected = vec![0; 8192];
    expected[512..1024].fill(1);
    assert_eq!(read(&group, 0, 8192), expected);
    assert_eq!(bench.data(0, 0, 8192), bench.data(1, 0, 8192));
}

#[test]
fn written_marks_reach_the_log_with_a_flush_only() {
    let bench = Bench::new(Level::Raid1, 2);
    let group = bench.open();
    write(&group, 0, &[1; 512]).unwrap();
    drop(group);
    let group = bench.open();
    assert_eq!(
        read(&group, 0, 512),
        vec![0; 512],
        "not flushed: as if it had never been written"
    );
    write(&group, 0, &[2; 512]).unwrap();
    done(group.flush()).unwrap();
    drop(group);
    assert_eq!(read(&bench.open(), 0, 512), vec![2; 512]);
}

#[test]
fn a_member_that_fails_is_out_durably_before_the_write_is_answered() {
    let bench = Bench::new(Level::Raid1, 2);
    let group = bench.open();
    write(&group, 0, &[1; 512]).unwrap();
    bench.devices[1].1.fail_everything(true);
    write(&group, 0, &[2; 512]).unwrap();
    assert_eq!(
        bench.journal.newest.lock().unwrap().members[1].status,
        MemberStatus::Out
    );
    assert_eq!(group.state(), GroupState::Degraded);
    assert_eq!(read(&group, 0, 512), vec![2; 512]);
}

#[test]
fn a_write_is_not_answered_where_the_loss_of_a_member_cannot_be_recorded() {
    let bench = Bench::new(Level::Raid1, 2);
    let group = bench.open();
    write(&group, 0, &[1; 512]).unwrap();
    *bench.journal.refuse.lock().unwrap() = true;
    bench.devices[1].1.fail_everything(true);
    assert!(write(&group, 0, &[2; 512]).is_err());
    assert_eq!(group.state(), GroupState::Failed);
}

#[test]
fn a_stripe_without_redundancy_stops_at_the_first_failure_and_reads_what_is_left() {
    let bench = Bench::new(Level::Raid0, 2);
    let group = bench.open();
    let bytes: Vec<u8> = (0..32u8).flat_map(|unit| [unit; 1024]).collect();
    write(&group, 0, &bytes).unwrap();
    assert_eq!(read(&group, 0, bytes.len()), bytes);
    bench.devices[1].1.fail_everything(true);
    assert!(write(&group, 8 << 10, &[9; 512]).is_err());
    assert!(
        write(&group, 0, &[9; 512]).is_err(),
        "a stopped group takes no writes"
    );
    assert_eq!(read(&group, 0, 512), vec![0; 512]);
    assert!(done(group.read(ByteRange::between(8 << 10, 9 << 10))).is_err());
}

#[test]
fn a_member_that_returns_gets_what_it_missed_and_only_marked_regions_are_copied() {
    let bench = Bench::new(Level::Raid1, 2);
    let group = bench.open();
    let everything: Vec<u8> = (0..MEMBER).map(|at| u8::try_from(at / 4096).unwrap()).collect();
    write(&group, 0, &everything).unwrap();
    run(async {
        let mut last = 0;
        group.take_back_marks(&mut last).await.unwrap();
        group.take_back_marks(&mut last).await.unwrap();
    });
    assert_eq!(group.marked_regions(), 0);
    bench.devices[1].1.fail_everything(true);
    write(&group, 100 << 10, &[0xee; 512]).unwrap();
    bench.devices[1].1.fail_everything(false);
    let start = usize::try_from(bench.journal.newest.lock().unwrap().members[1].data_start).unwrap();
    bench.devices[1].1.scribble(start, &[0xbb; 512]);
    let back = bench.devices[1].1.open_as(bench.devices[1].0);
    run(async {
        group.join(1, back).await.unwrap();
        group.sync().await.unwrap();
    });
    assert_eq!(group.serving(), vec![Serving::InSync; 2]);
    assert_eq!(bench.data(1, 100 << 10, 512), vec![0xee; 512]);
    assert_eq!(
        bench.data(1, 0, 512),
        vec![0xbb; 512],
        "a region without a mark is not copied"
    );
}

#[test]
fn a_read_that_fails_late_is_served_by_a_member_that_came_in_sync_meanwhile() {
    let bench = Bench::new(Level::Raid1, 2);
    let group = bench.open();
    let (id, member) = &bench.devices[1];
    member.fail_everything(true);
    write(&group, 0, &[0x11; 512]).unwrap();
    member.fail_everything(false);
    bench.devices[0].1.hold_reads();
    run(async {
        let mut late = Box::pin(group.read(ByteRange::between(0, 512)));
        assert!((&mut late).now_or_never().is_none(), "the read is held");
        let back = member.open_as(*id);
        bench.devices[0].1.release_reads();
        group.join(1, back).await.unwrap();
        group.sync().await.unwrap();
        bench.devices[0].1.fail_held();
        let mut out = vec![0xaa; 512];
        copy_segments(&late.await.unwrap(), &mut out);
        assert_eq!(out, vec![0x11; 512]);
    });
}

#[test]
fn a_new_device_gets_all_written_space() {
    let bench = Bench::new(Level::Raid1, 2);
    let group = bench.open();
    write(&group, 0, &[1; 4096]).unwrap();
    write(&group, 200 << 10, &[2; 4096]).unwrap();
    let log = bench.journal.newest.lock().unwrap().members[0].log;
    let fresh = MemoryDevice::new(usize::try_from(log.len() + MEMBER).unwrap());
    let id = DeviceId::random(&IdSource::from_seed(77));
    run(async {
        group.replace(1, Bench::member(id, log.len())).await.unwrap();
        group.join(1, fresh.open_as(id)).await.unwrap();
        group.sync().await.unwrap();
    });
    assert_eq!(group.state(), GroupState::Optimal);
    let at = |at: u64| usize::try_from(log.len() + at).unwrap();
    assert_eq!(fresh.content(at(0), 4096), vec![1; 4096]);
    assert_eq!(fresh.content(at(200 << 10), 4096), vec![2; 4096]);
}

#[test]
fn after_a_crash_a_block_that_was_being_written_reads_the_same_from_then_on() {
    let bench = Bench::new(Level::Raid1, 2);
    let group = bench.open();
    write(&group, 0, &[1; 4096]).unwrap();
    done(group.flush()).unwrap();
    drop(group);
    // The crash left the write on one member only; its intent is in the log.
    let start = usize::try_from(bench.journal.newest.lock().unwrap().members[1].data_start).unwrap();
    bench.devices[1].1.scribble(start, &[2; 4096]);
    let group = bench.open();
    let first = read(&group, 0, 4096);
    assert_eq!(bench.data(0, 0, 4096), bench.data(1, 0, 4096));
    bench.devices[0].1.fail_everything(true);
    assert_eq!(read(&group, 0, 4096), first);
}

/// It may have failed to flush just before the crash: then what it shows is not durable, and no flush makes it so.
#[test]
fn what_a_crash_left_is_written_anew_also_to_the_member_that_shows_it() {
    let bench = Bench::new(Level::Raid1, 2);
    let group = bench.open();
    write(&group, 0, &[0x11; 8 << 10]).unwrap();
    done(group.flush()).unwrap();
    drop(group);
    let group = bench.open();
    bench.devices[0].1.take_written();
    run(group.sync()).unwrap();
    let start = bench.journal.newest.lock().unwrap().members[0].data_start;
    let written = bench.devices[0].1.take_written();
    assert!(
        written.contains(&ByteRange::between(start, start + (8 << 10))),
        "{written:?}"
    );
}

#[test]
fn a_trimmed_granule_reads_zeros_also_after_a_crash() {
    let bench = Bench::new(Level::Raid1, 2);
    let group = bench.open();
    write(&group, 0, &[1; 32 << 10]).unwrap();
    done(group.flush()).unwrap();
    done(group.zero(ByteRange::between(4 << 10, 20 << 10), true, false)).unwrap();
    let mut expected = vec![1; 32 << 10];
    expected[4 << 10..20 << 10].fill(0);
    assert_eq!(read(&group, 0, 32 << 10), expected);
    drop(group);
    assert_eq!(read(&bench.open(), 0, 32 << 10), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn random_writes_and_zeros_read_like_plain_memory(
        (level, members) in proptest::sample::select(vec![
            (Level::Raid0, 3),
            (Level::Raid1, 3),
            (Level::Raid10, 4),
            (Level::Raid3, 4),
            (Level::Raid5, 3),
            (Level::Raid5, 5),
            (Level::Raid6, 4),
            (Level::Raid6, 6),
        ]),
        steps in proptest::collection::vec((0u8..3, 0u64..480, 1u64..80, any::<u8>()), 1..60),
        checksums: bool,
    ) {
        let bench = Bench::with_checksums(level, members, checksums);
        let mut group = bench.open();
        let capacity = group.capacity().min(256 << 10);
        let mut model = vec![0u8; usize::try_from(capacity).unwrap()];
        for (kind, at, len, fill) in steps {
            let range = ByteRange::between(at * 512, (at * 512 + len * 512).min(capacity));
            let place = usize::try_from(range.start()).unwrap()..usize::try_from(range.end()).unwrap();
            match kind {
                0 => {
                    let bytes = vec![fill; place.len()];
                    write(&group, range.start(), &bytes).unwrap();
                    model[place].copy_from_slice(&bytes);
                }
                1 => {
                    done(group.zero(range, fill & 1 == 0, false)).unwrap();
                    model[place].fill(0);
                }
                _ => {
                    done(group.flush()).unwrap();
                    drop(group);
                    group = bench.open();
                }
            }
            prop_assert_eq!(&read(&group, 0, model.len()), &model);
        }
    }
}

#[test]
fn bits_in_the_log_behind_the_groups_end_mean_nothing() {
    let bench = Bench::new(Level::Raid1, 2);
    let record = bench.journal.newest.lock().unwrap().clone();
    let capacity = record.layout.capacity();
    let shape = LogShape::new(capacity, GRANULE, REGION);
    let image = Image {
        sequence: 1,
        words: Box::new([u64::MAX; WORDS]),
    };
    for block in shape.blocks() {
        let place = usize::try_from(shape.place(block, 1)).unwrap();
        let bytes = region_log::encode(record.id, block, &image);
        bench.devices[0].1.scribble(place, bytes.as_slice());
    }
    let group = bench.open();
    assert_eq!(group.written_bytes(), capacity);
    assert_eq!(group.marked_regions() as u64, capacity / REGION);
    run(group.sync()).unwrap();
    let mut last = 0;
    for _pass in 0..2 {
        done(group.take_back_marks(&mut last)).unwrap();
    }
    assert_eq!(group.marked_regions(), 0);
}

/// Levels with sums, by members.
fn with_sums() -> impl Strategy<Value = (Level, u32)> {
    proptest::sample::select(vec![
        (Level::Raid3, 3),
        (Level::Raid5, 3),
        (Level::Raid5, 5),
        (Level::Raid6, 4),
        (Level::Raid6, 6),
    ])
}

#[derive(Debug, Clone)]
enum Step {
    Write(u64, u64, u8),
    Zero(u64, u64),
    Flush,
    /// The program dies and starts again.
    Crash,
    Fail(usize),
    /// Everybody who is out comes back, and gets what it lacks.
    Return,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0u64..480, 1u64..80, any::<u8>()).prop_map(|(at, len, fill)| Step::Write(at, len, fill)),
        2 => (0u64..480, 1u64..200).prop_map(|(at, len)| Step::Zero(at, len)),
        1 => Just(Step::Flush),
        1 => Just(Step::Crash),
        2 => (0usize..6).prop_map(Step::Fail),
        2 => Just(Step::Return),
    ];
    proptest::collection::vec(step, 1..40)
}

fn tolerates(group: &Group, member: usize) -> bool {
    let serving = group.serving();
    let left = |other: usize| other != member && serving[other] == Serving::InSync;
    group.record().layout.is_complete(left)
}

fn return_all(bench: &Bench, group: &Group) {
    run(async {
        for (member, (id, device)) in bench.devices.iter().enumerate() {
            if group.serving()[member] == Serving::Out {
                device.fail_everything(false);
                group.join(member, device.open_as(*id)).await.unwrap();
            }
        }
        group.sync().await.unwrap();
    });
    assert_eq!(group.state(), GroupState::Optimal);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn groups_with_sums_read_like_plain_memory_while_members_come_and_go(
        (level, members) in with_sums(),
        steps in steps(),
        checksums: bool,
    ) {
        let bench = Bench::with_checksums(level, members, checksums);
        let mut group = bench.open();
        let capacity = group.capacity().min(256 << 10);
        let mut model = vec![0u8; usize::try_from(capacity).unwrap()];
        let place = |at: u64, len: u64| {
            let range = ByteRange::between(at * 512, (at * 512 + len * 512).min(capacity));
            (range, usize::try_from(range.start()).unwrap()..usize::try_from(range.end()).unwrap())
        };
        for step in steps {
            match step {
                Step::Write(at, len, fill) => {
                    let (range, place) = place(at, len);
                    let bytes: Vec<u8> = place.clone().map(|at| fill ^ u8::try_from(at / 512 % 251).unwrap()).collect();
                    write(&group, range.start(), &bytes).unwrap();
                    model[place].copy_from_slice(&bytes);
                }
                Step::Zero(at, len) => {
                    let (range, place) = place(at, len);
                    done(group.zero(range, len & 1 == 0, false)).unwrap();
                    model[place].fill(0);
                }
                Step::Flush => done(group.flush()).unwrap(),
                Step::Crash => {
                    done(group.flush()).unwrap();
                    drop(group);
                    let out: Vec<usize> = (0..).zip(&bench.journal.newest.lock().unwrap().members)
                        .filter(|(_, member)| member.status == MemberStatus::Out)
                        .map(|(member, _)| member)
                        .collect();
                    group = bench.open_without(&out);
                }
                Step::Fail(member) => {
                    if member < bench.devices.len() && tolerates(&group, member) {
                        bench.devices[member].1.fail_everything(true);
                    }
                    // Noticed at once, so that the next one is chosen by what is left.
                    done(group.flush_members()).unwrap();
                }
                Step::Return => return_all(&bench, &group),
            }
            prop_assert_eq!(&read(&group, 0, model.len()), &model);
        }
        // Whoever is missing, the rest holds it.
        return_all(&bench, &group);
        done(group.flush_members()).unwrap();
        drop(group);
        for member in 0..bench.devices.len() {
            let group = bench.open_without(&[member]);
            prop_assert_eq!(&read(&group, 0, model.len()), &model, "without {}", member);
            return_all(&bench, &group);
        }
    }
}

#[test]
fn the_last_member_whose_device_works_is_not_replaced() {
    for (level, members) in [(Level::Raid1, 2), (Level::Raid5, 3)] {
        let bench = Bench::new(level, members);
        let group = bench.open();
        write(&group, 0, &[1; 4096]).unwrap();
        // Nobody asked the group for anything since.
        group.member_device(1).unwrap().fail("as somebody else found");
        let id = DeviceId::random(&IdSource::from_seed(77));
        let place = Bench::member(id, bench.record().members[0].log.len());
        assert!(run(group.replace(0, place)).is_err(), "{level:?}");
        assert_eq!(read(&group, 0, 4096), vec![1; 4096]);
    }
}
