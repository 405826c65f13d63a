//! A set of bytes of one linear address space, kept as ranges.
//!
//! Invariants ([`RangeSet::invariant`]): no range is empty; ranges are in address order and neither overlap nor touch
//! (what touches is joined), so equal sets have equal forms. Every change costs O(log ranges) plus the ranges it
//! removes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::range::ByteRange;

/// A set of bytes. Stored and sent as its ranges in address order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<ByteRange>", into = "Vec<ByteRange>")]
pub struct RangeSet {
    /// Start of each range → its end.
    ends: BTreeMap<u64, u64>,
}

impl RangeSet {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the bytes of `range`; those already there stay.
    pub fn insert(&mut self, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start(), range.end());
        while let Some((&first, &last)) = self.ends.range(..=end).next_back() {
            if last < start {
                break;
            }
            self.ends.remove(&first);
            start = start.min(first);
            end = end.max(last);
        }
        self.ends.insert(start, end);
    }

    /// Takes the bytes of `range` away; those not there are no matter.
    pub fn remove(&mut self, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        while let Some((&first, &last)) = self.ends.range(..range.end()).next_back() {
            if last <= range.start() {
                break;
            }
            self.ends.remove(&first);
            if first < range.start() {
                self.ends.insert(first, range.start());
            }
            if range.end() < last {
                self.ends.insert(range.end(), last);
            }
        }
    }

    pub fn contains(&self, address: u64) -> bool {
        self.range_at(address).is_some()
    }

    /// Whether every byte of `range` is in the set; true for an empty range.
    pub fn covers(&self, range: ByteRange) -> bool {
        range.is_empty()
            || self
                .range_at(range.start())
                .is_some_and(|found| found.covers(range))
    }

    /// Whether any byte of `range` is in the set.
    pub fn overlaps(&self, range: ByteRange) -> bool {
        self.within(range).next().is_some()
    }

    /// The whole range that holds `address`.
    pub fn range_at(&self, address: u64) -> Option<ByteRange> {
        let (&start, &end) = self.ends.range(..=address).next_back()?;
        (address < end).then(|| ByteRange::between(start, end))
    }

    /// The whole gap that holds `address`: from the end of the range before it (or 0) to the start of the range after
    /// it (or `u64::MAX`). `None` where `address` is in the set.
    pub fn gap_at(&self, address: u64) -> Option<ByteRange> {
        let start = self.ends.range(..=address).next_back().map_or(0, |(_, &end)| end);
        let end = self
            .ends
            .range(address..)
            .next()
            .map_or(u64::MAX, |(&start, _)| start);
        (start <= address && address < end).then(|| ByteRange::between(start, end))
    }

    /// All ranges, in address order.
    pub fn iter(&self) -> impl Iterator<Item = ByteRange> {
        self.ends
            .iter()
            .map(|(&start, &end)| ByteRange::between(start, end))
    }

    /// The parts of the set that lie in `range`, in address order.
    pub fn within(&self, range: ByteRange) -> impl Iterator<Item = ByteRange> {
        let reaching_in = self
            .range_at(range.start())
            .map_or(range.start(), ByteRange::start);
        self.ends
            .range(reaching_in..range.end().max(reaching_in))
            .filter_map(move |(&start, &end)| ByteRange::between(start, end).intersection(range))
    }

    /// The parts of `range` that are not in the set, in address order.
    pub fn gaps(&self, range: ByteRange) -> impl Iterator<Item = ByteRange> {
        let mut at = range.start();
        let end_marker = ByteRange::between(range.end(), range.end());
        self.within(range).chain([end_marker]).filter_map(move |next| {
            let gap = ByteRange::between(at, next.start());
            at = next.end();
            (!gap.is_empty()).then_some(gap)
        })
    }

    /// How many bytes are in the set.
    pub fn total(&self) -> u64 {
        self.ends.iter().map(|(start, end)| end - start).sum()
    }

    /// How many ranges the set is kept as.
    pub fn range_count(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes in either set.
    pub fn union(&self, other: &Self) -> Self {
        self.iter().chain(other.iter()).collect()
    }

    /// The bytes in both sets.
    pub fn intersection(&self, other: &Self) -> Self {
        self.iter().flat_map(|range| other.within(range)).collect()
    }

    /// The bytes of this set that are not in `other`.
    pub fn difference(&self, other: &Self) -> Self {
        self.iter().flat_map(|range| other.gaps(range)).collect()
    }

    /// Whether the set is in the one form that its bytes have. Always true; tests ask after every step.
    pub fn invariant(&self) -> bool {
        let none_empty = self.ends.iter().all(|(start, end)| start < end);
        none_empty
            && self
                .ends
                .values()
                .zip(self.ends.keys().skip(1))
                .all(|(end, next)| end < next)
    }
}

