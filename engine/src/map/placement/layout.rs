//! Rounding placements, and laying what came out onto slices.
//!
//! Invariant: [`Layouter`] only reads; nothing is taken before [`Wanted::take`], which takes all or nothing.

use std::collections::BTreeMap;

use crate::logical_device::{Allocators, AllocatorsError, SliceLength, SliceRequest, Slices, Taken};
use crate::map::run::Run;
use crate::map::volume_map::VolumeMap;
use crate::types::{ByteRange, EmulationType, GroupNumber, RangeSet};

use super::{Layout, Placed, Placement, PlacementError, PlacementRequest, TakenSlices};

/// Addresses of the volume that share slices of one group.
#[derive(Debug)]
struct Segment {
    group: GroupNumber,
    slice: SliceLength,
    /// In address order.
    ranges: RangeSet,
    /// Space for them in slices that the volume already has; each piece goes before new slices.
    spare: Vec<ByteRange>,
    /// New slices for what `spare` does not hold.
    count: u64,
    /// The slice that holds what lies just before.
    after: Option<u32>,
}

/// Rounds one placement after the other.
#[derive(Debug)]
pub(super) struct Layouter<'a> {
    request: &'a PlacementRequest,
    map: &'a VolumeMap,
    allocators: &'a Allocators,
    /// What was mapped before, and what is now to be.
    occupied: RangeSet,
    segments: Vec<Segment>,
    /// Packed: the one segment of each group.
    packed: BTreeMap<GroupNumber, usize>,
}

/// Everything that is to be taken, decided.
#[derive(Debug)]
pub(super) struct Wanted(Vec<Segment>);

impl<'a> Layouter<'a> {
    pub(super) fn new(request: &'a PlacementRequest, map: &'a VolumeMap, allocators: &'a Allocators) -> Self {
        let (occupied, segments, packed) = (map.mapped(), Vec::new(), BTreeMap::new());
        Self {
            request,
            map,
            allocators,
            occupied,
            segments,
            packed,
        }
    }

    /// Rounds one placement and notes what it needs.
    pub(super) fn place(&mut self, index: usize, asked: Placement) -> Result<Placed, PlacementError> {
        let slice = self.allocators.known(asked.group)?.slice_length();
        if let Some(shared) = self
            .occupied
            .within(asked.range)
            .next()
            .filter(|_| self.request.exact)
        {
            return Err(PlacementError::NotExact {
                index,
                asked: asked.range,
                shared,
            });
        }
        let free: Vec<ByteRange> = self.occupied.gaps(asked.range).collect();
        let trimmed = free != [asked.range];
        let volume = ByteRange::between(0, self.request.capacity);
        let rounded = free
            .into_iter()
            .map(|part| self.map_around(part, asked.group, slice));
        let mapped = rounded.filter_map(|range| range.intersection(volume)).collect();
        Ok(Placed {
            asked,
            mapped,
            trimmed,
        })
    }

    /// Maps all that is still unmapped.
    pub(super) fn fill(&mut self, group: GroupNumber) -> Result<(), PlacementError> {
        let slice = self.allocators.known(group)?.slice_length();
        let gaps: Vec<ByteRange> = self
            .occupied
            .gaps(ByteRange::between(0, self.request.capacity))
            .collect();
        for gap in gaps {
            self.map_around(gap, group, slice);
        }
        Ok(())
    }

    /// Everything that is mapped within the capacity, with what was placed so far.
    pub(super) fn mapped(&self) -> RangeSet {
        self.occupied
            .within(ByteRange::between(0, self.request.capacity))
            .collect()
    }

    /// Maps `range`, which lies in one gap of what is occupied, and as much around it as rounding asks for and the gap
    /// leaves room for.
    fn map_around(&mut self, range: ByteRange, group: GroupNumber, slice: SliceLength) -> ByteRange {
        let gap = self
            .occupied
            .gap_at(range.start())
            .expect("the range begins where nothing is mapped");
        let unit = self.unit();
        let out = range.round_out(unit).expect("capacities leave room to round up");
        let out = out.intersection(gap).expect("both hold the range");
        let mapped = match self.request.layout {
            Layout::Packed { .. } => out,
            Layout::Aligned => {
                let whole = out.len().next_multiple_of(slice.usable(self.request.emulation));
                ByteRange::between(out.start(), (out.start() + whole).min(gap.end()))
            }
        };
        self.occupied.insert(mapped);
        match self.request.layout {
            Layout::Packed { .. } => self.add_packed(mapped, group, slice),
            Layout::Aligned => self.add_aligned(mapped, group, slice),
        }
        mapped
    }

    /// What is mapped as a whole.
    fn unit(&self) -> u64 {
        match (self.request.emulation, self.request.layout) {
            (EmulationType::Open(_), Layout::Packed { granule }) => granule,
            (emulation, _) => emulation.mapping_unit(),
        }
    }

