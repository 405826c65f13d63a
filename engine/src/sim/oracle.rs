//! The oracle of one volume: what each of its sectors may hold.
//!
//! Whoever drives the volume tells the oracle when each operation begins and ends. Its clock ticks at each of these,
//! so that "before" is exact. Sectors nobody wrote are not remembered: they hold zeros.
//!
//! What is promised, and checked: reads and writes of a sector are linearizable, over all connections; after a crash
//! a sector holds what a successful flush covered or something newer, and stays so once it was read; zeros by TRIM or
//! WRITE_ZEROES are writes like others.

use std::collections::{BTreeMap, BTreeSet};

use super::SECTOR;
use super::medium::CrashKind;
use super::register::{Outcome, Register};
use super::tag::{self, Content, WriteId};
use crate::io::{Segment, Segments};
use crate::types::ByteRange;

/// A broken promise.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Violation {
    #[error("volume {volume} sector {sector} was read as {content:?}, but is {register:?}")]
    Content {
        volume: u32,
        sector: u64,
        content: Content,
        register: Box<Register>,
    },
    #[error("volume {volume} answered a read of {range} with {len} bytes")]
    Length { volume: u32, range: ByteRange, len: u64 },
    #[error("volume {volume} sector {sector}: a write that was refused had been seen: {register:?}")]
    Refused {
        volume: u32,
        sector: u64,
        register: Box<Register>,
    },
}

/// A running write.
#[derive(Debug, Clone, Copy)]
pub struct Write {
    pub id: WriteId,
    range: ByteRange,
}

/// A running read.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    range: ByteRange,
    start: u64,
}

/// A running flush.
#[derive(Debug, Clone, Copy)]
pub struct Flush {
    start: u64,
}

#[derive(Debug)]
pub struct Oracle {
    /// Number of the volume in this run, which every [`WriteId`] carries.
    volume: u32,
    registers: BTreeMap<u64, Register>,
    /// What was acknowledged, when, and not flushed since.
    unflushed: Vec<(u64, ByteRange)>,
    /// Starts of the running reads.
    reads: BTreeSet<u64>,
    writes: u32,
    now: u64,
}

impl Oracle {
    pub fn new(volume: u32) -> Self {
        let (registers, reads) = (BTreeMap::new(), BTreeSet::new());
        Self {
            volume,
            registers,
            unflushed: Vec::new(),
            reads,
            writes: 0,
            now: 0,
        }
    }

    /// A write of [`tag::fill`]ed sectors, or of zeros, begins.
    pub fn begin_write(&mut self, range: ByteRange, zeros: bool) -> Write {
        self.writes += 1;
        let id = WriteId(u64::from(self.volume + 1) << 32 | u64::from(self.writes));
        let now = self.tick();
        let oldest = self.oldest_read();
        for sector in range.units(SECTOR) {
            let register = self.registers.entry(sector).or_default();
            register.prune(oldest);
            register.begin_write(id, zeros, now);
        }
        Write { id, range }
    }

    /// # Errors
    /// Where the outcome cannot be.
    pub fn end_write(&mut self, write: Write, outcome: Outcome) -> Result<(), Violation> {
        let now = self.tick();
        let volume = self.volume;
        for (&sector, register) in self.registers.range_mut(write.range.units(SECTOR)) {
            if !register.end_write(write.id, outcome, now) {
                return Err(Violation::Refused {
                    volume,
                    sector,
                    register: Box::new(register.clone()),
                });
            }
        }
        if outcome == (Outcome::Done { durable: false }) {
            self.unflushed.push((now, write.range));
        }
        Ok(())
    }

    pub fn begin_read(&mut self, range: ByteRange) -> Read {
        let start = self.tick();
        self.reads.insert(start);
        Read { range, start }
    }

    /// The read failed or was refused.
    pub fn drop_read(&mut self, read: Read) {
        self.reads.remove(&read.start);
    }

    /// # Errors
    /// Where `answer` is not what may be there.
    pub fn end_read(&mut self, read: Read, answer: &Segments) -> Result<(), Violation> {
        self.reads.remove(&read.start);
        let end = self.tick();
        let len = answer.iter().map(Segment::len).sum();
        if len != read.range.len() {
            return Err(Violation::Length {
                volume: self.volume,
                range: read.range,
                len,
            });
        }
        let mut at = read.range.start();
        for segment in answer {
            let range = ByteRange::between(at, at + segment.len());
            match segment {
                Segment::Zero(_) => self.check_zeros(range, read.start, end)?,
                Segment::Data(data) => self.check_data(range, data.as_slice(), read.start, end)?,
            }
            at = range.end();
        }
        Ok(())
    }

    pub fn begin_flush(&mut self) -> Flush {
        Flush { start: self.tick() }
    }

    /// The flush succeeded: what was acknowledged before it began is durable.
    pub fn end_flush(&mut self, flush: Flush) {
        self.tick();
        let covered = |&mut (acknowledged, _): &mut (u64, ByteRange)| acknowledged < flush.start;
        for (_, range) in self.unflushed.extract_if(.., covered) {
            for (_, register) in self.registers.range_mut(range.units(SECTOR)) {
                register.flushed(flush.start);
            }
        }
    }

    /// The program is gone, and with it every running operation.
    pub fn crash(&mut self, kind: CrashKind) {
        let now = self.tick();
        self.reads.clear();
        self.unflushed.clear();
        for (&sector, register) in &mut self.registers {
            register.crash(kind, now);
            if register.is_volatile() {
                self.unflushed
                    .push((now, ByteRange::between(sector * SECTOR, (sector + 1) * SECTOR)));
            }
        }
        self.registers.retain(|_, register| !register.is_blank());
    }

    fn check_zeros(&mut self, range: ByteRange, start: u64, end: u64) -> Result<(), Violation> {
        for (&sector, register) in self.registers.range_mut(range.units(SECTOR)) {
            let content = Content::Zeros;
            if !register.read(content, start, end) {
                return Err(Violation::Content {
                    volume: self.volume,
                    sector,
                    content,
                    register: Box::new(register.clone()),
                });
            }
        }
        Ok(())
    }

    fn check_data(&mut self, range: ByteRange, data: &[u8], start: u64, end: u64) -> Result<(), Violation> {
        let bytes_of_sector = usize::try_from(SECTOR).expect("small");
        let mut known = self.registers.range_mut(range.units(SECTOR)).peekable();
        for (sector, bytes) in range.units(SECTOR).zip(data.chunks(bytes_of_sector)) {
            let content = tag::recognize(bytes, sector);
            let mut blank = Register::default();
            let known = known.next_if(|(number, _)| **number == sector);
            let register = known.map_or(&mut blank, |(_, register)| register);
            if !register.read(content, start, end) {
                return Err(Violation::Content {
                    volume: self.volume,
                    sector,
                    content,
                    register: Box::new(register.clone()),
                });
            }
        }
        Ok(())
    }

    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn oldest_read(&self) -> u64 {
        self.reads.first().copied().unwrap_or(self.now)
    }
}

#[cfg(test)]
mod tests;
