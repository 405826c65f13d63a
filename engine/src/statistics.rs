//! What was asked of a volume, a device or an export, and how long it took.
//!
//! Every thread counts in a shard of its own, which no other thread writes; who wants to know sums them. Counting takes
//! no lock and allocates once per thread and object. A request is counted when it begins, so that its end, most often,
//! has nothing to do. Reading the clock would cost more than all the rest, so only one request in [`SAMPLED`] of a kind
//! and thread is timed.
//!
//! Invariants: what is counted is never uncounted; a request is begun and ended on one thread.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::time::Instant;

/// One request in so many is timed.
pub const SAMPLED: u64 = 32;

/// Buckets of a histogram: up to 1 µs, 2 µs, 4 µs and so on to 2²⁴ µs (16.8 s), and above.
pub const BUCKETS: usize = 26;

/// Threads with shards of their own; all further ones share the last.
const SHARDS: usize = 64;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    Flush,
    /// Zeroing and trimming.
    Zero,
}

const KINDS: usize = 4;

/// Requests of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Those that began.
    pub requests: u64,
    /// Those that ended with an error.
    pub errors: u64,
    /// Bytes that were to be transferred or zeroed.
    pub bytes: u64,
    /// Of the requests that were timed, how many took so long.
    pub latencies: [u64; BUCKETS],
    /// Microseconds that the timed requests took together.
    pub micros: u64,
}

/// Everything that was asked of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Activity([Totals; KINDS]);

impl Activity {
    pub fn of(&self, kind: Kind) -> &Totals {
        &self.0[kind as usize]
    }

    /// Requests of every kind.
    pub fn requests(&self) -> u64 {
        self.0.iter().map(|totals| totals.requests).sum()
    }
}

impl std::ops::AddAssign for Activity {
    fn add_assign(&mut self, other: Self) {
        for (sum, more) in self.0.iter_mut().zip(&other.0) {
            sum.requests += more.requests;
            sum.errors += more.errors;
            sum.bytes += more.bytes;
            sum.micros += more.micros;
            for (sum, more) in sum.latencies.iter_mut().zip(more.latencies) {
                *sum += more;
            }
        }
    }
}

/// The counters of one thing. Take no room until something is counted.
#[derive(Debug, Default)]
pub struct Counters(OnceLock<Box<[OnceLock<Box<Shard>>; SHARDS]>>);

/// The counters of one thread. Lines of their own, also where the processor fetches two at once.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard([KindShard; KINDS]);

#[derive(Debug, Default)]
struct KindShard {
    requests: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    micros: AtomicU64,
    latencies: [AtomicU64; BUCKETS],
}

/// A request that runs. Counts when it is dropped: as an error unless it was told otherwise.
#[derive(Debug)]
pub struct Request<'a> {
    counters: &'a Counters,
    meter: Meter,
    succeeded: bool,
}

/// What is to be remembered of a request while it runs: the kind in the lowest two bits and, where it is timed, the
/// nanosecond in which it began above them; else 0. Small, for it travels with every operation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meter(u64);

impl Meter {
    fn kind(self) -> usize {
        usize::from(self.0.to_le_bytes()[0] & 3)
    }

    /// What was asked for.
    pub fn asked(self) -> Kind {
        [Kind::Read, Kind::Write, Kind::Flush, Kind::Zero][self.kind()]
    }

    /// When it began, on [`clock`].
    fn begun(self) -> Option<u64> {
        Some(self.0 >> 2).filter(|nanos| *nanos > 0)
    }
}

/// This thread's place among the shards.
#[inline]
fn place() -> usize {
    thread_local! {
        static PLACE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    PLACE.with(|place| {
        if place.get() == usize::MAX {
            take_place(place);
        }
        place.get()
    })
}

#[cold]
#[inline(never)]
fn take_place(place: &Cell<usize>) {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    place.set(THREADS.fetch_add(1, Ordering::Relaxed).min(SHARDS - 1));
}

/// Nanoseconds since the first call, and one.
#[cold]
#[inline(never)]
fn clock() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let now = Instant::now();
    let since = now.saturating_duration_since(*FIRST.get_or_init(|| now));
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX / 8) + 1
}

/// Adds to a counter of the shard at `place`; answers what it was.
#[inline]
fn add(place: usize, counter: &AtomicU64, more: u64) -> u64 {
    if place == SHARDS - 1 {
        return counter.fetch_add(more, Ordering::Relaxed);
    }
    // Only this thread writes here: nothing is lost between the two, and it costs a fifth.
    let before = counter.load(Ordering::Relaxed);
    counter.store(before.wrapping_add(more), Ordering::Relaxed);
    before
}

impl Counters {
    #[inline]
    fn shard(&self, place: usize) -> &Shard {
        let known = self.0.get().and_then(|shards| shards[place].get());
        match known {
            Some(shard) => shard,
            None => self.new_shard(place),
        }
    }

    #[cold]
    #[inline(never)]
    fn new_shard(&self, place: usize) -> &Shard {
        let shards = self
            .0
            .get_or_init(|| Box::new([const { OnceLock::new() }; SHARDS]));
        shards[place].get_or_init(Box::default)
    }

