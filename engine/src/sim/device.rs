//! The simulated device.
//!
//! Its content outlives the program that uses it. Operations complete after a simulated time, in any order where they
//! run together; a submission beyond the end or misaligned, or a write over one that is running, breaks the contract
//! of [`crate::device`] and panics. Faults are switched on from outside, as the [`super::atlas`] allows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::dice::Dice;
use super::fault::{Fault, Faults};
use super::medium::{CrashKind, Medium};
use super::shape::DiskShape;
use super::stage::{Due, Stage};
use crate::device::{Completion, Device, DeviceError, DeviceInfo, Request, SlotId, Started, slots};
use crate::io::IoBuf;
use crate::types::ByteRange;

/// After so long without an answer the slot times out.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How long opening a device waits until nothing of an earlier opening runs any more: so often, with such pauses.
const DRAIN_LOOKS: u32 = 60;
const DRAIN_PAUSE: Duration = Duration::from_millis(50);

enum Work {
    Read { at: u64, buf: IoBuf },
    Write { range: ByteRange, fua: bool },
    Flush { mark: u64 },
}

struct Running {
    work: Work,
    /// `None` where the answer is given inline.
    slot: Option<SlotId>,
}

struct State {
    medium: Medium,
    /// Where silent faults may strike.
    checked: Vec<ByteRange>,
    faults: Faults,
    running: BTreeMap<u64, Running>,
    /// Operations that a stall holds back.
    parked: BTreeSet<u64>,
}

struct Disk {
    index: usize,
    shape: DiskShape,
    stage: Arc<Stage>,
    state: Mutex<State>,
}

/// A simulated device. Clones are the same device.
#[derive(Clone)]
pub struct SimDevice(Arc<Disk>);

impl SimDevice {
    pub fn new(index: usize, shape: DiskShape, stage: Arc<Stage>) -> Self {
        let medium = Medium::new(shape.background);
        let state = State {
            medium,
            checked: shape.checked.into_iter().collect(),
            faults: Faults::default(),
            running: BTreeMap::new(),
            parked: BTreeSet::new(),
        };
        Self(Arc::new(Disk {
            index,
            shape,
            stage,
            state: Mutex::new(state),
        }))
    }

    /// Its place in the shape's list of disks.
    pub fn index(&self) -> usize {
        self.0.index
    }

    /// Whether it holds and answers everything that it was told.
    pub fn intact(&self) -> bool {
        self.0.lock().faults.intact()
    }

    /// Whether operations fail or hang, or have failed unnoticed; bad sectors are no failure.
    pub fn fails(&self) -> bool {
        self.0.lock().faults.failing()
    }

    /// Whether it answers at all.
    pub fn answers(&self) -> bool {
        let state = self.0.lock();
        !state.faults.dead && !state.faults.stalled
    }

    /// Silent faults may strike in these ranges, too, and no longer in what was named here before.
    pub fn also_check(&self, ranges: impl IntoIterator<Item = ByteRange>) {
        self.0.lock().checked = self.0.shape.checked.into_iter().chain(ranges).collect();
    }

    /// Switches `fault` on. A silent one touches nothing but checked ranges.
    pub fn hurt(&self, fault: Fault) {
        self.0
            .stage
            .trace(format_args!("d{} fault {fault:?}", self.0.index));
        let mut state = self.0.lock();
        self.0.stage.dice(|dice| state.hurt(fault, &self.0.shape, dice));
    }

    /// Ends every fault but what is written wrong or unreadable on the medium.
    pub fn heal(&self) {
        self.0.stage.trace(format_args!("d{} heals", self.0.index));
        let parked = {
            let mut state = self.0.lock();
            state.faults.heal();
            std::mem::take(&mut state.parked)
        };
        for op in parked {
            self.0
                .stage
                .schedule(op, self.0.clone(), Duration::from_millis(1));
        }
    }

    /// Whether it answers, and every sector can be read.
    pub fn is_readable(&self) -> bool {
        self.answers() && self.0.lock().faults.bad.is_empty()
    }

    /// Waits a little for what the program has running here; whether it has ended. A device is not given to the program
    /// anew while the operating system works on anything for it.
    pub async fn drain(&self) -> bool {
        let begun: BTreeSet<u64> = self.0.lock().running.keys().copied().collect();
        let runs = || self.0.lock().running.keys().any(|op| begun.contains(op));
        for _ in 0..DRAIN_LOOKS {
            if !runs() {
                return true;
            }
            tokio::time::sleep(DRAIN_PAUSE).await;
        }
        false
    }

    /// The program is told to do without it: it must not be counted on any more.
    pub fn distrust(&self) {
        self.0.lock().faults.suspect = true;
    }

    /// The program has taken note of the errors so far.
    pub fn noticed(&self) {
        self.0.lock().faults.suspect = false;
    }

