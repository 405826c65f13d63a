//! The region log as it stands on the members: two bitmaps, *written* (one bit per granule) and *intent* (one bit per
//! region), in blocks of 4096 bytes that are each written alternately to two places.
//!
//! Block, little-endian: magic `ASHLRlog`, version `u32`, kind `u32` (0 written, 1 intent), index within its bitmap
//! `u32`, CRC32C of the whole block with this field zero `u32`, sequence `u64`, group id 16 bytes, 16 bytes zero, then
//! 4032 bytes of bits, lowest bit first. Block `b`'s images stand at `(2 b + sequence mod 2) × 4096` from the start of
//! the log. The written bitmap's blocks come first. A place that is all zeros was never written and stands for no bits.
//!
//! Invariants: an image is written to every member in sync and flushed before anything relies on it; of two images the
//! one with the higher sequence counts; equal sequences have equal content.

use crate::io::{BufSlice, IoBuf};
use crate::types::crc::{crc32c, crc32c_of};
use crate::types::sealed::COUNTERS_END;
use crate::types::{ByteRange, GroupId};

pub(super) const BLOCK: usize = 4096;
const HEADER: usize = 64;
const MAGIC: [u8; 8] = *b"ASHLRlog";
const VERSION: u32 = 1;
/// Bits in one block.
pub(super) const BITS: u64 = ((BLOCK - HEADER) * 8) as u64;
/// 64-bit words in one block.
pub(super) const WORDS: usize = (BLOCK - HEADER) / 8;

/// Which bitmap a block belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bitmap {
    Written = 0,
    Intent = 1,
}

/// A block of one of the bitmaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BlockId {
    pub(super) bitmap: Bitmap,
    pub(super) index: u32,
}

/// How many blocks the two bitmaps of a group have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogShape {
    pub(super) written: u32,
    pub(super) intent: u32,
}

impl LogShape {
    /// For bitmaps over so many bytes.
    pub(super) fn new(space: u64, granule: u64, region: u64) -> Self {
        let blocks = |unit: u64| {
            u32::try_from(space.div_ceil(unit).div_ceil(BITS)).expect("2^32 blocks are beyond any capacity")
        };
        Self {
            written: blocks(granule),
            intent: blocks(region),
        }
    }

    /// Bytes of the log on each member.
    pub(super) fn len(self) -> u64 {
        (u64::from(self.written) + u64::from(self.intent)) * 2 * BLOCK as u64
    }

    pub(super) fn blocks(self) -> impl Iterator<Item = BlockId> {
        let written = (0..self.written).map(|index| BlockId {
            bitmap: Bitmap::Written,
            index,
        });
        written.chain((0..self.intent).map(|index| BlockId {
            bitmap: Bitmap::Intent,
            index,
        }))
    }

    /// Position of a block in the order of [`blocks`](Self::blocks).
    pub(super) fn position(self, block: BlockId) -> usize {
        match block.bitmap {
            Bitmap::Written => block.index as usize,
            Bitmap::Intent => self.written as usize + block.index as usize,
        }
    }

    /// Where the image with this sequence stands, from the start of the log.
    pub(super) fn place(self, block: BlockId, sequence: u64) -> u64 {
        (self.position(block) as u64 * 2 + sequence % 2) * BLOCK as u64
    }
}

/// One block's content with its sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) sequence: u64,
    pub(super) words: Box<[u64; WORDS]>,
}

impl Image {
    pub(super) fn empty() -> Self {
        Self {
            sequence: 0,
            words: Box::new([0; WORDS]),
        }
    }

    /// The words with `bits` bits of the bitmap: what stands behind its end means nothing.
    pub(super) fn words_within(&self, bits: u64) -> impl Iterator<Item = u64> + '_ {
        (0u64..).zip(self.words.iter()).map(move |(number, &word)| {
            let mask = match bits.saturating_sub(number * 64) {
                0 => 0,
                left @ 1..64 => (1 << left) - 1,
                _ => u64::MAX,
            };
            word & mask
        })
    }
}

pub(super) fn encode(group: GroupId, block: BlockId, image: &Image) -> BufSlice {
    let mut buf = IoBuf::zeroed(BLOCK);
    let out = buf.as_mut_slice();
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..16].copy_from_slice(&(block.bitmap as u32).to_le_bytes());
    out[16..20].copy_from_slice(&block.index.to_le_bytes());
    out[24..32].copy_from_slice(&image.sequence.to_le_bytes());
    out[32..48].copy_from_slice(group.0.as_bytes());
    for (place, word) in out[HEADER..].chunks_exact_mut(8).zip(image.words.iter()) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    let crc = crc32c(out);
    out[20..24].copy_from_slice(&crc.to_le_bytes());
    buf.into_slice()
}

