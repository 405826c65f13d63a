//! Where a volume's addresses lie, and whose the logical devices are: page by page, as people and programs look at it.
//!
//! All is read from the stored truth, so that it is told of groups and volumes that wait as well. A page of a map costs
//! O(log runs + page), however many runs the volume has.

use std::collections::BTreeMap;

use super::Appliance;
use super::owned_slices::Owner;
use super::records::{GroupSlices, Truth, VolumeTruth};
use crate::logical_device::Slices;
use crate::map::Run;
use crate::raid::GroupRecord;
use crate::types::{ByteRange, DeviceId, GroupId, GroupNumber, VolumeId};

/// A part of a volume that lies contiguously in one group, or nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapStretch {
    /// Addresses of the volume.
    pub range: ByteRange,
    /// `None`: a hole.
    pub placed: Option<MapPlace>,
}

/// Where a stretch lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapPlace {
    pub group: GroupId,
    pub group_number: GroupNumber,
    /// Bytes from the group's beginning.
    pub group_offset: u64,
    /// Number of the logical device that holds the first byte.
    pub first_logical_device: u32,
    /// How many adjacent logical devices the stretch touches.
    pub logical_devices: u32,
    /// The group's members by role. Which of them hold a byte is a matter of the group's level.
    pub devices: Vec<DeviceId>,
}

/// Where ranges of a volume may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    Group(GroupId),
    Device(DeviceId),
    /// The logical device with this number.
    LogicalDevice(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogicalDeviceState {
    Free,
    InUse,
    /// It was in use; its content is not gone yet.
    Clearing,
}

/// Which logical devices are looked for: those that meet everything that is given.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogicalDeviceFilter {
    pub group: Option<GroupId>,
    pub state: Option<LogicalDeviceState>,
    pub volume: Option<VolumeId>,
}

/// Adjacent logical devices of one group that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogicalDeviceRun {
    /// Number of the first.
    pub first: u32,
    pub count: u32,
    pub group: GroupId,
    /// Where the first begins: bytes from the group's beginning.
    pub group_offset: u64,
    /// Bytes of each.
    pub length: u64,
    pub state: LogicalDeviceState,
    /// Where it is in use.
    pub volume: Option<VolumeId>,
}

impl Appliance {
    /// The volume's addresses `from` up to `to` and its capacity as stretches, in order and without gaps, at most
    /// `limit`; the first and the last are cut. `None` where there is no such volume.
    pub async fn volume_map(
        &self,
        id: VolumeId,
        from: u64,
        to: u64,
        limit: usize,
    ) -> Option<Vec<MapStretch>> {
        let looked = self.ledger.store.read(|truth| {
            let volume = truth.volumes.find(id)?;
            let stretches = stretches(truth, volume, from, to);
            Some(stretches.take(limit).collect())
        });
        looked.await
    }

    /// The volume's ranges that lie there, from address `from` on, in order, at most `limit`; those that touch are one.
    /// `None` where there is no such volume, group, device or logical device.
    pub async fn ranges_on(&self, id: VolumeId, on: &On, from: u64, limit: usize) -> Option<Vec<ByteRange>> {
        let looked = self.ledger.store.read(|truth| {
            let volume = truth.volumes.find(id)?;
            Some(joined(ranges_on(truth, volume, on, from)?).take(limit).collect())
        });
        looked.await
    }

    /// The logical devices from number `from_number` on that the filter lets through, in order of their numbers, as at
    /// most `limit` runs; the first is cut.
    pub async fn logical_devices(
        &self,
        filter: &LogicalDeviceFilter,
        from_number: u32,
        limit: usize,
    ) -> Vec<LogicalDeviceRun> {
        let looked = self.ledger.store.read(|truth| {
            let runs = logical_devices(truth, filter, from_number);
            runs.take(limit).collect()
        });
        looked.await
    }
}

fn stretches(truth: &Truth, volume: &VolumeTruth, from: u64, to: u64) -> impl Iterator<Item = MapStretch> {
    let end = to.min(volume.record.capacity).max(from);
    let mut runs = volume.runs.from(from).peekable();
    let mut at = from;
    std::iter::from_fn(move || {
        while runs.next_if(|run| run.volume_range().end() <= at).is_some() {}
        if at >= end {
            return None;
        }
        let rest = ByteRange::between(at, end);
        let (range, placed) = match runs.peek().and_then(|run| run.within(rest)) {
            Some(run) if run.volume_start == at => (run.volume_range(), place(truth, run)),
            next => {
                let hole_end = next.map_or(end, |run| run.volume_start);
                (ByteRange::between(at, hole_end), None)
            }
        };
        at = range.end();
        Some(MapStretch { range, placed })
    })
}