    /// A request begins that will transfer so many bytes.
    #[inline]
    pub fn begin(&self, kind: Kind, bytes: u64) -> Request<'_> {
        Request {
            counters: self,
            meter: self.meter(kind, bytes),
            succeeded: false,
        }
    }

    /// A request begins whose end [`end`](Self::end) is told.
    #[inline]
    pub fn meter(&self, kind: Kind, bytes: u64) -> Meter {
        let is_timed = self.count(kind, bytes).is_multiple_of(SAMPLED);
        let begun = if is_timed { clock() } else { 0 };
        Meter(begun << 2 | kind as u64)
    }

    /// Counts a request that begins; answers how many there were before it.
    #[inline]
    fn count(&self, kind: Kind, bytes: u64) -> u64 {
        let place = place();
        let shard = &self.shard(place).0[kind as usize];
        add(place, &shard.bytes, bytes);
        add(place, &shard.requests, 1)
    }

    /// A request has ended.
    #[inline]
    pub fn end(&self, meter: Meter, succeeded: bool) {
        if !succeeded || meter.begun().is_some() {
            self.note_end(meter, succeeded);
        }
    }

    #[cold]
    #[inline(never)]
    fn note_end(&self, meter: Meter, succeeded: bool) {
        let place = place();
        let shard = &self.shard(place).0[meter.kind()];
        if !succeeded {
            add(place, &shard.errors, 1);
        }
        if let Some(begun) = meter.begun() {
            let took = clock().saturating_sub(begun);
            let micros = took.div_ceil(1000);
            add(place, &shard.micros, micros);
            add(place, &shard.latencies[bucket(micros)], 1);
        }
    }

    /// All that was counted; `None` where nothing was.
    pub fn sum(&self) -> Option<Activity> {
        let shards = self.0.get()?;
        let mut activity = Activity::default();
        for shard in shards.iter().filter_map(OnceLock::get) {
            for (totals, kind) in activity.0.iter_mut().zip(&shard.0) {
                kind.add_to(totals);
            }
        }
        Some(activity)
    }
}

impl KindShard {
    fn add_to(&self, totals: &mut Totals) {
        let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        totals.requests += counted(&self.requests);
        totals.errors += counted(&self.errors);
        totals.bytes += counted(&self.bytes);
        totals.micros += counted(&self.micros);
        for (total, latency) in totals.latencies.iter_mut().zip(&self.latencies) {
            *total += counted(latency);
        }
    }
}

/// The first bucket whose bound, 2ⁿ µs, is not below this.
fn bucket(micros: u64) -> usize {
    let bits = u64::BITS - micros.saturating_sub(1).leading_zeros();
    (bits as usize).min(BUCKETS - 1)
}

impl<'a> Request<'a> {
    /// It ends without an error.
    #[inline]
    pub fn succeeded(mut self) {
        self.succeeded = true;
    }

    /// Counts what becomes of this future.
    #[inline]
    pub fn counts<F, T, E>(self, future: F) -> impl Future<Output = Result<T, E>> + use<'a, F, T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        Counting {
            future,
            request: self,
        }
    }
}

pin_project_lite::pin_project! {
    /// Looks at an outcome in passing: to move what was read once more would cost more than to count it.
    struct Counting<'a, F> {
        #[pin]
        future: F,
        request: Request<'a>,
    }
}

impl<T, E, F: Future<Output = Result<T, E>>> Future for Counting<'_, F> {
    type Output = Result<T, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T, E>> {
        let this = self.project();
        let polled = this.future.poll(context);
        if let Poll::Ready(Ok(_)) = &polled {
            this.request.succeeded = true;
        }
        polled
    }
}

impl Drop for Request<'_> {
    #[inline]
    fn drop(&mut self) {
        self.counters.end(self.meter, self.succeeded);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runtime::DataPlane;
    use std::sync::Arc;

    #[test]
    fn a_bucket_holds_what_took_no_longer_than_its_bound() {
        let bounds = [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1 << 24, 24)];
        for (micros, expected) in bounds {
            assert_eq!(bucket(micros), expected, "{micros}");
        }
        assert_eq!(bucket((1 << 24) + 1), 25);
        assert_eq!(bucket(u64::MAX), 25);
    }

    #[test]
    fn every_thread_counts_and_nothing_is_lost() {
        let counters = Arc::new(Counters::default());
        assert_eq!(counters.sum(), None);
        let threads = 3;
        // Whole samples: the sum is the same where other tests' threads have taken the places and these share the last.
        let each = 320 * SAMPLED;
        let plane = DataPlane::start(threads).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let counted = (0..threads).map(|thread| {
            let counters = Arc::clone(&counters);
            plane.run_on(thread, move || async move {
                for number in 0..each {
                    let request = counters.begin(Kind::Read, 512);
                    if number % 10 > 0 {
                        request.succeeded();
                    }
                }
            })
        });
        let counted: Vec<_> = counted.collect();
        runtime.block_on(futures_util::future::join_all(counted));
        let activity = counters.sum().unwrap();
        let reads = activity.of(Kind::Read);
        let expected = (3 * each, 3 * each / 10, 3 * each * 512);
        assert_eq!((reads.requests, reads.errors, reads.bytes), expected);
        assert_eq!(reads.latencies.iter().sum::<u64>(), 3 * 320);
        assert_eq!(activity.of(Kind::Write), &Totals::default());
    }

    #[test]
    fn one_request_in_so_many_is_timed_by_the_clock_that_a_simulation_holds() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let counters = Counters::default();
            for _ in 0..SAMPLED + 1 {
                let request = counters.begin(Kind::Flush, 0);
                tokio::time::sleep(Duration::from_millis(3)).await;
                request.succeeded();
            }
            let activity = counters.sum().unwrap();
            let flushes = activity.of(Kind::Flush);
            assert_eq!((flushes.requests, flushes.micros), (SAMPLED + 1, 6_000));
            assert_eq!(flushes.latencies[12], 2);
        });
    }
}
