//! A value for every slice of a group, kept as runs of equal values.
//!
//! Invariants ([`RunMap::invariant`]): the first run begins at slice 0, every slice has exactly one value, and
//! neighbouring runs differ. A million equal slices are one entry; a change costs O(log runs) plus the runs it covers.

use std::collections::BTreeMap;

use super::slices::Slices;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunMap<V> {
    total: u32,
    /// First slice of a run → its value; the run goes on to the next key, the last one to `total`.
    starts: BTreeMap<u32, V>,
}

impl<V: Copy + Eq> RunMap<V> {
    /// `total` slices with the same value.
    pub(super) fn new(total: u32, value: V) -> Self {
        let starts = if total == 0 {
            BTreeMap::new()
        } else {
            BTreeMap::from([(0, value)])
        };
        Self { total, starts }
    }

    /// These values; the runs come in order and without gaps, from slice 0 on.
    pub(super) fn from_runs(runs: impl Iterator<Item = (Slices, V)>) -> Self {
        let (mut total, mut last) = (0, None);
        let starts = runs
            .filter(|(slices, _)| slices.count > 0)
            .filter_map(|(slices, value)| {
                total = slices.end();
                (last.replace(value) != Some(value)).then_some((slices.first, value))
            })
            .collect();
        Self { total, starts }
    }

    /// How many slices there are.
    pub(super) fn total(&self) -> u32 {
        self.total
    }

    /// The whole run that holds `slice`; `None` beyond the last slice.
    pub(super) fn run_at(&self, slice: u32) -> Option<(Slices, V)> {
        if slice >= self.total {
            return None;
        }
        let (&first, &value) = self.starts.range(..=slice).next_back()?;
        let end = self
            .starts
            .range(slice + 1..)
            .next()
            .map_or(self.total, |(&next, _)| next);
        Some((Slices::between(first, end), value))
    }

    /// All runs, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Slices, V)> {
        let ends = self.starts.keys().skip(1).copied().chain([self.total]);
        self.starts
            .iter()
            .zip(ends)
            .map(|((&first, &value), end)| (Slices::between(first, end), value))
    }

    /// The runs within `slices`, cut to it, in order.
    pub(super) fn within(&self, slices: Slices) -> impl Iterator<Item = (Slices, V)> {
        let mut at = slices.first;
        std::iter::from_fn(move || {
            let (run, value) = self.run_at(at).filter(|_| at < slices.end())?;
            let piece = Slices::between(at, run.end().min(slices.end()));
            at = piece.end();
            Some((piece, value))
        })
    }

    /// Gives every slice of `slices`, which lies in the map, this value.
    pub(super) fn set(&mut self, slices: Slices, value: V) {
        if slices.count == 0 {
            return;
        }
        let end = slices.end();
        let after = self.run_at(end).map(|(_, value)| value);
        let covered: Vec<u32> = self
            .starts
            .range(slices.first..=end)
            .map(|(&first, _)| first)
            .collect();
        for first in covered {
            self.starts.remove(&first);
        }
        let before = self
            .starts
            .range(..slices.first)
            .next_back()
            .map(|(_, &value)| value);
        if before != Some(value) {
            self.starts.insert(slices.first, value);
        }
        if let Some(after) = after.filter(|after| *after != value) {
            self.starts.insert(end, after);
        }
    }

    pub(super) fn invariant(&self) -> bool {
        let begins = self.starts.keys().next().copied() == (self.total > 0).then_some(0);
        let ends = self
            .starts
            .keys()
            .next_back()
            .is_none_or(|last| *last < self.total);
        begins
            && ends
            && self
                .starts
                .values()
                .zip(self.starts.values().skip(1))
                .all(|(a, b)| a != b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOTAL: u32 = 24;

    proptest! {
        #[test]
        fn a_run_map_agrees_with_a_value_per_slice(
            steps in proptest::collection::vec((0..TOTAL, 0u32..12, 0u8..3), 0..30),
            window in (0..TOTAL, 0u32..12),
        ) {
            let mut map = RunMap::new(TOTAL, 0u8);
            let mut oracle = vec![0u8; TOTAL as usize];
            for (first, count, value) in steps {
                let slices = Slices::between(first, (first + count).min(TOTAL));
                map.set(slices, value);
                oracle[first as usize..slices.end() as usize].fill(value);
                prop_assert!(map.invariant());
            }
            let flat = |runs: Vec<(Slices, u8)>| -> Vec<u8> {
                runs.into_iter().flat_map(|(run, value)| vec![value; run.count as usize]).collect()
            };
            prop_assert_eq!(&flat(map.iter().collect()), &oracle);
            let slice_by_slice = (0..).zip(&oracle).map(|(slice, value)| (Slices::between(slice, slice + 1), *value));
            prop_assert_eq!(&RunMap::from_runs(slice_by_slice), &map);
            let window = Slices::between(window.0, (window.0 + window.1).min(TOTAL));
            let expected = &oracle[window.first as usize..window.end() as usize];
            prop_assert_eq!(&flat(map.within(window).collect()), expected);
            for slice in 0..TOTAL {
                let (run, value) = map.run_at(slice).unwrap();
                prop_assert!(run.contains(slice) && value == oracle[slice as usize]);
            }
            prop_assert!(map.run_at(TOTAL).is_none());
        }
    }
}
