//! What is asked of a volume: so many requests at once, each followed by the next.
//!
//! Each request gives way once before it begins, as one that comes over a connection does. Its latency counts from before
//! that: whatever keeps the data thread busy keeps a host waiting.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ashlar_engine::io::target::Target as _;
use ashlar_engine::io::{BufSlice, IoBuf};
use ashlar_engine::types::ByteRange;
use ashlar_engine::types::bytes::MIB;
use ashlar_engine::volume::Volume;
use rustix::time::{ClockId, clock_gettime};

use crate::bed::Bed;
use crate::counting::Counts;

#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) writes: bool,
    pub(crate) random: bool,
    /// Bytes of a request.
    pub(crate) block: u64,
    pub(crate) depth: usize,
}

impl Load {
    pub(crate) fn sequential_read() -> Self {
        Self {
            writes: false,
            random: false,
            block: MIB,
            depth: 4,
        }
    }

    pub(crate) fn sequential_write() -> Self {
        Self {
            writes: true,
            ..Self::sequential_read()
        }
    }

    pub(crate) fn random_read(depth: usize) -> Self {
        Self {
            writes: false,
            random: true,
            block: 4096,
            depth,
        }
    }

    pub(crate) fn random_write(depth: usize) -> Self {
        Self {
            writes: true,
            ..Self::random_read(depth)
        }
    }

    pub(crate) fn name(self) -> String {
        let Self {
            writes,
            random,
            block,
            depth,
        } = self;
        let order = if random { "random" } else { "sequential" };
        let what = if writes { "write" } else { "read" };
        format!("{order} {what} {} KiB, {depth} at once", block >> 10)
    }
}

/// When a load ends.
pub(crate) enum Until {
    Elapsed(Duration),
    /// Each address was asked for once.
    Through,
    Told(Rc<Cell<bool>>),
}

/// What a load came to.
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
    /// Of the processor, for all that the process did.
    pub(crate) processor: Duration,
    pub(crate) counts: Counts,
    latencies: Vec<Duration>,
}

impl Outcome {
    pub(crate) fn requests_per_second(&self) -> f64 {
        self.requests as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.took.as_secs_f64()
    }

    /// Seconds of the processor per request.
    pub(crate) fn processor_per_request(&self) -> f64 {
        self.processor.as_secs_f64() / self.requests as f64
    }

    /// How many there were of something, per request.
    pub(crate) fn per_request(&self, count: u64) -> f64 {
        count as f64 / self.requests as f64
    }

    /// Seconds that 99 of 100 requests took at most.
    pub(crate) fn p99(&self) -> f64 {
        let mut latencies = self.latencies.clone();
        latencies.sort_unstable();
        let index = latencies.len() * 99 / 100;
        latencies.get(index).map_or(f64::NAN, Duration::as_secs_f64)
    }
}

/// By which time is measured.
#[derive(Clone, Copy)]
pub(crate) enum Clock {
    OfTheDay,
    /// Time on the processor: where nothing else is waited for, it counts on a machine that does other things too.
    Processor,
}

impl Clock {
    /// The time since some moment.
    pub(crate) fn now(self) -> Duration {
        match self {
            Self::OfTheDay => time_of(ClockId::Monotonic),
            Self::Processor => time_of(ClockId::ProcessCPUTime),
        }
    }
}

fn time_of(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).expect("time runs forwards");
    let nanos = u32::try_from(time.tv_nsec).expect("less than a second");
    Duration::new(seconds, nanos)
}

/// What the workers of a load share.
struct Work {
    volume: Arc<Volume>,
    load: Load,
    blocks: u64,
    through: bool,
    is_over: Rc<Cell<bool>>,
    clock: Clock,
    begun: Cell<u64>,
    seed: Cell<u64>,
    data: BufSlice,
    latencies: RefCell<Vec<Duration>>,
}

impl Work {
    /// The address of the next request, if there is one.
    fn next(&self) -> Option<u64> {
        let number = self.begun.get();
        if self.is_over.get() || self.through && number == self.blocks {
            return None;
        }
        self.begun.set(number + 1);
        let block = if self.load.random { self.chance() } else { number };
        Some(block % self.blocks * self.load.block)
    }

    /// Marsaglia's xorshift.
    fn chance(&self) -> u64 {
        let mut seed = self.seed.get();
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        self.seed.set(seed);
        seed >> 16
    }

    async fn one_after_another(&self) {
        while let Some(at) = self.next() {
            let begun = self.clock.now();
            tokio::task::yield_now().await;
            if self.load.writes {
                let written = self.volume.write(at, self.data.clone(), false).await;
                written.expect("the files do not fail");
            } else {
                let read = self
                    .volume
                    .read(ByteRange::between(at, at + self.load.block))
                    .await;
                drop(read.expect("the files do not fail"));
            }
            self.latencies.borrow_mut().push(self.clock.now() - begun);
        }
    }
}

/// Runs a load on the volume of a bed. Of writes it counts until all is durable and in place.
pub(crate) async fn run(bed: &Bed, load: Load, until: Until) -> Outcome {
    let is_over = match &until {
        Until::Told(told) => Rc::clone(told),
        Until::Elapsed(_) | Until::Through => Rc::default(),
    };
    let (counts, processor, begun) = (bed.counts(), Clock::Processor.now(), bed.clock.now());
    let work = Rc::new(Work {
        volume: Arc::clone(&bed.volume),
        load,
        blocks: bed.bytes / load.block,
        through: matches!(until, Until::Through),
        is_over: Rc::clone(&is_over),
        clock: bed.clock,
        begun: Cell::new(0),
        seed: Cell::new(bed.ids.below(u64::MAX - 1) + 1),
        data: content(load.block),
        latencies: RefCell::default(),
    });
    let workers: Vec<_> = (0..load.depth)
        .map(|_| {
            let work = Rc::clone(&work);
            tokio::task::spawn_local(async move { work.one_after_another().await })
        })
        .collect();
    if let Until::Elapsed(time) = until {
        tokio::time::sleep(time).await;
        is_over.set(true);
    }
    for worker in workers {
        worker.await.expect("a request does not panic");
    }
    if load.writes {
        bed.finish_writes().await;
    }
    Outcome {
        requests: work.begun.get(),
        bytes: work.begun.get() * load.block,
        took: bed.clock.now() - begun,
        processor: Clock::Processor.now() - processor,
        counts: bed.counts() - counts,
        latencies: work.latencies.take(),
    }
}

/// So many bytes that are not all alike.
pub(crate) fn content(len: u64) -> BufSlice {
    let len = usize::try_from(len).expect("at most 1 MiB");
    let mut buf = IoBuf::new(len);
    for (index, byte) in (0_u32..).zip(buf.as_mut_slice()) {
        *byte = index.wrapping_mul(0x9e37_79b9).to_le_bytes()[3];
    }
    buf.into_slice()
}
