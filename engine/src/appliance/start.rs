//! Which groups may start (R6), and which slices of them are whose.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Working;
use super::journal::{self, Ledger, Present};
use super::open::OpenOptions;
use super::out_of_service::descends;
use super::records::{GroupSlices, Truth};
use crate::device::DeviceHandle;
use crate::device::superblock::Superblock;
use crate::logical_device::{Allocator, SliceState, Slices};
use crate::metadata::{Elected, Store};
use crate::planted::{self, Planted};
use crate::raid::membership::Journal;
use crate::raid::{Group, GroupRecord, MemberStatus};
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
    let absent = absent_members(&newest, found.iter().map(|found| &found.superblock));
    let may_start =
        elected.quorum || absent.is_empty() || options.force || planted::is(Planted::NewestPresentWins);
    if !may_start {
        return Start::Wait(wait(
            "members or metadata holders that may know better are absent",
            &absent,
        ));
    }
    match without(newest, &absent, ids) {
        Some(record) => Start::Now(Box::new(record)),
        None => Start::Wait(wait("too many members are absent", &absent)),
    }
}

/// The members in sync that are not among these devices, or whose past differs from the group's.
pub(super) fn absent_members<'a>(
    record: &GroupRecord,
    found: impl Iterator<Item = &'a Superblock>,
) -> Vec<DeviceId> {
    let there: Vec<DeviceId> = found
        .filter(|superblock| descends(record, superblock))
        .map(|superblock| superblock.device)
        .collect();
    record
        .in_sync()
        .filter(|device| !there.contains(device))
        .collect()
}

/// The record with absent members out; `None` where the others do not hold everything.
pub(super) fn without(record: GroupRecord, absent: &[DeviceId], ids: &IdSource) -> Option<GroupRecord> {
    let record = if absent.is_empty() {
        record
    } else {
        record.changed(ids, |members| {
            for member in members
                .iter_mut()
                .filter(|member| absent.contains(&member.device))
            {
                member.status = MemberStatus::Out;
            }
        })
    };
    let in_sync = |member: usize| record.members[member].status == MemberStatus::InSync;
    record.layout.is_complete(in_sync).then_some(record)
}

impl Ledger {
    /// Opens a group on its members that are there, with what is set of it. Its record, in which those that are absent are
    /// out, becomes durable before anything is written that these would miss.
    pub(super) async fn open_group(self: &Arc<Self>, record: GroupRecord) -> Result<Group, String> {
        let id = record.id;
        let devices = self.member_devices(&record);
        let in_sync: Vec<_> = record
            .members
            .iter()
            .zip(&devices)
            .filter(|(member, _)| member.status == MemberStatus::InSync)
            .filter_map(|(_, device)| device.clone())
            .collect();
        let recorded = self.record(&record, &in_sync).await;
        recorded.map_err(|error| error.to_string())?;
        let journal = Arc::clone(self) as Arc<dyn Journal>;
        let opened = Group::open(record, devices, journal).await;
        let group = opened.map_err(|error| error.to_string())?;
        let looked = self.store.read(|truth| {
            let scrubs = truth.scrubs.get(&id);
            let scrub = scrubs.and_then(|scrubs| scrubs.running.clone());
            (truth.copy_limits.get(&id).copied(), scrub)
        });
        let (limit, scrub) = looked.await;
        group.set_standing_copy_limit(limit);
        group.set_scrub(scrub);
        Ok(group)
    }

    /// Has a device that is there again join its group, where its past allows it.
    pub(super) async fn rejoin(&self, group: &Group, handle: &Arc<DeviceHandle>, superblock: &Superblock) {
        let record = group.record();
        let Some(member) = record.member(handle.id()) else {
            return;
        };
        let blank = record.members[member].status == MemberStatus::Blank;
        if !blank && !descends(&record, superblock) {
            tracing::warn!(device = %superblock.number, "the device's past differs from its group's: it is not taken in");
            return;
        }
        if let Err(error) = group.join(member, Arc::clone(handle)).await {
            tracing::warn!(device = %superblock.number, %error, "member cannot be taken in again");
        }
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
