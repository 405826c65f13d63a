//! Ranges as users give them: in bytes, or on count-key-data volumes from one track to another.
//!
//! An [`Extent`] is only a claim until [`Extent::resolve`] has checked it against a volume; what comes out lies in the
//! volume, is not empty and is aligned to its blocks.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::bytes::{ByteSize, ParseBytesError};
use super::geometry::{CkdModel, EmulationType, HEADS};
use super::range::ByteRange;

/// One track of a count-key-data volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TrackAddress {
    pub cylinder: u32,
    pub head: u32,
}

/// A range of a volume, as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extent {
    Bytes(ByteRange),
    /// From one track to another, both included.
    Tracks {
        from: TrackAddress,
        to: TrackAddress,
    },
}

/// Why a range is none of this volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtentError {
    #[error("range {range} is empty")]
    Empty { range: ByteRange },
    #[error(
        "range {range} is not a multiple of the block of {block} bytes; the blocks around it are {around}"
    )]
    Misaligned {
        range: ByteRange,
        block: u32,
        around: ByteRange,
    },
    #[error("range {range} ends beyond the capacity of {capacity}")]
    OutOfBounds { range: ByteRange, capacity: ByteSize },
    #[error("a volume of type {0} has no cylinders and heads: give offset and length in bytes")]
    NoTracks(EmulationType),
    #[error(
        "there is no track {track} on {emulation}: cylinders go to {last_cylinder}, heads to {last_head}"
    )]
    NoSuchTrack {
        track: TrackAddress,
        emulation: EmulationType,
        last_cylinder: u32,
        last_head: u32,
    },
    #[error("tracks {from} to {to} run backwards")]
    Backwards { from: TrackAddress, to: TrackAddress },
}

/// Why a text is not an extent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseExtentError {
    #[error(transparent)]
    Bytes(#[from] ParseBytesError),
    #[error("{0:?} is not a track: write it as cylinder/head, like 100/3")]
    Track(String),
}

impl Extent {
    /// The bytes that the extent means on a volume of this type and capacity.
    pub fn resolve(self, emulation: EmulationType, capacity: u64) -> Result<ByteRange, ExtentError> {
        let range = match self {
            Self::Bytes(range) => range,
            Self::Tracks { from, to } => {
                let EmulationType::Ckd(model) = emulation else {
                    return Err(ExtentError::NoTracks(emulation));
                };
                if to < from {
                    return Err(ExtentError::Backwards { from, to });
                }
                ByteRange::between(from.start(model)?, to.start(model)? + model.slot())
            }
        };
        check(range, emulation.block(), capacity)?;
        Ok(range)
    }
}

/// Whether `range` is a range of a volume with blocks of `block` bytes and this capacity.
pub fn check(range: ByteRange, block: u32, capacity: u64) -> Result<(), ExtentError> {
    if range.is_empty() {
        return Err(ExtentError::Empty { range });
    }
    if range.end() > capacity {
        return Err(ExtentError::OutOfBounds {
            range,
            capacity: ByteSize(capacity),
        });
    }
    match range.round_out(block.into()) {
        Some(around) if around != range => Err(ExtentError::Misaligned { range, block, around }),
        _ => Ok(()),
    }
}

impl TrackAddress {
    /// Address of the track's first byte.
    pub fn start(self, model: CkdModel) -> Result<u64, ExtentError> {
        let (last_cylinder, last_head) = (model.cylinders() - 1, HEADS - 1);
        if self.cylinder > last_cylinder || self.head > last_head {
            let emulation = EmulationType::Ckd(model);
            return Err(ExtentError::NoSuchTrack {
                track: self,
                emulation,
                last_cylinder,
                last_head,
            });
        }
        Ok(u64::from(self.cylinder) * model.cylinder() + u64::from(self.head) * model.slot())
    }

    /// The track that holds `address`; `None` beyond the last one.
    pub fn at(address: u64, model: CkdModel) -> Option<Self> {
        let cylinder = u32::try_from(address / model.cylinder())
            .ok()
            .filter(|c| *c < model.cylinders())?;
        let head = u32::try_from(address % model.cylinder() / model.slot()).ok()?;
        Some(Self { cylinder, head })
    }
}

