//! Recognises what others have put on a device, so that it is not overwritten by mistake: file systems, partition
//! tables, volume managers, swap, encryption.
//!
//! Invariants: [`detect`] reads nothing but the two [`regions`] of a device and never fails on any content. Zeros in
//! both leave nothing that it recognises, nor anything that `blkid` does; what is outside them (copies of
//! superblocks, data) stays.

mod formats;

use uuid::Uuid;

use self::formats::{FORMATS, Format, Identity};
use super::{Device, DeviceError, Request, start};
use crate::io::{BufSlice, IoBuf};
use crate::types::ByteRange;

pub use self::formats::Kind;

/// Bytes at the start of a device in which signatures lie: VMFS has one at 2 MiB, LUKS a second header up to there.
const HEAD: u64 = 4 << 20;
/// Bytes at its end: ZFS labels, md, DRBD, the second partition table.
const TAIL: u64 = 1 << 20;

/// Something that was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    pub kind: Kind,
    /// Where its structure begins.
    pub at: u64,
    pub label: Option<String>,
    pub uuid: Option<String>,
}

impl std::fmt::Display for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at byte {}", self.kind, self.at)?;
        if let Some(label) = &self.label {
            write!(f, ", label {label:?}")?;
        }
        if let Some(uuid) = &self.uuid {
            write!(f, ", UUID {uuid}")?;
        }
        Ok(())
    }
}

/// The start and the end of a device of `capacity` bytes; they overlap on a small one. Multiples of its block.
pub fn regions(capacity: u64) -> [ByteRange; 2] {
    [
        ByteRange::between(0, capacity.min(HEAD)),
        ByteRange::between(capacity.saturating_sub(TAIL), capacity),
    ]
}

/// What the two regions of a device hold. Where they are shorter than they should be, less is recognised.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    pub capacity: u64,
    /// The first region, from byte 0.
    pub head: &'a [u8],
    /// The last region, up to `capacity`.
    pub tail: &'a [u8],
}

impl<'a> Content<'a> {
    fn bytes(&self, at: u64, len: usize) -> Option<&'a [u8]> {
        let within = |region: &'a [u8], start: u64| {
            let from = usize::try_from(at.checked_sub(start)?).ok()?;
            region.get(from..from.checked_add(len)?)
        };
        let tail_start = self.capacity.checked_sub(self.tail.len() as u64)?;
        within(self.head, 0).or_else(|| within(self.tail, tail_start))
    }

    fn holds(&self, at: u64, bytes: &[u8]) -> bool {
        self.bytes(at, bytes.len()) == Some(bytes)
    }

    fn text(&self, at: u64, len: usize) -> Option<String> {
        let bytes = self.bytes(at, len)?.split(|&byte| byte == 0).next()?;
        let text = String::from_utf8_lossy(bytes).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }

    fn uuid(&self, at: u64) -> Option<Uuid> {
        let uuid = Uuid::from_slice(self.bytes(at, 16)?).ok()?;
        (!uuid.is_nil()).then_some(uuid)
    }
}

/// Everything that is recognised, partition tables last.
pub fn detect(content: &Content<'_>) -> Vec<Signature> {
    let mut found: Vec<Signature> = FORMATS
        .iter()
        .flat_map(|format| format.find(content))
        .chain(find_zfs(content))
        .collect();
    // Boot sectors of file systems look like this table, and a GUID partition table has it as a disguise.
    if !found
        .iter()
        .any(|signature| signature.at == 0 || signature.kind == Kind::Gpt)
        && is_mbr(content)
    {
        found.push(Signature {
            kind: Kind::Mbr,
            at: 0,
            label: None,
            uuid: None,
        });
    }
    found
}

impl Format {
    fn find(&self, content: &Content<'_>) -> impl Iterator<Item = Signature> {
        self.starts.iter().filter_map(move |start| {
            let at = start.resolve(content.capacity)?;
            let (offset, magic) = self.magic;
            content.holds(at.checked_add(offset)?, magic).then(|| Signature {
                kind: self.kind,
                at,
                label: self
                    .label
                    .and_then(|(offset, len)| content.text(at.checked_add(offset)?, len)),
                uuid: self.identity.and_then(|identity| identity.read(content, at)),
            })
        })
    }
}

impl Identity {
    fn read(self, content: &Content<'_>, at: u64) -> Option<String> {
        match self {
            Self::Binary(offset) => Some(content.uuid(at.checked_add(offset)?)?.to_string()),
            Self::MixedEndian(offset) => {
                let uuid = content.uuid(at.checked_add(offset)?)?;
                Some(Uuid::from_bytes_le(uuid.into_bytes()).to_string())
            }
            Self::Text(offset, len) => content.text(at.checked_add(offset)?, len),
        }
    }
}

/// ZFS keeps four labels of 256 KiB, two at each end; the second half of each is a ring of blocks with the magic.
fn find_zfs(content: &Content<'_>) -> Option<Signature> {
    const LABEL: u64 = 256 << 10;
    const MAGIC: u64 = 0x00ba_b10c;
    let end = content.capacity - content.capacity % LABEL;
    let labels = [
        Some(0),
        Some(LABEL),
        end.checked_sub(2 * LABEL),
        end.checked_sub(LABEL),
    ];
    labels.into_iter().flatten().find_map(|at| {
        let written = (LABEL / 2..LABEL).step_by(1024).any(|offset| {
            content.holds(at + offset, &MAGIC.to_le_bytes())
                || content.holds(at + offset, &MAGIC.to_be_bytes())
        });
        written.then_some(Signature {
            kind: Kind::Zfs,
            at,
            label: None,
            uuid: None,
        })
    })
}

/// The two closing bytes, and four entries whose first byte is one of the two that it may be.
fn is_mbr(content: &Content<'_>) -> bool {
    let Some(sector) = content.bytes(0, 512) else {
        return false;
    };
    sector[510..] == [0x55, 0xaa] && (0..4).all(|entry| matches!(sector[446 + 16 * entry], 0 | 0x80))
}

/// Reads a device's regions and tells what is there. Must run on a data thread.
///
/// # Errors
/// The device's own.
pub async fn examine(device: &dyn Device) -> Result<Vec<Signature>, DeviceError> {
    let capacity = device.info().capacity;
    let [head, tail] = regions(capacity);
    let (head, tail) = (read(device, head).await?, read(device, tail).await?);
    Ok(detect(&Content {
        capacity,
        head: head.as_slice(),
        tail: tail.as_slice(),
    }))
}

async fn read(device: &dyn Device, range: ByteRange) -> Result<BufSlice, DeviceError> {
    let len = usize::try_from(range.len()).expect("regions are small");
    let answer = start(
        device,
        Request::Read {
            at: range.start(),
            buf: IoBuf::new(len),
        },
    )
    .await;
    answer.result?;
    answer.buf.map(IoBuf::into_slice).ok_or(DeviceError::Short)
}

/// Clears a device's regions, durably, so that nothing is recognised there any more. Must run on a data thread.
///
/// # Errors
/// The device's own; then some of it may be cleared.
pub async fn erase(device: &dyn Device) -> Result<(), DeviceError> {
    for range in regions(device.info().capacity) {
        start(device, Request::Zero { range, unmap: false })
            .await
            .result?;
    }
    start(device, Request::Flush).await.result
}

#[cfg(test)]
mod tests;
