//! Frames: what one member holds of one commit, in whole blocks.
//!
//! Header, little-endian: magic `ASHLRfrm`, version `u32`, CRC32C of header and entries with this field zero `u32`, group
//! id 16 bytes, member `u64`, incarnation `u64`, commit `u64`, commit of the frame before it in this ring `u64` (0: none),
//! ring offset of this frame `u64`, bytes of this frame `u64`, number of entries `u64`. Entry: bit set of the members that
//! have a part in the update `u64`, member address `u64`, length `u64`, number of the update in its commit `u32`, CRC32C
//! of the payload `u32`. Zeros up to a multiple of 512 belong to the header. Then the payloads in the order of their
//! entries, and zeros up to the end of the block.
//!
//! Invariants: a frame is taken whole or not at all; it names the one place in the one ring of the one member where it may
//! stand, so a copy of it elsewhere, also one that a host wrote as its data, is none. Reading it allocates less than the
//! bytes that were given.

use super::bytes::{has_head, is_sealed, put, put_head, seal, u32_at, u64_at};
use super::units::{Area, BLOCK, CommitSequence, Incarnation, MemberSet, RingOffset};
use crate::io::{BufSlice, IoBuf};
use crate::types::ByteRange;
use crate::types::sealed::COUNTERS_END;

const MAGIC: [u8; 8] = *b"ASHLRfrm";
const VERSION: u32 = 1;
/// Unit of what a host writes, and of where payloads begin.
const SECTOR: usize = 512;
const INCARNATION_AT: usize = 40;
const COMMIT_AT: usize = 48;
const PREVIOUS_AT: usize = 56;
const PLACE_AT: usize = 64;
const LEN_AT: usize = 72;
const ENTRIES_AT: usize = 80;
const HEADER: usize = 88;
const ENTRY: usize = 32;

/// What is new on one member by one update: where, and which other members the update concerns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    /// Number of the update within its commit.
    pub(crate) update: u32,
    /// Member address, a multiple of 512 like the length of `data`.
    pub(crate) at: u64,
    /// All members that have a part in this update, with the one that this is for.
    pub(crate) participants: MemberSet,
    pub(crate) data: &'a [u8],
}

impl Part<'_> {
    pub(crate) fn range(&self) -> ByteRange {
        ByteRange::between(self.at, self.at + self.data.len() as u64)
    }
}

/// Which frame it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) incarnation: Incarnation,
    pub(crate) commit: CommitSequence,
    /// The frame before it in this ring, 0 where it is the first since the ring was begun.
    pub(crate) previous: CommitSequence,
    pub(crate) place: RingOffset,
}

/// A part as it was found: its payload stays in the ring until it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredPart {
    pub(crate) update: u32,
    /// Member addresses that the payload is for.
    pub(crate) range: ByteRange,
    pub(crate) participants: MemberSet,
    /// Where the payload stands in the ring of the member that the part is for.
    pub(crate) payload: RingOffset,
    crc: u32,
}

impl StoredPart {
    /// Whether `payload` is what the part was written with.
    pub(crate) fn is_payload(&self, payload: &[u8]) -> bool {
        payload.len() as u64 == self.range.len() && crate::types::crc::crc32c(payload) == self.crc
    }
}

/// A whole and valid frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) head: FrameHead,
    pub(crate) len: u64,
    pub(crate) parts: Vec<StoredPart>,
}

/// Bytes of header and entries.
fn header_len(entries: u64) -> Option<u64> {
    let bytes = entries.checked_mul(ENTRY as u64)?.checked_add(HEADER as u64)?;
    bytes.checked_next_multiple_of(SECTOR as u64)
}

