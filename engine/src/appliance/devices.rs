//! Devices of the appliance: what one is before it belongs here, adding it, removing it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Appliance;
use super::error::VerbError;
use super::journal::{self, Present};
use super::names::check_new;
use super::operation::{DeviceMade, answered};
use super::records::{DeviceRecord, Record, Truth};
use crate::device::superblock::{self, DeviceLayout, MIN_CAPACITY, Superblock, SuperblockError};
use crate::device::{Device, DeviceHandle, signature};
use crate::metadata::{HolderCopy, Store, elect};
use crate::raid::GroupRecord;
use crate::types::{ApplianceId, ByteSize, DeviceId, DeviceNumber, GroupNumber, IdSource, OperationId};

/// What a device says of itself.
#[derive(Debug, Clone)]
pub struct Examined {
    pub superblock: Superblock,
    /// The group that it says it belongs to, as of its last membership there.
    pub group: Option<GroupRecord>,
    /// Generation of the metadata that it holds.
    pub metadata_generation: Option<u64>,
    /// Newer metadata stands there and cannot be used: what lies before it is damaged.
    pub metadata_is_damaged: bool,
}

/// Reads what a device is, changing nothing; `None` where it is no device of any appliance.
pub async fn examine(device: Arc<dyn Device>) -> Result<Option<Examined>, SuperblockError> {
    let handle = Arc::new(probe(device));
    let Some(superblock) = superblock::read(&handle).await? else {
        return Ok(None);
    };
    let group = superblock
        .member
        .as_ref()
        .and_then(|label| journal::decode(&label.record));
    let copy = HolderCopy::read(handle, superblock.layout.metadata).await?;
    Ok(Some(Examined {
        superblock,
        group,
        metadata_generation: copy.tip().map(|tip| tip.generation),
        metadata_is_damaged: copy.is_damaged(),
    }))
}

/// A device to be added.
#[derive(Clone)]
pub struct NewDevice {
    pub device: Arc<dyn Device>,
    /// A random one is taken unless one is given.
    pub id: Option<DeviceId>,
    /// The lowest free number is taken unless one is given; in a new appliance, the place in the list.
    pub number: Option<DeviceNumber>,
    pub name: Option<String>,
    /// Whatever it holds is given up; else a device that holds anything is refused.
    pub force: bool,
}

impl NewDevice {
    /// A device that is blank, with nothing chosen.
    pub fn new(device: Arc<dyn Device>) -> Self {
        Self {
            device,
            id: None,
            number: None,
            name: None,
            force: false,
        }
    }
}

/// Whether the devices of a new appliance agree with each other.
pub(super) fn check_new_devices(devices: &[NewDevice]) -> Result<(), VerbError> {
    if devices.is_empty() {
        return Err(VerbError::NoDevices);
    }
    let mut numbers = BTreeSet::new();
    let mut ids = BTreeSet::new();
    let mut names = Vec::new();
    for (index, device) in (0..).zip(devices) {
        let number = device.number.map_or(index, |number| number.0);
        if !numbers.insert(number) {
            return Err(VerbError::NumberTaken(number));
        }
        if let Some(id) = device.id.filter(|id| !ids.insert(*id)) {
            return Err(VerbError::IdTaken(id.0));
        }
        if let Some(name) = &device.name {
            check_new(name, names.contains(&name))?;
            names.push(name);
        }
    }
    Ok(())
}

/// Whether a device may become part of the new appliance `id`: no metadata on it names that.
pub(super) async fn check_unmade(
    id: ApplianceId,
    device: &Arc<dyn Device>,
    ids: &IdSource,
) -> Result<(), VerbError> {
    let handle = Arc::new(probe(Arc::clone(device)));
    let Ok(Some(found)) = superblock::read(&handle).await else {
        return Ok(());
    };
    if found.appliance != id {
        return Ok(());
    }
    if found.member.is_some() {
        return Err(VerbError::ApplianceMade(id));
    }
    let copies = [HolderCopy::read(handle, found.layout.metadata).await?];
    let Some(elected) = elect::elect(&copies, None) else {
        return Ok(());
    };
    let store = Store::<Truth>::open(&copies, &elected, ids.clone()).await?;
    if elected.damaged.is_empty() && store.read(|truth| truth.appliance.is_none()).await {
        return Ok(());
    }
    Err(VerbError::ApplianceMade(id))
}

/// The records of a new device.
pub(super) fn device_records(made: &DeviceMade, capacity: u64, name: Option<String>) -> Vec<Record> {
    let DeviceMade { number, id } = *made;
    let record = DeviceRecord { number, id, capacity };
    vec![Record::Device(record), Record::DeviceName { device: id, name }]
}

pub(super) fn probe(device: Arc<dyn Device>) -> DeviceHandle {
    DeviceHandle::new(DeviceId(uuid::Uuid::nil()), device)
}

