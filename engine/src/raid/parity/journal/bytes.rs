//! Little-endian fields and checksums of the journal's blocks.

use crate::types::GroupId;
use crate::types::crc::crc32c_of;

pub(super) fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Where the fields stand that every block of the journal begins with.
const VERSION_AT: usize = 8;
const CRC_AT: usize = 12;
const GROUP_AT: usize = 16;
const MEMBER_AT: usize = 32;

/// Magic, version, group and member; the checksum is for [`seal`], last of all.
pub(super) fn put_head(out: &mut [u8], magic: [u8; 8], version: u32, group: GroupId, member: usize) {
    put(out, 0, &magic);
    put(out, VERSION_AT, &version.to_le_bytes());
    put(out, GROUP_AT, group.0.as_bytes());
    put(out, MEMBER_AT, &(member as u64).to_le_bytes());
}

pub(super) fn has_head(bytes: &[u8], magic: [u8; 8], version: u32, group: GroupId, member: usize) -> bool {
    bytes[..8] == magic
        && u32_at(bytes, VERSION_AT) == version
        && bytes[GROUP_AT..MEMBER_AT] == *group.0.as_bytes()
        && u64_at(bytes, MEMBER_AT) == member as u64
}

/// CRC32C of `bytes` with the field for it taken as zero.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c_of(&[&bytes[..CRC_AT], &[0; 4], &bytes[CRC_AT + 4..]])
}

pub(super) fn seal(out: &mut [u8]) {
    let crc = checksum(out);
    put(out, CRC_AT, &crc.to_le_bytes());
}

pub(super) fn is_sealed(bytes: &[u8]) -> bool {
    u32_at(bytes, CRC_AT) == checksum(bytes)
}
