//! Power loss at any write of any holder, holders that fail, holders that stay away: what a start finds is what was
//! acknowledged, and at most a commit besides of which nobody was told how it ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::tests::{Numbers, done, numbers};
use super::*;
use crate::device::{Completion, Device, DeviceError, DeviceHandle, DeviceInfo, Request, Started};
use crate::types::{ByteRange, DeviceId, IdSource};

const SECTOR: usize = 512;
/// Small, so that snapshots are frequent.
const AREA_LEN: usize = 192 << 10;
const LIVES: usize = 12;

/// What all devices hang on: how many writes and flushes are left until it fails.
#[derive(Default)]
struct Power(Mutex<Option<u32>>);

impl Power {
    fn is_out(&self) -> bool {
        *self.0.lock().unwrap() == Some(0)
    }

    fn set(&self, left: Option<u32>) {
        *self.0.lock().unwrap() = left;
    }

    fn spend(&self) {
        let mut left = self.0.lock().unwrap();
        *left = left.map(|left| left.saturating_sub(1));
    }
}

struct Content {
    durable: Vec<u8>,
    visible: Vec<u8>,
    /// By sector: what may become durable, oldest first.
    pending: BTreeMap<usize, Vec<[u8; SECTOR]>>,
    failed: bool,
}

/// A device in memory that answers at once and loses what was not flushed.
struct CrashDevice {
    content: Mutex<Content>,
    power: Arc<Power>,
}

impl CrashDevice {
    fn new(power: Arc<Power>) -> Self {
        let content = Content {
            durable: vec![0xaa; AREA_LEN],
            visible: vec![0xaa; AREA_LEN],
            pending: BTreeMap::new(),
            failed: false,
        };
        Self {
            content: Mutex::new(content),
            power,
        }
    }

    fn fail(&self) {
        self.content.lock().unwrap().failed = true;
    }

    /// Power comes back; the device is repaired.
    fn crash(&self, rng: &mut StdRng) {
        let keep = [0.0, 0.1, 0.5, 0.9, 1.0][rng.random_range(0..5)];
        let mut content = self.content.lock().unwrap();
        for (sector, versions) in std::mem::take(&mut content.pending) {
            if rng.random_bool(keep) {
                let kept = versions[rng.random_range(0..versions.len())];
                content.durable[sector * SECTOR..][..SECTOR].copy_from_slice(&kept);
            }
        }
        content.visible = content.durable.clone();
        content.failed = false;
    }
}

impl Content {
    fn write(&mut self, at: usize, data: &[u8], durable: bool) {
        self.visible[at..at + data.len()].copy_from_slice(data);
        for (index, sector) in data.chunks(SECTOR).enumerate() {
            let number = at / SECTOR + index;
            if durable {
                self.pending.remove(&number);
                self.durable[number * SECTOR..][..SECTOR].copy_from_slice(sector);
            } else {
                let versions = self.pending.entry(number).or_default();
                versions.push(sector.try_into().unwrap());
            }
        }
    }

    fn flush(&mut self) {
        for (sector, versions) in std::mem::take(&mut self.pending) {
            self.durable[sector * SECTOR..][..SECTOR].copy_from_slice(versions.last().unwrap());
        }
    }
}

impl Device for CrashDevice {
    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            capacity: AREA_LEN as u64,
            block: 512,
            zeroes_fast: true,
            volatile_cache: true,
        }
    }

    fn submit(&self, request: Request) -> Started {
        let mut content = self.content.lock().unwrap();
        let was_out = self.power.is_out();
        if !matches!(request, Request::Read { .. }) {
            self.power.spend();
        }
        let fails = content.failed || self.power.is_out();
        let mut buf = None;
        match request {
            // An operation that is cut short may have landed in part, one after the cut has not.
            Request::Write { at, data, fua } if !was_out => {
                content.write(usize::try_from(at).unwrap(), data.as_slice(), fua && !fails);
            }
            Request::Flush if !fails => content.flush(),
            Request::Read { at, buf: mut out } => {
                let (at, len) = (usize::try_from(at).unwrap(), out.len());
                out.as_mut_slice().copy_from_slice(&content.visible[at..at + len]);
                buf = Some(out);
            }
            Request::Zero { .. } => panic!("the metadata zeros no ranges"),
            Request::Write { .. } | Request::Flush => {}
        }
        let result = if fails {
            Err(DeviceError::Gone("no power, or failed".into()))
        } else {
            Ok(())
        };
        Started::Done(Completion { result, buf })
    }
}

