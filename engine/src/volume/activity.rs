//! How many requests run on a volume, so that its end can wait for them.
//!
//! Invariant: once retired, the count only falls.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Set in the count when the volume is retired.
const RETIRED: u64 = 1 << 63;

#[derive(Debug, Default)]
pub(super) struct RunningRequests {
    count: AtomicU64,
    ended: Notify,
}

/// One running request.
pub(super) struct Running<'a>(&'a RunningRequests);

impl RunningRequests {
    /// Counts a request in; `None` once retired.
    pub(super) fn begin(&self) -> Option<Running<'_>> {
        let running = Running(self);
        if self.count.fetch_add(1, Ordering::AcqRel) & RETIRED != 0 {
            return None;
        }
        Some(running)
    }

    pub(super) async fn retire(&self) {
        self.count.fetch_or(RETIRED, Ordering::AcqRel);
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.count.load(Ordering::Acquire) == RETIRED {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == RETIRED + 1 {
            self.0.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn retiring_waits_for_running_requests_and_refuses_new_ones() {
        let requests = RunningRequests::default();
        let running = requests.begin().expect("in service");
        let mut retired = Box::pin(requests.retire());
        assert!((&mut retired).now_or_never().is_none());
        assert!(requests.begin().is_none());
        drop(running);
        assert!(retired.now_or_never().is_some());
    }
}
