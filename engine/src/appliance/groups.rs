//! RAID groups: making, replacing members, deleting, and what they say of themselves.

use std::sync::Arc;

use super::devices::lowest_free;
use super::error::VerbError;
use super::open::{WaitingGroup, wait};
use super::records::{Record, Truth};
use super::tend::Tending;
use super::{Appliance, GroupSlot, Working};
use crate::device::DeviceHandle;
use crate::device::superblock::DeviceLayout;
use crate::io::IoError;
use crate::logical_device::{Allocator, SliceLength};
use crate::raid::group::{Group, OpenError};
use crate::raid::membership::{Journal, Serving};
use crate::raid::record::{MAX_MEMBERS, NewGroup};
use crate::raid::region_log::{log_len, log_range};
use crate::raid::{GroupRecord, GroupState, Layout, Level, MemberRecord, MemberStatus};
use crate::types::{ByteRange, ByteSize, DeviceNumber, GroupId, GroupNumber};

/// Where data begins and member lengths end: good for any device.
const DATA_ALIGN: u64 = 1 << 20;
/// Unit of *never written*.
const GRANULE: u64 = 64 << 10;
/// Most regions of write intent: bounds what is held in memory per group.
const MOST_REGIONS: u64 = 1 << 18;
const SMALLEST_REGION: u64 = 1 << 20;

/// A group to be made.
#[derive(Debug, Clone)]
pub struct NewGroupRequest {
    pub level: Level,
    /// By number, in the order of their roles.
    pub members: Vec<DeviceNumber>,
    pub slice: SliceLength,
    /// Stripe unit in bytes.
    pub unit: u64,
}

/// Space of a larger member that a group does not use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waste {
    pub device: DeviceNumber,
    pub bytes: u64,
}

/// What a group says of itself.
#[derive(Debug, Clone)]
pub struct GroupStatus {
    pub record: GroupRecord,
    pub state: Option<GroupState>,
    pub waiting: Option<WaitingGroup>,
    pub serving: Vec<Serving>,
    pub regions_to_sync: usize,
    pub marked_regions: usize,
}

/// A free device that is to be a member.
struct ChosenMember {
    number: DeviceNumber,
    device: Arc<DeviceHandle>,
    layout: DeviceLayout,
}

/// How a group lies on devices that offer so many payload bytes at the least.
fn shape(level: Level, members: u32, unit: u64, payload: u64) -> (Layout, u64, u64) {
    let step = DATA_ALIGN.max(unit);
    let mut member_len = payload / step * step;
    loop {
        let layout = Layout {
            level,
            members,
            unit,
            member_len,
        };
        let region = (layout.capacity() / MOST_REGIONS)
            .next_power_of_two()
            .max(SMALLEST_REGION);
        let log = log_len(layout.capacity(), GRANULE, region);
        let used = log.next_multiple_of(DATA_ALIGN) + DATA_ALIGN + member_len;
        if used <= payload || member_len == 0 {
            return (layout, region, log);
        }
        // The log shrinks with the data, so that this ends after very few rounds.
        member_len = member_len.saturating_sub((used - payload).next_multiple_of(step));
    }
}

fn place_member(device: &DeviceHandle, layout: DeviceLayout, log: u64, status: MemberStatus) -> MemberRecord {
    let start = layout.payload.start();
    MemberRecord {
        device: device.id(),
        status,
        log: log_range(start, log),
        data_start: (start + log).next_multiple_of(DATA_ALIGN),
    }
}

impl Appliance {
    /// Makes a group of devices that are there and in no group. Unequal sizes: the smallest counts, and the answer says
    /// what is wasted of the others.
    pub async fn create_group(
        &self,
        request: &NewGroupRequest,
    ) -> Result<(GroupNumber, Vec<Waste>), VerbError> {
        let mut working = self.working.lock().await;
        let members = self.chosen_members(request).await?;
        let payload = |member: &ChosenMember| member.layout.payload.len();
        let smallest = members.iter().map(payload).min().unwrap_or(0);
        let count = u32::try_from(members.len()).expect("at most MAX_MEMBERS");
        let (layout, region, log) = shape(request.level, count, request.unit, smallest);
        let slices = request.slice.slices_in(layout.capacity());
        if slices == 0 {
            return Err(VerbError::NoRoom {
                slice: ByteSize(request.slice.bytes()),
            });
        }
        let wasted = |member: &ChosenMember| Waste {
            device: member.number,
            bytes: payload(member) - smallest,
        };
        let waste = members
            .iter()
            .map(wasted)
            .filter(|waste| waste.bytes >= DATA_ALIGN)
            .collect();
        let number = self
            .ledger
            .store
            .read(|truth| lowest_free(truth.groups.keys().map(|number| number.0)))
            .await;
        let number = GroupNumber(number);
        let first_logical_device = working.numbering.add(number, slices)?;
        let made = self.make_group(NewGroup {
            id: GroupId::random(&self.ids),
            number,
            layout,
            granule: GRANULE,
            region,
            slice: request.slice.bytes(),
            first_logical_device,
            members: members
                .iter()
                .map(|member| place_member(&member.device, member.layout, log, MemberStatus::InSync))
                .collect(),
        });
        match made.await {
            Ok(Ok(group)) => {
                self.serve_group(&mut working, group, request.slice, slices);
                Ok((number, waste))
            }
            Ok(Err(error)) => {
                self.hold_back(number, wait("it could not be opened", &[]));
                Err(IoError::Device(error.to_string()).into())
            }
            Err(error) => {
                working.numbering.remove(number);
                Err(error)
            }
        }
    }

