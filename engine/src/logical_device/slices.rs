//! Slice lengths, and runs of slices within one RAID group.
//!
//! Invariants: a [`SliceLength`] is a power of two from 1 MiB up to the smallest volume that the appliance allows, so
//! every volume fills at least one slice and every cylinder fits in one; a [`Slices`] run never reaches beyond `u32`.

use serde::{Deserialize, Serialize};

use crate::types::bytes::{ByteSize, MIB};
use crate::types::{ByteRange, EmulationType};

/// The appliance's smallest volume, where nothing else is set.
pub const DEFAULT_SMALLEST_VOLUME: u64 = 64 * MIB;

/// Length of every slice of one group, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct SliceLength(u64);

/// No group can be cut so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "slice length {asked} is not a power of two from {} to {largest}",
    SliceLength::SMALLEST
)]
pub struct SliceLengthError {
    pub asked: ByteSize,
    /// The greatest power of two that is no longer than the smallest volume.
    pub largest: ByteSize,
}

impl SliceLength {
    pub const SMALLEST: ByteSize = ByteSize(MIB);
    pub const DEFAULT: Self = Self(64 * MIB);

    /// `smallest_volume` is the appliance's setting, in bytes.
    pub fn new(len: u64, smallest_volume: u64) -> Result<Self, SliceLengthError> {
        if !len.is_power_of_two() || len < Self::SMALLEST.0 || len > smallest_volume {
            let largest = smallest_volume.checked_ilog2().map_or(0, |log| 1 << log);
            return Err(SliceLengthError {
                asked: ByteSize(len),
                largest: ByteSize(largest),
            });
        }
        Ok(Self(len))
    }

    pub fn bytes(self) -> u64 {
        self.0
    }

    /// How many whole slices a group of this capacity has; what is left over stays unused.
    pub fn slices_in(self, group_capacity: u64) -> u32 {
        u32::try_from(group_capacity / self.0).unwrap_or(u32::MAX)
    }

    /// How much of a slice holds data of this type: all of it, or its whole cylinders.
    pub fn usable(self, emulation: EmulationType) -> u64 {
        self.0 - self.0 % emulation.mapping_unit()
    }

    /// Usable space of `slices` in the group's address space, in address order; joined where nothing lies between.
    pub fn usable_space(self, slices: Slices, emulation: EmulationType) -> impl Iterator<Item = ByteRange> {
        let usable = self.usable(emulation);
        let whole = usable == self.0;
        let (pieces, len) = if whole {
            (1, u64::from(slices.count) * usable)
        } else {
            (slices.count, usable)
        };
        (0..pieces).map(move |piece| {
            let start = (u64::from(slices.first) + u64::from(piece)) * self.0;
            ByteRange::between(start, start + len)
        })
    }

    /// The slice that holds this address of the group; `None` beyond what slices can number.
    pub fn slice_at(self, group_address: u64) -> Option<u32> {
        u32::try_from(group_address / self.0).ok()
    }
}

impl TryFrom<u64> for SliceLength {
    type Error = SliceLengthError;

    /// A stored length: the setting that it was made under may have changed since.
    fn try_from(len: u64) -> Result<Self, Self::Error> {
        Self::new(len, u64::MAX)
    }
}

impl From<SliceLength> for u64 {
    fn from(len: SliceLength) -> Self {
        len.0
    }
}

/// `count` slices of one group from number `first` of that group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "StoredSlices")]
pub struct Slices {
    pub first: u32,
    pub count: u32,
}

/// What a stored run claims to be, before it is checked.
#[derive(Deserialize)]
struct StoredSlices {
    first: u32,
    count: u32,
}

impl TryFrom<StoredSlices> for Slices {
    type Error = &'static str;

    fn try_from(StoredSlices { first, count }: StoredSlices) -> Result<Self, Self::Error> {
        let slices = Self { first, count };
        slices
            .checked_end()
            .map(|_| slices)
            .ok_or("a run of slices ends beyond 32 bits")
    }
}

impl Slices {
    /// From `first` up to, not including, `end`.
    pub fn between(first: u32, end: u32) -> Self {
        debug_assert!(first <= end);
        Self {
            first,
            count: end.saturating_sub(first),
        }
    }

    /// First slice after the run; `None` where no slice can have that number.
    pub fn checked_end(self) -> Option<u32> {
        self.first.checked_add(self.count)
    }

    /// First slice after the run, which is known to lie in a group.
    pub fn end(self) -> u32 {
        self.first + self.count
    }

    pub fn contains(self, slice: u32) -> bool {
        self.first <= slice && slice - self.first < self.count
    }
}

impl std::fmt::Display for Slices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{}", self.first, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::geometry::{CkdModel, OpenBlock};

    const CKD: EmulationType = EmulationType::Ckd(CkdModel::M3390M3);
    const OPEN: EmulationType = EmulationType::Open(OpenBlock::B512);

    #[test]
    fn slices_are_powers_of_two_from_1_mib_to_the_smallest_volume() {
        for len in [MIB, 2 * MIB, 64 * MIB] {
            assert_eq!(SliceLength::new(len, 64 * MIB).unwrap().bytes(), len);
        }
        for len in [0, MIB / 2, 3 * MIB, 128 * MIB, u64::MAX] {
            assert!(SliceLength::new(len, 64 * MIB).is_err(), "{len}");
        }
        assert_eq!(
            SliceLength::new(128 * MIB, 100 * MIB).unwrap_err().to_string(),
            "slice length 128MiB is not a power of two from 1MiB to 64MiB"
        );
    }

    #[test]
    fn the_last_partial_slice_is_unused() {
        assert_eq!(SliceLength::DEFAULT.slices_in(64 * MIB * 3 + 1), 3);
        assert_eq!(SliceLength::DEFAULT.slices_in(64 * MIB - 1), 0);
    }

    #[test]
    fn a_slice_holds_whole_cylinders() {
        assert_eq!(SliceLength::DEFAULT.usable(CKD), 78 * 15 * 57_344);
        assert_eq!(SliceLength(MIB).usable(CKD), 15 * 57_344);
        assert_eq!(SliceLength::DEFAULT.usable(OPEN), 64 * MIB);
    }

    #[test]
    fn usable_space_is_joined_on_open_and_has_gaps_between_cylinders() {
        let slices = Slices { first: 2, count: 3 };
        let space = |emulation| {
            SliceLength(MIB)
                .usable_space(slices, emulation)
                .collect::<Vec<_>>()
        };
        assert_eq!(space(OPEN), [ByteRange::between(2 * MIB, 5 * MIB)]);
        let cylinder = CkdModel::M3390M3.cylinder();
        let starts = [2 * MIB, 3 * MIB, 4 * MIB];
        assert_eq!(
            space(CKD),
            starts.map(|start| ByteRange::between(start, start + cylinder))
        );
    }

    #[test]
    fn a_stored_run_that_ends_beyond_what_slices_can_number_is_refused() {
        let stored = |slices: (u32, u32)| postcard::to_stdvec(&slices).unwrap();
        let read = |bytes: &[u8]| postcard::from_bytes::<Slices>(bytes).ok();
        assert_eq!(read(&stored((2, 3))), Some(Slices { first: 2, count: 3 }));
        assert_eq!(read(&stored((2, u32::MAX))), None);
    }
}
