//! What devices, groups and volumes say of themselves, and finding them by identity.

use std::sync::Arc;

use super::group_settings::CareSettings;
use super::health::Health;
use super::out_of_service::BY_HAND;
use super::records::{DeviceRecord, Truth, VolumeRecord, VolumeTruth};
use super::scrubs::{ScrubEnded, ScrubSchedule, Scrubs};
use super::spares::{SpareFor, spares_of};
use super::start::WaitingGroup;
use super::watch::serves;
use super::{Appliance, GroupSlot};
use crate::device::ErrorCounts;
use crate::logical_device::{Allocator, SliceState, Slices};
use crate::raid::membership::Serving;
use crate::raid::{CopyProgress, GroupRecord, GroupState, MemberStatus, ScrubRun};
use crate::types::{DeviceId, GroupId, GroupNumber, VolumeId};
use crate::volume::Volume;

/// A device's place in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceMember {
    pub group: GroupId,
    pub group_number: GroupNumber,
    /// Its place among the members, from 0.
    pub role: usize,
    pub status: MemberStatus,
}

/// A device with its state.
#[derive(Debug, Clone)]
pub struct DeviceState {
    pub record: DeviceRecord,
    pub name: Option<String>,
    /// It was there when the appliance started, or came later.
    pub present: bool,
    /// Bytes of a block, where it is there.
    pub block: Option<u32>,
    /// Why it is out of service.
    pub failure: Option<String>,
    /// An administrator keeps it out of service, over starts too.
    pub taken_out: bool,
    pub member: Option<DeviceMember>,
    /// For whom it is a spare.
    pub spare: Option<SpareFor>,
    /// The group that it says it was a member of, until another device took its place.
    pub former: Option<GroupId>,
    pub health: Health,
    pub errors: ErrorCounts,
}

/// What a group says of itself.
#[derive(Debug, Clone)]
pub struct GroupStatus {
    pub record: GroupRecord,
    pub name: Option<String>,
    /// `None` where it waits.
    pub state: Option<GroupState>,
    pub waiting: Option<WaitingGroup>,
    pub serving: Vec<Serving>,
    pub regions_to_sync: usize,
    pub copy: CopyProgress,
    /// Bytes per second, of what it copies at this time.
    pub copy_limit: Option<u64>,
    /// Bytes per second, of all that it ever copies.
    pub standing_copy_limit: Option<u64>,
    pub copy_paused: bool,
    pub scrub: ScrubStatus,
    pub care: CareSettings,
    /// Devices that may take a member's place: its own, and those that it shares with others.
    pub spares: Vec<(DeviceId, SpareFor)>,
    pub marked_regions: usize,
    /// Free logical devices; none where it waits.
    pub free_slices: u32,
    /// The same, as runs in order.
    pub free: Vec<Slices>,
}

/// What a group says of its scrubs.
#[derive(Debug, Clone, Default)]
pub struct ScrubStatus {
    pub running: Option<ScrubRun>,
    /// The last one that is over.
    pub last: Option<ScrubEnded>,
    pub schedule: Option<ScrubSchedule>,
    /// When the next one begins by the schedule, in seconds since 1970.
    pub due: Option<u64>,
}

impl ScrubStatus {
    fn of(stored: &Scrubs) -> Self {
        Self {
            running: stored.running.clone(),
            last: stored.last.clone(),
            schedule: stored.schedule,
            due: stored.due(),
        }
    }
}

/// What a volume says of itself.
#[derive(Debug, Clone)]
pub struct VolumeStatus {
    pub record: VolumeRecord,
    /// All its groups serve.
    pub serving: bool,
    pub runs: usize,
    /// Bytes that are mapped, up to the capacity.
    pub mapped: u64,
}

impl Appliance {
    /// Every device that the appliance knows, by number.
    pub async fn devices(&self) -> Vec<DeviceState> {
        let looked = self.ledger.store.read(|truth| {
            let records = truth.devices.values();
            records.map(|record| self.device_state(truth, record)).collect()
        });
        looked.await
    }

    /// One device.
    pub async fn find_device(&self, id: DeviceId) -> Option<DeviceState> {
        let looked = self.ledger.store.read(|truth| {
            let record = truth.devices.find(id)?;
            Some(self.device_state(truth, record))
        });
        looked.await
    }

    fn device_state(&self, truth: &Truth, record: &DeviceRecord) -> DeviceState {
        let handle = self.ledger.device(record.id);
        let member = truth.group_of(record.id).and_then(|stored| {
            // What serves may be a step ahead of what is stored.
            let serving = self.group(stored.number).map(|group| group.record());
            let group = serving.as_ref().unwrap_or(stored);
            let role = group.member(record.id)?;
            Some(DeviceMember {
                group: group.id,
                group_number: group.number,
                role,
                status: group.members[role].status,
            })
        });
        let taken_out = truth.taken_out.contains(&record.id);
        let failure = handle.as_ref().and_then(|handle| handle.failure());
        DeviceState {
            record: record.clone(),
            name: truth.device_names.get(record.id).cloned(),
            present: handle.is_some(),
            block: handle.as_ref().map(|handle| handle.info().block),
            failure: failure.or(taken_out.then_some(BY_HAND)).map(str::to_owned),
            taken_out,
            spare: truth.spares.get(&record.id).copied(),
            former: member
                .is_none()
                .then(|| self.former_group(truth, record.id))
                .flatten(),
            member,
            health: self.caring.health_now(truth, record.id),
            errors: match &handle {
                Some(handle) => handle.errors(),
                None => truth.errors.get(&record.id).copied().unwrap_or_default(),
            },
        }
    }

