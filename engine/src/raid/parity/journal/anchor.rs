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

#[cfg(test)]
mod tests {
    use super::super::units::RingLen;
    use super::*;
    use crate::types::{ByteRange, GroupId, IdSource};
    use proptest::prelude::*;

    fn area() -> Area {
        Area {
            group: GroupId::random(&IdSource::from_seed(7)),
            member: 3,
            ring: RingLen::in_area(RING_START + 8 * BLOCK as u64).unwrap(),
            data: ByteRange::between(0, 1 << 20),
        }
    }

    fn an_anchor() -> impl Strategy<Value = Anchor> {
        (1..COUNTERS_END, any::<u64>(), 1..COUNTERS_END, 0u64..8).prop_map(
            |(sequence, incarnation, first, block)| Anchor {
                sequence,
                incarnation: Incarnation(incarnation),
                first: CommitSequence(first),
                offset: RingOffset(block * BLOCK as u64),
            },
        )
    }

    /// Both slots, with these anchors in them.
    fn slots(area: &Area, anchors: &[Anchor]) -> Vec<u8> {
        let mut slots = vec![0; 2 * BLOCK];
        for anchor in anchors {
            let at = usize::try_from(anchor.place()).unwrap();
            slots[at..at + BLOCK].copy_from_slice(encode(area, anchor).as_slice());
        }
        slots
    }

    proptest! {
        #[test]
        fn an_anchor_is_read_back_and_any_flipped_bit_is_damage(
            anchor in an_anchor(), at in 0..BLOCK, bit in 0u8..8,
        ) {
            let mut bytes = slots(&area(), &[anchor]);
            prop_assert_eq!(newest(&area(), &bytes), Some(anchor));
            bytes[usize::try_from(anchor.place()).unwrap() + at] ^= 1 << bit;
            prop_assert_eq!(newest(&area(), &bytes), None);
        }

        #[test]
        fn any_bytes_are_borne(bytes in proptest::collection::vec(any::<u8>(), 0..2 * BLOCK + 1)) {
            prop_assert_eq!(newest(&area(), &bytes), None);
        }
    }

    #[test]
    fn the_newest_anchor_counts_and_the_one_before_where_that_was_torn() {
        let old = Anchor {
            sequence: 5,
            incarnation: Incarnation(1),
            first: CommitSequence(9),
            offset: RingOffset(0),
        };
        let new = Anchor { sequence: 6, ..old };
        let mut bytes = slots(&area(), &[old, new]);
        assert_eq!(newest(&area(), &bytes), Some(new));
        bytes[usize::try_from(new.place()).unwrap()..][..512].fill(0);
        assert_eq!(newest(&area(), &bytes), Some(old));
    }

    #[test]
    fn an_anchor_of_another_group_or_member_or_in_the_other_slot_is_damage() {
        let anchor = Anchor {
            sequence: 5,
            incarnation: Incarnation(1),
            first: CommitSequence(9),
            offset: RingOffset(0),
        };
        let mut bytes = slots(&area(), &[anchor]);
        let group = GroupId::random(&IdSource::from_seed(8));
        assert_eq!(newest(&Area { group, ..area() }, &bytes), None);
        assert_eq!(newest(&Area { member: 2, ..area() }, &bytes), None);
        bytes.rotate_left(BLOCK);
        assert_eq!(newest(&area(), &bytes), None);
    }

    #[test]
    fn an_anchor_whose_numbers_cannot_be_is_damage() {
        let anchor = Anchor {
            sequence: 5,
            incarnation: Incarnation(1),
            first: CommitSequence(9),
            offset: RingOffset(0),
        };
        let wrong = [
            Anchor {
                sequence: COUNTERS_END,
                ..anchor
            },
            Anchor {
                first: CommitSequence(0),
                ..anchor
            },
            Anchor {
                first: CommitSequence(COUNTERS_END),
                ..anchor
            },
            Anchor {
                offset: RingOffset(8 * BLOCK as u64),
                ..anchor
            },
            Anchor {
                offset: RingOffset(512),
                ..anchor
            },
        ];
        for anchor in wrong {
            assert_eq!(newest(&area(), &slots(&area(), &[anchor])), None, "{anchor:?}");
        }
    }
}