    /// The program is gone; called between two lives.
    pub fn crash(&self, kind: CrashKind) {
        let mut state = self.0.lock();
        state.running.clear();
        state.parked.clear();
        state.faults.suspect = false;
        self.0.stage.dice(|dice| {
            let keep_percent = dice.pick(&[0, 10, 50, 90, 100]);
            state.medium.crash(kind, keep_percent, dice);
        });
    }
}

impl Device for SimDevice {
    fn info(&self) -> DeviceInfo {
        let shape = &self.0.shape;
        DeviceInfo {
            capacity: shape.capacity,
            block: shape.block,
            zeroes_fast: shape.zeroes_fast,
            volatile_cache: shape.volatile_cache,
        }
    }

    fn submit(&self, request: Request) -> Started {
        let disk = &self.0;
        if disk.stage.has_crashed() {
            return Started::Pending(slots::allocate(None));
        }
        let op = disk.stage.next_op();
        disk.describe(op, &request);
        let inline = disk.begin(op, request);
        disk.stage.event();
        if inline && !disk.stage.has_crashed() {
            return Started::Done(disk.finish(op).1);
        }
        let slot = slots::allocate(Some(ANSWER_LIMIT));
        let mut state = disk.lock();
        state.running.get_mut(&op).expect("begun above").slot = Some(slot);
        if state.faults.stalled {
            state.parked.insert(op);
        } else {
            drop(state);
            disk.stage.schedule(op, disk.clone(), disk.delay());
        }
        Started::Pending(slot)
    }
}

impl Due for Disk {
    fn deliver(self: Arc<Self>, op: u64) {
        let mut state = self.lock();
        if state.faults.stalled {
            state.parked.insert(op);
            return;
        }
        drop(state);
        let (slot, completion) = self.finish(op);
        slots::complete(slot.expect("a delivered operation has a slot"), completion);
    }
}

impl Disk {
    fn describe(&self, op: u64, request: &Request) {
        let (disk, stage) = (self.index, &self.stage);
        match request {
            Request::Read { at, buf } => stage.trace(format_args!("d{disk} #{op} read {at}+{}", buf.len())),
            Request::Write { at, data, fua } => {
                let (len, sum) = (data.len(), crate::types::crc::crc32c(data.as_slice()));
                stage.trace(format_args!("d{disk} #{op} write {at}+{len} fua={fua} {sum:08x}"));
            }
            Request::Flush => stage.trace(format_args!("d{disk} #{op} flush")),
            Request::Zero { range, unmap } => {
                stage.trace(format_args!("d{disk} #{op} zero {range} unmap={unmap}"));
            }
        }
    }

    /// Takes the operation on. Answers whether it is to be answered inline.
    fn begin(&self, op: u64, request: Request) -> bool {
        let mut state = self.lock();
        let work = match request {
            Request::Read { at, buf } => {
                self.check(op, at, buf.len() as u64);
                Work::Read { at, buf }
            }
            Request::Write { at, data, fua } => {
                let range = self.check(op, at, data.len() as u64);
                self.check_memory(op, data.as_slice());
                self.exclusive(op, state.medium.begin(op, range, Some(data.as_slice())));
                Work::Write { range, fua }
            }
            Request::Zero { range, .. } => {
                self.check(op, range.start(), range.len());
                self.exclusive(op, state.medium.begin(op, range, None));
                Work::Write { range, fua: false }
            }
            Request::Flush => Work::Flush {
                mark: state.medium.mark(),
            },
        };
        state.running.insert(op, Running { work, slot: None });
        !state.faults.stalled && self.stage.dice(|dice| dice.chance(self.shape.inline_percent))
    }

    /// # Panics
    /// Where the caller breaks the contract: the range must have been checked above.
    fn check(&self, op: u64, at: u64, len: u64) -> ByteRange {
        let range = ByteRange::new(at, len).filter(|r| r.end() <= self.shape.capacity && !r.is_empty());
        let range = range.filter(|range| range.is_aligned(u64::from(self.shape.block)));
        range.unwrap_or_else(|| panic!("d{} #{op}: {at}+{len} does not fit {:?}", self.index, self.shape))
    }

    /// As a disk that is used past the page cache wants it.
    ///
    /// # Panics
    /// Where the caller breaks the contract.
    fn check_memory(&self, op: u64, bytes: &[u8]) {
        let aligned = bytes.as_ptr().addr().is_multiple_of(self.shape.block as usize);
        assert!(aligned, "d{} #{op}: memory at {:p}", self.index, bytes.as_ptr());
    }

    fn exclusive(&self, op: u64, begun: Result<(), super::medium::Overlap>) {
        if let Err(overlap) = begun {
            panic!(
                "d{} #{op} writes over a write that is running at {}",
                self.index, overlap.running
            );
        }
    }

