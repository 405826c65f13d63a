//! From a request for space to the runs and slices that meet it: volumes made, placed by range, filled, expanded.
//!
//! What is planned, in this order:
//! 1. Every placement is checked: in the volume, aligned to its blocks, overlapping nothing asked for or mapped.
//! 2. Placements are rounded in the order given, never into what is already mapped. `aligned`: up to whole logical
//!    devices, which begin at the range. `packed`: out to whole granules; several ranges then share a logical device.
//!    On count-key-data types both round out to whole cylinders first. A placement that begins inside an earlier one's
//!    rounding begins after it, and one that ends inside it ends before.
//! 3. `rest` takes every address that is still not mapped.
//! 4. Slices are taken from all groups, or none.
//!
//! The last logical device may reach beyond the capacity. Its run does too, so that an expansion finds the addresses
//! mapped already; the answer leaves that part out, and the volume's own bounds keep it from being seen. It counts as
//! rounding: a placement may begin there, and then begins after it.
//!
//! Invariants: a plan that is refused has changed nothing; runs begin and end at multiples of
//! [`EmulationType::mapping_unit`] in the volume, and of a page in the group (whoever unmaps or moves parts of a
//! volume later keeps to that); a run lies in slices that its volume owns. All group space of a plan's runs must be
//! *never written* (R12) before a map shows it: what is new, and what was still free of a slice that the volume had.

mod layout;

use crate::logical_device::{Allocators, AllocatorsError, Slices};
use crate::types::bytes::MIB;
use crate::types::extent::{self, ExtentError};
use crate::types::geometry::{CapacityError, PAGE};
use crate::types::{ByteRange, ByteSize, EmulationType, GroupNumber, RangeSet, VolumeNumber};

use super::run::Run;
use super::volume_map::VolumeMap;

/// The largest granule, and the smallest slice: a granule never needs more than two slices.
pub const LARGEST_GRANULE: u64 = MIB;

/// How ranges lie on logical devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Each logical device holds one contiguous range of the volume.
    Aligned,
    /// A logical device holds several ranges, in granules of this many bytes: a multiple of 4096, up to 1 MiB. On
    /// count-key-data types the granule is a cylinder instead.
    Packed { granule: u64 },
}

impl Layout {
    /// Packed, in granules of 64 KiB.
    pub const DEFAULT_PACKED: Self = Self::Packed { granule: MIB / 16 };
}

/// A range of the volume and where it is to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement<G = GroupNumber> {
    pub range: ByteRange,
    pub group: G,
}

/// What is wanted of a volume's map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementRequest {
    pub volume: VolumeNumber,
    pub emulation: EmulationType,
    /// Capacity that the volume had so far, in bytes; 0 for a new one.
    pub capacity_before: u64,
    /// Capacity that the volume is to have, in bytes.
    pub capacity: u64,
    pub placements: Vec<Placement>,
    /// Where everything else is to lie; `None` leaves it unmapped.
    pub rest: Option<GroupNumber>,
    pub layout: Layout,
    /// Refuse a placement that would lie partly in an earlier one's rounding.
    pub exact: bool,
}

/// What became of one placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub asked: Placement,
    /// Addresses mapped for it, up to the capacity; none where earlier ones' rounding holds all of it.
    pub mapped: Vec<ByteRange>,
    /// It begins or ends inside an earlier one's rounding, and that much of it lies with the earlier one.
    pub trimmed: bool,
}

/// Slices that a plan took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakenSlices {
    pub group: GroupNumber,
    pub slices: Slices,
    pub needs_format: bool,
}

/// The answer to a [`PlacementRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// To be added to the volume's map.
    pub runs: Vec<Run>,
    /// Now the volume's in the allocators.
    pub taken: Vec<TakenSlices>,
    /// One per placement, in the order given.
    pub placed: Vec<Placed>,
    /// Every address that a host can reach from now on and could not before.
    pub mapped: RangeSet,
}

impl Planned {
    /// Placements, by their place in the request, of which a part lies in an earlier one's rounding.
    pub fn trimmed(&self) -> impl Iterator<Item = u32> {
        let numbered = (0..).zip(&self.placed);
        numbered
            .filter(|(_, placed)| placed.trimmed)
            .map(|(index, _)| index)
    }
}

