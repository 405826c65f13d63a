//! Files in memory that answer like disks: each passes so many bytes per second and answers a while after, whatever the
//! others do. So what a level asks of its devices shows, and not what the processor has to do.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ashlar_engine::device::{Completion, SlotId, Started, slots};
use tokio::sync::Notify;
use tokio::time::Instant;

/// From the last byte until the answer.
const LATENCY: Duration = Duration::from_micros(100);

/// When the answers are due; the number tells those apart that are due together.
type Answers = BTreeMap<(Instant, u64), (SlotId, Completion)>;

thread_local! {
    static ANSWERS: RefCell<(u64, Answers)> = const { RefCell::new((0, BTreeMap::new())) };
}

static WAITING: Notify = Notify::const_new();

/// What one disk passes.
pub(crate) struct Pace {
    bytes_per_second: f64,
    /// When it has passed what it was asked for.
    free_at: Mutex<Instant>,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: f64) -> Self {
        Self {
            bytes_per_second,
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// Holds back the answer to a request of so many bytes.
    pub(crate) fn hold_back(&self, bytes: u64, started: Started) -> Started {
        let Started::Done(completion) = started else {
            return started;
        };
        let passing = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        *free_at = (*free_at).max(Instant::now()) + passing;
        let due = *free_at + LATENCY;
        let slot = slots::allocate(None);
        ANSWERS.with_borrow_mut(|(number, answers)| {
            *number += 1;
            answers.insert((due, *number), (slot, completion));
        });
        WAITING.notify_one();
        Started::Pending(slot)
    }
}

/// Gives the answers that are due. Timers would be too coarse: it looks again and again while there is one to give.
pub(crate) async fn answer() {
    loop {
        let now = Instant::now();
        let due = ANSWERS.with_borrow_mut(|(_, answers)| {
            let later = answers.split_off(&(now, u64::MAX));
            std::mem::replace(answers, later)
        });
        for (slot, completion) in due.into_values() {
            slots::complete(slot, completion);
        }
        if ANSWERS.with_borrow(|(_, answers)| answers.is_empty()) {
            WAITING.notified().await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}