/// `None` where the map contradicts the groups: nothing is served there.
fn place(truth: &Truth, run: Run) -> Option<MapPlace> {
    let group = truth.groups.get(run.group).filter(|group| group.slice > 0)?;
    let slices = run.group_range().units(group.slice);
    let count = u32::try_from(slices.end - slices.start).ok()?;
    let first = u32::try_from(slices.start).ok()?;
    Some(MapPlace {
        group: group.id,
        group_number: group.number,
        group_offset: run.group_start,
        first_logical_device: group.first_logical_device.0.checked_add(first)?,
        logical_devices: count,
        devices: group.members.iter().map(|member| member.device).collect(),
    })
}

/// The part of a group that is looked for.
#[derive(Clone, Copy)]
enum Part<'a> {
    Whole(GroupNumber),
    /// What lies on this member.
    Member(&'a GroupRecord, usize),
    Range(GroupNumber, ByteRange),
    /// The device is in no group.
    Nothing,
}

fn part<'a>(truth: &'a Truth, on: &On) -> Option<Part<'a>> {
    match *on {
        On::Group(id) => Some(Part::Whole(truth.groups.find(id)?.number)),
        On::Device(id) => {
            truth.devices.find(id)?;
            let group = truth.group_of(id).filter(|group| group.is_sound(|_| None));
            let member = |group: &'a GroupRecord| Some(Part::Member(group, group.member(id)?));
            Some(group.and_then(member).unwrap_or(Part::Nothing))
        }
        On::LogicalDevice(number) => {
            let (group, numbers) = sound_groups(truth).find(|(_, numbers)| numbers.contains(number))?;
            let start = u64::from(number - numbers.first) * group.slice;
            let range = ByteRange::new(start, group.slice)?;
            Some(Part::Range(group.number, range))
        }
    }
}

impl<'a> Part<'a> {
    fn group(self) -> Option<GroupNumber> {
        match self {
            Part::Whole(number) | Part::Range(number, _) => Some(number),
            Part::Member(group, _) => Some(group.number),
            Part::Nothing => None,
        }
    }

    /// What of a run of the group lies there, as addresses of the volume, in order.
    fn of(self, run: Run) -> impl Iterator<Item = ByteRange> + use<'a> {
        let in_volume = move |range: ByteRange| {
            let start = run.volume_start + (range.start() - run.group_start);
            ByteRange::between(start, start + range.len())
        };
        let (whole, member) = match self {
            Part::Range(_, range) => (run.group_range().intersection(range), None),
            Part::Member(group, role) => (None, Some((group.layout, role))),
            Part::Whole(_) | Part::Nothing => (Some(run.group_range()), None),
        };
        let pieces = member.into_iter().flat_map(move |(layout, role)| {
            let there = move |first| layout.column_members(first).contains(&role);
            let pieces = layout.pieces(run.group_range());
            pieces
                .filter(move |piece| there(piece.first_member))
                .map(|piece| piece.range)
        });
        whole.into_iter().chain(pieces).map(in_volume)
    }
}

fn ranges_on<'a>(
    truth: &'a Truth,
    volume: &'a VolumeTruth,
    on: &On,
    from: u64,
) -> Option<impl Iterator<Item = ByteRange> + use<'a>> {
    let part = part(truth, on)?;
    let visible = ByteRange::between(from, volume.record.capacity.max(from));
    let runs = volume.runs.from(from);
    let runs = runs.take_while(move |run| run.volume_start < visible.end());
    let runs = runs.filter(move |run| Some(run.group) == part.group());
    let runs = runs.filter_map(move |run| run.within(visible));
    Some(runs.flat_map(move |run| part.of(run)))
}

