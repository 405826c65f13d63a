//! How fast copies are made equal: limits, and a pause.
//!
//! Invariants: in any stretch of time, at most the limit times that stretch and [`BURST`] is copied, and one chunk more;
//! who waits for its turn holds nothing. What a host's read makes equal on its way (R3) waits for no turn.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Unused turns are kept for so long.
const BURST: Duration = Duration::from_millis(100);

/// Bytes per second that one or several groups copy at most.
#[derive(Debug, Default)]
pub struct CopyLimit(Mutex<Turns>);

#[derive(Debug, Default)]
struct Turns {
    /// Bytes per second.
    limit: Option<u64>,
    /// When what was copied so far is paid for.
    due: Option<Instant>,
}

impl CopyLimit {
    /// `None`: as fast as it goes; 0: nothing. Whoever waits must be told.
    pub fn set(&self, limit: Option<u64>) {
        *self.turns() = Turns { limit, due: None };
    }

    pub fn get(&self) -> Option<u64> {
        self.turns().limit
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turns {
    /// How long the next turn is away.
    fn wait(&self, now: Instant) -> Duration {
        match (self.limit, self.due) {
            (Some(0), _) => Duration::MAX,
            (Some(_), Some(due)) => due.saturating_duration_since(now),
            _ => Duration::ZERO,
        }
    }

    fn take(&mut self, now: Instant, bytes: u64) {
        let Some(limit) = self.limit else { return };
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(limit.max(1));
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let kept = now.checked_sub(BURST).unwrap_or(now);
        let from = self.due.map_or(kept, |due| due.max(kept));
        // Beyond what a clock can show: later than anybody waits.
        self.due = from.checked_add(cost).or(Some(from));
    }
}

/// What hosts ask of a group, counted only while somebody wants to know.
#[derive(Debug, Default)]
pub(super) struct Foreground {
    watchers: AtomicUsize,
    requests: AtomicU64,
}

/// Has what hosts ask counted until it is dropped.
pub(super) struct Watching<'a>(&'a Foreground);

impl Foreground {
    #[inline]
    pub(super) fn note(&self) {
        if self.watchers.load(Ordering::Relaxed) > 0 {
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn watch(&self) -> Watching<'_> {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        Watching(self)
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What steers the copying of one group. Of all limits the smallest counts.
#[derive(Debug, Default)]
pub(super) struct CopyPace {
    /// Of what is copied at this time.
    limit: CopyLimit,
    /// Of the group, whatever it copies.
    standing: Arc<CopyLimit>,
    shared: OnceLock<Arc<CopyLimit>>,
    paused: AtomicBool,
    /// Told when anything of this is changed, or copying is to end.
    pub(super) changed: Notify,
}

impl CopyPace {
    /// For other work of the same group: what bounds everything that it copies bounds both together.
    pub(super) fn beside(other: &Self) -> Self {
        Self {
            standing: Arc::clone(&other.standing),
            ..Self::default()
        }
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.limit.get()
    }

    pub(super) fn set_limit(&self, limit: Option<u64>) {
        self.limit.set(limit);
        self.changed.notify_waiters();
    }

    pub(super) fn standing_limit(&self) -> Option<u64> {
        self.standing.get()
    }

    /// Whoever waits must be told.
    pub(super) fn set_standing_limit(&self, limit: Option<u64>) {
        self.standing.set(limit);
    }

    pub(super) fn share(&self, limit: Arc<CopyLimit>) {
        let _stays_what_it_was_first = self.shared.set(limit);
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Takes a turn where it has come; else how long to wait for it.
    fn try_turn(&self, bytes: u64) -> Result<(), Duration> {
        let now = Instant::now();
        let shared = self.shared.get().map(|shared| &**shared);
        let limits = [Some(&self.limit), Some(&*self.standing), shared];
        let mut all: SmallVec<[MutexGuard<'_, Turns>; 3]> =
            limits.into_iter().flatten().map(CopyLimit::turns).collect();
        let wait = all.iter().map(|turns| turns.wait(now)).max().unwrap_or_default();
        if !wait.is_zero() {
            return Err(wait);
        }
        all.iter_mut().for_each(|turns| turns.take(now, bytes));
        Ok(())
    }

    /// Resolves when so many bytes may be copied: `true`; or when copying is to stop: `false`.
    pub(super) async fn turn(&self, bytes: u64, is_stopped: impl Fn() -> bool) -> bool {
        loop {
            let changed = self.changed.notified();
            if is_stopped() {
                return false;
            }
            match self.try_turn(bytes) {
                Ok(()) => return true,
                Err(wait) => drop(tokio::time::timeout(wait, changed).await),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_stretch_of_time_sees_more_than_the_limit_a_burst_and_a_chunk(
            limit in 1u64..1_000_000,
            steps in proptest::collection::vec((0u64..300_000, 0u64..2_000_000), 1..40),
        ) {
            let start = Instant::now();
            let (mut now, mut turns) = (start, Turns { limit: Some(limit), due: None });
            let mut taken: Vec<(Instant, u64)> = Vec::new();
            for (bytes, idle_micros) in steps {
                now += Duration::from_micros(idle_micros);
                now += turns.wait(now);
                turns.take(now, bytes);
                taken.push((now, bytes));
            }
            for (first, (from, _)) in taken.iter().enumerate() {
                let mut sum = 0;
                for (at, bytes) in &taken[first..] {
                    // Before this one: the last chunk may go beyond.
                    let allowed = (*at - *from + BURST).as_secs_f64() * limit as f64 + 1.0;
                    prop_assert!(sum as f64 <= allowed, "{sum} > {allowed}");
                    sum += bytes;
                }
            }
        }
    }
}