/// Gives a device an identity: writes its superblock and clears its metadata area's beginning. `known` tells the number
/// of a device that the metadata names: one that is labelled as ours and not named was cut off on its way in or out.
pub(super) async fn label_new(
    new: &NewDevice,
    appliance: ApplianceId,
    made: &DeviceMade,
    known: impl Fn(DeviceId) -> Option<DeviceNumber>,
) -> Result<(Arc<DeviceHandle>, Superblock), VerbError> {
    let device = &new.device;
    let info = device.info();
    let layout = DeviceLayout::for_capacity(info.capacity).ok_or(VerbError::DeviceTooSmall {
        capacity: ByteSize(info.capacity),
        needed: ByteSize(MIN_CAPACITY),
    })?;
    let handle = Arc::new(DeviceHandle::new(made.id, Arc::clone(device)));
    match superblock::read(&handle).await {
        Ok(Some(found)) if found.appliance == appliance => {
            if let Some(number) = known(found.device) {
                return Err(VerbError::DeviceKnown(number));
            }
            // Nothing that was cut off on its way in has such a label, and what it holds may be somebody's.
            if let Some(label) = found.member.filter(|_| !new.force) {
                return Err(VerbError::DeviceWasMember(label.group));
            }
        }
        Ok(Some(found)) if !new.force => return Err(VerbError::ForeignAppliance(found.appliance)),
        Err(error) if !new.force => return Err(error.into()),
        _ => {}
    }
    let foreign = if new.force {
        Vec::new()
    } else {
        signature::examine(&**device).await?
    };
    if !foreign.is_empty() {
        return Err(VerbError::ForeignContent(foreign));
    }
    handle.erase().await?;
    handle.zero(layout.metadata, false).await?;
    // Old frames must not come back after the superblock says that this is ours.
    handle.flush().await?;
    let superblock = Superblock {
        device: made.id,
        appliance,
        number: made.number,
        sequence: 1,
        layout,
        member: None,
    };
    superblock::write(&handle, &superblock).await?;
    Ok((handle, superblock))
}

impl Appliance {
    /// Adds a device. One that an earlier try has labelled is taken.
    pub async fn add_device(&self, operation: OperationId, new: NewDevice) -> Result<DeviceMade, VerbError> {
        self.once(operation, async || {
            let made = self
                .ledger
                .store
                .read(|truth| place_device(truth, &new, &self.ids))
                .await?;
            let known = self.device_numbers().await;
            let labelled = label_new(&new, self.id, &made, |id| known.get(&id).copied());
            let (handle, superblock) = labelled.await?;
            let mut records = device_records(&made, handle.info().capacity, new.name);
            records.push(answered(operation, &made));
            self.ledger.store.commit(records).await?;
            self.ledger.admit(&handle, superblock).await;
            self.renew_holders().await;
            Ok(made)
        })
        .await
    }

    async fn device_numbers(&self) -> BTreeMap<DeviceId, DeviceNumber> {
        let devices = self.ledger.store.read(|truth| {
            let devices = truth.devices.values();
            devices.map(|device| (device.id, device.number)).collect()
        });
        devices.await
    }

    /// A verb's change is durable: that the holders could not follow must not make it look undone.
    pub(super) async fn renew_holders(&self) {
        if let Err(error) = self.ledger.renew_holders().await {
            tracing::warn!(%error, "metadata holders could not be renewed");
        }
    }

    /// Removes a device that is in no group and not the last one. What it holds of the metadata is moved off it first;
    /// afterwards it is blank, where it is there.
    pub async fn remove_device(&self, operation: OperationId, id: DeviceId) -> Result<(), VerbError> {
        self.once(operation, async || {
            let (number, user) = self.known_device(id).await?;
            if let Some(group) = user {
                let device = number;
                return Err(VerbError::DeviceInUse { device, group });
            }
            self.check_others_hold(id, number)?;
            self.ledger.renew_holders_without(Some(id)).await?;
            let records = vec![Record::RemoveDevice(number), answered(operation, &())];
            self.ledger.store.commit(records).await?;
            let removed = self.ledger.present().remove(&id);
            self.watch.forget_device(id);
            if let Some(present) = removed
                && let Err(error) = present.handle.erase().await
            {
                tracing::warn!(device = %id, %error, "removed device could not be made blank");
            }
            Ok(())
        })
        .await
    }

    pub(super) fn check_others_hold(&self, id: DeviceId, number: DeviceNumber) -> Result<(), VerbError> {
        let stays = |present: &Present| present.handle.id() != id && present.handle.failure().is_none();
        match self.ledger.present().values().any(stays) {
            true => Ok(()),
            false => Err(VerbError::LastDevice(number)),
        }
    }

    /// A device's number, and the group that it is in.
    pub(super) async fn known_device(
        &self,
        id: DeviceId,
    ) -> Result<(DeviceNumber, Option<GroupNumber>), VerbError> {
        let looked = self.ledger.store.read(|truth| {
            let number = truth.devices.find(id)?.number;
            Some((number, truth.group_of(id).map(|group| group.number)))
        });
        looked.await.ok_or(VerbError::NoSuchDevice(id))
    }
}

/// Number and identity of a device to be added.
fn place_device(truth: &Truth, new: &NewDevice, ids: &IdSource) -> Result<DeviceMade, VerbError> {
    let id = new.id.unwrap_or_else(|| DeviceId::random(ids));
    if truth.devices.find(id).is_some() {
        return Err(VerbError::IdTaken(id.0));
    }
    if let Some(name) = &new.name {
        check_new(name, truth.device_names.owner(name).is_some())?;
    }
    let taken = truth.devices.keys().map(|number| number.0);
    let number = free_number(new.number.map(|number| number.0), taken)?;
    Ok(DeviceMade {
        number: DeviceNumber(number),
        id,
    })
}

/// The number that is asked for, or the lowest that is not among `taken`, which come in ascending order.
pub(super) fn free_number(
    asked: Option<u32>,
    mut taken: impl Iterator<Item = u32>,
) -> Result<u32, VerbError> {
    match asked {
        // The greatest one stands for nobody.
        Some(u32::MAX) => Err(VerbError::NumberTaken(u32::MAX)),
        Some(number) if taken.any(|other| other == number) => Err(VerbError::NumberTaken(number)),
        Some(number) => Ok(number),
        None => Ok(lowest_free(taken)),
    }
}

/// The lowest number that is not among `taken`, which come in ascending order.
fn lowest_free(taken: impl Iterator<Item = u32>) -> u32 {
    let mut free = 0;
    for number in taken {
        if number != free {
            break;
        }
        free += 1;
    }
    free
}
