//! A seeded host: one operation after the other on one volume, each told to the volume's oracle.
//!
//! Invariant: within redundancy no operation fails, so that every error is a violation, but for refusals asked for.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::SECTOR;
use super::dice::Dice;
use super::oracle::Oracle;
use super::register::Outcome;
use super::stage::Stage;
use super::tag;
use crate::export::{Target, ZeroOptions};
use crate::io::{IoBuf, IoError};
use crate::types::ByteRange;

/// Longest read or write.
const LONGEST: u64 = 256 << 10;

/// One connection to a volume.
pub struct Client<T> {
    pub target: Arc<T>,
    pub oracle: Rc<RefCell<Oracle>>,
    pub dice: Dice,
    pub stage: Arc<Stage>,
    /// Number of the volume, for the trace.
    pub volume: u32,
    /// Where all clients of the volume meet.
    pub hot: u64,
}

impl<T: Target> Client<T> {
    /// Runs `ops` random operations.
    pub async fn run(mut self, ops: u64) {
        for _ in 0..ops {
            match self.dice.below(100) {
                0..32 => self.read().await,
                32..75 => self.write().await,
                75..84 => self.zero().await,
                84..95 => self.flush().await,
                95..97 => self.overreach().await,
                _ => tokio::time::sleep(Duration::from_millis(self.dice.magnitude(7))).await,
            }
        }
    }

    async fn read(&mut self) {
        let range = self.range(LONGEST);
        self.read_range(range).await;
    }

    async fn read_range(&mut self, range: ByteRange) {
        let read = self.oracle.borrow_mut().begin_read(range);
        self.trace(format_args!("read {range}"));
        let segments = self.succeeded("read", self.target.read(range).await);
        self.trace(format_args!("read {range} done"));
        if let Err(violation) = self.oracle.borrow_mut().end_read(read, &segments) {
            panic!("{violation}");
        }
    }

    async fn write(&mut self) {
        let range = self.range(LONGEST);
        let fua = self.dice.chance(15);
        let write = self.oracle.borrow_mut().begin_write(range, false);
        let mut buf = IoBuf::new(usize::try_from(range.len()).expect("bounded"));
        tag::fill(buf.as_mut_slice(), write.id, range.start() / SECTOR);
        self.trace(format_args!("write {range} fua={fua} {:x}", write.id.0));
        let result = self.target.write(range.start(), buf.into_slice(), fua).await;
        self.succeeded("write", result);
        self.end_write(write, Outcome::Done { durable: fua });
    }

    async fn zero(&mut self) {
        let longest = if self.dice.chance(10) {
            self.target.info().capacity
        } else {
            LONGEST
        };
        let range = self.range(longest);
        let dice = &mut self.dice;
        let options = ZeroOptions {
            unmap: dice.chance(50),
            fast_only: dice.chance(10),
            fua: dice.chance(15),
        };
        let write = self.oracle.borrow_mut().begin_write(range, true);
        self.trace(format_args!("zero {range} {options:?} {:x}", write.id.0));
        match self.target.zero(range, options).await {
            Err(IoError::NotFast) if options.fast_only => self.end_write(write, Outcome::Refused),
            result => {
                self.succeeded("zero", result);
                self.end_write(write, Outcome::Done { durable: options.fua });
            }
        }
    }

    fn end_write(&self, write: super::oracle::Write, outcome: Outcome) {
        self.trace(format_args!("write {:x} {outcome:?}", write.id.0));
        if let Err(violation) = self.oracle.borrow_mut().end_write(write, outcome) {
            panic!("{violation}");
        }
    }

    /// Flushes; public for whoever wants a durable state.
    pub async fn flush(&mut self) {
        let flush = self.oracle.borrow_mut().begin_flush();
        self.trace(format_args!("flush"));
        let result = self.target.flush().await;
        self.succeeded("flush", result);
        self.trace(format_args!("flush done"));
        self.oracle.borrow_mut().end_flush(flush);
    }

    /// Asks for what is out of bounds, which must be refused.
    async fn overreach(&mut self) {
        let info = self.target.info();
        let range = ByteRange::between(info.capacity, info.capacity + u64::from(info.block));
        let read = self.target.read(range).await.map(drop);
        let zero = self.target.zero(range, ZeroOptions::default()).await;
        for answer in [read, zero] {
            assert!(
                matches!(answer, Err(IoError::OutOfBounds { .. })),
                "beyond the end: {answer:?}"
            );
        }
    }

    /// Reads everything, and compares the block status with it.
    pub async fn verify(&mut self) {
        let capacity = self.target.info().capacity;
        let step = self.dice.pick(&[64 << 10, 256 << 10, 1 << 20]);
        for range in ByteRange::between(0, capacity).split_at_multiples(step) {
            self.read_range(range).await;
            self.check_status(range).await;
        }
    }

    async fn check_status(&mut self, range: ByteRange) {
        let limit = 1 + self.dice.index(8);
        let runs = self.succeeded("block status", self.target.block_status(range, limit));
        assert!(
            !runs.is_empty() && runs.len() <= limit,
            "{} runs where {limit} were asked for",
            runs.len()
        );
        let mut at = range.start();
        for run in runs {
            let end = at
                .checked_add(run.len)
                .filter(|end| *end <= range.end() && run.len > 0);
            let end = end.unwrap_or_else(|| panic!("{run:?} at {at} reaches beyond {range}"));
            assert!(run.zero || !run.hole, "a hole reads as zeros: {run:?} at {at}");
            let blocks = ByteRange::between(at, end);
            if run.zero && blocks.is_aligned(u64::from(self.target.info().block)) {
                self.check_zeros(blocks).await;
            }
            at = end;
        }
    }

    /// What block status calls zeros must read as zeros. Only where nobody writes.
    async fn check_zeros(&mut self, range: ByteRange) {
        let segments = self.succeeded("read", self.target.read(range).await);
        let mut bytes = vec![0; usize::try_from(range.len()).expect("bounded")];
        crate::io::copy_segments(&segments, &mut bytes);
        assert!(
            bytes.iter().all(|byte| *byte == 0),
            "block status says zeros at {range}, reads say data"
        );
    }

    fn succeeded<A>(&self, what: &str, result: Result<A, IoError>) -> A {
        result.unwrap_or_else(|error| panic!("v{}: {what} failed within redundancy: {error}", self.volume))
    }

    /// Aligned, within the volume, at most `longest` bytes; half of the time around the hot place.
    fn range(&mut self, longest: u64) -> ByteRange {
        let info = self.target.info();
        let block = u64::from(info.block);
        let blocks = info.capacity / block;
        let most = (longest / block).min(blocks);
        let len = match self.dice.below(10) {
            0..4 => 1,
            4..8 => self.dice.between(1..=16),
            _ => self.dice.between(1..=most),
        };
        let len = len.min(most);
        let hot = self.hot / block % blocks;
        let start = match self.dice.below(10) {
            0..6 => (hot + self.dice.below(24)).saturating_sub(len / 2 + 8),
            6..7 => blocks - len,
            _ => self.dice.below(blocks),
        };
        let start = start.min(blocks - len);
        ByteRange::between(start * block, (start + len) * block)
    }

    fn trace(&self, line: std::fmt::Arguments<'_>) {
        self.stage.trace(format_args!("v{} {line}", self.volume));
    }
}