/// The holders through many lives of the program, and what it was told.
struct Bench {
    rng: StdRng,
    ids: IdSource,
    power: Arc<Power>,
    devices: Vec<(DeviceId, Arc<CrashDevice>)>,
    acknowledged: Vec<u32>,
    /// Commits that may or may not stand behind the acknowledged ones.
    in_doubt: Vec<Vec<u32>>,
    /// What each device can no longer fall behind: a generation.
    floors: Vec<u64>,
}

impl Bench {
    fn new(seed: u64, holders: usize) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        let ids = IdSource::from_seed(seed);
        let power = Arc::new(Power::default());
        let devices: Vec<_> = (0..holders)
            .map(|_| {
                let device = Arc::new(CrashDevice::new(Arc::clone(&power)));
                (DeviceId::random(&ids), device)
            })
            .collect();
        Self {
            floors: vec![1; devices.len()],
            acknowledged: Vec::new(),
            in_doubt: Vec::new(),
            rng,
            ids,
            power,
            devices,
        }
    }

    fn all(&self) -> Vec<usize> {
        (0..self.devices.len()).collect()
    }

    fn create(&self) -> Store<Numbers> {
        done(Store::create(self.handles(&self.all()), self.ids.clone())).unwrap()
    }

    fn handles(&self, present: &[usize]) -> Vec<(Arc<DeviceHandle>, ByteRange)> {
        let area = ByteRange::between(0, AREA_LEN as u64);
        present
            .iter()
            .map(|&index| {
                let (id, device) = &self.devices[index];
                let device = Arc::clone(device) as Arc<dyn Device>;
                (Arc::new(DeviceHandle::new(*id, device)), area)
            })
            .collect()
    }

    fn copies(handles: &[(Arc<DeviceHandle>, ByteRange)]) -> Vec<HolderCopy> {
        handles
            .iter()
            .map(|(device, area)| done(HolderCopy::read(Arc::clone(device), *area)).unwrap())
            .collect()
    }

    /// The devices that are there this time, in any order.
    fn draw_present(&mut self) -> Vec<usize> {
        let mut present = self.all();
        if self.rng.random_bool(0.5) {
            present.retain(|_| self.rng.random_bool(0.8));
        }
        for last in (1..present.len()).rev() {
            present.swap(last, self.rng.random_range(0..=last));
        }
        present
    }

    /// Starts with the devices that are there; `None` where they may not, or the power fails again.
    fn start(&mut self, present: &[usize]) -> Option<Store<Numbers>> {
        let handles = self.handles(present);
        let copies = Self::copies(&handles);
        for (&index, copy) in present.iter().zip(&copies) {
            let tip = copy.tip().expect("a holder never loses its copy");
            assert!(tip.generation >= self.floors[index], "holder {index} fell back");
        }
        let elected = elect::elect(&copies, None)?;
        if !elected.quorum {
            assert!(
                present.len() < self.devices.len(),
                "all are there, yet: {elected:?}"
            );
            return None;
        }
        let store = done(Store::open(&copies, &elected, self.ids.clone())).unwrap();
        let found: Vec<u32> = numbers(&store);
        let unacknowledged = found.strip_prefix(&self.acknowledged[..]);
        let unacknowledged = unacknowledged.expect("everything that was acknowledged, in its order");
        assert!(
            unacknowledged.is_empty() || self.in_doubt.iter().any(|batch| batch == unacknowledged),
            "{unacknowledged:?} was not committed last"
        );
        for (&index, copy) in present.iter().zip(&copies) {
            let tip = copy.tip().expect("checked above");
            self.floors[index] = tip.generation.min(elected.tip.generation);
        }
        if self.rng.random_bool(0.8) {
            let left = self.rng.random_range(1..200);
            self.power.set(Some(left));
        }
        let fails = self
            .rng
            .random_bool(0.15)
            .then(|| self.rng.random_range(0..present.len()));
        if let Some(fails) = fails {
            self.devices[present[fails]].1.fail();
        }
        if done(store.take_holders(handles, false)).is_err() {
            assert!(self.power.is_out() || fails.is_some(), "every holder is well");
            return None;
        }
        self.acknowledged = found;
        self.in_doubt.clear();
        Some(store)
    }

    /// Commits until the power fails, too many holders have, or enough is done.
    fn commit(&mut self, store: &Store<Numbers>) {
        for _ in 0..self.rng.random_range(0..40) {
            if self.rng.random_bool(0.05) {
                let index = self.rng.random_range(0..self.devices.len());
                self.devices[index].1.fail();
            }
            let first: u32 = self.rng.random();
            let batch = vec![first; self.rng.random_range(1..30)];
            if done(store.commit(batch.clone())).is_err() {
                self.in_doubt.push(batch);
                return;
            }
            self.acknowledged.extend(batch);
            assert_eq!(numbers(store), self.acknowledged);
        }
    }

    fn crash(&mut self) {
        self.power.set(None);
        for (_, device) in &self.devices {
            device.crash(&mut self.rng);
        }
    }
}

