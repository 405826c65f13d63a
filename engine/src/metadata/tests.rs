use std::sync::Arc;

use futures_util::FutureExt as _;

use super::*;
use crate::device::DeviceHandle;
use crate::device::memory::MemoryDevice;
use crate::types::{ByteRange, CommitId, DeviceId, IdSource, LogId};

#[derive(Default)]
pub(super) struct Numbers(Vec<u32>);

impl State for Numbers {
    type Record = u32;

    fn apply(&mut self, record: u32) {
        self.0.push(record);
    }

    fn snapshot(&self) -> Box<dyn Iterator<Item = u32> + '_> {
        Box::new(self.0.iter().copied())
    }
}

/// Devices that outlive the stores on them.
struct Bench {
    ids: IdSource,
    devices: Vec<(DeviceId, Arc<MemoryDevice>)>,
}

const AREA_LEN: usize = 256 << 10;

fn area() -> ByteRange {
    ByteRange::between(0, AREA_LEN as u64)
}

impl Bench {
    fn new(count: usize) -> Self {
        let ids = IdSource::from_seed(1);
        let devices = (0..count)
            .map(|_| (DeviceId::random(&ids), MemoryDevice::new(AREA_LEN)))
            .collect();
        Self { ids, devices }
    }

    fn handles(&self, present: &[usize]) -> Vec<(Arc<DeviceHandle>, ByteRange)> {
        present
            .iter()
            .map(|&index| (self.devices[index].1.open_as(self.devices[index].0), area()))
            .collect()
    }

    fn create(&self) -> Store<Numbers> {
        let all: Vec<usize> = (0..self.devices.len()).collect();
        done(Store::create(self.handles(&all), self.ids.clone())).unwrap()
    }

    fn elect(&self, present: &[usize]) -> (Vec<HolderCopy>, Elected) {
        let copies: Vec<HolderCopy> = self
            .handles(present)
            .into_iter()
            .map(|(device, area)| done(HolderCopy::read(device, area)).unwrap())
            .collect();
        let elected = elect::elect(&copies, None).unwrap();
        (copies, elected)
    }

    fn open(&self, present: &[usize]) -> (Store<Numbers>, Elected) {
        let (copies, elected) = self.elect(present);
        (
            done(Store::open(&copies, &elected, self.ids.clone())).unwrap(),
            elected,
        )
    }

    /// Damages the frame that is `back` frames before the last on a device whose first half alone is in use.
    fn damage(&self, index: usize, back: usize) {
        let frames: Vec<usize> = (0..AREA_LEN / 2)
            .step_by(4096)
            .filter(|&at| self.devices[index].1.content(at, 8) == b"ASHLRmet")
            .collect();
        let at = frames[frames.len() - 1 - back];
        self.devices[index].1.scribble(at + 30, &[0xff; 8]);
    }

    /// Starts although it may lack something, as the user may say.
    fn force(&self, present: &[usize]) -> Store<Numbers> {
        let (store, elected) = self.open(present);
        assert!(!elected.quorum);
        done(store.take_holders(self.handles(present), true)).unwrap();
        store
    }

    fn open_and_take(&self, present: &[usize]) -> Store<Numbers> {
        let (store, elected) = self.open(present);
        assert!(elected.quorum);
        done(store.take_holders(self.handles(present), false)).unwrap();
        store
    }
}

pub(super) fn done<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("memory devices answer at once")
}

pub(super) fn numbers(store: &Store<Numbers>) -> Vec<u32> {
    done(store.read(|state| state.0.clone()))
}

#[test]
fn commits_are_read_back_after_many_snapshots() {
    let bench = Bench::new(3);
    let store = bench.create();
    for number in 0..500 {
        done(store.commit(vec![number])).unwrap();
    }
    let (store, elected) = bench.open(&[0, 1, 2]);
    assert!(elected.quorum);
    assert_eq!(numbers(&store), (0..500).collect::<Vec<_>>());
}

#[test]
fn one_of_two_holders_alone_has_no_quorum_unless_the_other_was_dropped() {
    let bench = Bench::new(2);
    let store = bench.create();
    done(store.commit(vec![1])).unwrap();
    assert!(!bench.elect(&[0]).1.quorum && !bench.elect(&[1]).1.quorum);
    bench.devices[1].1.fail_everything(true);
    done(store.commit(vec![2])).unwrap();
    bench.devices[1].1.fail_everything(false);
    assert!(bench.elect(&[0]).1.quorum, "the survivor knows that it is alone");
    assert!(
        !bench.elect(&[1]).1.quorum,
        "the one that was left behind must not start"
    );
    assert_eq!(numbers(&bench.open_and_take(&[0, 1])), vec![1, 2]);
}

