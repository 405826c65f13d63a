//! What of jobs stands only in memory: how fast they go, and being told that one changed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::throttle::Throttle;

/// A pace is taken over this time.
const WINDOW: Duration = Duration::from_secs(10);

/// Shared by who works on jobs and who asks for them.
#[derive(Debug)]
pub struct Live {
    wake: Notify,
    changes: watch::Sender<u64>,
    meters: Mutex<BTreeMap<Uuid, Meter>>,
    /// Of all work that this process does itself.
    pub(crate) throttle: Mutex<Throttle>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            wake: Notify::new(),
            changes: watch::Sender::new(0),
            meters: Mutex::default(),
            throttle: Mutex::default(),
        }
    }
}

impl Live {
    /// Says that a job's state or limit was changed.
    pub fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
        self.wake.notify_one();
    }

    /// Each such change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// For the one who works on jobs: there was a change since the last time.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Notes how far a job is.
    pub(crate) fn note(&self, job: Uuid, bytes_done: u64) {
        self.meters()
            .entry(job)
            .or_default()
            .note(Instant::now(), bytes_done);
    }

    /// The job moves no more.
    pub(crate) fn forget(&self, job: Uuid) {
        self.meters().remove(&job);
    }

    /// Bytes per second over the last seconds; `None` where nothing moves.
    pub fn pace(&self, job: Uuid) -> Option<u64> {
        self.meters().get(&job)?.pace(Instant::now())
    }

    fn meters(&self) -> MutexGuard<'_, BTreeMap<Uuid, Meter>> {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far something was when, within the window.
#[derive(Debug, Default)]
struct Meter {
    notes: VecDeque<(Instant, u64)>,
}

impl Meter {
    fn note(&mut self, now: Instant, bytes: u64) {
        self.notes.push_back((now, bytes));
        // One from before the window is kept: without it the pace of rare notes could not be told.
        while self.notes.get(1).is_some_and(|(at, _)| now - *at >= WINDOW) {
            self.notes.pop_front();
        }
    }

    fn pace(&self, now: Instant) -> Option<u64> {
        let (from, begun) = self.notes.front()?;
        let (to, done) = self.notes.back()?;
        if now - *to >= WINDOW {
            return None;
        }
        let bytes = done.checked_sub(*begun).filter(|bytes| *bytes > 0)?;
        let ms = (*to - *from).as_millis().max(1);
        u64::try_from(u128::from(bytes) * 1000 / ms).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pace_is_that_of_the_last_seconds_and_none_where_nothing_moves() {
        let live = Live::default();
        let job = Uuid::nil();
        assert_eq!(live.pace(job), None);
        for second in 0..=30_u64 {
            // Slow at first, which is forgotten.
            live.note(job, if second < 15 { second } else { second * 1000 });
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(live.pace(job), Some(1000));
        for _ in 0..12 {
            live.note(job, 30_000);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(live.pace(job), None, "it stands still");
        live.note(job, 31_000);
        tokio::time::advance(WINDOW).await;
        assert_eq!(live.pace(job), None, "nothing is heard of it");
        live.forget(job);
        assert_eq!(live.pace(job), None);
    }
}
