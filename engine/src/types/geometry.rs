//! Emulation types: the geometry that a volume presents to its hosts.
//!
//! `open` is a plain space of 512- or 4096-byte blocks of any capacity. The others are count-key-data disks, whose
//! capacity follows from the type. A host sees such a disk's track slots in cylinder, head order: each slot is the
//! track's largest data length rounded up to 4096 bytes, so that cylinders, tracks and blocks never share a page.
//!
//! | model | cylinders | heads | track (bytes) | slot (bytes) |
//! |---|---|---|---|---|
//! | 3380-A, -D, -J | 885 | 15 | 47,476 | 49,152 |
//! | 3380-E | 1,770 | 15 | 47,476 | 49,152 |
//! | 3380-K | 2,655 | 15 | 47,476 | 49,152 |
//! | 3390-1 / -2 / -3 | 1,113 / 2,226 / 3,339 | 15 | 56,664 | 57,344 |
//! | 3390-9 / -27 / -54 | 10,017 / 32,760 / 65,520 | 15 | 56,664 | 57,344 |
//!
//! Source: the device table of the Hercules emulator (`dasdtab.c`), which follows IBM's *3990/9390 Storage Control
//! Reference* (GA32-0274): primary cylinders without alternates, and the data of a track that holds one record without
//! a key. A 3380 letter that stands for a unit of several access mechanisms (A, D, J) means one of them.
//!
//! Invariant: the numeric order of the variants is the on-device form (postcard writes a variant's index); variants
//! are only ever appended.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::bytes::{ByteSize, KIB};

/// Tracks in a cylinder, on every count-key-data type.
pub const HEADS: u32 = 15;

/// The unit of difference tracking on `open`, where nothing else is set.
pub const DEFAULT_OPEN_TRACK: u64 = 64 * KIB;

/// The largest capacity of a volume: leaves room to round up without overflow, and fits a signed file offset.
pub const LARGEST_VOLUME: u64 = 1 << 62;

/// Slots, mappings and count-key-data blocks are multiples of this.
pub const PAGE: u64 = 4 * KIB;

/// What a volume looks like to its hosts. Two volumes can be paired only where these are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EmulationType {
    Open(OpenBlock),
    Ckd(CkdModel),
}

/// Block size of an `open` volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OpenBlock {
    B512,
    B4096,
}

/// A count-key-data disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CkdModel {
    M3380A,
    M3380D,
    M3380E,
    M3380J,
    M3380K,
    M3390M1,
    M3390M2,
    M3390M3,
    M3390M9,
    M3390M27,
    M3390M54,
}

/// No such emulation type here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "emulation type {name:?} is not supported here; supported are {}",
    EmulationType::names()
)]
pub struct UnknownEmulationType {
    pub name: String,
}

/// Why a volume of this type cannot have that capacity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapacityError {
    #[error("a volume of type {0} needs a capacity")]
    Missing(EmulationType),
    #[error("capacity {asked} is below the smallest volume of {smallest}")]
    TooSmall { asked: ByteSize, smallest: ByteSize },
    #[error("capacity {asked} is above the largest volume of {largest}")]
    TooLarge { asked: ByteSize, largest: ByteSize },
    #[error("capacity {asked} is not a multiple of the block of {block} bytes; the next one is {next}")]
    Misaligned {
        asked: ByteSize,
        block: u32,
        next: ByteSize,
    },
    #[error("a volume of type {emulation} has {fixed}, not {asked}: leave the capacity out")]
    Fixed {
        emulation: EmulationType,
        fixed: ByteSize,
        asked: ByteSize,
    },
}

