//! What stands on every device of an appliance: whose it is, and where its areas lie.
//!
//! ```text
//! 0        32 KiB      64 KiB            64 KiB + m                       end − 64 KiB   end − 32 KiB   end
//! | zeros  | copy A     | metadata (m)    | payload: RAID group's log, data | copy B       | zeros        |
//! ```
//! `end` is the capacity rounded down to 64 KiB; `m` is 1/256 of it in whole MiB, at least 4 MiB, at most 256 MiB.
//! The first 32 KiB stay empty so that nothing takes the device for a bootable or formatted disk.
//!
//! Invariants: copy B is written only after copy A is durable, so that one of them is always whole; the copy with the
//! higher sequence counts. What a RAID group keeps in its members' superblocks is opaque here.

use serde::{Deserialize, Serialize};

use super::{DeviceError, DeviceHandle};
use crate::io::IoBuf;
use crate::types::sealed::{self, COUNTERS_END, Kind, SealError};
use crate::types::{ApplianceId, ByteRange, DeviceId, DeviceNumber, GroupId};

const KIND: Kind = Kind {
    magic: *b"ASHLRsup",
    version: 1,
};
const COPY_LEN: u64 = 32 << 10;
const COPY_A: u64 = 32 << 10;
const HEAD: u64 = 64 << 10;
const TAIL: u64 = 64 << 10;

/// Smallest capacity that can be a device of an appliance.
pub const MIN_CAPACITY: u64 = 16 << 20;

/// Where the areas of a device of a given capacity lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLayout {
    /// The metadata store's area, used when this device is a holder.
    pub metadata: ByteRange,
    /// Everything that a RAID group may use.
    pub payload: ByteRange,
    copy_b: u64,
}

impl DeviceLayout {
    /// The layout for `capacity` bytes; `None` below [`MIN_CAPACITY`].
    pub fn for_capacity(capacity: u64) -> Option<Self> {
        if capacity < MIN_CAPACITY {
            return None;
        }
        let end = capacity - capacity % (64 << 10);
        let metadata_len = (end / 256).clamp(4 << 20, 256 << 20) & !((1 << 20) - 1);
        Some(Self {
            metadata: ByteRange::between(HEAD, HEAD + metadata_len),
            payload: ByteRange::between(HEAD + metadata_len, end - TAIL),
            copy_b: end - TAIL,
        })
    }

    /// The smallest capacity with this layout; `None` where no capacity has it.
    fn capacity(&self) -> Option<u64> {
        let capacity = self.copy_b.checked_add(TAIL)?;
        (Self::for_capacity(capacity) == Some(*self)).then_some(capacity)
    }
}

/// The membership that a device's superblock names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberLabel {
    pub group: GroupId,
    /// The RAID layer's own record.
    pub record: Vec<u8>,
}

/// The superblock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superblock {
    pub device: DeviceId,
    pub appliance: ApplianceId,
    pub number: DeviceNumber,
    /// Grows with every change; tells the newer copy.
    pub sequence: u64,
    pub layout: DeviceLayout,
    pub member: Option<MemberLabel>,
}

impl Superblock {
    /// Whether its numbers can be relied on; a checksum only tells that they were written so.
    fn is_sound(&self) -> bool {
        self.layout.capacity().is_some() && self.sequence < COUNTERS_END
    }
}

/// Why a superblock could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("the device was written by a newer program: {0}")]
    Newer(SealError),
    #[error(
        "a superblock was written for a larger device: it needs {needed} bytes, the device has {capacity}"
    )]
    Shrunk { needed: u64, capacity: u64 },
}

/// Reads the newer valid copy; `None` where there is none (or the device is too small for one).
pub async fn read(device: &DeviceHandle) -> Result<Option<Superblock>, SuperblockError> {
    let capacity = device.info().capacity;
    let Some(layout) = DeviceLayout::for_capacity(capacity) else {
        return Ok(None);
    };
    let mut newest: Option<Superblock> = None;
    let mut newer_version = None;
    for at in [COPY_A, layout.copy_b] {
        let bytes = match device.read(at, usize::try_from(COPY_LEN).expect("32 KiB")).await {
            Ok(bytes) => bytes,
            Err(DeviceError::Medium) => continue,
            Err(error) => return Err(error.into()),
        };
        match sealed::open::<Superblock>(KIND, bytes.as_slice()) {
            Ok(found)
                if found.is_sound()
                    && newest
                        .as_ref()
                        .is_none_or(|known| known.sequence < found.sequence) =>
            {
                newest = Some(found);
            }
            Ok(_) | Err(SealError::Invalid) => {}
            Err(newer) => newer_version = Some(newer),
        }
    }
    if let Some(newer) = newer_version {
        return Err(SuperblockError::Newer(newer));
    }
    match newest.as_ref().and_then(|found| found.layout.capacity()) {
        Some(needed) if needed > capacity => Err(SuperblockError::Shrunk { needed, capacity }),
        _ => Ok(newest),
    }
}