impl FromStr for TrackAddress {
    type Err = ParseExtentError;

    /// Reads `cylinder/head`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (cylinder, head) = text.split_once('/')?;
            Some(Self {
                cylinder: cylinder.parse().ok()?,
                head: head.parse().ok()?,
            })
        };
        parse().ok_or_else(|| ParseExtentError::Track(text.into()))
    }
}

impl FromStr for Extent {
    type Err = ParseExtentError;

    /// Reads `offset+length`, or `cylinder/head-cylinder/head`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('-') {
            Some((from, to)) if text.contains('/') => Ok(Self::Tracks {
                from: from.parse()?,
                to: to.parse()?,
            }),
            _ => Ok(Self::Bytes(text.parse()?)),
        }
    }
}

impl std::fmt::Display for TrackAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.cylinder, self.head)
    }
}

impl std::fmt::Display for Extent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(range) => range.fmt(f),
            Self::Tracks { from, to } => write!(f, "{from}-{to}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::geometry::OpenBlock;
    use proptest::prelude::*;

    const MODEL: CkdModel = CkdModel::M3390M3;
    const CKD: EmulationType = EmulationType::Ckd(MODEL);
    const OPEN: EmulationType = EmulationType::Open(OpenBlock::B512);

    fn resolve(text: &str, emulation: EmulationType, capacity: u64) -> Result<ByteRange, ExtentError> {
        text.parse::<Extent>().unwrap().resolve(emulation, capacity)
    }

    #[test]
    fn tracks_resolve_to_their_slots_both_ends_included() {
        let range = resolve("1/2-1/3", CKD, MODEL.capacity()).unwrap();
        assert_eq!(range, ByteRange::new(17 * 57_344, 2 * 57_344).unwrap());
        let whole = resolve("0/0-3338/14", CKD, MODEL.capacity()).unwrap();
        assert_eq!(whole, ByteRange::between(0, MODEL.capacity()));
    }

    #[test]
    fn tracks_that_are_not_there_are_refused() {
        for text in ["0/0-0/15", "0/0-3339/0", "0/15-1/0"] {
            assert!(
                matches!(
                    resolve(text, CKD, MODEL.capacity()),
                    Err(ExtentError::NoSuchTrack { .. })
                ),
                "{text}"
            );
        }
        assert!(matches!(
            resolve("2/0-1/14", CKD, MODEL.capacity()),
            Err(ExtentError::Backwards { .. })
        ));
        assert_eq!(
            resolve("0/0-1/0", OPEN, 1 << 30),
            Err(ExtentError::NoTracks(OPEN))
        );
    }

    #[test]
    fn a_bad_range_is_refused_with_what_would_be_right() {
        assert!(matches!(
            resolve("512+0", OPEN, 4096),
            Err(ExtentError::Empty { .. })
        ));
        assert!(matches!(
            resolve("512+4096", OPEN, 4096),
            Err(ExtentError::OutOfBounds { .. })
        ));
        assert_eq!(
            resolve("1000+100", OPEN, 4096).unwrap_err().to_string(),
            "range 1000+100 is not a multiple of the block of 512 bytes; the blocks around it are 512+1KiB"
        );
    }

    #[test]
    fn text_that_is_no_extent_is_refused() {
        for text in ["1/2", "1/2-3", "a/0-1/0", "", "-1/0-2/0"] {
            assert!(text.parse::<Extent>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_address_lies_in_the_track_that_it_is_given(address in 0..MODEL.capacity()) {
            let track = TrackAddress::at(address, MODEL).unwrap();
            let start = track.start(MODEL).unwrap();
            prop_assert!(start <= address && address < start + MODEL.slot());
        }

        #[test]
        fn what_is_printed_parses_to_the_same_extent(c in any::<u32>(), h in any::<u32>(), c2 in any::<u32>()) {
            let from = TrackAddress { cylinder: c, head: h };
            let extent = Extent::Tracks { from, to: TrackAddress { cylinder: c2, head: h } };
            prop_assert_eq!(extent.to_string().parse(), Ok(extent));
        }
    }

    #[test]
    fn there_is_no_track_beyond_the_last_cylinder() {
        assert_eq!(TrackAddress::at(MODEL.capacity(), MODEL), None);
    }
}
