//! RAID groups: making and deleting.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::devices::free_number;
use super::error::VerbError;
use super::journal::Ledger;
use super::names::check_new;
use super::operation::{GroupMade, answered};
use super::records::{Record, Truth};
use super::start::wait;
use super::tend::Tending;
use super::{Appliance, GroupSlot};
use crate::device::DeviceHandle;
use crate::device::superblock::DeviceLayout;
use crate::io::IoError;
use crate::logical_device::{Allocator, SliceLength};
use crate::raid::group::{Group, OpenError};
use crate::raid::membership::Journal;
use crate::raid::record::{MAX_MEMBERS, NewGroup, log_len};
use crate::raid::region_log::log_range;
use crate::raid::{GroupRecord, Layout, Level, MemberRecord, MemberStatus};
use crate::types::{ByteRange, ByteSize, DeviceId, DeviceNumber, GroupId, GroupNumber, OperationId};

/// Where data begins and member lengths end: good for any device.
const DATA_ALIGN: u64 = 1 << 20;
/// Unit of *never written*: addresses of the group, at the most where there are sums.
const GRANULE: u64 = 64 << 10;
/// Least bytes of a member that such a unit has with sums.
const SMALLEST_GRANULE: u64 = 4 << 10;
/// Most regions of write intent: bounds what is held in memory per group.
const MOST_REGIONS: u64 = 1 << 18;
const SMALLEST_REGION: u64 = 1 << 20;

/// A group to be made.
#[derive(Debug, Clone)]
pub struct NewGroupRequest {
    /// A random one is taken unless one is given.
    pub id: Option<GroupId>,
    /// The lowest free number is taken unless one is given.
    pub number: Option<GroupNumber>,
    pub name: Option<String>,
    pub level: Level,
    /// In the order of their roles.
    pub members: Vec<DeviceId>,
    pub slice: SliceLength,
    /// Stripe unit in bytes.
    pub unit: u64,
    /// Whether what the members hold has checksums.
    pub checksums: bool,
}

/// Space of a larger member that a group does not use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waste {
    pub device: DeviceNumber,
    pub bytes: u64,
}

/// A free device that is to be a member.
pub(super) struct ChosenMember {
    pub(super) number: DeviceNumber,
    pub(super) device: Arc<DeviceHandle>,
    pub(super) layout: DeviceLayout,
}

/// A group as it would be made.
pub(super) struct GroupPlan {
    pub(super) made: GroupMade,
    members: Vec<ChosenMember>,
    shape: GroupShape,
    pub(super) slices: u32,
}

impl GroupPlan {
    /// Bytes of the group's address space.
    pub(super) fn capacity(&self) -> u64 {
        self.shape.layout.capacity()
    }

    fn places(&self) -> Vec<MemberRecord> {
        let place = |member: &ChosenMember| {
            place_member(
                &member.device,
                member.layout,
                self.shape.log,
                MemberStatus::InSync,
            )
        };
        self.members.iter().map(place).collect()
    }
}

/// How a group lies on its members.
struct GroupShape {
    layout: Layout,
    granule: u64,
    region: u64,
    /// Bytes of a member beside its data.
    log: u64,
}

/// The unit of *never written* in the addresses by which the group's space is known.
fn granule(layout: &Layout) -> u64 {
    if layout.sums() == 0 {
        return GRANULE;
    }
    let of_each = GRANULE / layout.columns().next_power_of_two();
    of_each.clamp(SMALLEST_GRANULE, layout.unit)
}

/// The shape of a group on devices that offer so many payload bytes at the least.
fn shape(request: &NewGroupRequest, members: u32, payload: u64) -> GroupShape {
    let NewGroupRequest {
        level,
        unit,
        checksums,
        ..
    } = *request;
    let step = DATA_ALIGN.max(unit);
    let mut member_len = payload / step * step;
    loop {
        let layout = Layout {
            level,
            members,
            unit,
            member_len,
        };
        let granule = granule(&layout);
        let region = (layout.known_space() / MOST_REGIONS)
            .next_power_of_two()
            .max(SMALLEST_REGION);
        let log = log_len(&layout, granule, region, checksums);
        let used = log.next_multiple_of(DATA_ALIGN) + DATA_ALIGN + member_len;
        if used <= payload || member_len == 0 {
            return GroupShape {
                layout,
                granule,
                region,
                log,
            };
        }
        // The log shrinks with the data, so that this ends after very few rounds.
        member_len = member_len.saturating_sub((used - payload).next_multiple_of(step));
    }
}