#[test]
fn two_of_three_lost_at_once_stop_the_store_and_one_after_the_other_do_not() {
    let bench = Bench::new(3);
    let store = bench.create();
    bench.devices[0].1.fail_everything(true);
    done(store.commit(vec![1])).unwrap();
    bench.devices[1].1.fail_everything(true);
    done(store.commit(vec![2])).unwrap();
    assert_eq!(numbers(&store), vec![1, 2]);

    let bench = Bench::new(3);
    let store = bench.create();
    bench.devices[0].1.fail_everything(true);
    bench.devices[1].1.fail_everything(true);
    assert_eq!(
        done(store.commit(vec![1])),
        Err(StoreError::NoQuorum {
            written: 1,
            named: 3,
            needed: 2
        })
    );
    assert!(numbers(&store).is_empty());
    assert!(
        done(store.commit(vec![1])).is_err(),
        "nothing is built on a commit of unknown outcome"
    );
}

#[test]
fn a_copy_that_went_its_own_way_is_reported_and_not_merged() {
    let bench = Bench::new(2);
    let store = bench.create();
    done(store.commit(vec![1])).unwrap();
    for (alone, number) in [(0, 10), (1, 20)] {
        let (store, elected) = bench.open(&[alone]);
        assert!(!elected.quorum);
        assert_eq!(done(store.commit(vec![number])), Err(StoreError::NotTaken));
        done(store.take_holders(bench.handles(&[alone]), true)).unwrap();
        done(store.commit(vec![number])).unwrap();
    }
    let (_, elected) = bench.elect(&[0, 1]);
    assert!(!elected.quorum);
    assert_eq!(elected.diverged.len(), 1);
    let (copies, _) = bench.elect(&[0, 1]);
    let chosen = elect::elect(&copies, Some(bench.devices[1].0)).unwrap();
    let store: Store<Numbers> = done(Store::open(&copies, &chosen, bench.ids.clone())).unwrap();
    assert_eq!(numbers(&store), vec![1, 20]);
}

#[test]
fn the_copy_that_the_user_chose_replaces_a_longer_one_for_good() {
    let bench = Bench::new(2);
    done(bench.create().commit(vec![1])).unwrap();
    for (alone, numbers) in [(0, 10..60), (1, 60..61)] {
        let (store, _) = bench.open(&[alone]);
        done(store.take_holders(bench.handles(&[alone]), true)).unwrap();
        for number in numbers {
            done(store.commit(vec![number])).unwrap();
        }
    }
    let (copies, _) = bench.elect(&[0, 1]);
    let chosen = elect::elect(&copies, Some(bench.devices[1].0)).unwrap();
    let store: Store<Numbers> = done(Store::open(&copies, &chosen, bench.ids.clone())).unwrap();
    done(store.take_holders(bench.handles(&[0, 1]), true)).unwrap();
    let (store, elected) = bench.open(&[0, 1]);
    assert!(elected.quorum && elected.diverged.is_empty());
    assert_eq!(numbers(&store), vec![1, 60]);
}

#[test]
fn a_commit_that_reached_too_few_holders_is_no_divergence() {
    let bench = Bench::new(3);
    let store = bench.create();
    done(store.commit(vec![1])).unwrap();
    bench.devices[1].1.fail_everything(true);
    bench.devices[2].1.fail_everything(true);
    done(store.commit(vec![2])).unwrap_err();
    bench.devices[1].1.fail_everything(false);
    bench.devices[2].1.fail_everything(false);
    let store = bench.open_and_take(&[1, 2]);
    done(store.commit(vec![3])).unwrap();
    assert_eq!(numbers(&store), vec![1, 3]);
    let (_, elected) = bench.elect(&[0, 1, 2]);
    assert!(elected.diverged.is_empty());
    assert_eq!(numbers(&bench.open_and_take(&[0, 1, 2])), vec![1, 3]);
}

#[test]
fn a_torn_last_commit_leaves_the_one_before_it() {
    let bench = Bench::new(1);
    let store = bench.create();
    for number in 0..4 {
        done(store.commit(vec![number])).unwrap();
    }
    bench.damage(0, 0);
    assert_eq!(numbers(&bench.open_and_take(&[0])), vec![0, 1, 2]);
}

/// What can befall a sector within the log.
const DAMAGES: [fn(&MemoryDevice, usize); 3] = [
    |device, at| device.scribble(at + 100, &[device.content(at + 100, 1)[0] ^ 4]),
    |device, at| device.scribble(at, &[0; 4096]),
    |device, at| device.spoil(ByteRange::between(at as u64, at as u64 + 512)),
];

