//! The time of day, as far as it is known: the engine has no such clock of its own, so that a simulation repeats. Whoever
//! drives the appliance tells it the time, and between two tellings the runtime's time goes on.

use std::cell::Cell;

use tokio::time::Instant;

use super::Appliance;

/// Seconds since 1970, once somebody said what they are.
#[derive(Debug, Default)]
pub(super) struct Clock(Cell<Option<(u64, Instant)>>);

impl Clock {
    pub(super) fn now(&self) -> Option<u64> {
        let (told, at) = self.0.get()?;
        Some(told.saturating_add(at.elapsed().as_secs()))
    }
}

impl Appliance {
    /// Says what time it is, in seconds since 1970. To be said after a start, and again from time to time: until it is,
    /// nothing begins by a schedule.
    pub fn tell_time(&self, seconds: u64) {
        self.keeper.clock.0.set(Some((seconds, Instant::now())));
    }
}
