//! A volume's map: its runs, ready for translation.
//!
//! Invariants ([`VolumeMap::invariant`]): runs are in address order, do not overlap in the volume, are joined where one
//! continues another, and no two of them share a byte of a group. A map is immutable: a change makes a new one, which
//! replaces the old.
//!
//! A map may reach beyond its volume's capacity, by the hidden part of its last slice: whoever translates has checked
//! the capacity before.
//!
//! Translation allocates nothing. A million runs do not fit in a processor's cache, so what counts is how many loads
//! wait for one another: a binary search over the first address of every 16 runs stays in the cache, then the runs of
//! one block are loaded side by side. A run takes 32 bytes, and half a byte in the index: a million runs 32.5 MB.

use crate::types::{ByteRange, GroupNumber, RangeSet};

use super::run::Run;

/// The address translation of one volume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeMap {
    runs: Box<[Run]>,
    /// Start of every run whose index is a multiple of [`BLOCK`].
    firsts: Box<[u64]>,
}

/// Runs per entry of the index.
const BLOCK: usize = 16;

/// Where an address lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub group: GroupNumber,
    /// The address in the group.
    pub start: u64,
    /// So many bytes lie contiguously from there on.
    pub len: u64,
}

/// A part of a range that lies contiguously in one group, or nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    Mapped {
        range: ByteRange,
        group: GroupNumber,
        group_start: u64,
    },
    Hole(ByteRange),
}

/// Runs that are no map.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    #[error("{0:?} is empty or ends beyond 64 bits")]
    Unsound(Run),
    #[error("{0:?} and {1:?} map the same addresses")]
    Overlap(Run, Run),
}

impl VolumeMap {
    /// The map of these runs, in any order.
    pub fn new(mut runs: Vec<Run>) -> Result<Self, MapError> {
        if let Some(unsound) = runs.iter().find(|run| !run.is_sound()) {
            return Err(MapError::Unsound(*unsound));
        }
        runs.sort_by_key(|run| run.volume_start);
        let overlap = |pair: &&[Run]| pair[0].volume_range().overlaps(pair[1].volume_range());
        if let Some(pair) = runs.windows(2).find(overlap) {
            return Err(MapError::Overlap(pair[0], pair[1]));
        }
        runs.dedup_by(|next, run| {
            let joins = run.continues_with(*next);
            if joins {
                run.len += next.len;
            }
            joins
        });
        let firsts = runs.iter().step_by(BLOCK).map(|run| run.volume_start).collect();
        Ok(Self {
            runs: runs.into(),
            firsts,
        })
    }

    /// This map with more runs; those must not overlap what it has.
    pub fn with_added(&self, runs: &[Run]) -> Result<Self, MapError> {
        Self::new(self.runs().chain(runs.iter().copied()).collect())
    }

    /// This map without the addresses of `range`.
    #[must_use]
    pub fn with_removed(&self, range: ByteRange) -> Self {
        let around = [
            ByteRange::between(0, range.start()),
            ByteRange::between(range.end(), u64::MAX),
        ];
        let kept = self
            .runs()
            .flat_map(|run| around.into_iter().filter_map(move |side| run.within(side)));
        Self::new(kept.collect()).expect("parts of a map's runs are sound and do not overlap")
    }

    /// Where `address` lies; `None` where nothing is mapped.
    pub fn lookup(&self, address: u64) -> Option<Place> {
        let run = self.runs[self.index_before(address)?];
        let into = address - run.volume_start;
        let len = run.len.checked_sub(into).filter(|len| *len > 0)?;
        Some(Place {
            group: run.group,
            start: run.group_start + into,
            len,
        })
    }

    /// `range` cut into pieces, in address order and without gaps.
    pub fn pieces(&self, range: ByteRange) -> impl Iterator<Item = Piece> {
        let mut at = range.start();
        let mut index = self.index_before(at).unwrap_or(0);
        std::iter::from_fn(move || {
            if at >= range.end() {
                return None;
            }
            if self
                .runs
                .get(index)
                .is_some_and(|run| run.volume_range().end() <= at)
            {
                index += 1;
            }
            let rest = ByteRange::between(at, range.end());
            let piece = match self.runs.get(index).and_then(|run| run.within(rest)) {
                Some(run) if run.volume_start == at => Piece::Mapped {
                    range: run.volume_range(),
                    group: run.group,
                    group_start: run.group_start,
                },
                next => Piece::Hole(ByteRange::between(
                    at,
                    next.map_or(range.end(), |run| run.volume_start),
                )),
            };
            at = piece.range().end();
            Some(piece)
        })
    }

