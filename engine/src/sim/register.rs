//! What one sector of a volume may hold: a register with concurrent users and crashes.
//!
//! Each write makes a *version*. A version's reads and its write are operations with a start and an end, in ticks of
//! the oracle. Writing `start` for the latest start and `finish` for the earliest end among a version's operations,
//! a history of distinct values is linearizable exactly if no two versions each have an operation that ended before
//! one of the other began: `a.finish < b.start && b.finish < a.start` (Gibbons and Korach, "Testing shared memories").
//!
//! A version that is certainly older than a durable one cannot come back after a crash; all others can, and one of
//! them is what the register holds in the next life: the first read decides which, for good.

use smallvec::SmallVec;

use super::medium::CrashKind;
use super::tag::{Content, WriteId};

const NEVER: u64 = u64::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// The write; 0 for what was there from the beginning.
    id: WriteId,
    zeros: bool,
    /// Latest start of an operation of this version.
    start: u64,
    /// Earliest end of an operation of this version; [`NEVER`] while it may not have happened.
    finish: u64,
    /// End of its write, whatever the outcome.
    ended: u64,
    /// When it was acknowledged.
    acknowledged: u64,
    /// Survives a loss of power, unless something newer does.
    durable: bool,
}

impl Version {
    /// The latest moment by which it has taken effect, if ever.
    fn settled(&self) -> u64 {
        self.finish.min(self.ended)
    }

    fn conflicts(&self, other: &Self) -> bool {
        self.settled_if_seen() < other.start && other.settled_if_seen() < self.start
    }

    fn settled_if_seen(&self) -> u64 {
        if self.finish == NEVER {
            NEVER
        } else {
            self.settled()
        }
    }
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done {
        durable: bool,
    },
    /// Old or new content.
    Failed,
    /// Refused: nothing has changed.
    Refused,
}

#[derive(Debug, Clone)]
pub struct Register {
    versions: SmallVec<[Version; 2]>,
}

impl Default for Register {
    fn default() -> Self {
        let blank = Version {
            id: WriteId(0),
            zeros: true,
            start: 0,
            finish: 0,
            ended: 0,
            acknowledged: 0,
            durable: true,
        };
        Self {
            versions: smallvec::smallvec![blank],
        }
    }
}

impl Register {
    pub fn begin_write(&mut self, id: WriteId, zeros: bool, now: u64) {
        self.versions.push(Version {
            id,
            zeros,
            start: now,
            finish: NEVER,
            ended: NEVER,
            acknowledged: NEVER,
            durable: false,
        });
    }

    /// Answers whether the outcome can be: a refused write must not have been seen.
    #[must_use]
    pub fn end_write(&mut self, id: WriteId, outcome: Outcome, now: u64) -> bool {
        let Some(index) = self.versions.iter().position(|v| v.id == id) else {
            // It was seen, then overwritten, while it ran.
            return outcome != Outcome::Refused;
        };
        let version = &mut self.versions[index];
        match outcome {
            Outcome::Done { durable } => {
                version.finish = version.finish.min(now);
                version.acknowledged = now;
                version.durable = durable;
            }
            Outcome::Failed => {}
            Outcome::Refused => {
                let seen = version.finish != NEVER;
                self.versions.remove(index);
                return !seen;
            }
        }
        version.ended = now;
        true
    }

    /// A read from `start` to `end` returned `content`. Answers whether it can have.
    #[must_use]
    pub fn read(&mut self, content: Content, start: u64, end: u64) -> bool {
        let matches = |v: &&Version| match content {
            Content::Zeros => v.zeros,
            Content::Written(id) => !v.zeros && v.id == id,
            Content::Misplaced { .. } | Content::Garbage => false,
        };
        let seen = |v: &Version| Version {
            start: v.start.max(start),
            finish: v.settled().min(end),
            ..*v
        };
        let mut fitting = self
            .versions
            .iter()
            .filter(matches)
            .map(seen)
            .filter(|candidate| {
                let others = self.versions.iter().filter(|other| other.id != candidate.id);
                !others.into_iter().any(|other| other.conflicts(candidate))
            });
        let Some(candidate) = fitting.next() else {
            return false;
        };
        // Which of several zeros was read stays open.
        if fitting.next().is_none() {
            let place = self.versions.iter_mut().find(|v| v.id == candidate.id);
            *place.expect("found above") = candidate;
        }
        true
    }

    /// Everything acknowledged before `moment` is durable.
    pub fn flushed(&mut self, moment: u64) {
        for version in &mut self.versions {
            version.durable |= version.acknowledged < moment;
        }
    }

    /// Forgets what no read that began at `oldest_read` or later can return, and no crash bring back.
    pub fn prune(&mut self, oldest_read: u64) {
        if self.versions.len() > 1 {
            self.keep_unless(|old, new| certainly_older(old, new) && new.finish < oldest_read);
        }
    }

    /// The program is gone: the register holds one of what may have survived.
    pub fn crash(&mut self, kind: CrashKind, now: u64) {
        self.keep_unless(certainly_older);
        for version in &mut self.versions {
            version.start = now;
            version.finish = now;
            version.ended = now;
            version.acknowledged = now;
            version.durable |= kind == CrashKind::PowerLoss;
        }
        self.join_zeros();
    }

    /// Whether the content is known, durable and the zeros of the beginning: nothing to remember.
    pub fn is_blank(&self) -> bool {
        matches!(
            self.versions.as_slice(),
            [Version {
                zeros: true,
                durable: true,
                ..
            }]
        )
    }

    /// Whether a flush may still change what can be here after a crash.
    pub fn is_volatile(&self) -> bool {
        self.versions.iter().any(|v| !v.durable)
    }

    /// Several zeros that may be there after a crash are one value; it is durable where all are.
    fn join_zeros(&mut self) {
        let durable = self.versions.iter().filter(|v| v.zeros).all(|v| v.durable);
        let mut first = true;
        self.versions.retain(|v| !v.zeros || std::mem::take(&mut first));
        if let Some(zeros) = self.versions.iter_mut().find(|v| v.zeros) {
            zeros.durable = durable;
        }
    }

    fn keep_unless(&mut self, gone: impl Fn(&Version, &Version) -> bool) {
        let all = self.versions.clone();
        self.versions
            .retain(|old| !all.iter().any(|new| new.id != old.id && gone(old, new)));
    }
}

/// Whether `new` is durable and `old` took effect before it.
fn certainly_older(old: &Version, new: &Version) -> bool {
    new.durable && old.settled() < new.start
}

#[cfg(test)]
mod tests;
