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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPACE: u64 = 40;

    fn a_range() -> impl Strategy<Value = ByteRange> {
        (0..SPACE, 0u64..12).prop_map(|(start, len)| ByteRange::between(start, (start + len).min(SPACE)))
    }

    proptest! {
        #[test]
        fn the_last_commit_of_a_range_agrees_with_a_number_for_each_byte(
            steps in proptest::collection::vec((any::<bool>(), a_range(), 0u64..8), 1..40), asked in a_range(),
        ) {
            let mut held = Held::default();
            let mut bytes = vec![0; usize::try_from(SPACE).unwrap()];
            for (commit, (add, range, back)) in (1u64..).zip(steps) {
                if add {
                    held.add(range, CommitSequence(commit));
                } else {
                    held.free(CommitSequence(commit.saturating_sub(back)));
                }
                for (at, last) in (0..).zip(&mut bytes) {
                    if add && range.contains(at) {
                        *last = commit;
                    } else if !add && *last <= commit.saturating_sub(back) {
                        *last = 0;
                    }
                }
                let inside = (0..).zip(&bytes).filter(|&(at, _)| asked.contains(at));
                let last = inside.map(|(_, &last)| last).max().filter(|&last| last > 0);
                prop_assert_eq!(held.last_in(asked), last.map(CommitSequence));
            }
        }
    }
}