    /// The group that the label of a device names, which is in none.
    fn former_group(&self, truth: &Truth, device: DeviceId) -> Option<GroupId> {
        let present = self.ledger.present();
        let label = present.get(&device)?.superblock.member.as_ref()?;
        truth.groups.find(label.group).map(|group| group.id)
    }

    /// Every group that the appliance knows, by number.
    pub async fn group_statuses(&self) -> Vec<GroupStatus> {
        let looked = self.ledger.store.read(|truth| {
            let records = truth.groups.values();
            records.map(|record| self.group_status(truth, record)).collect()
        });
        looked.await
    }

    /// One group.
    pub async fn find_group(&self, id: GroupId) -> Option<GroupStatus> {
        let looked = self.ledger.store.read(|truth| {
            let record = truth.groups.find(id)?;
            Some(self.group_status(truth, record))
        });
        looked.await
    }

    /// Whose each logical device of a group is, as runs in order; `None` where the group is not there or waits.
    pub async fn group_slices(&self, id: GroupId) -> Option<Vec<SliceState>> {
        let number = self.group_number(id).await.ok()?;
        let working = self.working.borrow();
        let allocator = working.allocators.get(number)?;
        Some(allocator.states().collect())
    }

    fn group_status(&self, truth: &Truth, record: &GroupRecord) -> GroupStatus {
        let working = self.working.borrow();
        let allocator = working.allocators.get(record.number);
        let unknown = GroupStatus {
            record: record.clone(),
            name: truth.group_names.get(record.id).cloned(),
            state: None,
            waiting: None,
            serving: Vec::new(),
            regions_to_sync: 0,
            copy: CopyProgress::default(),
            copy_limit: None,
            standing_copy_limit: truth.copy_limits.get(&record.id).copied(),
            copy_paused: false,
            scrub: truth
                .scrubs
                .get(&record.id)
                .map(ScrubStatus::of)
                .unwrap_or_default(),
            care: truth.care.get(&record.id).copied().unwrap_or_default(),
            spares: spares_of(truth, record.id).collect(),
            marked_regions: 0,
            free_slices: allocator.map_or(0, Allocator::free_count),
            free: allocator.map(free_runs).unwrap_or_default(),
        };
        match self.groups.borrow().get(&record.number) {
            Some(GroupSlot::Serving { group, .. }) => GroupStatus {
                state: Some(group.state()),
                serving: group.serving(),
                regions_to_sync: group.regions_to_sync(),
                copy: group.copy_progress(),
                copy_limit: group.copy_limit(),
                copy_paused: group.is_copy_paused(),
                marked_regions: group.marked_regions(),
                record: group.record(),
                scrub: ScrubStatus {
                    running: group.scrub(),
                    ..unknown.scrub
                },
                ..unknown
            },
            Some(GroupSlot::Waiting { waiting, .. }) => GroupStatus {
                waiting: Some(waiting.clone()),
                ..unknown
            },
            None => unknown,
        }
    }

    /// Every volume that the appliance knows, by number.
    pub async fn volume_statuses(&self) -> Vec<VolumeStatus> {
        let looked = self.ledger.store.read(|truth| {
            let volumes = truth.volumes.values();
            volumes.map(|volume| self.volume_status(volume)).collect()
        });
        looked.await
    }

    /// How many groups there are.
    pub async fn group_count(&self) -> usize {
        self.ledger.store.read(|truth| truth.groups.len()).await
    }

    /// How many volumes there are.
    pub async fn volume_count(&self) -> usize {
        self.ledger.store.read(|truth| truth.volumes.len()).await
    }

    /// One volume.
    pub async fn find_volume(&self, id: VolumeId) -> Option<VolumeStatus> {
        let looked = self.ledger.store.read(|truth| {
            let volume = truth.volumes.find(id)?;
            Some(self.volume_status(volume))
        });
        looked.await
    }

    fn volume_status(&self, VolumeTruth { record, runs, .. }: &VolumeTruth) -> VolumeStatus {
        VolumeStatus {
            record: record.clone(),
            serving: self.volume(record.number).is_some_and(|volume| serves(&volume)),
            runs: runs.as_slice().len(),
            mapped: runs.bytes_within(record.capacity),
        }
    }

    /// A volume in service, by identity.
    pub fn volume_of(&self, id: VolumeId) -> Option<Arc<Volume>> {
        self.volumes.borrow().find(id).cloned()
    }
}

fn free_runs(allocator: &Allocator) -> Vec<Slices> {
    let mut runs: Vec<Slices> = Vec::new();
    for state in allocator.states().filter(|state| state.owner.is_none()) {
        match runs.last_mut() {
            Some(last) if last.end() == state.slices.first => last.count += state.slices.count,
            _ => runs.push(state.slices),
        }
    }
    runs
}