impl FromIterator<ByteRange> for RangeSet {
    fn from_iter<I: IntoIterator<Item = ByteRange>>(ranges: I) -> Self {
        let mut set = Self::new();
        set.extend(ranges);
        set
    }
}

impl Extend<ByteRange> for RangeSet {
    fn extend<I: IntoIterator<Item = ByteRange>>(&mut self, ranges: I) {
        for range in ranges {
            self.insert(range);
        }
    }
}

impl From<Vec<ByteRange>> for RangeSet {
    fn from(ranges: Vec<ByteRange>) -> Self {
        ranges.into_iter().collect()
    }
}

impl From<RangeSet> for Vec<ByteRange> {
    fn from(set: RangeSet) -> Self {
        set.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPACE: u64 = 48;

    fn a_range() -> impl Strategy<Value = ByteRange> {
        (0..SPACE, 0u64..12).prop_map(|(start, len)| ByteRange::between(start, (start + len).min(SPACE)))
    }

    fn a_set() -> impl Strategy<Value = RangeSet> {
        proptest::collection::vec(a_range(), 0..8).prop_map(RangeSet::from)
    }

    fn bytes(set: &RangeSet) -> Vec<bool> {
        (0..SPACE).map(|at| set.contains(at)).collect()
    }

    fn bytes_of(ranges: impl Iterator<Item = ByteRange>) -> Vec<bool> {
        let ranges: Vec<_> = ranges.collect();
        assert!(
            ranges.windows(2).all(|pair| pair[0].end() <= pair[1].start()),
            "not in order: {ranges:?}"
        );
        assert!(ranges.iter().all(|range| !range.is_empty()));
        (0..SPACE)
            .map(|at| ranges.iter().any(|range| range.contains(at)))
            .collect()
    }

    proptest! {
        #[test]
        fn insert_and_remove_agree_with_a_bit_per_byte(
            steps in proptest::collection::vec((any::<bool>(), a_range()), 0..40),
        ) {
            let mut set = RangeSet::new();
            let mut oracle = bytes(&set);
            for (add, range) in steps {
                if add { set.insert(range) } else { set.remove(range) }
                for (at, bit) in (0..).zip(&mut oracle) {
                    if range.contains(at) {
                        *bit = add;
                    }
                }
                prop_assert!(set.invariant());
                prop_assert_eq!(&bytes(&set), &oracle);
                prop_assert_eq!(set.total(), oracle.iter().filter(|bit| **bit).count() as u64);
            }
        }

        #[test]
        fn questions_agree_with_a_bit_per_byte(set in a_set(), range in a_range()) {
            let inside: Vec<bool> = (0..SPACE).filter(|at| range.contains(*at)).map(|at| set.contains(at)).collect();
            prop_assert_eq!(set.covers(range), inside.iter().all(|bit| *bit));
            prop_assert_eq!(set.overlaps(range), inside.iter().any(|bit| *bit));
            let (held, missing) = (bytes_of(set.within(range)), bytes_of(set.gaps(range)));
            for at in 0..SPACE {
                let byte = usize::try_from(at).unwrap();
                prop_assert_eq!(held[byte], range.contains(at) && set.contains(at));
                prop_assert_eq!(missing[byte], range.contains(at) && !set.contains(at));
                prop_assert_eq!(set.range_at(at).is_some(), set.gap_at(at).is_none());
                if let Some(gap) = set.gap_at(at) {
                    prop_assert!(!set.overlaps(gap) && gap.contains(at));
                    prop_assert!(gap.start() == 0 || set.contains(gap.start() - 1));
                    prop_assert!(gap.end() == u64::MAX || set.contains(gap.end()));
                }
            }
        }

        #[test]
        fn set_algebra_agrees_with_a_bit_per_byte(a in a_set(), b in a_set()) {
            let (either, both, only_a) = (a.union(&b), a.intersection(&b), a.difference(&b));
            prop_assert!(either.invariant() && both.invariant() && only_a.invariant());
            for at in 0..SPACE {
                let (in_a, in_b) = (a.contains(at), b.contains(at));
                prop_assert_eq!(either.contains(at), in_a || in_b);
                prop_assert_eq!(both.contains(at), in_a && in_b);
                prop_assert_eq!(only_a.contains(at), in_a && !in_b);
            }
        }

        #[test]
        fn a_stored_set_comes_back_equal(set in a_set()) {
            let stored = postcard::to_allocvec(&set).unwrap();
            prop_assert_eq!(postcard::from_bytes::<RangeSet>(&stored).unwrap(), set);
        }
    }

    #[test]
    fn the_last_addresses_can_be_held() {
        let mut set = RangeSet::new();
        set.insert(ByteRange::between(0, u64::MAX));
        assert_eq!(set.total(), u64::MAX);
        set.remove(ByteRange::between(10, u64::MAX));
        assert_eq!(set.gap_at(u64::MAX - 1), Some(ByteRange::between(10, u64::MAX)));
    }
}
