//! Keeping work to so many bytes per second.

use std::time::Duration;

use tokio::time::Instant;

/// When the next bytes may go.
#[derive(Debug, Default)]
pub struct Throttle {
    free_at: Option<Instant>,
}

impl Throttle {
    /// Takes `bytes` of what may go at `rate` bytes per second, and answers from when on they may. What was not used is
    /// not saved up.
    pub fn take(&mut self, bytes: u64, rate: Option<u64>) -> Instant {
        let now = Instant::now();
        let Some(rate) = rate else {
            self.free_at = None;
            return now;
        };
        let from = self.free_at.map_or(now, |free| free.max(now));
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        let lasts = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        // Beyond what a clock can hold is never, which an hour is long enough for: limits change.
        let lasts = lasts.min(Duration::from_secs(3600));
        self.free_at = Some(from + lasts);
        from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_go_at_the_rate_and_idle_time_is_not_saved_up() {
        let mut throttle = Throttle::default();
        let begun = Instant::now();
        for second in 0..5 {
            assert_eq!(
                throttle.take(1000, Some(1000)),
                begun + Duration::from_secs(second)
            );
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        let later = Instant::now();
        assert_eq!(throttle.take(1000, Some(1000)), later);
        assert_eq!(throttle.take(1000, Some(1000)), later + Duration::from_secs(1));
        assert_eq!(throttle.take(u64::MAX, None), later, "no limit, no wait");
    }
}