/// What stands at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Image(Image),
    Damaged,
}

pub(super) fn decode(group: GroupId, block: BlockId, bytes: &[u8]) -> Found {
    if bytes.iter().all(|&byte| byte == 0) {
        return Found::Nothing;
    }
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let crc = crc32c_of(&[&bytes[..20], &[0; 4], &bytes[24..BLOCK]]);
    let ours = bytes[..8] == MAGIC
        && word(8) == VERSION
        && word(12) == block.bitmap as u32
        && word(16) == block.index
        && word(20) == crc
        && bytes[32..48] == *group.0.as_bytes();
    if !ours {
        return Found::Damaged;
    }
    let mut image = Image::empty();
    image.sequence = u64::from_le_bytes(bytes[24..32].try_into().expect("eight bytes"));
    if image.sequence >= COUNTERS_END {
        return Found::Damaged;
    }
    for (word, place) in image.words.iter_mut().zip(bytes[HEADER..BLOCK].chunks_exact(8)) {
        *word = u64::from_le_bytes(place.try_into().expect("eight bytes"));
    }
    Found::Image(image)
}

/// The newest image of every block on one member's log (`bytes` is the whole log). `None` where neither place of a
/// block is valid: that member's log is damaged there.
pub(super) fn newest_images(group: GroupId, shape: LogShape, bytes: &[u8]) -> Vec<Option<Image>> {
    shape
        .blocks()
        .map(|block| {
            let places = [0, 1].map(|sequence| {
                let at = usize::try_from(shape.place(block, sequence)).expect("the log is in memory");
                decode(group, block, &bytes[at..at + BLOCK])
            });
            match places {
                [Found::Damaged, Found::Damaged] => None,
                // A single torn image beside nothing: the first write of this block did not finish.
                [Found::Nothing | Found::Damaged, Found::Nothing | Found::Damaged] => Some(Image::empty()),
                [Found::Image(a), Found::Image(b)] => Some(if a.sequence > b.sequence { a } else { b }),
                [Found::Image(image), _] | [_, Found::Image(image)] => Some(image),
            }
        })
        .collect()
}

/// The range of the log within a member for `len` bytes from `start`.
pub fn log_range(start: u64, len: u64) -> ByteRange {
    ByteRange::between(start, start + len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::IdSource;
    use proptest::prelude::*;

    fn group() -> GroupId {
        GroupId::random(&IdSource::from_seed(7))
    }

    proptest! {
        #[test]
        fn a_block_is_read_back_and_any_flipped_bit_is_found(
            index in 0u32..9, sequence in 1u64..COUNTERS_END, words in proptest::collection::vec(any::<u64>(), WORDS),
            at in 0usize..BLOCK, bit in 0u8..8,
        ) {
            let block = BlockId { bitmap: Bitmap::Intent, index };
            let mut image = Image::empty();
            image.sequence = sequence;
            image.words.copy_from_slice(&words);
            let mut bytes = encode(group(), block, &image).as_slice().to_vec();
            prop_assert_eq!(decode(group(), block, &bytes), Found::Image(image));
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(decode(group(), block, &bytes), Found::Damaged);
        }
    }

    #[test]
    fn a_block_written_to_the_wrong_place_or_of_another_group_is_damage() {
        let block = BlockId {
            bitmap: Bitmap::Written,
            index: 3,
        };
        let image = Image {
            sequence: 5,
            ..Image::empty()
        };
        let bytes = encode(group(), block, &image);
        let elsewhere = BlockId { index: 4, ..block };
        assert_eq!(decode(group(), elsewhere, bytes.as_slice()), Found::Damaged);
        let other = GroupId::random(&IdSource::from_seed(8));
        assert_eq!(decode(other, block, bytes.as_slice()), Found::Damaged);
    }

    #[test]
    fn a_sequence_that_leaves_no_room_for_more_is_damage() {
        let block = BlockId {
            bitmap: Bitmap::Written,
            index: 0,
        };
        let image = Image {
            sequence: u64::MAX,
            ..Image::empty()
        };
        let bytes = encode(group(), block, &image);
        assert_eq!(decode(group(), block, bytes.as_slice()), Found::Damaged);
    }
}