/// Bytes of a frame with these parts.
pub(crate) fn frame_len(parts: &[Part<'_>]) -> u64 {
    let header =
        header_len(parts.len() as u64).expect("the parts are in memory, so their number is far below 2^58");
    let payload = parts.iter().map(|part| part.data.len() as u64).sum::<u64>();
    (header + payload).next_multiple_of(BLOCK as u64)
}

/// The bytes to write at `head.place` of the ring of `area`'s member.
pub(crate) fn encode(area: &Area, head: &FrameHead, parts: &[Part<'_>]) -> BufSlice {
    let len = usize::try_from(frame_len(parts)).expect("as many bytes as its parts have in memory");
    let mut buf = IoBuf::new(len);
    let header = (HEADER + parts.len() * ENTRY).next_multiple_of(SECTOR);
    let (out, payloads) = buf.as_mut_slice().split_at_mut(header);
    out.fill(0);
    put_head(out, MAGIC, VERSION, area.group, area.member);
    put(out, INCARNATION_AT, &head.incarnation.0.to_le_bytes());
    put(out, COMMIT_AT, &head.commit.0.to_le_bytes());
    put(out, PREVIOUS_AT, &head.previous.0.to_le_bytes());
    put(out, PLACE_AT, &head.place.0.to_le_bytes());
    put(out, LEN_AT, &(len as u64).to_le_bytes());
    put(out, ENTRIES_AT, &(parts.len() as u64).to_le_bytes());
    let mut filled = 0;
    for (entry, part) in out[HEADER..].chunks_exact_mut(ENTRY).zip(parts) {
        put(entry, 0, &part.participants.0.to_le_bytes());
        put(entry, 8, &part.at.to_le_bytes());
        put(entry, 16, &(part.data.len() as u64).to_le_bytes());
        put(entry, 24, &part.update.to_le_bytes());
        put(entry, 28, &crate::types::crc::crc32c(part.data).to_le_bytes());
        put(payloads, filled, part.data);
        filled += part.data.len();
    }
    payloads[filled..].fill(0);
    seal(out);
    buf.into_slice()
}

/// How many bytes the frame has whose first block this is, as far as that can be said before its checksums are known.
/// Never more than a frame may have, nor than there are behind `place`.
pub(super) fn announced_len(area: &Area, place: RingOffset, block: &[u8]) -> Option<u64> {
    if block.len() < BLOCK || !has_head(block, MAGIC, VERSION, area.group, area.member) {
        return None;
    }
    let len = u64_at(block, LEN_AT);
    let fits = len > 0
        && len.is_multiple_of(BLOCK as u64)
        && len <= area.ring.longest_frame()
        && len <= area.ring.bytes().checked_sub(place.0)?;
    (fits && u64_at(block, PLACE_AT) == place.0).then_some(len)
}

/// The frame at `place`, where these are its bytes.
pub(super) fn decode(area: &Area, place: RingOffset, bytes: &[u8]) -> Option<Frame> {
    let len = announced_len(area, place, bytes)?;
    let entries = u64_at(bytes, ENTRIES_AT);
    let header = header_len(entries)?;
    if len != bytes.len() as u64 || entries == 0 || header > len {
        return None;
    }
    let (header, payloads) = bytes.split_at(usize::try_from(header).ok()?);
    let head = FrameHead {
        incarnation: Incarnation(u64_at(header, INCARNATION_AT)),
        commit: CommitSequence(u64_at(header, COMMIT_AT)),
        previous: CommitSequence(u64_at(header, PREVIOUS_AT)),
        place,
    };
    let counted = head.previous < head.commit && head.commit.0 < COUNTERS_END;
    if !is_sealed(header) || !counted {
        return None;
    }
    let entries = usize::try_from(entries).ok()?;
    let mut parts = Vec::with_capacity(entries);
    let mut filled = 0;
    for entry in header[HEADER..].chunks_exact(ENTRY).take(entries) {
        let part = decode_entry(area, entry, RingOffset(place.0 + (header.len() + filled) as u64))?;
        let payload = payloads[filled..].get(..usize::try_from(part.range.len()).ok()?)?;
        if !part.is_payload(payload) {
            return None;
        }
        filled += payload.len();
        parts.push(part);
    }
    let padding = &payloads[filled..];
    let tight = padding.len() < BLOCK && padding.iter().all(|&byte| byte == 0);
    tight.then_some(Frame { head, len, parts })
}

fn decode_entry(area: &Area, entry: &[u8], payload: RingOffset) -> Option<StoredPart> {
    let range = ByteRange::new(u64_at(entry, 8), u64_at(entry, 16))?;
    let part = StoredPart {
        update: u32_at(entry, 24),
        range,
        participants: MemberSet(u64_at(entry, 0)),
        payload,
        crc: u32_at(entry, 28),
    };
    let sound = !range.is_empty()
        && range.is_aligned(SECTOR as u64)
        && area.data.covers(range)
        && part.participants.contains(area.member);
    sound.then_some(part)
}

#[cfg(test)]
mod tests {
    use super::super::units::{RING_START, RingLen};
    use super::*;
    use crate::types::{GroupId, IdSource};
    use proptest::prelude::*;

    const BLOCKS: u64 = 64;

    fn area() -> Area {
        Area {
            group: GroupId::random(&IdSource::from_seed(7)),
            member: 3,
            ring: RingLen::in_area(RING_START + BLOCKS * BLOCK as u64).unwrap(),
            data: ByteRange::between(0, 1 << 20),
        }
    }

    fn head() -> FrameHead {
        FrameHead {
            incarnation: Incarnation(77),
            commit: CommitSequence(9),
            previous: CommitSequence(7),
            place: RingOffset(8 * BLOCK as u64),
        }
    }

    /// Update, sectors of address and length, fill.
    fn some_parts() -> impl Strategy<Value = Vec<(u32, u64, usize, u8)>> {
        proptest::collection::vec((0u32..9, 0u64..1024, 1usize..5, any::<u8>()), 1..40)
    }

    fn with_parts<T>(parts: &[(u32, u64, usize, u8)], then: impl FnOnce(&[Part<'_>]) -> T) -> T {
        let data: Vec<Vec<u8>> = parts
            .iter()
            .map(|&(_, _, len, fill)| vec![fill; len * 512])
            .collect();
        let parts: Vec<Part<'_>> = parts
            .iter()
            .zip(&data)
            .map(|(&(update, at, ..), data)| Part {
                update,
                at: at * 512,
                participants: MemberSet(0b1010),
                data,
            })
            .collect();
        then(&parts)
    }

    fn encoded(parts: &[(u32, u64, usize, u8)]) -> Vec<u8> {
        with_parts(parts, |parts| encode(&area(), &head(), parts).as_slice().to_vec())
    }

    /// The frame of these bytes with a right checksum over the header, whatever it says.
    fn decoded_with(change: impl FnOnce(&mut [u8])) -> Option<Frame> {
        let mut bytes = encoded(&[(0, 1, 2, 5), (1, 7, 1, 6)]);
        change(&mut bytes);
        seal(&mut bytes[..512]);
        decode(&area(), head().place, &bytes)
    }

    proptest! {
        #[test]
        fn a_frame_is_read_back_and_any_flipped_bit_is_damage(parts in some_parts(), at in any::<usize>(), bit in 0u8..8) {
            let inside = |&(_, at, len, _): &(u32, u64, usize, u8)| at + len as u64 <= 2048;
            prop_assume!(parts.iter().all(inside));
            let mut bytes = encoded(&parts);
            prop_assert_eq!(bytes.len() as u64, with_parts(&parts, frame_len));
            let frame = decode(&area(), head().place, &bytes).expect("as it was written");
            prop_assert_eq!(frame.head, head());
            prop_assert_eq!(frame.parts.len(), parts.len());
            for (found, &(update, at, len, fill)) in frame.parts.iter().zip(&parts) {
                prop_assert_eq!((found.update, found.range.start()), (update, at * 512));
                let from = usize::try_from(found.payload.0 - head().place.0).unwrap();
                let payload = &bytes[from..from + len * 512];
                prop_assert!(found.is_payload(payload) && payload.iter().all(|&byte| byte == fill));
            }
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(decode(&area(), head().place, &bytes), None);
        }

        #[test]
        fn a_truncated_frame_is_none(parts in some_parts(), len in any::<usize>()) {
            let bytes = encoded(&parts);
            let cut = &bytes[..len % bytes.len()];
            prop_assert_eq!(decode(&area(), head().place, cut), None);
        }

        #[test]
        fn any_header_is_borne(junk in proptest::collection::vec(any::<u8>(), 512 - INCARNATION_AT)) {
            decoded_with(|bytes| bytes[INCARNATION_AT..512].copy_from_slice(&junk));
        }

        #[test]
        fn any_number_in_a_header_is_borne(field in 5usize..19, number in prop_oneof![any::<u64>(), 0u64..9000, (0u64..9000).prop_map(|n| u64::MAX - n)]) {
            decoded_with(|bytes| put(bytes, field * 8, &number.to_le_bytes()));
        }
    }

    #[test]
    fn a_frame_at_another_place_of_another_member_or_group_is_none() {
        let bytes = encoded(&[(0, 1, 2, 5)]);
        let place = head().place;
        assert!(decode(&area(), place, &bytes).is_some());
        assert_eq!(decode(&area(), RingOffset(0), &bytes), None);
        assert_eq!(decode(&Area { member: 1, ..area() }, place, &bytes), None);
        let group = GroupId::random(&IdSource::from_seed(8));
        assert_eq!(decode(&Area { group, ..area() }, place, &bytes), None);
    }

    #[test]
    fn a_header_whose_numbers_cannot_be_is_none_though_its_checksum_is_right() {
        assert!(decoded_with(|_| ()).is_some());
        let wrong: [(usize, u64); 9] = [
            (COMMIT_AT, COUNTERS_END),
            (COMMIT_AT, 7),
            (PLACE_AT, 0),
            (LEN_AT, 0),
            (LEN_AT, (BLOCKS + 1) * BLOCK as u64),
            (ENTRIES_AT, 0),
            (ENTRIES_AT, u64::MAX / 32),
            (HEADER, 0b0010),
            (HEADER + 8, 1 << 20),
        ];
        for (at, number) in wrong {
            let found = decoded_with(|bytes| put(bytes, at, &number.to_le_bytes()));
            assert_eq!(found, None, "{number} at {at}");
        }
    }

    #[test]
    fn a_header_of_many_entries_spans_several_blocks() {
        let parts: Vec<_> = (0..200).map(|update| (update, u64::from(update), 1, 1)).collect();
        let bytes = encoded(&parts);
        assert!(bytes.len() > 200 * 512 + BLOCK);
        assert_eq!(decode(&area(), head().place, &bytes).unwrap().parts.len(), 200);
    }
}
