//! The envelope of every record that is written to a device: a header that says what it is, in which version, how long
//! and with which checksum, then the body in postcard's wire format.
//!
//! Header, 24 bytes, little-endian: magic (8 bytes: `ASHLR` and three letters of the kind), version `u32`, body length
//! `u32`, CRC32C of the body `u32`, CRC32C of the 20 bytes before `u32`.
//!
//! Invariant: [`open`] never allocates more than the bytes that it was given and never panics, whatever they are.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of the header.
pub const HEADER_LEN: usize = 24;

/// Sequences and generations in records stay below this. Nothing counts so far, so a greater one was not counted; and
/// who finds one must be able to count on.
pub const COUNTERS_END: u64 = 1 << 63;

/// A kind of record: its magic and the newest version that this program writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    pub magic: [u8; 8],
    pub version: u32,
}

/// Why bytes are not a record of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Another magic, a wrong checksum or a wrong length: nothing of ours stands here, or it is damaged.
    #[error("no valid record")]
    Invalid,
    #[error("record has version {found}, this program reads up to {newest}")]
    Newer { found: u32, newest: u32 },
}

/// Header and body of a record.
pub fn seal<T: Serialize>(kind: Kind, body: &T) -> Vec<u8> {
    let mut out = vec![0; HEADER_LEN];
    out =
        postcard::to_extend(body, out).expect("plain data with known lengths always serialises into memory");
    let body = &out[HEADER_LEN..];
    let len = u32::try_from(body.len()).expect("a record is far below 4 GiB");
    let body_crc = crate::types::crc::crc32c(body);
    out[..8].copy_from_slice(&kind.magic);
    out[8..12].copy_from_slice(&kind.version.to_le_bytes());
    out[12..16].copy_from_slice(&len.to_le_bytes());
    out[16..20].copy_from_slice(&body_crc.to_le_bytes());
    let header_crc = crate::types::crc::crc32c(&out[..20]);
    out[20..24].copy_from_slice(&header_crc.to_le_bytes());
    out
}

/// Length of the body that a header announces, after its own checksum was found right.
pub fn body_len(kind: Kind, header: &[u8]) -> Result<usize, SealError> {
    let header: &[u8; HEADER_LEN] = header.first_chunk().ok_or(SealError::Invalid)?;
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    if header[..8] != kind.magic || word(20) != crate::types::crc::crc32c(&header[..20]) {
        return Err(SealError::Invalid);
    }
    let found = word(8);
    if found > kind.version {
        return Err(SealError::Newer {
            found,
            newest: kind.version,
        });
    }
    usize::try_from(word(12)).map_err(|_| SealError::Invalid)
}

/// The checked body of the record at the start of `bytes`.
pub fn open_body(kind: Kind, bytes: &[u8]) -> Result<&[u8], SealError> {
    let len = body_len(kind, bytes)?;
    let body = bytes[HEADER_LEN..].get(..len).ok_or(SealError::Invalid)?;
    let crc = u32::from_le_bytes(bytes[16..20].try_into().expect("four bytes"));
    (crate::types::crc::crc32c(body) == crc)
        .then_some(body)
        .ok_or(SealError::Invalid)
}

/// The record at the start of `bytes`.
pub fn open<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<T, SealError> {
    postcard::from_bytes(open_body(kind, bytes)?).map_err(|_| SealError::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIND: Kind = Kind {
        magic: *b"ASHLRtst",
        version: 3,
    };

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let newer = seal(Kind { version: 4, ..KIND }, &7u32);
        assert_eq!(
            open::<u32>(KIND, &newer),
            Err(SealError::Newer { found: 4, newest: 3 })
        );
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_and_any_flipped_bit_is_found(value in any::<Vec<u16>>(), at in any::<usize>(), bit in 0u8..8) {
            let mut bytes = seal(KIND, &value);
            prop_assert_eq!(open::<Vec<u16>>(KIND, &bytes), Ok(value));
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(open::<Vec<u16>>(KIND, &bytes).is_err());
        }

        #[test]
        fn garbage_is_refused_without_a_panic(bytes in any::<Vec<u8>>()) {
            prop_assert!(open::<Vec<u64>>(KIND, &bytes).is_err());
        }
    }
}
