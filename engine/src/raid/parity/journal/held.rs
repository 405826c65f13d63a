//! Which member addresses the commits in the journal speak of, each with the last commit that does.
//!
//! Invariant: ranges neither are empty nor overlap. Commits are added in their order, so the one added last is the last.

use std::collections::BTreeMap;

use super::units::CommitSequence;
use crate::types::ByteRange;

#[derive(Debug, Default)]
pub(super) struct Held {
    /// Start of each range → its end, and the last commit that has a part there.
    ranges: BTreeMap<u64, (u64, CommitSequence)>,
}

impl Held {
    /// Notes that `commit`, the newest, has a part at `range`.
    pub(super) fn add(&mut self, range: ByteRange, commit: CommitSequence) {
        loop {
            let overlapping = self.overlapping(range).next();
            let Some((start, (end, older))) = overlapping else {
                break;
            };
            self.ranges.remove(&start);
            if start < range.start() {
                self.ranges.insert(start, (range.start(), older));
            }
            if range.end() < end {
                self.ranges.insert(range.end(), (end, older));
            }
        }
        if !range.is_empty() {
            self.ranges.insert(range.start(), (range.end(), commit));
        }
    }

    /// Forgets everything up to and with `point`.
    pub(super) fn free(&mut self, point: CommitSequence) {
        self.ranges.retain(|_, (_, commit)| *commit > point);
    }

    /// The last commit that has a part in `range`.
    pub(super) fn last_in(&self, range: ByteRange) -> Option<CommitSequence> {
        self.overlapping(range).map(|(_, (_, commit))| commit).max()
    }

    fn overlapping(&self, range: ByteRange) -> impl Iterator<Item = (u64, (u64, CommitSequence))> + '_ {
        self.ranges
            .range(..range.end())
            .rev()
            .map(|(&start, &found)| (start, found))
            .take_while(move |&(_, (end, _))| end > range.start() && !range.is_empty())
    }
}