    /// All runs, in address order.
    pub fn runs(&self) -> impl Iterator<Item = Run> {
        self.runs.iter().copied()
    }

    pub fn run_count(&self) -> usize {
        self.runs.len()
    }

    /// The mapped addresses.
    pub fn mapped(&self) -> RangeSet {
        self.runs().map(Run::volume_range).collect()
    }

    /// Whether all is as the module's text says. Always true; tests ask after every step.
    pub fn invariant(&self) -> bool {
        let follows = |before: Run, next: Run| {
            before.volume_range().end() <= next.volume_start && !before.continues_with(next)
        };
        let apart = |a: Run, b: Run| a.group != b.group || !a.group_range().overlaps(b.group_range());
        let mut in_groups = self.runs.to_vec();
        in_groups.sort_by_key(|run| (run.group, run.group_start));
        let firsts = self.runs.iter().step_by(BLOCK).map(|run| &run.volume_start);
        self.runs().all(Run::is_sound)
            && self.runs.windows(2).all(|pair| follows(pair[0], pair[1]))
            && in_groups.windows(2).all(|pair| apart(pair[0], pair[1]))
            && firsts.eq(&self.firsts)
    }

    /// Index of the last run that begins at `address` or before.
    fn index_before(&self, address: u64) -> Option<usize> {
        let block = self
            .firsts
            .partition_point(|first| *first <= address)
            .checked_sub(1)?;
        let runs = &self.runs[block * BLOCK..self.runs.len().min((block + 1) * BLOCK)];
        // Counting looks at every run: no load waits for the outcome of another, as a search's would.
        let begun = runs.iter().filter(|run| run.volume_start <= address).count();
        (block * BLOCK + begun).checked_sub(1)
    }
}