#[test]
fn a_single_holder_that_is_damaged_within_its_log_does_not_start_with_an_older_state() {
    for (damage, place) in DAMAGES
        .iter()
        .flat_map(|damage| (2..7).map(move |at| (damage, at)))
    {
        let bench = Bench::new(1);
        let store = bench.create();
        for number in 0..6 {
            done(store.commit(vec![number])).unwrap();
        }
        damage(&bench.devices[0].1, place * 4096);
        let (_, elected) = bench.elect(&[0]);
        assert!(!elected.quorum, "damaged at {place}");
        assert_eq!(elected.damaged, vec![bench.devices[0].0]);
        assert!(elected.missing.is_empty() && elected.diverged.is_empty());
    }
}

#[test]
fn what_stood_behind_damage_does_not_come_back_after_the_user_gave_it_up() {
    let bench = Bench::new(1);
    let store = bench.create();
    for number in 0..6 {
        done(store.commit(vec![number])).unwrap();
    }
    bench.damage(0, 2);
    let store = bench.force(&[0]);
    assert_eq!(numbers(&store), vec![0, 1, 2]);
    let mut expected = vec![0, 1, 2];
    for number in 100..160 {
        done(store.commit(vec![number])).unwrap();
        expected.push(number);
        let (store, elected) = bench.open(&[0]);
        assert!(elected.quorum && elected.damaged.is_empty());
        assert_eq!(numbers(&store), expected);
    }
}

#[test]
fn a_damaged_holder_costs_nothing_where_another_has_everything() {
    for damaged in [0, 1] {
        let bench = Bench::new(2);
        let store = bench.create();
        for number in 0..6 {
            done(store.commit(vec![number])).unwrap();
        }
        bench.damage(damaged, 2);
        let store = bench.open_and_take(&[0, 1]);
        assert_eq!(numbers(&store), (0..6).collect::<Vec<_>>());
        let (copies, elected) = bench.elect(&[0, 1]);
        assert!(elected.quorum);
        assert!(
            copies.iter().all(|copy| copy.tip() == Some(elected.tip)),
            "it was brought up to date"
        );
    }
}

#[test]
fn a_holder_that_was_left_behind_does_not_stand_in_for_a_damaged_one() {
    let bench = Bench::new(2);
    let store = bench.create();
    done(store.commit(vec![1])).unwrap();
    bench.devices[1].1.fail_everything(true);
    for number in 2..8 {
        done(store.commit(vec![number])).unwrap();
    }
    bench.devices[1].1.fail_everything(false);
    bench.damage(0, 2);
    let (store, elected) = bench.open(&[0, 1]);
    assert!(!elected.quorum);
    assert_eq!(elected.damaged, vec![bench.devices[0].0]);
    assert_eq!(numbers(&store), vec![1, 2, 3, 4], "the newest that can be read");
    assert_eq!(numbers(&bench.force(&[0, 1])), vec![1, 2, 3, 4]);
    assert_eq!(numbers(&bench.open_and_take(&[0, 1])), vec![1, 2, 3, 4]);
}

#[test]
fn a_commit_behind_damage_that_nobody_can_have_relied_on_stops_no_start() {
    let bench = Bench::new(3);
    let store = bench.create();
    for number in 0..6 {
        done(store.commit(vec![number])).unwrap();
    }
    bench.devices[1].1.fail_everything(true);
    bench.devices[2].1.fail_everything(true);
    done(store.commit(vec![6])).unwrap_err();
    bench.devices[1].1.fail_everything(false);
    bench.devices[2].1.fail_everything(false);
    bench.damage(0, 3);
    let store = bench.open_and_take(&[0, 1, 2]);
    assert_eq!(numbers(&store), (0..6).collect::<Vec<_>>());
}

#[test]
fn what_an_earlier_use_of_a_half_left_is_no_damage() {
    let bench = Bench::new(1);
    let store = bench.create();
    for number in 0..200 {
        done(store.commit(vec![number])).unwrap();
        let (_, elected) = bench.elect(&[0]);
        assert!(elected.quorum && elected.damaged.is_empty(), "{number}");
    }
    let stale = bench.devices[0].1.content(0, AREA_LEN);
    let frames = (0..AREA_LEN)
        .step_by(4096)
        .filter(|&at| &stale[at..at + 8] == b"ASHLRmet");
    assert!(frames.count() > 32, "both halves are full of frames");
}