    /// The devices that a request names, after everything about them was checked.
    async fn chosen_members(&self, request: &NewGroupRequest) -> Result<Vec<ChosenMember>, VerbError> {
        let given = request.members.len();
        let needed = request.level.min_members();
        if given < needed {
            return Err(VerbError::TooFewMembers { needed, given });
        }
        if given > MAX_MEMBERS {
            return Err(VerbError::TooManyMembers {
                most: MAX_MEMBERS,
                given,
            });
        }
        if !request.unit.is_power_of_two() || !(4096..=1 << 20).contains(&request.unit) {
            return Err(VerbError::Unit {
                unit: ByteSize(request.unit),
            });
        }
        let mut members = Vec::new();
        for (index, number) in request.members.iter().enumerate() {
            if request.members[..index].contains(number) {
                return Err(VerbError::DeviceTwice(*number));
            }
            let (device, layout) = self.free_device(*number).await?;
            members.push(ChosenMember {
                number: *number,
                device,
                layout,
            });
        }
        Ok(members)
    }

    /// Makes a group durable and opens it. The outer error: nothing was made; the inner one: it exists, but cannot
    /// serve.
    async fn make_group(&self, new: NewGroup) -> Result<Result<Arc<Group>, OpenError>, VerbError> {
        let record = GroupRecord::new(new, &self.ids);
        let devices = self.member_devices(&record);
        for (member, device) in record.members.iter().zip(devices.iter().flatten()) {
            Group::format_member(device, member.log).await?;
            self.ledger
                .label(device, &record)
                .await
                .map_err(|error| IoError::Device(error.0))?;
        }
        self.ledger
            .store
            .commit(vec![Record::Group(record.clone())])
            .await?;
        let journal = Arc::clone(&self.ledger) as Arc<dyn Journal>;
        let opened = Group::open(record, devices, journal).await;
        Ok(opened.map(Arc::new))
    }

    pub(super) fn member_devices(&self, record: &GroupRecord) -> Vec<Option<Arc<DeviceHandle>>> {
        record
            .members
            .iter()
            .map(|member| self.ledger.device(member.device))
            .collect()
    }

    /// Takes a group into service; `slices` of it are free until volumes are restored.
    pub(super) fn serve_group(
        &self,
        working: &mut Working,
        group: Arc<Group>,
        slice: SliceLength,
        slices: u32,
    ) {
        working
            .allocators
            .insert(group.number(), Allocator::new(slice, slices));
        let tending = Tending::of(&group);
        self.groups
            .borrow_mut()
            .insert(group.number(), GroupSlot::Serving { group, tending });
    }

    /// A device that is there and in no group, with its layout.
    async fn free_device(
        &self,
        number: DeviceNumber,
    ) -> Result<(Arc<DeviceHandle>, DeviceLayout), VerbError> {
        let looked = self
            .ledger
            .store
            .read(|truth| (truth.devices.get(&number).cloned(), user_of(truth, number)))
            .await;
        let (Some(record), user) = looked else {
            return Err(VerbError::NoSuchDevice(number));
        };
        if let Some(group) = user {
            return Err(VerbError::DeviceInUse {
                device: number,
                group,
            });
        }
        let device = self.ledger.device(record.id);
        let device = device
            .filter(|device| device.failure().is_none())
            .ok_or(VerbError::DeviceAbsent(number))?;
        let layout = DeviceLayout::for_capacity(record.capacity).ok_or(VerbError::DeviceAbsent(number))?;
        Ok((device, layout))
    }