    fn add_aligned(&mut self, range: ByteRange, group: GroupNumber, slice: SliceLength) {
        let usable = slice.usable(self.request.emulation);
        if let Some(last) = self.segments.last_mut()
            && last.group == group
            && last
                .ranges
                .iter()
                .all(|before| before.end() == range.start() && before.len() == last.count * usable)
        {
            last.ranges.insert(range);
            last.count += range.len().div_ceil(usable);
            return;
        }
        let after = self.slice_before(range.start(), group, slice);
        let (ranges, count) = (RangeSet::from_iter([range]), range.len().div_ceil(usable));
        self.segments.push(Segment {
            group,
            slice,
            ranges,
            spare: Vec::new(),
            count,
            after,
        });
    }

    fn add_packed(&mut self, range: ByteRange, group: GroupNumber, slice: SliceLength) {
        let next = self.segments.len();
        let index = *self.packed.entry(group).or_insert(next);
        if index == next {
            let ranges = RangeSet::new();
            let (spare, after) = self.owned(group, slice);
            self.segments.push(Segment {
                group,
                slice,
                ranges,
                spare,
                count: 0,
                after,
            });
        }
        self.segments[index].ranges.insert(range);
    }

    /// The slice of `group` that holds the address just before `address`.
    fn slice_before(&self, address: u64, group: GroupNumber, slice: SliceLength) -> Option<u32> {
        let place = self.map.lookup(address.checked_sub(1)?)?;
        (place.group == group).then(|| slice.slice_at(place.start))?
    }

    /// Space of `group` that the volume owns and does not map, and the last slice that it owns there.
    fn owned(&self, group: GroupNumber, slice: SliceLength) -> (Vec<ByteRange>, Option<u32>) {
        let Some(allocator) = self.allocators.get(group) else {
            return (Vec::new(), None);
        };
        let owned: Vec<Slices> = allocator.owned_by(self.request.volume).collect();
        let in_use: RangeSet = self
            .map
            .runs()
            .filter(|run| run.group == group)
            .map(Run::group_range)
            .collect();
        let space = owned
            .iter()
            .flat_map(|slices| slice.usable_space(*slices, self.request.emulation));
        let spare = space.flat_map(|space| in_use.gaps(space)).collect();
        (spare, owned.last().map(|slices| slices.end() - 1))
    }

    pub(super) fn finish(mut self) -> Wanted {
        for index in self.packed.into_values() {
            let segment = &mut self.segments[index];
            let spare: u64 = segment.spare.iter().map(|space| space.len()).sum();
            let needed = segment.ranges.total().saturating_sub(spare);
            segment.count = needed.div_ceil(segment.slice.usable(self.request.emulation));
        }
        Wanted(self.segments)
    }
}

impl Wanted {
    /// Takes the slices, and lays the ranges onto them.
    pub(super) fn take(
        self,
        request: &PlacementRequest,
        allocators: &mut Allocators,
    ) -> Result<(Vec<Run>, Vec<TakenSlices>), AllocatorsError> {
        let requests: Vec<SliceRequest> = self
            .0
            .iter()
            .map(|s| SliceRequest {
                group: s.group,
                count: s.count,
                after: s.after,
            })
            .collect();
        let answers = allocators.take(request.volume, request.emulation, &requests)?;
        let (mut runs, mut taken) = (Vec::new(), Vec::new());
        for (segment, slices) in self.0.iter().zip(answers) {
            let new = slices
                .iter()
                .flat_map(|t| segment.slice.usable_space(t.slices, request.emulation));
            lay(
                segment.ranges.iter(),
                segment.spare.iter().copied().chain(new),
                segment.group,
                &mut runs,
            );
            let of_group = |t: Taken| TakenSlices {
                group: segment.group,
                slices: t.slices,
                needs_format: t.needs_format,
            };
            taken.extend(slices.into_iter().map(of_group));
        }
        Ok((runs, taken))
    }
}

/// Maps `ranges` of the volume, one after the other, onto `space` of a group, one after the other.
fn lay(
    ranges: impl Iterator<Item = ByteRange>,
    mut space: impl Iterator<Item = ByteRange>,
    group: GroupNumber,
    runs: &mut Vec<Run>,
) {
    let mut room = ByteRange::between(0, 0);
    for range in ranges {
        let mut at = range.start();
        while at < range.end() {
            if room.is_empty() {
                room = space.next().expect("as much space was taken as the ranges need");
                continue;
            }
            let len = room.len().min(range.end() - at);
            runs.push(Run {
                volume_start: at,
                len,
                group,
                group_start: room.start(),
            });
            at += len;
            room = ByteRange::between(room.start() + len, room.end());
        }
    }
}