#[test]
fn a_commit_that_a_crash_left_on_one_of_two_is_no_divergence_when_the_other_went_on_alone() {
    let bench = Bench::new(2);
    let store = bench.create();
    done(store.commit(vec![1])).unwrap();
    let before = bench.devices[0].1.content(0, AREA_LEN);
    done(store.commit(vec![9])).unwrap();
    bench.devices[0].1.scribble(0, &before);
    let store = bench.force(&[0]);
    done(store.commit(vec![2])).unwrap();
    let (_, elected) = bench.elect(&[0, 1]);
    assert!(elected.quorum, "{elected:?}");
    assert_eq!(numbers(&bench.open_and_take(&[0, 1])), vec![1, 2]);
}

#[test]
fn a_bad_place_where_nothing_that_counts_stands_costs_no_holder() {
    let bench = Bench::new(1);
    let store = bench.create();
    done(store.commit(vec![7])).unwrap();
    let half = AREA_LEN as u64 / 2;
    for bad in [half - 4096, half, 2 * half - 4096] {
        bench.devices[0].1.spoil(ByteRange::between(bad, bad + 512));
        assert_eq!(numbers(&bench.open(&[0]).0), vec![7], "{bad}");
    }
}

#[test]
fn a_generation_that_leaves_no_room_for_more_is_no_copy() {
    let bench = Bench::new(1);
    let tip = frame::Tip {
        generation: u64::MAX,
        id: CommitId::random(&bench.ids),
    };
    let log = LogId::random(&bench.ids);
    let named = frame::Named {
        holders: vec![bench.devices[0].0],
        before: Vec::new(),
    };
    let heads = [
        frame::Head::SnapshotStart {
            log,
            tip,
            named: named.clone(),
            history: frame::History::default(),
        },
        frame::Head::SnapshotEnd { tip, parts: 0 },
        frame::Head::Commit {
            log,
            commit: frame::Commit {
                tip: frame::Tip { generation: 0, ..tip },
                parent: tip.id,
                named,
            },
        },
    ];
    for (number, head) in heads.iter().enumerate() {
        let frame = frame::encode::<u32>(head, &[]);
        assert_eq!(frame.len(), 4096);
        bench.devices[0].1.scribble(number * 4096, frame.as_slice());
    }
    let (device, area) = bench.handles(&[0]).remove(0);
    assert_eq!(done(HolderCopy::read(device, area)).unwrap().tip(), None);
}

#[test]
fn a_holder_that_is_there_several_times_does_not_count_as_several() {
    let bench = Bench::new(1);
    let store = bench.create();
    done(store.commit(vec![1])).unwrap();
    let old = bench.devices[0].1.content(0, AREA_LEN);
    done(store.commit(vec![2])).unwrap();
    let clones = [MemoryDevice::new(AREA_LEN), MemoryDevice::new(AREA_LEN)];
    let mut copies = bench.elect(&[0]).0;
    for clone in &clones {
        clone.scribble(0, &old);
        let handle = clone.open_as(bench.devices[0].0);
        copies.push(done(HolderCopy::read(handle, area())).unwrap());
    }
    let elected = elect::elect(&copies, None).unwrap();
    assert!(elected.quorum);
    assert_eq!(elected.newest, 0);
}

#[test]
fn a_start_that_a_crash_cut_off_is_no_divergence_when_the_other_half_started_after_it() {
    let bench = Bench::new(4);
    let store = bench.create();
    done(store.commit(vec![1])).unwrap();
    let before = bench.devices[0].1.content(0, AREA_LEN);
    bench.open_and_take(&[0, 2, 3]);
    bench.devices[0].1.scribble(0, &before);
    let store = bench.force(&[0, 1]);
    done(store.commit(vec![2])).unwrap();
    let (_, elected) = bench.elect(&[0, 1, 2, 3]);
    assert!(elected.quorum, "{elected:?}");
    assert_eq!(numbers(&bench.open_and_take(&[0, 1, 2, 3])), vec![1, 2]);
}

#[test]
fn a_list_that_only_one_of_the_former_holders_has_is_not_built_on() {
    let bench = Bench::new(3);
    let store = bench.create();
    done(store.commit(vec![1])).unwrap();
    bench.devices[0].1.fail_everything(true);
    done(store.commit(vec![2])).unwrap();
    bench.devices[0].1.fail_everything(false);
    // The power failed when the second had the shorter list, and the third had not.
    bench.damage(2, 0);
    let (store, elected) = bench.open(&[1, 2]);
    assert!(elected.quorum);
    bench.devices[2].1.fail_everything(true);
    let refused = done(store.take_holders(bench.handles(&[1, 2]), false));
    assert!(
        matches!(refused, Err(StoreError::NoQuorum { named: 3, .. })),
        "{refused:?}"
    );
    bench.devices[2].1.fail_everything(false);
    assert_eq!(numbers(&bench.open_and_take(&[0, 2])), vec![1, 2]);
}