impl Piece {
    /// The part of the volume that the piece is.
    pub fn range(self) -> ByteRange {
        match self {
            Self::Mapped { range, .. } | Self::Hole(range) => range,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPACE: u64 = 40;

    fn run(volume_start: u64, len: u64, group: u32, group_start: u64) -> Run {
        Run {
            volume_start,
            len,
            group: GroupNumber(group),
            group_start,
        }
    }

    /// Runs with gaps and joints; group space is given out upwards, sometimes with a step.
    fn a_map() -> impl Strategy<Value = (VolumeMap, Vec<Option<(GroupNumber, u64)>>)> {
        let parts = proptest::collection::vec((0u64..4, 1u64..6, 0u32..2, 0u64..2), 0..10);
        parts.prop_map(|parts| {
            let (mut at, mut next) = (0, [0u64; 2]);
            let mut oracle = vec![None; 200];
            let mut runs = Vec::new();
            for (gap, len, group, step) in parts {
                let start = next[group as usize] + step;
                at += gap;
                runs.push(run(at, len, group, start));
                for byte in 0..len {
                    oracle[usize::try_from(at + byte).unwrap()] = Some((GroupNumber(group), start + byte));
                }
                at += len;
                next[group as usize] = start + len;
            }
            runs.reverse();
            (VolumeMap::new(runs).unwrap(), oracle)
        })
    }

    proptest! {
        #[test]
        fn lookup_and_pieces_agree_with_an_entry_per_byte(
            (map, oracle) in a_map(),
            start in 0..SPACE,
            len in 0..SPACE,
        ) {
            prop_assert!(map.invariant());
            for (address, expected) in (0..).zip(&oracle) {
                let place = map.lookup(address);
                prop_assert_eq!(place.map(|place| (place.group, place.start)), *expected);
                if let Some(place) = place {
                    let last = map.lookup(address + place.len - 1).unwrap();
                    prop_assert_eq!((last.group, last.start, last.len), (place.group, place.start + place.len - 1, 1));
                }
            }
            let range = ByteRange::new(start, len).unwrap();
            let mut at = start;
            let mut last_was_hole = false;
            for piece in map.pieces(range) {
                prop_assert_eq!(piece.range().start(), at);
                prop_assert!(!piece.range().is_empty());
                at = piece.range().end();
                for address in piece.range().start()..at {
                    let found = match piece {
                        Piece::Mapped { range, group, group_start } => Some((group, group_start + (address - range.start()))),
                        Piece::Hole(_) => None,
                    };
                    prop_assert_eq!(found, oracle[usize::try_from(address).unwrap()]);
                }
                let hole = matches!(piece, Piece::Hole(_));
                prop_assert!(!(hole && last_was_hole));
                last_was_hole = hole;
            }
            prop_assert_eq!(at, range.end());
        }

        #[test]
        fn what_is_removed_is_unmapped_and_what_is_added_again_is_as_before(
            (map, oracle) in a_map(),
            start in 0..SPACE,
            len in 0..SPACE,
        ) {
            let range = ByteRange::new(start, len).unwrap();
            let without = map.with_removed(range);
            prop_assert!(without.invariant());
            for (address, expected) in (0..).zip(&oracle) {
                let expected = expected.filter(|_| !range.contains(address));
                prop_assert_eq!(without.lookup(address).map(|place| (place.group, place.start)), expected);
            }
            let removed: Vec<Run> = map.runs().filter_map(|run| run.within(range)).collect();
            prop_assert_eq!(without.with_added(&removed).unwrap(), map);
        }
    }

    #[test]
    fn a_map_of_many_blocks_finds_every_run_at_its_edges() {
        for count in [1, 15, 16, 17, 32, 33, 100] {
            let runs = (0..count)
                .map(|index| run(index * 10, 7, 0, (count - index) * 100))
                .collect();
            let map = VolumeMap::new(runs).unwrap();
            assert!(map.invariant());
            for index in 0..count {
                let place = |into, len| Place {
                    group: GroupNumber(0),
                    start: (count - index) * 100 + into,
                    len,
                };
                assert_eq!(map.lookup(index * 10), Some(place(0, 7)));
                assert_eq!(map.lookup(index * 10 + 6), Some(place(6, 1)));
                assert_eq!(map.lookup(index * 10 + 7), None);
                let pieces: Vec<Piece> = map
                    .pieces(ByteRange::between(index * 10 + 8, index * 10 + 12))
                    .collect();
                assert_eq!(pieces.len(), if index + 1 < count { 2 } else { 1 });
            }
        }
    }

    #[test]
    fn runs_that_continue_each_other_are_one_entry() {
        let map = VolumeMap::new(vec![run(10, 10, 0, 110), run(0, 10, 0, 100), run(20, 5, 1, 120)]).unwrap();
        assert_eq!(
            map.runs().collect::<Vec<_>>(),
            [run(0, 20, 0, 100), run(20, 5, 1, 120)]
        );
    }

    #[test]
    fn runs_that_are_no_map_are_refused() {
        assert!(matches!(
            VolumeMap::new(vec![run(0, 0, 0, 0)]),
            Err(MapError::Unsound(_))
        ));
        assert!(matches!(
            VolumeMap::new(vec![run(u64::MAX, 1, 0, 0)]),
            Err(MapError::Unsound(_))
        ));
        assert!(matches!(
            VolumeMap::new(vec![run(0, 2, 0, u64::MAX - 1)]),
            Err(MapError::Unsound(_))
        ));
        let map = VolumeMap::new(vec![run(0, 10, 0, 0)]).unwrap();
        assert!(matches!(
            map.with_added(&[run(9, 5, 0, 50)]),
            Err(MapError::Overlap(..))
        ));
    }

    #[test]
    fn an_empty_map_is_one_hole() {
        let range = ByteRange::between(5, 10);
        assert_eq!(
            VolumeMap::default().pieces(range).collect::<Vec<_>>(),
            [Piece::Hole(range)]
        );
        assert_eq!(VolumeMap::default().lookup(0), None);
    }
}