/// Ranges that touch as one.
fn joined(ranges: impl Iterator<Item = ByteRange>) -> impl Iterator<Item = ByteRange> {
    let mut ranges = ranges.peekable();
    std::iter::from_fn(move || {
        let mut range = ranges.next()?;
        while let Some(next) = ranges.next_if(|next| next.start() == range.end()) {
            range = ByteRange::between(range.start(), next.end());
        }
        Some(range)
    })
}

/// The groups whose records can be relied on for arithmetic, with the numbers of their logical devices.
fn sound_groups(truth: &Truth) -> impl Iterator<Item = (&GroupRecord, Slices)> {
    let sound = truth.groups.values().filter(|group| group.is_sound(|_| None));
    sound.filter_map(|group| {
        let numbers = Slices {
            first: group.first_logical_device.0,
            count: u32::try_from(group.slices()).ok()?,
        };
        numbers.checked_end().map(|_| (group, numbers))
    })
}

fn logical_devices<'a>(
    truth: &'a Truth,
    filter: &LogicalDeviceFilter,
    from: u32,
) -> impl Iterator<Item = LogicalDeviceRun> + use<'a> {
    let filter = *filter;
    let mut groups: Vec<_> = sound_groups(truth)
        .filter(|(group, numbers)| filter.group.is_none_or(|id| id == group.id) && numbers.end() > from)
        .collect();
    groups.sort_by_key(|(_, numbers)| numbers.first);
    let runs: Box<dyn Iterator<Item = LogicalDeviceRun>> = match filter.volume {
        // A volume's own are few among all.
        Some(id) => Box::new(devices_of(truth, &groups, id, from).into_iter()),
        None => Box::new(groups.into_iter().flat_map(move |(group, numbers)| {
            let first = from.saturating_sub(numbers.first);
            let owners = truth.owned.runs(group.number, first, numbers.count);
            owners.map(move |(slices, owner)| told(truth, group, slices, owner))
        })),
    };
    let asked = move |run: &LogicalDeviceRun| filter.state.is_none_or(|state| state == run.state);
    joined_devices(runs.filter(asked))
}

/// A volume's logical devices in these groups, in order of number.
fn devices_of(
    truth: &Truth,
    groups: &[(&GroupRecord, Slices)],
    volume: VolumeId,
    from: u32,
) -> Vec<LogicalDeviceRun> {
    let groups: BTreeMap<_, _> = groups.iter().map(|known| (known.0.number, known)).collect();
    let Some(volume) = truth.volumes.find(volume) else {
        return Vec::new();
    };
    let run = |owned: &GroupSlices| {
        let (group, numbers) = groups.get(&owned.group)?;
        let first = owned.slices.first.max(from.saturating_sub(numbers.first));
        let end = owned.slices.end().min(numbers.count);
        let owner = Some(Owner::Volume(volume.record.number));
        (first < end).then(|| told(truth, group, Slices::between(first, end), owner))
    };
    let mut runs: Vec<_> = volume.slices.iter().filter_map(run).collect();
    runs.sort_unstable_by_key(|run| run.first);
    runs
}

fn told(truth: &Truth, group: &GroupRecord, slices: Slices, owner: Option<Owner>) -> LogicalDeviceRun {
    let volume = match owner {
        Some(Owner::Volume(number)) => truth.volumes.get(number).map(|volume| volume.record.id),
        _ => None,
    };
    LogicalDeviceRun {
        first: group.first_logical_device.0 + slices.first,
        count: slices.count,
        group: group.id,
        group_offset: u64::from(slices.first) * group.slice,
        length: group.slice,
        state: match owner {
            None => LogicalDeviceState::Free,
            Some(Owner::Volume(_)) => LogicalDeviceState::InUse,
            Some(Owner::Clearing) => LogicalDeviceState::Clearing,
        },
        volume,
    }
}

fn joined_devices(runs: impl Iterator<Item = LogicalDeviceRun>) -> impl Iterator<Item = LogicalDeviceRun> {
    let mut runs = runs.peekable();
    std::iter::from_fn(move || {
        let mut run = runs.next()?;
        let alike = |next: &LogicalDeviceRun, run: &LogicalDeviceRun| {
            (next.group, next.state, next.volume) == (run.group, run.state, run.volume)
                && next.first == run.first + run.count
        };
        while let Some(next) = runs.next_if(|next| alike(next, &run)) {
            run.count += next.count;
        }
        Some(run)
    })
}

#[cfg(test)]
mod tests;
