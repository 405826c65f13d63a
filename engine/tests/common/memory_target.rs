//! A target in memory, for tests of the protocol above and for measuring the protocol alone.
//!
//! Invariant: bytes that were never written, or were zeroed with unmap, are holes and read as zeros.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ashlar_engine::export::{StatusRun, Target, TargetInfo, ZeroOptions};
use ashlar_engine::io::{BufSlice, IoBuf, IoError, Segment, Segments};
use ashlar_engine::types::ByteRange;
use tokio::sync::Semaphore;

/// What is stored or not, as a whole.
const PAGE: usize = 4096;

struct Content {
    bytes: Vec<u8>,
    /// For each page whether anything is stored there.
    stored: Vec<bool>,
}

pub(crate) struct MemoryTarget {
    content: Mutex<Content>,
    capacity: u64,
    flushes: AtomicU64,
    durable: AtomicU64,
    /// Where set, every write, zero and flush waits for a permit before it takes effect.
    gate: Option<Semaphore>,
    arrived: AtomicU64,
}

impl MemoryTarget {
    pub(crate) fn new(capacity: usize) -> Self {
        let content = Content {
            bytes: vec![0; capacity],
            stored: vec![false; capacity.div_ceil(PAGE)],
        };
        Self {
            content: Mutex::new(content),
            capacity: capacity as u64,
            flushes: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            gate: None,
            arrived: AtomicU64::new(0),
        }
    }

    /// A target whose writes wait for [`MemoryTarget::let_through`].
    #[allow(dead_code, reason = "of the users of this file only tests hold writes up")]
    pub(crate) fn gated(capacity: usize) -> Self {
        Self {
            gate: Some(Semaphore::new(0)),
            ..Self::new(capacity)
        }
    }

    /// Lets `count` writes, zeroes or flushes take effect.
    #[allow(dead_code, reason = "of the users of this file only tests hold writes up")]
    pub(crate) fn let_through(&self, count: usize) {
        self.gate.as_ref().expect("made with `gated`").add_permits(count);
    }

    /// Writes, zeroes and flushes so far, those held up included.
    #[allow(dead_code, reason = "of the users of this file only tests count")]
    pub(crate) fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Flushes so far.
    #[allow(dead_code, reason = "of the users of this file only tests count")]
    pub(crate) fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// Writes and zeroes with FUA so far.
    #[allow(dead_code, reason = "of the users of this file only tests count")]
    pub(crate) fn durable_writes(&self) -> u64 {
        self.durable.load(Ordering::Relaxed)
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, range: ByteRange) -> Result<std::ops::Range<usize>, IoError> {
        if range.end() > self.capacity {
            return Err(IoError::OutOfBounds {
                range,
                capacity: self.capacity,
            });
        }
        if !range.is_aligned(512) {
            return Err(IoError::Misaligned { range, block: 512 });
        }
        let index = |at| usize::try_from(at).expect("within the capacity");
        Ok(index(range.start())..index(range.end()))
    }

    async fn pass_gate(&self, fua: bool) {
        self.arrived.fetch_add(1, Ordering::Relaxed);
        if let Some(gate) = &self.gate {
            gate.acquire().await.expect("never closed").forget();
        }
        if fua {
            self.durable.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Target for MemoryTarget {
    fn info(&self) -> TargetInfo {
        TargetInfo {
            capacity: self.capacity,
            block: 512,
            preferred: 4096,
        }
    }

    async fn read(&self, range: ByteRange) -> Result<Segments, IoError> {
        let range = self.check(range)?;
        let content = self.content();
        let pages = range.start / PAGE..range.end.div_ceil(PAGE);
        if !content.stored[pages].contains(&true) {
            return Ok(Segments::from_elem(Segment::Zero(range.len() as u64), 1));
        }
        let mut buf = IoBuf::new(range.len());
        buf.as_mut_slice().copy_from_slice(&content.bytes[range]);
        Ok(Segments::from_elem(Segment::Data(buf.into_slice()), 1))
    }

    async fn write(&self, at: u64, data: BufSlice, fua: bool) -> Result<(), IoError> {
        let beyond = || IoError::NoSpace;
        let range = self.check(ByteRange::new(at, data.len() as u64).ok_or_else(beyond)?)?;
        self.pass_gate(fua).await;
        let mut content = self.content();
        content.stored[range.start / PAGE..range.end.div_ceil(PAGE)].fill(true);
        content.bytes[range].copy_from_slice(data.as_slice());
        Ok(())
    }

    async fn zero(&self, range: ByteRange, options: ZeroOptions) -> Result<(), IoError> {
        let range = self.check(range)?;
        self.pass_gate(options.fua).await;
        let mut content = self.content();
        let whole = range.start.div_ceil(PAGE)..range.end / PAGE;
        content.bytes[range].fill(0);
        if options.unmap && !whole.is_empty() {
            content.stored[whole].fill(false);
        }
        Ok(())
    }

    async fn flush(&self) -> Result<(), IoError> {
        self.pass_gate(false).await;
        self.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn block_status(&self, range: ByteRange, limit: usize) -> Result<Vec<StatusRun>, IoError> {
        self.check(range)?;
        let content = self.content();
        let mut runs: Vec<StatusRun> = Vec::new();
        for piece in range.split_at_multiples(PAGE as u64) {
            let page = usize::try_from(piece.start()).expect("within the capacity") / PAGE;
            let hole = !content.stored[page];
            let full = runs.len() == limit;
            match runs.last_mut() {
                Some(run) if run.hole == hole => run.len += piece.len(),
                _ if full => break,
                _ => runs.push(StatusRun {
                    len: piece.len(),
                    hole,
                    zero: hole,
                }),
            }
        }
        Ok(runs)
    }
}
