//! What the clients write: sectors that say by which write, and where, they belong.

use super::SECTOR;

const UNIT: usize = 16;
const SECTOR_BYTES: usize = 512;

/// Names one write of the run; 0 is no write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteId(pub u64);

/// What a sector was seen to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Zeros,
    /// What this write puts there.
    Written(WriteId),
    /// What this write puts into another sector of some volume.
    Misplaced {
        by: WriteId,
        sector: u64,
    },
    /// Nothing that any client wrote.
    Garbage,
}

/// Fills `buf` with what write `id` puts at `sector` and after it.
pub fn fill(buf: &mut [u8], id: WriteId, sector: u64) {
    for (sector, bytes) in (sector..).zip(buf.chunks_exact_mut(SECTOR_BYTES)) {
        let mut unit = [0; UNIT];
        unit[..8].copy_from_slice(&id.0.to_le_bytes());
        unit[8..].copy_from_slice(&(sector ^ salt(id)).to_le_bytes());
        for place in bytes.chunks_exact_mut(UNIT) {
            place.copy_from_slice(&unit);
        }
    }
}

/// Recognizes the `bytes` of one sector, read at `sector`.
pub fn recognize(bytes: &[u8], sector: u64) -> Content {
    debug_assert_eq!(bytes.len() as u64, SECTOR);
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let id = WriteId(word(0));
    let found = word(8) ^ salt(id);
    let uniform = bytes[UNIT..] == bytes[..SECTOR_BYTES - UNIT];
    match (uniform, id) {
        (true, WriteId(0)) if word(8) == 0 => Content::Zeros,
        (true, id) if id.0 != 0 && found == sector => Content::Written(id),
        (true, id) if id.0 != 0 && found < 1 << 40 => Content::Misplaced {
            by: id,
            sector: found,
        },
        _ => Content::Garbage,
    }
}

/// Makes a sector's number look unlike one that is not a tag.
fn salt(id: WriteId) -> u64 {
    id.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_tells_its_write_and_its_place() {
        let mut buf = [0; 1024];
        fill(&mut buf, WriteId(5), 9);
        assert_eq!(recognize(&buf[512..], 10), Content::Written(WriteId(5)));
        assert_eq!(
            recognize(&buf[512..], 11),
            Content::Misplaced {
                by: WriteId(5),
                sector: 10
            }
        );
        assert_eq!(recognize(&[0; 512], 1), Content::Zeros);
        buf[700] ^= 1;
        assert_eq!(recognize(&buf[512..], 10), Content::Garbage);
        assert_eq!(recognize(&buf[256..768], 9), Content::Garbage);
    }
}
