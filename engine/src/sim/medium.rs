//! What a simulated device holds: content that survives a loss of power, and writes that may not.
//!
//! Invariants: a read sees every completed write and none that is still running. A write stays *pending* until a flush
//! that was submitted after its completion, or until it completes with `fua`; after that no older pending write to the
//! same sectors can come back. A loss of power keeps any part of any pending write, in any order.

use std::collections::BTreeMap;

use super::SECTOR;
use super::dice::Dice;
use super::image::{Background, Image};
use crate::types::ByteRange;

/// How a life of the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashKind {
    /// Each pending write survives in part, by chance.
    PowerLoss,
    /// The process is killed: completed writes stay, and stay pending; running ones survive in part.
    Killed,
}

/// Two writes to the same bytes that run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlap {
    pub running: ByteRange,
}

#[derive(Debug)]
struct Pending {
    range: ByteRange,
    /// `None` for zeros.
    data: Option<Box<[u8]>>,
    /// The parts that may still reach the medium.
    live: Vec<ByteRange>,
    /// Number of the completion; `None` while it runs.
    completed: Option<u64>,
}

impl Pending {
    fn land(&self, parts: &[ByteRange], image: &mut Image) {
        for part in parts {
            match &self.data {
                None => image.zero(*part),
                Some(data) => {
                    let offset =
                        usize::try_from(part.start() - self.range.start()).expect("within the buffer");
                    let len = usize::try_from(part.len()).expect("within the buffer");
                    image.write(part.start(), &data[offset..offset + len]);
                }
            }
        }
    }
}

#[derive(Debug)]
pub struct Medium {
    durable: Image,
    visible: Image,
    /// By number of submission. Overlapping writes never run together, so this is their order of completion too.
    pending: BTreeMap<u64, Pending>,
    completions: u64,
}

impl Medium {
    pub fn new(background: Background) -> Self {
        let durable = Image::new(background);
        Self {
            visible: durable.clone(),
            durable,
            pending: BTreeMap::new(),
            completions: 0,
        }
    }

    pub fn read(&self, at: u64, out: &mut [u8]) {
        self.visible.read(at, out);
    }

    /// Notes the submission of write number `op`; `data` is `None` for zeros. It is copied, so that the caller's buffer
    /// can be used again.
    ///
    /// # Errors
    /// Where another write to a part of `range` is running.
    pub fn begin(&mut self, op: u64, range: ByteRange, data: Option<&[u8]>) -> Result<(), Overlap> {
        let running = |p: &&Pending| p.completed.is_none() && p.range.overlaps(range);
        if let Some(other) = self.pending.values().find(running) {
            return Err(Overlap { running: other.range });
        }
        self.pending.insert(
            op,
            Pending {
                range,
                data: data.map(Box::from),
                live: vec![range],
                completed: None,
            },
        );
        Ok(())
    }

    /// The write is done; with `durable` it will also survive.
    pub fn complete(&mut self, op: u64, durable: bool) {
        let mut write = self.pending.remove(&op).expect("a write completes once");
        write.land(&write.live, &mut self.visible);
        self.completions += 1;
        if durable {
            write.land(&write.live, &mut self.durable);
            self.supersede(write.range);
        } else {
            write.completed = Some(self.completions);
            self.pending.insert(op, write);
        }
    }

    /// The write failed: any part of it may have landed.
    pub fn fail(&mut self, op: u64, dice: &mut Dice) {
        let mut write = self.pending.remove(&op).expect("a write fails once");
        write.live = some_of(write.range, dice);
        write.land(&write.live, &mut self.visible);
        self.completions += 1;
        write.completed = Some(self.completions);
        self.pending.insert(op, write);
    }

    /// The device says that the write is done, and forgets it.
    pub fn lose(&mut self, op: u64) {
        self.pending.remove(&op).expect("a write is lost once");
    }