/// Why a request cannot be met. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    #[error("neither placements nor a RAID group for the rest are given")]
    Nothing,
    #[error(transparent)]
    Capacity(#[from] CapacityError),
    #[error("a volume of {before} cannot shrink to {capacity}")]
    Shrinks { before: ByteSize, capacity: ByteSize },
    #[error(
        "granule {granule} is not a multiple of {} up to {}",
        ByteSize(PAGE),
        ByteSize(LARGEST_GRANULE)
    )]
    Granule { granule: ByteSize },
    #[error("placement {index}: {source}")]
    Range { index: usize, source: ExtentError },
    #[error("placements {first} and {second} both ask for {shared}")]
    Overlap {
        first: usize,
        second: usize,
        shared: ByteRange,
    },
    #[error("placement {index}: {shared} of {asked} is mapped already")]
    Mapped {
        index: usize,
        asked: ByteRange,
        shared: ByteRange,
    },
    #[error("placement {index}: {shared} of {asked} lies in an earlier one's rounding")]
    NotExact {
        index: usize,
        asked: ByteRange,
        shared: ByteRange,
    },
    #[error(transparent)]
    Slices(#[from] AllocatorsError),
}

/// Plans `request` for a volume with this map, and takes the slices that it needs.
///
/// # Errors
/// Where the request cannot be met as a whole; then nothing has changed.
pub fn plan(
    request: &PlacementRequest,
    map: &VolumeMap,
    allocators: &mut Allocators,
) -> Result<Planned, PlacementError> {
    let visible: RangeSet = map
        .mapped()
        .within(ByteRange::between(0, request.capacity_before))
        .collect();
    check(request, &visible)?;
    let mut layout = layout::Layouter::new(request, map, allocators);
    let mut placed = Vec::with_capacity(request.placements.len());
    for (index, placement) in request.placements.iter().enumerate() {
        placed.push(layout.place(index, *placement)?);
    }
    if let Some(group) = request.rest {
        layout.fill(group)?;
    }
    let mapped = layout.mapped().difference(&visible);
    let (runs, taken) = layout.finish().take(request, allocators)?;
    Ok(Planned {
        runs,
        taken,
        placed,
        mapped,
    })
}

fn check(request: &PlacementRequest, visible: &RangeSet) -> Result<(), PlacementError> {
    if request.placements.is_empty() && request.rest.is_none() {
        return Err(PlacementError::Nothing);
    }
    request.emulation.check_capacity(request.capacity)?;
    if request.capacity < request.capacity_before {
        let (before, capacity) = (ByteSize(request.capacity_before), ByteSize(request.capacity));
        return Err(PlacementError::Shrinks { before, capacity });
    }
    if let Layout::Packed { granule } = request.layout
        && (granule == 0 || granule > LARGEST_GRANULE || !granule.is_multiple_of(PAGE))
    {
        return Err(PlacementError::Granule {
            granule: ByteSize(granule),
        });
    }
    for (index, Placement { range, .. }) in request.placements.iter().enumerate() {
        extent::check(*range, request.emulation.block(), request.capacity)
            .map_err(|source| PlacementError::Range { index, source })?;
        if let Some(shared) = visible.within(*range).next() {
            return Err(PlacementError::Mapped {
                index,
                asked: *range,
                shared,
            });
        }
    }
    check_overlaps(&request.placements)
}

fn check_overlaps(placements: &[Placement]) -> Result<(), PlacementError> {
    let mut by_address: Vec<(ByteRange, usize)> = placements
        .iter()
        .enumerate()
        .map(|(index, placement)| (placement.range, index))
        .collect();
    by_address.sort_unstable();
    for pair in by_address.windows(2) {
        if let Some(shared) = pair[0].0.intersection(pair[1].0) {
            let (first, second) = (pair[0].1.min(pair[1].1), pair[0].1.max(pair[1].1));
            return Err(PlacementError::Overlap {
                first,
                second,
                shared,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