/// Writes both copies, one after the other; durable when it returns.
pub async fn write(device: &DeviceHandle, superblock: &Superblock) -> Result<(), DeviceError> {
    let sealed = sealed::seal(KIND, superblock);
    let mut copy = IoBuf::zeroed(usize::try_from(COPY_LEN).expect("32 KiB"));
    assert!(
        sealed.len() <= copy.len(),
        "a superblock fits its copy: members and history are bounded"
    );
    copy.as_mut_slice()[..sealed.len()].copy_from_slice(&sealed);
    let copy = copy.into_slice();
    device.write(COPY_A, copy.clone(), true).await?;
    device.write(superblock.layout.copy_b, copy, true).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::memory::MemoryDevice;
    use futures_util::FutureExt as _;
    use proptest::prelude::*;
    use uuid::Uuid;

    proptest! {
        #[test]
        fn areas_never_overlap_and_fit_the_capacity(capacity in MIN_CAPACITY..(1u64 << 50)) {
            let layout = DeviceLayout::for_capacity(capacity).unwrap();
            prop_assert!(COPY_A + COPY_LEN <= layout.metadata.start());
            prop_assert_eq!(layout.metadata.end(), layout.payload.start());
            prop_assert_eq!(layout.payload.end(), layout.copy_b);
            prop_assert!(layout.copy_b + TAIL <= capacity);
            prop_assert!(layout.payload.len() >= 8 << 20);
        }
    }

    #[test]
    fn a_device_below_the_minimum_has_no_layout() {
        assert!(DeviceLayout::for_capacity(MIN_CAPACITY - 1).is_none());
    }

    fn found(changed: impl FnOnce(&mut Superblock)) -> Result<Option<Superblock>, SuperblockError> {
        let capacity = MIN_CAPACITY + (128 << 10);
        let device = MemoryDevice::new(usize::try_from(capacity).unwrap()).open_as(DeviceId(Uuid::nil()));
        let layout = DeviceLayout::for_capacity(capacity).unwrap();
        let mut superblock = Superblock {
            device: DeviceId(Uuid::max()),
            appliance: ApplianceId(Uuid::max()),
            number: DeviceNumber(0),
            sequence: 1,
            layout,
            member: None,
        };
        changed(&mut superblock);
        let sealed = sealed::seal(KIND, &superblock);
        let mut copy = IoBuf::zeroed(4096);
        copy.as_mut_slice()[..sealed.len()].copy_from_slice(&sealed);
        let written = device.write(COPY_A, copy.into_slice(), true);
        written.now_or_never().unwrap().unwrap();
        read(&device).now_or_never().unwrap()
    }

    #[test]
    fn a_superblock_with_areas_that_no_capacity_gives_is_none() {
        assert!(found(|_| ()).unwrap().is_some());
        let unsound: [fn(&mut Superblock); 4] = [
            |superblock| superblock.layout.copy_b = u64::MAX - 5,
            |superblock| superblock.layout.copy_b = 0,
            |superblock| superblock.layout.metadata = ByteRange::between(0, u64::MAX),
            |superblock| superblock.layout.payload = ByteRange::between(0, 4096),
        ];
        for change in unsound {
            assert_eq!(found(change), Ok(None));
        }
    }

    #[test]
    fn a_sequence_that_leaves_no_room_for_changes_is_none() {
        assert_eq!(found(|superblock| superblock.sequence = u64::MAX), Ok(None));
    }

    #[test]
    fn a_device_that_shrank_says_so() {
        let larger = DeviceLayout::for_capacity(2 * MIN_CAPACITY).unwrap();
        assert!(matches!(
            found(|superblock| superblock.layout = larger),
            Err(SuperblockError::Shrunk { .. })
        ));
    }
}