pub(super) fn place_member(
    device: &DeviceHandle,
    layout: DeviceLayout,
    log: u64,
    status: MemberStatus,
) -> MemberRecord {
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
        operation: OperationId,
        request: &NewGroupRequest,
    ) -> Result<GroupMade, VerbError> {
        self.once(operation, async || {
            let plan = self.plan_group(request).await?;
            let (number, id) = (plan.made.number, plan.made.id);
            let first_logical_device = self.working.borrow_mut().numbering.add(number, plan.slices)?;
            let new = NewGroup {
                id,
                number,
                layout: plan.shape.layout,
                granule: plan.shape.granule,
                region: plan.shape.region,
                slice: request.slice.bytes(),
                first_logical_device,
                checksums: request.checksums,
                members: plan.places(),
            };
            let records = vec![
                Record::GroupName {
                    group: id,
                    name: request.name.clone(),
                },
                answered(operation, &plan.made),
            ];
            match self.make_group(new, records).await {
                Ok(Ok(group)) => {
                    self.serve_group(group, request.slice, plan.slices);
                    Ok(plan.made)
                }
                // It is made, and its answer is kept: it serves after a start that can open it.
                Ok(Err(error)) => {
                    tracing::error!(group = %number, %error, "a new RAID group could not be opened");
                    self.hold_back(number, id, wait("it could not be opened", &[]));
                    Ok(plan.made)
                }
                Err(error) => {
                    self.working.borrow_mut().numbering.remove(number);
                    Err(error)
                }
            }
        })
        .await
    }

    /// What a request comes to, after everything about it was checked.
    pub(super) async fn plan_group(&self, request: &NewGroupRequest) -> Result<GroupPlan, VerbError> {
        let members = self.chosen_members(request).await?;
        let payload = |member: &ChosenMember| member.layout.payload.len();
        let smallest = members.iter().map(payload).min().unwrap_or(0);
        let count = u32::try_from(members.len()).expect("at most MAX_MEMBERS");
        let shape = shape(request, count, smallest);
        let slices = request.slice.slices_in(shape.layout.capacity());
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
        let id = request.id.unwrap_or_else(|| GroupId::random(&self.ids));
        let number = self.ledger.store.read(|truth| {
            if truth.groups.find(id).is_some() {
                return Err(VerbError::IdTaken(id.0));
            }
            if let Some(name) = &request.name {
                check_new(name, truth.group_names.owner(name).is_some())?;
            }
            let taken = truth.groups.keys().map(|number| number.0);
            free_number(request.number.map(|number| number.0), taken)
        });
        let number = GroupNumber(number.await?);
        Ok(GroupPlan {
            made: GroupMade { number, id, waste },
            members,
            shape,
            slices,
        })
    }

    /// The devices that a request names, after everything about them was checked.
    async fn chosen_members(&self, request: &NewGroupRequest) -> Result<Vec<ChosenMember>, VerbError> {
        let given = request.members.len();
        let needed = request.level.min_members();
        if given < needed {
            return Err(VerbError::TooFewMembers { needed, given });
        }
        let step = request.level.member_step();
        if !given.is_multiple_of(step) {
            return Err(VerbError::OddMembers { step, given });
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
        for (index, id) in request.members.iter().enumerate() {
            let member = self.ledger.free_device(*id).await?;
            if self.ledger.spare(*id).await.is_some() {
                return Err(VerbError::DeviceIsSpare(member.number));
            }
            if request.members[..index].contains(id) {
                return Err(VerbError::DeviceTwice(member.number));
            }
            members.push(member);
        }
        Ok(members)
    }

    /// Makes a group durable and opens it. The outer error: nothing was made; the inner one: it exists, but cannot
    /// serve.
    async fn make_group(
        &self,
        new: NewGroup,
        records: Vec<Record>,
    ) -> Result<Result<Arc<Group>, OpenError>, VerbError> {
        let record = GroupRecord::new(new, &self.ids);
        let devices = self.ledger.member_devices(&record);
        for (member, device) in devices.iter().flatten().enumerate() {
            Group::format_member(&record, device, record.members[member].log).await?;
            Group::begin_journal(&record, member, device).await?;
            self.ledger
                .label(device, &record)
                .await
                .map_err(|error| IoError::Device(error.0))?;
        }
        let mut all = vec![Record::Group(record.clone())];
        all.extend(records);
        self.ledger.store.commit(all).await?;
        let journal = Arc::clone(&self.ledger) as Arc<dyn Journal>;
        let opened = Group::open(record, devices, journal).await;
        Ok(opened.map(Arc::new))
    }

    /// Takes a group into service; `slices` of it are free until volumes are restored.
    pub(super) fn serve_group(&self, group: Arc<Group>, slice: SliceLength, slices: u32) {
        self.working
            .borrow_mut()
            .allocators
            .insert(group.number(), Allocator::new(slice, slices));
        group.share_copy_limit(Arc::clone(&self.copy_limit));
        let tending = Tending::of(&group, &self.keeper);
        self.groups
            .borrow_mut()
            .insert(group.number(), GroupSlot::Serving { group, tending });
    }

    /// Deletes a group that no volume uses; its devices are free afterwards.
    pub async fn delete_group(&self, operation: OperationId, id: GroupId) -> Result<(), VerbError> {
        self.once(operation, async || {
            let number = self.group_number(id).await?;
            let group = self.serving_group(number)?;
            let users = self.ledger.store.read(|truth| users_of_group(truth, number));
            let volumes = users.await;
            if volumes > 0 {
                let group = number;
                return Err(VerbError::GroupInUse { group, volumes });
            }
            let records = vec![Record::RemoveGroup(number), answered(operation, &())];
            self.ledger.store.commit(records).await?;
            let removed = self.groups.borrow_mut().remove(&number);
            if let Some(GroupSlot::Serving { tending, .. }) = removed {
                tending.end().await;
            }
            self.forget_slices(number);
            for device in self.ledger.member_devices(&group.record()).into_iter().flatten() {
                // The label of a group that is gone means nothing; clearing it is a kindness to whoever examines it.
                let _ = self.ledger.relabel(&device, None).await;
            }
            Ok(())
        })
        .await
    }

    fn forget_slices(&self, number: GroupNumber) {
        let mut working = self.working.borrow_mut();
        working.allocators.remove(number);
        working.numbering.remove(number);
    }

    /// A group's number now.
    pub(super) async fn group_number(&self, id: GroupId) -> Result<GroupNumber, VerbError> {
        let known = self
            .ledger
            .store
            .read(|truth| truth.groups.find(id).map(|group| group.number));
        known.await.ok_or(VerbError::NoSuchGroup(id))
    }

    pub(super) fn serving_group(&self, number: GroupNumber) -> Result<Arc<Group>, VerbError> {
        match self.groups.borrow().get(&number) {
            Some(GroupSlot::Serving { group, .. }) => Ok(Arc::clone(group)),
            _ => Err(VerbError::GroupWaits(number)),
        }
    }
}

