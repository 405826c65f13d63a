//! What happened in the engine without anybody asking: a numbered ring, from which whoever keeps events for longer
//! takes them.
//!
//! Invariants: numbers begin at 1 in every start and have no gaps; the ring keeps the newest [`KEPT`]. An event says what
//! was seen, some time after it was so.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::raid::{GroupState, ScrubFindings, ScrubMode};
use crate::types::{DeviceId, GroupId, VolumeId};

/// How many events are kept.
pub const KEPT: usize = 4096;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The start of the appliance in which it happened.
    pub epoch: u64,
    pub number: u64,
    pub kind: EventKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// A device is out of service, or was not there at the start.
    DeviceFailed {
        device: DeviceId,
        why: String,
    },
    DeviceReturned {
        device: DeviceId,
    },
    GroupStateChanged {
        group: GroupId,
        /// `None`: it was so from the start of the appliance, or of the group, on.
        from: Option<GroupState>,
        to: GroupState,
    },
    /// A group was not started (R6).
    GroupWaiting {
        group: GroupId,
        why: &'static str,
    },
    ScrubStarted {
        group: GroupId,
        mode: ScrubMode,
    },
    /// A scrub found the first place that does not fit, or cannot be read.
    ScrubMismatch {
        group: GroupId,
        findings: Box<ScrubFindings>,
    },
    ScrubFinished {
        group: GroupId,
        mode: ScrubMode,
        /// It was not walked to the end.
        cancelled: bool,
        findings: Box<ScrubFindings>,
    },
    /// It lost more places than its group bears, or than is usual.
    DeviceSuspect {
        device: DeviceId,
        lost_places: u64,
    },
    /// A spare took a member's place by itself, and is being copied to.
    SpareTookOver {
        group: GroupId,
        old: DeviceId,
        new: DeviceId,
    },
    /// A member is out, and stays so.
    NoSpareFits {
        group: GroupId,
        device: DeviceId,
        why: String,
    },
    /// A spare was looked at and could not be read.
    SpareUnreadable {
        device: DeviceId,
        why: String,
    },
    /// After it did not.
    VolumeServing {
        volume: VolumeId,
    },
    VolumeNotServing {
        volume: VolumeId,
    },
}

/// The newest events. Shared with whoever reads them, on any thread.
#[derive(Debug)]
pub struct Events {
    epoch: u64,
    is_counted: bool,
    ring: Mutex<VecDeque<Event>>,
    newest: watch::Sender<u64>,
}

impl Events {
    pub fn new(epoch: u64) -> Self {
        Self::of(epoch, true)
    }

    /// Those of a start that could not be counted: their numbers begin at 1 again in an epoch that had events before.
    pub fn uncounted(epoch: u64) -> Self {
        Self::of(epoch, false)
    }

    fn of(epoch: u64, is_counted: bool) -> Self {
        Self {
            epoch,
            is_counted,
            ring: Mutex::default(),
            newest: watch::Sender::new(0),
        }
    }

    /// The start of the appliance that the numbers belong to.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the epoch is that of this start alone.
    pub fn is_counted(&self) -> bool {
        self.is_counted
    }

    pub fn emit(&self, kind: EventKind) {
        let mut ring = self.lock();
        let number = *self.newest.borrow() + 1;
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(Event {
            epoch: self.epoch,
            number,
            kind,
        });
        self.newest.send_replace(number);
    }

    /// The events with higher numbers than `number`, and whether some of them are lost because they were not taken in
    /// time.
    pub fn since(&self, number: u64) -> (Vec<Event>, bool) {
        let ring = self.lock();
        let first = ring.front().map_or(1, |event| event.number);
        let newer = ring.iter().filter(|event| event.number > number);
        (newer.cloned().collect(), number.saturating_add(1) < first)
    }

    /// The number of the newest event, 0 before the first, and being told of newer ones.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emit(events: &Events, count: usize) {
        for _ in 0..count {
            events.emit(EventKind::VolumeServing {
                volume: VolumeId(uuid::Uuid::nil()),
            });
        }
    }

    #[test]
    fn events_are_numbered_from_one_and_given_from_any_number_on() {
        let events = Events::new(7);
        assert_eq!(events.since(0), (vec![], false));
        emit(&events, 3);
        let (newer, lost) = events.since(1);
        let numbers: Vec<(u64, u64)> = newer.iter().map(|event| (event.epoch, event.number)).collect();
        assert_eq!((numbers, lost), (vec![(7, 2), (7, 3)], false));
        assert_eq!(events.since(3), (vec![], false));
    }

    #[test]
    fn whoever_comes_too_late_is_told_that_events_are_lost() {
        let events = Events::new(1);
        emit(&events, KEPT + 2);
        let (newer, lost) = events.since(1);
        assert_eq!((newer.len(), newer[0].number, lost), (KEPT, 3, true));
        assert!(!events.since(2).1);
    }

    #[test]
    fn who_waits_for_the_newest_number_is_told_of_it() {
        let events = Events::new(1);
        let mut newest = events.newest();
        assert!(!newest.has_changed().unwrap());
        emit(&events, 2);
        assert_eq!(*newest.borrow_and_update(), 2);
    }
}
