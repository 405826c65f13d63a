//! What went wrong on a device, counted by kind.
//!
//! Invariants: counts only grow; an operation that failed counts once, under the first kind that fits it; what is refused
//! because the device is out of service already is no failure of the device.

use serde::{Deserialize, Serialize};

use super::DeviceError;
use crate::statistics::Kind;

/// Failures of a device, and what was mended on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCounts {
    /// Places that the medium could not give.
    pub medium: u64,
    /// Blocks that were read and did not fit their checksums.
    pub unfit: u64,
    pub reads: u64,
    /// Zeroing and trimming included.
    pub writes: u64,
    pub flushes: u64,
    /// Operations without an answer in time, whatever they were.
    pub timeouts: u64,
    /// Lost places that were written anew from the rest of their group.
    pub mended: u64,
}

impl ErrorCounts {
    /// Places whose content the device lost.
    pub fn lost_places(&self) -> u64 {
        self.medium + self.unfit
    }

    pub(super) fn note(&mut self, asked: Kind, error: &DeviceError) {
        let counter = match (error, asked) {
            (DeviceError::Latched(_), _) => return,
            (DeviceError::Medium, _) => &mut self.medium,
            (DeviceError::Timeout, _) => &mut self.timeouts,
            (_, Kind::Read) => &mut self.reads,
            (_, Kind::Write | Kind::Zero) => &mut self.writes,
            (_, Kind::Flush) => &mut self.flushes,
        };
        *counter += 1;
    }
}

impl std::ops::AddAssign for ErrorCounts {
    fn add_assign(&mut self, other: Self) {
        self.medium += other.medium;
        self.unfit += other.unfit;
        self.reads += other.reads;
        self.writes += other.writes;
        self.flushes += other.flushes;
        self.timeouts += other.timeouts;
        self.mended += other.mended;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_counts_once_under_its_kind_and_a_refusal_not_at_all() {
        let mut counts = ErrorCounts::default();
        counts.note(Kind::Read, &DeviceError::Medium);
        counts.note(Kind::Read, &DeviceError::Short);
        counts.note(Kind::Write, &DeviceError::NoSpace);
        counts.note(Kind::Zero, &DeviceError::Os(5));
        counts.note(Kind::Flush, &DeviceError::Os(5));
        counts.note(Kind::Flush, &DeviceError::Timeout);
        counts.note(Kind::Write, &DeviceError::Latched("it failed".into()));
        let expected = ErrorCounts {
            medium: 1,
            unfit: 0,
            reads: 1,
            writes: 2,
            flushes: 1,
            timeouts: 1,
            mended: 0,
        };
        assert_eq!(counts, expected);
    }
}