    /// Puts a free device in the place of a member, which is not used any more, and begins to copy to it.
    pub async fn replace_member(
        &self,
        number: GroupNumber,
        old: DeviceNumber,
        new: DeviceNumber,
    ) -> Result<(), VerbError> {
        let _one_verb = self.working.lock().await;
        let group = self.serving_group(number)?;
        let old_id = self
            .ledger
            .store
            .read(|truth| truth.devices.get(&old).map(|record| record.id))
            .await;
        let record = group.record();
        let member = old_id
            .and_then(|id| record.member(id))
            .ok_or(VerbError::NoSuchDevice(old))?;
        let (device, layout) = self.free_device(new).await?;
        let (block, group_block) = (device.info().block, group.block());
        if block > group_block {
            return Err(VerbError::MemberBlock { block, group_block });
        }
        let place = place_member(
            &device,
            layout,
            record.members[member].log.len(),
            MemberStatus::Blank,
        );
        let data_end = place.data_start + record.layout.member_len;
        if data_end > layout.payload.end() {
            let offered = layout.payload.end().saturating_sub(place.data_start);
            let needed = ByteSize(record.layout.member_len);
            return Err(VerbError::MemberTooSmall {
                offered: ByteSize(offered),
                needed,
            });
        }
        Group::format_member(&device, place.log).await?;
        group.replace(member, place).await?;
        // A label of this membership: without one the device would be a stranger after a crash.
        self.ledger
            .label(&device, &group.record())
            .await
            .map_err(|error| IoError::Device(error.0))?;
        group.join(member, device).await?;
        Ok(self.ledger.renew_holders().await?)
    }

    /// Deletes a group that no volume uses; its devices are free afterwards.
    pub async fn delete_group(&self, number: GroupNumber) -> Result<(), VerbError> {
        let mut working = self.working.lock().await;
        let group = self.serving_group(number)?;
        let volumes = self
            .ledger
            .store
            .read(|truth| users_of_group(truth, number))
            .await;
        if volumes > 0 {
            return Err(VerbError::GroupInUse {
                group: number,
                volumes,
            });
        }
        self.ledger
            .store
            .commit(vec![Record::RemoveGroup(number)])
            .await?;
        let removed = self.groups.borrow_mut().remove(&number);
        if let Some(GroupSlot::Serving { tending, .. }) = removed {
            tending.end().await;
        }
        working.allocators.remove(number);
        working.numbering.remove(number);
        for device in self.member_devices(&group.record()).into_iter().flatten() {
            // The label of a group that is gone means nothing; clearing it is a kindness to whoever examines it.
            let _ = self.ledger.relabel(&device, None).await;
        }
        Ok(())
    }

    pub(super) fn serving_group(&self, number: GroupNumber) -> Result<Arc<Group>, VerbError> {
        match self.groups.borrow().get(&number) {
            Some(GroupSlot::Serving { group, .. }) => Ok(Arc::clone(group)),
            Some(GroupSlot::Waiting(_)) => Err(VerbError::GroupWaits(number)),
            None => Err(VerbError::NoSuchGroup(number)),
        }
    }

    /// Every group that the appliance knows.
    pub async fn group_statuses(&self) -> Vec<GroupStatus> {
        let records: Vec<GroupRecord> = self
            .ledger
            .store
            .read(|truth| truth.groups.values().cloned().collect())
            .await;
        records
            .into_iter()
            .map(|record| self.group_status(record))
            .collect()
    }

    fn group_status(&self, record: GroupRecord) -> GroupStatus {
        match self.groups.borrow().get(&record.number) {
            Some(GroupSlot::Serving { group, .. }) => GroupStatus {
                state: Some(group.state()),
                waiting: None,
                serving: group.serving(),
                regions_to_sync: group.regions_to_sync(),
                marked_regions: group.marked_regions(),
                record: group.record(),
            },
            slot => GroupStatus {
                record,
                state: None,
                waiting: slot.and_then(|slot| match slot {
                    GroupSlot::Waiting(why) => Some(why.clone()),
                    GroupSlot::Serving { .. } => None,
                }),
                serving: Vec::new(),
                regions_to_sync: 0,
                marked_regions: 0,
            },
        }
    }
}

fn user_of(truth: &Truth, device: DeviceNumber) -> Option<GroupNumber> {
    let id = truth.devices.get(&device)?.id;
    truth
        .groups
        .values()
        .find(|group| group.member(id).is_some())
        .map(|group| group.number)
}

fn users_of_group(truth: &Truth, number: GroupNumber) -> usize {
    let uses = |runs: &[crate::map::Run]| runs.iter().any(|run| run.group == number);
    truth.volumes.values().filter(|volume| uses(&volume.runs)).count()
}

/// The group space of slices, as one range.
pub(super) fn slice_range(slice: u64, slices: crate::logical_device::Slices) -> ByteRange {
    ByteRange::between(u64::from(slices.first) * slice, u64::from(slices.end()) * slice)
}
