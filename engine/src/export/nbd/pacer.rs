//! When a connection without work polls instead of sleeping.
//!
//! To wake a sleeping thread takes longer than most requests do. So a client that sends one request after the other,
//! each at once after the last reply, is waited for awake. One that takes its time is not, nor one that sends many at a
//! time: there sleeping gathers more of them, which costs less. What the last pauses were is the guess for the next.
//!
//! Invariant: without [`Polling::Never`] at most one window per pause is spent on polling.

use std::time::Duration;

use tokio::time::Instant;

use crate::export::Polling;

/// How long to poll for a client that was quick.
const WINDOW: Duration = Duration::from_micros(50);
/// A pause up to this was quick: it holds one waking of this thread, which polling saves.
const QUICK: Duration = Duration::from_micros(100);

/// So many single requests after short pauses make a client one that sends them one after the other.
const STREAK: u32 = 4;

/// One connection's guess.
#[derive(Debug)]
pub(super) struct Pacer {
    polling: Polling,
    /// How many bursts of one request, each after a short pause, came in a row.
    streak: u32,
    /// Requests since the last pause.
    begun: u32,
    /// Since when there is nothing to do until the client sends.
    idle_since: Option<Instant>,
    poll_until: Option<Instant>,
}

impl Pacer {
    pub(super) fn new(polling: Polling) -> Self {
        Self {
            polling,
            streak: 0,
            begun: 0,
            idle_since: None,
            poll_until: None,
        }
    }

    /// Something was received.
    pub(super) fn received(&mut self) {
        if self
            .idle_since
            .take()
            .is_some_and(|since| since.elapsed() > QUICK)
        {
            self.streak = 0;
        }
    }

    /// A request was begun.
    pub(super) fn begun(&mut self) {
        self.begun = self.begun.saturating_add(1);
    }

    /// All that can be done now is done; `waiting_for_client` where no request runs.
    pub(super) fn out_of_work(&mut self, waiting_for_client: bool) {
        let window = match self.polling {
            Polling::Never => return,
            Polling::For(window) => Some(window),
            Polling::WhenQuick if waiting_for_client => {
                self.idle_since = Some(Instant::now());
                self.streak = match std::mem::take(&mut self.begun) {
                    0 => self.streak,
                    1 => self.streak.saturating_add(1),
                    _ => 0,
                };
                (self.streak >= STREAK).then_some(WINDOW)
            }
            Polling::WhenQuick => None,
        };
        self.poll_until = window.map(|window| Instant::now() + window);
    }

    /// Whether to go on polling.
    pub(super) fn polls(&mut self) -> bool {
        self.poll_until = self.poll_until.filter(|until| Instant::now() < *until);
        self.poll_until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// `pause_us` after it ran out of work, so many requests come: whether it polls after those.
    async fn polls_after(pacer: &mut Pacer, pause_us: u64, requests: u32) -> bool {
        advance(Duration::from_micros(pause_us)).await;
        pacer.received();
        (0..requests).for_each(|_| pacer.begun());
        pacer.out_of_work(true);
        pacer.polls()
    }

    async fn serial_client() -> Pacer {
        let mut pacer = Pacer::new(Polling::WhenQuick);
        for _ in 1..STREAK {
            assert!(!polls_after(&mut pacer, 60, 1).await);
        }
        assert!(polls_after(&mut pacer, 60, 1).await);
        pacer
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_becomes_slow_is_slept_for() {
        let mut pacer = serial_client().await;
        assert!(polls_after(&mut pacer, 20, 1).await);
        assert!(!polls_after(&mut pacer, 1000, 1).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_many_at_a_time_is_slept_for() {
        let mut pacer = serial_client().await;
        assert!(!polls_after(&mut pacer, 20, 8).await);
        assert!(!polls_after(&mut pacer, 20, 1).await);
    }

    #[tokio::test(start_paused = true)]
    async fn polling_ends_with_its_window_and_while_requests_run() {
        let mut pacer = serial_client().await;
        advance(WINDOW).await;
        assert!(!pacer.polls());
        pacer.received();
        pacer.out_of_work(false);
        assert!(!pacer.polls(), "a device is waited for, not the client");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fixed_window_and_none_ask_for_nothing() {
        let mut always = Pacer::new(Polling::For(Duration::from_millis(1)));
        assert!(polls_after(&mut always, 1_000_000, 8).await);
        always.out_of_work(false);
        assert!(always.polls());
        let mut never = Pacer::new(Polling::Never);
        assert!(!polls_after(&mut never, 1, 1).await);
    }
}