impl EmulationType {
    /// Every type there is, by name.
    pub const ALL: [(&'static str, Self); 13] = [
        ("open-512", Self::Open(OpenBlock::B512)),
        ("open-4096", Self::Open(OpenBlock::B4096)),
        ("3380-A", Self::Ckd(CkdModel::M3380A)),
        ("3380-D", Self::Ckd(CkdModel::M3380D)),
        ("3380-E", Self::Ckd(CkdModel::M3380E)),
        ("3380-J", Self::Ckd(CkdModel::M3380J)),
        ("3380-K", Self::Ckd(CkdModel::M3380K)),
        ("3390-1", Self::Ckd(CkdModel::M3390M1)),
        ("3390-2", Self::Ckd(CkdModel::M3390M2)),
        ("3390-3", Self::Ckd(CkdModel::M3390M3)),
        ("3390-9", Self::Ckd(CkdModel::M3390M9)),
        ("3390-27", Self::Ckd(CkdModel::M3390M27)),
        ("3390-54", Self::Ckd(CkdModel::M3390M54)),
    ];

    fn names() -> String {
        Self::ALL.map(|(name, _)| name).join(", ")
    }

    /// Addresses and lengths of host requests are multiples of this many bytes.
    pub fn block(self) -> u32 {
        match self {
            Self::Open(OpenBlock::B512) => 512,
            Self::Open(OpenBlock::B4096) | Self::Ckd(_) => 4096,
        }
    }

    /// Bytes of one unit of difference tracking, where nothing else is set.
    pub fn default_track(self) -> u64 {
        match self {
            Self::Open(_) => DEFAULT_OPEN_TRACK,
            Self::Ckd(model) => model.slot(),
        }
    }

    /// Bytes that are mapped as a whole: a page, or a cylinder.
    pub fn mapping_unit(self) -> u64 {
        match self {
            Self::Open(_) => PAGE,
            Self::Ckd(model) => model.cylinder(),
        }
    }

    /// The capacity of a new volume, which may be left out where it follows from the type. `smallest_volume` is the
    /// appliance's setting, in bytes.
    pub fn new_capacity(self, asked: Option<u64>, smallest_volume: u64) -> Result<u64, CapacityError> {
        let capacity = match self {
            Self::Open(_) => asked.ok_or(CapacityError::Missing(self))?,
            Self::Ckd(model) => asked.unwrap_or(model.capacity()),
        };
        self.check_capacity(capacity)?;
        if capacity < smallest_volume {
            let (asked, smallest) = (ByteSize(capacity), ByteSize(smallest_volume));
            return Err(CapacityError::TooSmall { asked, smallest });
        }
        Ok(capacity)
    }

    /// Whether a volume of this type can have `capacity` bytes.
    pub fn check_capacity(self, capacity: u64) -> Result<(), CapacityError> {
        let (asked, block) = (ByteSize(capacity), self.block());
        match self {
            Self::Ckd(model) if capacity != model.capacity() => Err(CapacityError::Fixed {
                emulation: self,
                fixed: ByteSize(model.capacity()),
                asked,
            }),
            Self::Open(_) if capacity == 0 => Err(CapacityError::TooSmall {
                asked,
                smallest: ByteSize(block.into()),
            }),
            Self::Open(_) if capacity > LARGEST_VOLUME => Err(CapacityError::TooLarge {
                asked,
                largest: ByteSize(LARGEST_VOLUME),
            }),
            Self::Open(_) if !capacity.is_multiple_of(block.into()) => {
                let next = ByteSize(capacity.next_multiple_of(block.into()));
                Err(CapacityError::Misaligned { asked, block, next })
            }
            Self::Open(_) | Self::Ckd(_) => Ok(()),
        }
    }
}

impl CkdModel {
    pub fn cylinders(self) -> u32 {
        match self {
            Self::M3380A | Self::M3380D | Self::M3380J => 885,
            Self::M3380E => 1_770,
            Self::M3380K => 2_655,
            Self::M3390M1 => 1_113,
            Self::M3390M2 => 2_226,
            Self::M3390M3 => 3_339,
            Self::M3390M9 => 10_017,
            Self::M3390M27 => 32_760,
            Self::M3390M54 => 65_520,
        }
    }

    /// The most data that one track holds, in bytes: what the disk's own software sees.
    pub fn track(self) -> u64 {
        match self {
            Self::M3380A | Self::M3380D | Self::M3380E | Self::M3380J | Self::M3380K => 47_476,
            _ => 56_664,
        }
    }

    /// Bytes from the start of one track to the start of the next in the volume's address space.
    pub fn slot(self) -> u64 {
        self.track().next_multiple_of(PAGE)
    }