impl Ledger {
    /// A device that is there and in no group.
    pub(super) async fn free_device(&self, id: DeviceId) -> Result<ChosenMember, VerbError> {
        let looked = self.store.read(|truth| {
            let record = truth.devices.find(id).cloned()?;
            let user = truth.group_of(id).map(|group| group.number);
            Some((record, user, truth.taken_out.contains(&id)))
        });
        let (record, user, taken_out) = looked.await.ok_or(VerbError::NoSuchDevice(id))?;
        let number = record.number;
        if let Some(group) = user {
            return Err(VerbError::DeviceInUse {
                device: number,
                group,
            });
        }
        if taken_out {
            return Err(VerbError::DeviceTakenOut(number));
        }
        let device = self.device(id);
        let device = device
            .filter(|device| device.failure().is_none())
            .ok_or(VerbError::DeviceAbsent(number))?;
        let layout = DeviceLayout::for_capacity(record.capacity).ok_or(VerbError::DeviceAbsent(number))?;
        Ok(ChosenMember {
            number,
            device,
            layout,
        })
    }
}

fn users_of_group(truth: &Truth, number: GroupNumber) -> usize {
    let uses = |runs: &[crate::map::Run]| runs.iter().any(|run| run.group == number);
    truth
        .volumes
        .values()
        .filter(|volume| uses(volume.runs.as_slice()))
        .count()
}

/// The group space of slices, as one range.
pub(super) fn slice_range(slice: u64, slices: crate::logical_device::Slices) -> ByteRange {
    ByteRange::between(u64::from(slices.first) * slice, u64::from(slices.end()) * slice)
}
