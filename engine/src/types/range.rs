//! A range of bytes in one linear address space.
//!
//! Invariant: `start + len` never overflows `u64`; the only constructor that takes foreign numbers checks it.

use serde::{Deserialize, Serialize};

use super::bytes::ByteSize;

/// `len` bytes from `start`. May be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct ByteRange {
    start: u64,
    len: u64,
}

/// What a stored or sent range claims to be, before it is checked.
#[derive(Deserialize)]
struct Stored {
    start: u64,
    len: u64,
}

impl TryFrom<Stored> for ByteRange {
    type Error = &'static str;

    fn try_from(stored: Stored) -> Result<Self, Self::Error> {
        Self::new(stored.start, stored.len).ok_or("a range ends beyond 64 bits")
    }
}

impl ByteRange {
    /// A range of `len` bytes from `start`; `None` where its end does not fit in 64 bits.
    pub fn new(start: u64, len: u64) -> Option<Self> {
        start.checked_add(len)?;
        Some(Self { start, len })
    }

    /// The range from `start` up to, not including, `end`.
    ///
    /// # Panics
    /// Where `end < start`: the caller mixed up its own arithmetic.
    pub fn between(start: u64, end: u64) -> Self {
        assert!(start <= end, "range {start}..{end} is backwards");
        Self {
            start,
            len: end - start,
        }
    }

    pub fn start(self) -> u64 {
        self.start
    }

    /// First byte after the range.
    pub fn end(self) -> u64 {
        self.start + self.len
    }

    /// Bytes in the range.
    pub fn len(self) -> u64 {
        self.len
    }

    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    pub fn contains(self, address: u64) -> bool {
        self.start <= address && address < self.end()
    }

    /// Whether every byte of `other` lies in this range.
    pub fn covers(self, other: Self) -> bool {
        self.start <= other.start && other.end() <= self.end()
    }

    /// Whether the two share a byte.
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end() && !self.is_empty() && !other.is_empty()
    }

    /// The bytes in both; `None` where there are none.
    pub fn intersection(self, other: Self) -> Option<Self> {
        self.overlaps(other)
            .then(|| Self::between(self.start.max(other.start), self.end().min(other.end())))
    }

    pub fn is_aligned(self, unit: u64) -> bool {
        self.start.is_multiple_of(unit) && self.len.is_multiple_of(unit)
    }

    /// The smallest range of whole `unit`s that contains this one; `None` where it ends beyond 64 bits.
    pub fn round_out(self, unit: u64) -> Option<Self> {
        let start = self.start - self.start % unit;
        let end = self.end().checked_next_multiple_of(unit)?;
        Some(Self::between(start, end))
    }

    /// Indexes of the `unit`s that the range touches; empty for an empty range.
    pub fn units(self, unit: u64) -> std::ops::Range<u64> {
        if self.is_empty() {
            return self.start / unit..self.start / unit;
        }
        self.start / unit..self.end().div_ceil(unit)
    }

    /// The parts of this range, cut at every multiple of `unit`, in order.
    pub fn split_at_multiples(self, unit: u64) -> impl Iterator<Item = Self> {
        let mut at = self.start;
        std::iter::from_fn(move || {
            if at >= self.end() {
                return None;
            }
            let end = (at - at % unit).saturating_add(unit).min(self.end());
            let piece = Self::between(at, end);
            at = end;
            Some(piece)
        })
    }
}

impl std::fmt::Display for ByteRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{}", ByteSize(self.start), ByteSize(self.len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_join_to_the_range_and_never_cross_a_unit(start in 0u64..1000, len in 0u64..1000, unit in 1u64..64) {
            let range = ByteRange::new(start, len).unwrap();
            let mut at = start;
            for piece in range.split_at_multiples(unit) {
                prop_assert_eq!(piece.start(), at);
                prop_assert!(!piece.is_empty());
                prop_assert_eq!(piece.start() / unit, (piece.end() - 1) / unit);
                at = piece.end();
            }
            prop_assert_eq!(at, range.end());
        }

        #[test]
        fn rounding_out_covers_and_is_aligned(start in 0u64..1000, len in 0u64..1000, unit in 1u64..64) {
            let range = ByteRange::new(start, len).unwrap();
            let out = range.round_out(unit).unwrap();
            prop_assert!(out.covers(range) && out.is_aligned(unit));
            prop_assert!(out.len() < range.len() + 2 * unit);
        }

        #[test]
        fn intersection_holds_what_both_hold(a in 0u64..50, al in 0u64..50, b in 0u64..50, bl in 0u64..50) {
            let (x, y) = (ByteRange::new(a, al).unwrap(), ByteRange::new(b, bl).unwrap());
            for byte in 0..100 {
                let both = x.contains(byte) && y.contains(byte);
                prop_assert_eq!(x.intersection(y).is_some_and(|i| i.contains(byte)), both);
            }
        }
    }

    #[test]
    fn a_range_that_ends_beyond_64_bits_is_refused() {
        assert!(ByteRange::new(u64::MAX, 1).is_none());
        assert!(ByteRange::new(u64::MAX, 0).is_some());
    }

    #[test]
    fn a_stored_range_that_ends_beyond_64_bits_is_refused() {
        let stored = postcard::to_allocvec(&(u64::MAX, 1u64)).unwrap();
        assert!(postcard::from_bytes::<ByteRange>(&stored).is_err());
    }
}