    /// The write lands at `at` instead of its place.
    pub fn misdirect(&mut self, op: u64, at: u64) {
        let mut write = self.pending.remove(&op).expect("a write is misdirected once");
        write.range = ByteRange::between(at, at + write.range.len());
        write.live = vec![write.range];
        write.land(&write.live, &mut self.visible);
        write.land(&write.live, &mut self.durable);
        self.supersede(write.range);
    }

    /// What a flush submitted now must make durable.
    pub fn mark(&self) -> u64 {
        self.completions
    }

    /// Makes durable what had completed at `mark`.
    pub fn flush(&mut self, mark: u64) {
        let durable = &mut self.durable;
        self.pending.retain(|_, write| {
            let covered = write.completed.is_some_and(|number| number <= mark);
            if covered {
                write.land(&write.live, durable);
            }
            !covered
        });
    }

    /// A flush failed: of what had completed some is durable; the rest never will be, though it can be read.
    pub fn fail_flush(&mut self, dice: &mut Dice) {
        let (done, running) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|(_, w)| w.completed.is_some());
        self.pending = running;
        let done: BTreeMap<u64, Pending> = done;
        for write in done.values() {
            let kept: Vec<ByteRange> = write.live.iter().flat_map(|part| some_of(*part, dice)).collect();
            write.land(&kept, &mut self.durable);
        }
    }

    /// The program is gone. `keep_percent` is how likely each pending write survives whole.
    pub fn crash(&mut self, kind: CrashKind, keep_percent: u64, dice: &mut Dice) {
        let mut writes: Vec<(u64, Pending)> = std::mem::take(&mut self.pending).into_iter().collect();
        match kind {
            CrashKind::PowerLoss => {
                dice.shuffle(&mut writes);
                for (_, write) in &writes {
                    for part in &write.live {
                        let kept = if dice.chance(keep_percent) {
                            vec![*part]
                        } else {
                            remains(*part, dice)
                        };
                        write.land(&kept, &mut self.durable);
                    }
                }
                self.visible = self.durable.clone();
            }
            CrashKind::Killed => {
                for (op, mut write) in writes {
                    if write.completed.is_none() {
                        let whole = dice.chance(keep_percent);
                        write.live = if whole {
                            write.live
                        } else {
                            remains(write.range, dice)
                        };
                        write.land(&write.live, &mut self.visible);
                        write.completed = Some(self.completions);
                    }
                    self.pending.insert(op, write);
                }
            }
        }
    }

    /// Flips one bit at rest.
    pub fn flip(&mut self, at: u64, bit: u8) {
        for image in [&mut self.durable, &mut self.visible] {
            image.change(ByteRange::between(at, at + 1), |bytes| bytes[0] ^= 1 << bit);
        }
    }

    /// Address of a page that holds written data, near `at`.
    pub fn written_page(&self, at: u64) -> Option<u64> {
        self.visible.written_page(at)
    }

    fn supersede(&mut self, range: ByteRange) {
        self.pending.retain(|_, write| {
            if write.completed.is_some() && write.range.overlaps(range) {
                write.live = write.live.iter().flat_map(|part| without(*part, range)).collect();
            }
            !write.live.is_empty()
        });
    }
}

fn without(part: ByteRange, hole: ByteRange) -> impl Iterator<Item = ByteRange> {
    let before = ByteRange::between(part.start(), hole.start().clamp(part.start(), part.end()));
    let after = ByteRange::between(hole.end().clamp(part.start(), part.end()), part.end());
    [before, after].into_iter().filter(|piece| !piece.is_empty())
}

/// What is left of a write that did not survive whole: mostly nothing.
fn remains(range: ByteRange, dice: &mut Dice) -> Vec<ByteRange> {
    if dice.chance(60) {
        Vec::new()
    } else {
        some_of(range, dice)
    }
}

/// Some sectors of `range`: of small ranges any, of large ones any of some sixteen runs.
fn some_of(range: ByteRange, dice: &mut Dice) -> Vec<ByteRange> {
    let run = (range.len() / SECTOR).div_ceil(16).max(1) * SECTOR;
    range
        .split_at_multiples(run)
        .filter(|_| dice.chance(50))
        .collect()
}

#[cfg(test)]
mod tests;