fn run(seed: u64) {
    let holders = usize::try_from(seed % 5 + 1).unwrap();
    let mut bench = Bench::new(seed, holders);
    bench.create();
    for _ in 0..LIVES {
        let present = bench.draw_present();
        if let Some(store) = bench.start(&present) {
            bench.commit(&store);
        }
        bench.crash();
    }
    bench.start(&bench.all());
}

#[test]
fn a_start_finds_every_acknowledged_commit_whenever_the_power_failed() {
    let failed: Vec<u64> = (0..400)
        .filter(|&seed| std::panic::catch_unwind(|| run(seed)).is_err())
        .collect();
    assert!(failed.is_empty(), "seeds {failed:?}");
}

/// The program ends while a commit stands in a device's cache only, and starts again before the power fails.
#[test]
fn a_commit_that_a_start_found_is_not_lost_behind_a_newer_one() {
    for seed in 0..32 {
        let mut bench = Bench::new(seed, 1);
        let store = bench.create();
        done(store.commit(vec![1])).unwrap();
        bench.power.set(Some(1));
        done(store.commit(vec![2])).unwrap_err();
        bench.power.set(None);
        let (handles, copies) = (bench.handles(&[0]), Bench::copies(&bench.handles(&[0])));
        let elected = elect::elect(&copies, None).unwrap();
        let store: Store<Numbers> = done(Store::open(&copies, &elected, bench.ids.clone())).unwrap();
        assert_eq!(numbers(&store), vec![1, 2]);
        done(store.take_holders(handles, false)).unwrap();
        bench.crash();
        let copies = Bench::copies(&bench.handles(&[0]));
        let elected = elect::elect(&copies, None).unwrap();
        assert!(elected.quorum, "seed {seed}: {elected:?}");
        let store: Store<Numbers> = done(Store::open(&copies, &elected, bench.ids.clone())).unwrap();
        assert_eq!(numbers(&store), vec![1, 2]);
    }
}

/// Every place in a half comes up for the commit that the failure forces, and every write of it for the power's end.
#[test]
fn after_holders_failed_no_two_sets_of_the_others_may_both_start() {
    for (commits, left) in (0..24).flat_map(|commits| (1..24).map(move |left| (commits, left))) {
        let mut bench = Bench::new(commits, 5);
        let store = bench.create();
        for _ in 0..commits {
            done(store.commit(vec![0])).unwrap();
        }
        bench.devices[3].1.fail();
        bench.devices[4].1.fail();
        bench.power.set(Some(left));
        let _unknown = done(store.commit(vec![1]));
        bench.crash();
        for first in 0..5 {
            for second in 0..first {
                let (pair, others): (Vec<usize>, Vec<usize>) =
                    (0..5).partition(|index| [first, second].contains(index));
                let may_start = |present: &[usize]| {
                    let copies = Bench::copies(&bench.handles(present));
                    elect::elect(&copies, None).unwrap().quorum
                };
                assert!(
                    !(may_start(&pair) && may_start(&others)),
                    "{pair:?} and {others:?} after {commits} commits and {left} writes"
                );
            }
        }
    }
}