    /// Bytes of a cylinder: all its slots.
    pub fn cylinder(self) -> u64 {
        u64::from(HEADS) * self.slot()
    }

    /// Bytes of the whole disk.
    pub fn capacity(self) -> u64 {
        u64::from(self.cylinders()) * self.cylinder()
    }
}

impl FromStr for EmulationType {
    type Err = UnknownEmulationType;

    /// Reads a name as it is printed; `open` alone means blocks of 512 bytes.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let full = if name == "open" { "open-512" } else { name };
        let known = Self::ALL.iter().find(|(known, _)| *known == full);
        known
            .map(|(_, emulation)| *emulation)
            .ok_or_else(|| UnknownEmulationType { name: name.into() })
    }
}

impl std::fmt::Display for EmulationType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = Self::ALL.iter().find(|(_, emulation)| emulation == self);
        f.pad(known.expect("ALL lists every type").0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_to_its_type_and_back() {
        for (name, emulation) in EmulationType::ALL {
            assert_eq!(name.parse(), Ok(emulation));
            assert_eq!(emulation.to_string(), name);
        }
        assert_eq!("open".parse(), Ok(EmulationType::Open(OpenBlock::B512)));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let refusal = "3350-1".parse::<EmulationType>().unwrap_err().to_string();
        assert_eq!(
            refusal,
            "emulation type \"3350-1\" is not supported here; supported are open-512, open-4096, 3380-A, 3380-D, \
             3380-E, 3380-J, 3380-K, 3390-1, 3390-2, 3390-3, 3390-9, 3390-27, 3390-54"
        );
    }

    #[test]
    fn slots_are_tracks_rounded_up_to_pages() {
        assert_eq!(
            (CkdModel::M3380K.slot(), CkdModel::M3390M3.slot()),
            (49_152, 57_344)
        );
    }

    #[test]
    fn capacities_follow_from_the_published_geometry() {
        assert_eq!(CkdModel::M3380A.capacity(), 885 * 15 * 49_152);
        assert_eq!(CkdModel::M3390M3.capacity(), 3_339 * 15 * 57_344);
        assert_eq!(CkdModel::M3390M54.capacity(), 65_520 * 15 * 57_344);
        for (_, emulation) in EmulationType::ALL {
            let EmulationType::Ckd(model) = emulation else {
                continue;
            };
            assert_eq!(emulation.new_capacity(None, 64 << 20), Ok(model.capacity()));
            assert!(model.capacity().is_multiple_of(emulation.block().into()));
            assert!(matches!(
                emulation.new_capacity(Some(1 << 30), 0),
                Err(CapacityError::Fixed { .. })
            ));
        }
    }

    #[test]
    fn a_capacity_that_an_open_volume_cannot_have_is_refused() {
        let open = EmulationType::Open(OpenBlock::B512);
        assert_eq!(open.new_capacity(Some(64 << 20), 64 << 20), Ok(64 << 20));
        assert_eq!(open.new_capacity(None, 0), Err(CapacityError::Missing(open)));
        assert!(matches!(
            open.new_capacity(Some(0), 0),
            Err(CapacityError::TooSmall { .. })
        ));
        assert!(matches!(
            open.new_capacity(Some(1 << 20), 64 << 20),
            Err(CapacityError::TooSmall { .. })
        ));
        assert!(matches!(
            open.new_capacity(Some(u64::MAX), 0),
            Err(CapacityError::TooLarge { .. })
        ));
        let misaligned = open.new_capacity(Some(1000), 0);
        assert_eq!(
            misaligned,
            Err(CapacityError::Misaligned {
                asked: ByteSize(1000),
                block: 512,
                next: ByteSize(1024)
            })
        );
    }

    #[test]
    fn the_stored_form_never_changes() {
        let stored: Vec<_> = EmulationType::ALL
            .iter()
            .map(|(_, emulation)| postcard::to_allocvec(emulation).unwrap())
            .collect();
        let expected: Vec<Vec<u8>> = (0..2)
            .map(|i| vec![0, i])
            .chain((0..11).map(|i| vec![1, i]))
            .collect();
        assert_eq!(stored, expected);
    }
}
