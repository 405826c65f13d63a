//! Checksums of what the members hold: whoever reads a member knows whether it is what was written there.
//!
//! Each 4096 bytes of a member's data, a *block*, have a CRC32C, XORed with a number made of the block's place and the
//! group: what was written elsewhere by mistake does not fit here. On each member they stand behind the journal, four
//! bytes each, little-endian, in the order of the blocks; a *page* is 4096 bytes of them. A page has no checksum of its
//! own: where a device lost one, its blocks do not fit, and each is mended from the others like a damaged block. So a page
//! that is torn by a crash harms nobody who was not being written.
//!
//! Invariants: a written block and its checksum fit on every member that is written, in the sense of the caches here; what
//! stands on the members follows with the next flush, which writes changed pages before the devices flush. After a crash
//! they may differ only where the journal is going to write again, and without one in regions that are marked (R28).
//! A block that nobody can tell the content of has a checksum that does not fit: it reads as an error, on every member,
//! until it is written anew.
//!
//! `cache` is what is known in memory, and does no I/O; `keep` reads and writes pages; `verify` reads members by it.

mod cache;
mod keep;
mod verify;

use smallvec::SmallVec;

pub(super) use self::cache::MemberChecks;
pub(super) use self::keep::Checks;
pub(super) use self::verify::{Read, Unread, is_blocks};

use super::Layout;
use crate::types::{ByteRange, GroupId};

/// Bytes that one checksum is of.
pub(super) const BLOCK: u64 = BLOCK_LEN as u64;
pub(super) const BLOCK_LEN: usize = 4096;
/// Bytes of a page of checksums, and how many it has.
const PAGE: u64 = PAGE_LEN as u64;
const PAGE_LEN: usize = 4096;
const PER_PAGE: u64 = ENTRIES as u64;
const ENTRIES: usize = PAGE_LEN / 4;

/// Checksums of consecutive blocks.
pub(super) type Values = SmallVec<[u32; 16]>;

/// Bytes of the checksums on each member.
pub(super) fn checks_len(layout: &Layout) -> u64 {
    layout.member_len.div_ceil(BLOCK * PER_PAGE) * PAGE
}

/// How a group's checksums are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Formula {
    group: u32,
}

impl Formula {
    pub(super) fn of(group: GroupId) -> Self {
        Self {
            group: crate::types::crc::crc32c(group.0.as_bytes()),
        }
    }

    /// The checksums of the blocks from member address `at` on.
    pub(super) fn values(self, at: u64, data: &[u8]) -> Values {
        debug_assert!(at.is_multiple_of(BLOCK) && (data.len() as u64).is_multiple_of(BLOCK));
        let blocks = data.chunks_exact(BLOCK_LEN);
        (at / BLOCK..)
            .zip(blocks)
            .map(|(block, data)| crate::types::crc::crc32c(data) ^ self.place(block))
            .collect()
    }

    /// The checksums of blocks of zeros.
    fn of_zeros(self, range: ByteRange) -> Values {
        let zeros = crate::types::crc::crc32c(&[0; BLOCK_LEN]);
        range
            .units(BLOCK)
            .map(|block| zeros ^ self.place(block))
            .collect()
    }

    /// Different for blocks near each other (Fibonacci hashing).
    fn place(self, block: u64) -> u32 {
        let mixed = block.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        self.group ^ u32::try_from(mixed).expect("32 bits are left")
    }
}

/// `range` in whole blocks.
pub(super) fn round_to_blocks(range: ByteRange) -> ByteRange {
    range
        .round_out(BLOCK)
        .expect("a range within a member rounds within 64 bits")
}

#[cfg(test)]
mod tests;
