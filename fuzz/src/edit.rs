//! Changes to records on a disk, after which their checksums are right again.

use arbitrary::Arbitrary;
use ashlar_engine::types::sealed::{HEADER_LEN, Kind, seal};
use serde::ser::{Serialize, SerializeTuple as _, Serializer};

use crate::disk::{Disk, PAGE};

/// Header of a block of the region log, and its checksum's place in it.
const LOG_HEADER: usize = 24;
const LOG_CRC: usize = 20;

/// Replaces `cut` bytes at `at` by others. Positions beyond a record's end wrap around.
#[derive(Debug, Clone, Arbitrary)]
pub struct Edit {
    /// Which of the records.
    pub record: u8,
    /// Which number in the record, or which byte of it.
    pub at: u16,
    pub cut: u8,
    pub put: Vec<u8>,
}

impl Edit {
    /// Changes one of the records at `places`; nothing where there are none.
    pub fn apply(&self, disk: &Disk, places: &[(u64, [u8; 8])]) {
        let Some((at, magic)) = places.get(usize::from(self.record) % places.len().max(1)) else {
            return;
        };
        if magic == b"ASHLRlog" {
            self.change_log_block(disk, *at);
        } else {
            self.change_sealed(disk, *at, *magic);
        }
    }

    fn change_sealed(&self, disk: &Disk, at: u64, magic: [u8; 8]) {
        let mut header = [0; HEADER_LEN];
        disk.peek(at, &mut header);
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let kind = Kind {
            magic,
            version: word(8),
        };
        // An earlier change may have put anything here.
        let mut body = vec![0; (word(12) as usize).min(1 << 20)];
        disk.peek(at + HEADER_LEN as u64, &mut body);
        let from = usize::from(self.at) % (body.len() + 1);
        let to = (from + usize::from(self.cut)).min(body.len());
        body.splice(from..to, self.put.iter().copied());
        let mut sealed = seal(kind, &Raw(&body));
        sealed.resize(sealed.len().next_multiple_of(PAGE), 0);
        disk.poke(at, &sealed);
    }

    /// A block keeps its length, so what is put replaces as much.
    fn change_log_block(&self, disk: &Disk, at: u64) {
        let mut block = [0; PAGE];
        disk.peek(at, &mut block);
        let from = LOG_HEADER + usize::from(self.at) % (PAGE - LOG_HEADER);
        for (to, byte) in block[from..].iter_mut().zip(&self.put) {
            *to = *byte;
        }
        block[LOG_CRC..LOG_CRC + 4].fill(0);
        let crc = crc_fast::crc32_iscsi(&block);
        block[LOG_CRC..LOG_CRC + 4].copy_from_slice(&crc.to_le_bytes());
        disk.poke(at, &block);
    }
}

/// Bytes that serialise to themselves.
pub struct Raw<'a>(pub &'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = serializer.serialize_tuple(self.0.len())?;
        for byte in self.0 {
            bytes.serialize_element(byte)?;
        }
        bytes.end()
    }
}
