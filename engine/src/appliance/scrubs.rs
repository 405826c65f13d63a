//! What the metadata keeps of the scrubs of groups.
//!
//! Invariant: of a scrub that was ended nothing is taken any more: how far it came may be written down at the same time.

use serde::{Deserialize, Serialize};

use super::records::Record;
use crate::raid::{ScrubFindings, ScrubMode, ScrubRun};
use crate::types::{GroupId, OperationId};

/// A scrub that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubEnded {
    pub id: OperationId,
    pub mode: ScrubMode,
    /// Seconds since 1970, where the time was known.
    pub begun_at: Option<u64>,
    pub ended_at: Option<u64>,
    /// It was not walked to the end.
    pub cancelled: bool,
    pub findings: ScrubFindings,
}

impl ScrubEnded {
    pub(super) fn of(run: ScrubRun, ended_at: Option<u64>, cancelled: bool) -> Self {
        Self {
            id: run.id,
            mode: run.mode,
            begun_at: run.begun_at,
            ended_at,
            cancelled,
            findings: run.findings,
        }
    }
}

/// When a group is scrubbed by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubSchedule {
    /// From the beginning of one to that of the next.
    pub every_hours: u32,
    pub mode: ScrubMode,
}

/// Of one group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scrubs {
    pub running: Option<ScrubRun>,
    pub last: Option<ScrubEnded>,
    pub schedule: Option<ScrubSchedule>,
    /// When the schedule was set, in seconds since 1970.
    pub since: Option<u64>,
}

impl Scrubs {
    /// When the next one is to begin, in seconds since 1970.
    pub(super) fn due(&self) -> Option<u64> {
        let schedule = self.schedule?;
        let last = self.last.as_ref().and_then(|last| last.begun_at);
        let from = last.max(self.since).unwrap_or(0);
        Some(from.saturating_add(u64::from(schedule.every_hours) * 3600))
    }

    fn is_running(&self, id: OperationId) -> bool {
        self.running.as_ref().is_some_and(|run| run.id == id)
    }

    pub(super) fn go_on(&mut self, run: ScrubRun) {
        if self.is_running(run.id) {
            self.running = Some(run);
        }
    }

    pub(super) fn end(&mut self, ended: ScrubEnded) {
        if self.is_running(ended.id) {
            self.running = None;
            self.last = Some(ended);
        } else if self.running.is_none() && self.last.is_none() {
            self.last = Some(ended);
        }
    }

    /// The records that make this of nothing.
    pub(super) fn records(&self, group: GroupId) -> impl Iterator<Item = Record> + '_ {
        let last = self.last.clone().map(|ended| Record::ScrubEnded { group, ended });
        let running = self.running.clone().map(|run| Record::ScrubBegun { group, run });
        let schedule = self.schedule.map(|schedule| Record::ScrubSchedule {
            group,
            schedule: Some(schedule),
            since: self.since,
        });
        last.into_iter().chain(running).chain(schedule)
    }
}
