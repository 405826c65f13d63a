//! Which groups may start (R6), and which slices of them are whose.

use std::collections::BTreeMap;

use super::Working;
use super::journal::{self, Present};
use super::open::OpenOptions;
use super::out_of_service::descends;
use super::records::{GroupSlices, Truth};
use crate::logical_device::{Allocator, SliceState, Slices};
use crate::metadata::{Elected, Store};
use crate::planted::{self, Planted};
use crate::raid::{GroupRecord, MemberStatus};
use crate::types::{DeviceId, EmulationType, GroupId, GroupNumber, IdSource, VolumeNumber};

/// Owner of slices that could not be cleared: no volume has this number.
pub(super) const NOBODY: VolumeNumber = VolumeNumber(u32::MAX);

/// Why a group waits whose record is not to be relied on.
pub(super) const UNSOUND: &str = "its stored record contradicts itself or its devices";

/// A group that was not started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingGroup {
    pub why: &'static str,
    /// Devices whose coming would help.
    pub missing: Vec<DeviceId>,
}

pub(super) fn wait(why: &'static str, missing: &[DeviceId]) -> WaitingGroup {
    WaitingGroup {
        why,
        missing: missing.to_vec(),
    }
}

/// What becomes of a group at a start.
pub(super) enum Start {
    /// With this record: members that are absent are out.
    Now(Box<GroupRecord>),
    Wait(WaitingGroup),
}

pub(super) type Starts = BTreeMap<(GroupNumber, GroupId), Start>;

/// Nothing may be written: every group waits.
pub(super) fn all_wait(starts: Starts, missing: &[DeviceId]) -> Starts {
    let waits = |start| match start {
        Start::Now(_) => Start::Wait(wait("too few metadata holders are there", missing)),
        waiting @ Start::Wait(_) => waiting,
    };
    let all = starts.into_iter().map(|(key, start)| (key, waits(start)));
    all.collect()
}

/// Decides for each group that the metadata knows.
pub(super) async fn decide(
    store: &Store<Truth>,
    found: &[Present],
    elected: &Elected,
    options: &OpenOptions,
    ids: &IdSource,
) -> Starts {
    let known: Vec<GroupRecord> = store.read(|truth| truth.groups.values().cloned().collect()).await;
    known
        .into_iter()
        .map(|record| {
            let key = (record.number, record.id);
            (key, decide_group(record, found, elected, options, ids))
        })
        .collect()
}

fn decide_group(
    stored: GroupRecord,
    found: &[Present],
    elected: &Elected,
    options: &OpenOptions,
    ids: &IdSource,
) -> Start {
    if !elected.diverged.is_empty() && options.prefer.is_none() {
        return Start::Wait(wait(
            "copies of the metadata went different ways: say which counts",
            &elected.diverged,
        ));
    }
    if !elected.damaged.is_empty() && !options.force && options.prefer.is_none() {
        return Start::Wait(wait(
            "the newest metadata is damaged on the devices that are here",
            &elected.damaged,
        ));
    }
    let payload = |device: DeviceId| {
        let found = found.iter().find(|found| found.handle.id() == device)?;
        Some(found.superblock.layout.payload)
    };
    if !stored.is_sound(payload) {
        return Start::Wait(wait(UNSOUND, &[]));
    }
    let labels: Vec<GroupRecord> = found
        .iter()
        .filter_map(|found| found.superblock.member.as_ref())
        .filter(|label| label.group == stored.id)
        .filter_map(|label| journal::decode(&label.record))
        .filter(|label| label.number == stored.number && label.descends_from(stored.membership))
        .filter(|label| label.is_sound(payload))
        .collect();
    let newest = labels.into_iter().fold(stored, |best, label| {
        if label.membership.generation > best.membership.generation {
            label
        } else {
            best
        }
    });
    let there = |device: DeviceId| {
        found
            .iter()
            .any(|found| found.handle.id() == device && descends(&newest, &found.superblock))
    };
    let absent: Vec<DeviceId> = newest.in_sync().filter(|device| !there(*device)).collect();
    let may_start =
        elected.quorum || absent.is_empty() || options.force || planted::is(Planted::NewestPresentWins);
    if !may_start {
        return Start::Wait(wait(
            "members or metadata holders that may know better are absent",
            &absent,
        ));
    }
    let record = if absent.is_empty() {
        newest
    } else {
        newest.changed(ids, |members| {
            for member in members
                .iter_mut()
                .filter(|member| absent.contains(&member.device))
            {
                member.status = MemberStatus::Out;
            }
        })
    };
    let in_sync = |member: usize| record.members[member].status == MemberStatus::InSync;
    if record.layout.is_complete(in_sync) {
        Start::Now(Box::new(record))
    } else {
        Start::Wait(wait("too many members are absent", &absent))
    }
}

/// The allocators of every group that is served, as the stored volumes own its slices.
pub(super) fn restore_allocators(working: &mut Working, truth: &Truth) {
    let mut states: BTreeMap<GroupNumber, Vec<SliceState>> = BTreeMap::new();
    for GroupSlices { group, slices } in truth.to_clear() {
        // Whatever type: what counts is that nobody gets them.
        let formatted_for = Some(EmulationType::ALL[0].1);
        states.entry(group).or_default().push(SliceState {
            slices,
            owner: Some(NOBODY),
            formatted_for,
        });
    }
    for volume in truth.volumes.values() {
        for GroupSlices { group, slices } in &volume.slices {
            let formatted_for = Some(volume.record.emulation);
            states.entry(*group).or_default().push(SliceState {
                slices: *slices,
                owner: Some(volume.record.number),
                formatted_for,
            });
        }
    }
    for (number, owned) in states {
        let Some(allocator) = working.allocators.get(number) else {
            continue;
        };
        let (slice, total) = (allocator.slice_length(), allocator.total());
        let restored = Allocator::restore(slice, &with_free(owned, total))
            .ok()
            .filter(|restored| restored.total() == total);
        let restored = restored.unwrap_or_else(|| {
            tracing::error!(group = %number, "stored slices contradict each other or their group: none is given out");
            Allocator::new(slice, 0)
        });
        working.allocators.insert(number, restored);
    }
}

/// The states of a group's slices, those that nobody owns put in between.
fn with_free(mut owned: Vec<SliceState>, total: u32) -> Vec<SliceState> {
    owned.sort_unstable_by_key(|state| state.slices);
    let free = |first: u32, end: u32| {
        (first < end).then(|| SliceState {
            slices: Slices::between(first, end),
            owner: None,
            formatted_for: None,
        })
    };
    let mut states = Vec::new();
    let mut at = 0;
    for state in owned {
        states.extend(free(at, state.slices.first));
        at = state.slices.end();
        states.push(state);
    }
    states.extend(free(at, total));
    states
}
