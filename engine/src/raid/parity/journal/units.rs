//! The units of the journal, each a type of its own, so that none is taken for another.

use crate::types::{ByteRange, GroupId};

/// Bytes in which the journal is written: frames and anchors are whole blocks.
pub(crate) const BLOCK: usize = 4096;
/// Bytes before the ring: two slots for anchors.
pub(crate) const RING_START: u64 = 2 * BLOCK as u64;
/// Longest frame whatever the ring: bounds what a start holds in memory for each member.
const LONGEST_FRAME: u64 = 4 << 20;

/// One opening of a group: drawn at random, so that nothing written in another is taken for its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Incarnation(pub(crate) u64);

/// A commit's number, from 1. It rises over openings too. As a point in the journal it stands for everything up to and
/// with this commit; 0 is the point before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CommitSequence(pub(crate) u64);

impl CommitSequence {
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Bytes from the first byte of a member's ring; a multiple of [`BLOCK`] for frames, of 512 for payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RingOffset(pub(crate) u64);

/// Bytes of a member's ring: whole blocks, at least two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RingLen(u64);

impl RingLen {
    /// The ring in an area of `len` bytes; `None` where the area is too short for one.
    pub(crate) fn in_area(len: u64) -> Option<Self> {
        let ring = len.checked_sub(RING_START)?;
        let ring = ring - ring % BLOCK as u64;
        (ring >= 2 * BLOCK as u64).then_some(Self(ring))
    }

    pub(crate) fn bytes(self) -> u64 {
        self.0
    }

    /// Longest frame. Half of the ring, because one side of any place in an empty ring is at least that long: so a
    /// frame that is allowed has room once everything before it is freed.
    pub(crate) fn longest_frame(self) -> u64 {
        let half = self.0 / 2;
        LONGEST_FRAME.min(half - half % BLOCK as u64)
    }

    /// Where the bytes after `len` bytes from `at` stand.
    pub(crate) fn behind(self, at: RingOffset, len: u64) -> RingOffset {
        let end = at.0 + len;
        RingOffset(if end == self.0 { 0 } else { end })
    }
}

/// A set of members of one group, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct MemberSet(pub(crate) u64);

impl MemberSet {
    pub(crate) fn contains(self, member: usize) -> bool {
        member < 64 && self.0 >> member & 1 == 1
    }

    pub(crate) fn with(self, member: usize) -> Self {
        debug_assert!(member < 64, "a group has at most 64 members");
        Self(self.0 | 1 << member)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |&member| self.contains(member))
    }
}

impl FromIterator<usize> for MemberSet {
    fn from_iter<I: IntoIterator<Item = usize>>(members: I) -> Self {
        members.into_iter().fold(Self::default(), Self::with)
    }
}

/// Whose journal it is, and how far it and what it speaks of reach: what stands there is checked against this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) group: GroupId,
    pub(crate) member: usize,
    pub(crate) ring: RingLen,
    /// The member addresses that there are.
    pub(crate) data: ByteRange,
}
