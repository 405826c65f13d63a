//! Anchors: where reading of a member's ring begins. Two slots of 4096 bytes at the start of the area, written alternately.
//!
//! Block, little-endian: magic `ASHLRanc`, version `u32`, CRC32C of the block with this field zero `u32`, group id 16
//! bytes, member `u64`, anchor sequence `u64`, incarnation `u64`, first commit that counts `u64`, ring offset `u64`,
//! zeros. The anchor with sequence `s` stands in slot `s mod 2`.
//!
//! Invariants: an anchor says that every commit below its first is in place and flushed on all members that were in sync
//! when it was written. The next one goes to the slot that the newest valid one does not stand in, so a torn write
//! leaves that one. A member that was ever in sync has a valid anchor: one without has a damaged journal.

use super::bytes::{has_head, is_sealed, put, put_head, seal, u64_at};
use super::units::{Area, BLOCK, CommitSequence, Incarnation, RING_START, RingOffset};
use crate::io::{BufSlice, IoBuf};
use crate::types::sealed::COUNTERS_END;

const MAGIC: [u8; 8] = *b"ASHLRanc";
const VERSION: u32 = 1;
const SEQUENCE_AT: usize = 40;
const INCARNATION_AT: usize = 48;
const FIRST_AT: usize = 56;
const OFFSET_AT: usize = 64;

/// Where reading begins, and in which opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Anchor {
    /// Counts the anchors of one member, from 1.
    pub(crate) sequence: u64,
    pub(crate) incarnation: Incarnation,
    /// First commit that counts.
    pub(crate) first: CommitSequence,
    pub(crate) offset: RingOffset,
}

impl Anchor {
    /// Where it stands, in bytes from the start of the member's area.
    pub(crate) fn place(&self) -> u64 {
        self.sequence % 2 * BLOCK as u64
    }
}

/// The block to write at [`Anchor::place`].
pub(crate) fn encode(area: &Area, anchor: &Anchor) -> BufSlice {
    let mut buf = IoBuf::zeroed(BLOCK);
    let out = buf.as_mut_slice();
    put_head(out, MAGIC, VERSION, area.group, area.member);
    put(out, SEQUENCE_AT, &anchor.sequence.to_le_bytes());
    put(out, INCARNATION_AT, &anchor.incarnation.0.to_le_bytes());
    put(out, FIRST_AT, &anchor.first.0.to_le_bytes());
    put(out, OFFSET_AT, &anchor.offset.0.to_le_bytes());
    seal(out);
    buf.into_slice()
}

fn decode(area: &Area, slot: u64, block: &[u8]) -> Option<Anchor> {
    if !has_head(block, MAGIC, VERSION, area.group, area.member) || !is_sealed(block) {
        return None;
    }
    let anchor = Anchor {
        sequence: u64_at(block, SEQUENCE_AT),
        incarnation: Incarnation(u64_at(block, INCARNATION_AT)),
        first: CommitSequence(u64_at(block, FIRST_AT)),
        offset: RingOffset(u64_at(block, OFFSET_AT)),
    };
    let sound = (1..COUNTERS_END).contains(&anchor.sequence)
        && anchor.sequence % 2 == slot
        && (1..COUNTERS_END).contains(&anchor.first.0)
        && anchor.offset.0 < area.ring.bytes()
        && anchor.offset.0.is_multiple_of(BLOCK as u64);
    sound.then_some(anchor)
}

/// The anchor that counts, of the first [`RING_START`] bytes of a member's area. `None`: the journal there is damaged or
/// of another, and the member cannot be taken as in sync.
pub(crate) fn newest(area: &Area, slots: &[u8]) -> Option<Anchor> {
    if slots.len() as u64 != RING_START {
        return None;
    }
    (0..)
        .zip(slots.chunks_exact(BLOCK))
        .filter_map(|(slot, block)| decode(area, slot, block))
        .max_by_key(|anchor| anchor.sequence)
}