    /// Mostly a few milliseconds, sometimes a second.
    fn delay(&self) -> Duration {
        self.stage.dice(|dice| {
            let milliseconds = if dice.chance(2) {
                dice.magnitude(10)
            } else {
                dice.between(1..=6)
            };
            Duration::from_millis(milliseconds)
        })
    }

    fn finish(&self, op: u64) -> (Option<SlotId>, Completion) {
        let mut state = self.lock();
        let running = state.running.remove(&op).expect("an operation ends once");
        let (result, buf) = match running.work {
            Work::Read { at, mut buf } => (state.read(at, &mut buf), Some(buf)),
            Work::Write { range, fua } => {
                let durable = fua || !self.shape.volatile_cache;
                (
                    self.stage.dice(|dice| state.write(op, range, durable, dice)),
                    None,
                )
            }
            Work::Flush { mark } => (self.stage.dice(|dice| state.flush(mark, dice)), None),
        };
        state.faults.suspect |= result.as_ref().is_err_and(|error| *error != DeviceError::Medium);
        drop(state);
        match &result {
            Ok(()) => self.stage.trace(format_args!("d{} #{op} done", self.index)),
            Err(error) => self.stage.trace(format_args!("d{} #{op} {error}", self.index)),
        }
        self.stage.event();
        (running.slot, Completion { result, buf })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn read(&self, at: u64, buf: &mut IoBuf) -> Result<(), DeviceError> {
        if self.faults.dead {
            return Err(gone());
        }
        if self
            .faults
            .unreadable(ByteRange::between(at, at + buf.len() as u64))
        {
            return Err(DeviceError::Medium);
        }
        self.medium.read(at, buf.as_mut_slice());
        Ok(())
    }

    fn write(
        &mut self,
        op: u64,
        range: ByteRange,
        durable: bool,
        dice: &mut Dice,
    ) -> Result<(), DeviceError> {
        if self.faults.dead {
            self.medium.fail(op, dice);
            return Err(gone());
        }
        if self.faults.full {
            self.medium.lose(op);
            return Err(DeviceError::NoSpace);
        }
        if Faults::spend(&mut self.faults.write_errors) {
            self.medium.fail(op, dice);
            return Err(DeviceError::Os(5));
        }
        let checked = self.checked.iter().find(|checked| checked.covers(range)).copied();
        if let Some(checked) = checked {
            if Faults::spend(&mut self.faults.lost_writes) {
                self.medium.lose(op);
                self.faults.scar(range);
                return Ok(());
            }
            if Faults::spend(&mut self.faults.misdirected_writes) {
                let blocks = (checked.len() - range.len()) / super::SECTOR;
                let at = checked.start() + dice.between(0..=blocks) * super::SECTOR;
                self.medium.misdirect(op, at);
                self.faults.scar(range);
                self.faults.scar(ByteRange::between(at, at + range.len()));
                return Ok(());
            }
        }
        self.medium.complete(op, durable);
        self.faults.mend(range);
        Ok(())
    }

    fn flush(&mut self, mark: u64, dice: &mut Dice) -> Result<(), DeviceError> {
        if self.faults.dead {
            return Err(gone());
        }
        if Faults::spend(&mut self.faults.flush_errors) {
            self.medium.fail_flush(dice);
            return Err(DeviceError::Os(5));
        }
        self.medium.flush(mark);
        Ok(())
    }

    fn hurt(&mut self, fault: Fault, shape: &DiskShape, dice: &mut Dice) {
        match fault {
            Fault::Death => self.faults.dead = true,
            Fault::Stall => self.faults.stalled = true,
            Fault::Full => self.faults.full = true,
            Fault::WriteErrors(count) => self.faults.write_errors += count,
            Fault::FlushError => self.faults.flush_errors += 1,
            Fault::LostWrite => self.faults.lost_writes += 1,
            Fault::MisdirectedWrite => self.faults.misdirected_writes += 1,
            Fault::BadSectors(count) => {
                for _ in 0..count {
                    let near = dice.below(shape.capacity);
                    if let Some(page) = self.medium.written_page(near) {
                        self.faults.bad.insert(page / super::SECTOR + dice.below(8));
                    }
                }
            }
            Fault::BitFlip => {
                if self.checked.is_empty() {
                    return;
                }
                let checked = self.checked[dice.index(self.checked.len())];
                let near = checked.start() + dice.below(checked.len());
                let page = self.medium.written_page(near).unwrap_or(near - near % 4096);
                let at = page + dice.below(4096);
                if checked.contains(at) {
                    self.medium
                        .flip(at, u8::try_from(dice.below(8)).expect("below 8"));
                    self.faults.scar(ByteRange::between(at, at + 1));
                }
            }
        }
    }
}

fn gone() -> DeviceError {
    DeviceError::Gone("simulated death".into())
}

impl std::fmt::Debug for SimDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "d{}", self.0.index)
    }
}

#[cfg(test)]
mod tests;
