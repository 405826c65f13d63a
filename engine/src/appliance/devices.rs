//! Devices of the appliance: what one is before it belongs here, adding it, and its coming back.

use std::sync::Arc;

use super::error::VerbError;
use super::journal::{self, Present};
use super::records::{DeviceRecord, Record};
use super::{Appliance, GroupSlot};
use crate::device::superblock::{self, DeviceLayout, MIN_CAPACITY, Superblock, SuperblockError};
use crate::device::{Device, DeviceHandle, signature};
use crate::metadata::HolderCopy;
use crate::raid::{GroupRecord, MemberStatus};
use crate::types::{ApplianceId, ByteSize, DeviceId, DeviceNumber, IdSource};

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
    let handle = Arc::new(DeviceHandle::new(DeviceId(uuid::Uuid::nil()), device));
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

/// A device with its state.
#[derive(Debug, Clone)]
pub struct DeviceState {
    pub record: DeviceRecord,
    /// It was there when the appliance started, or came later.
    pub present: bool,
    /// Why it is out of service.
    pub failure: Option<String>,
}

/// Gives a blank device an identity: writes its superblock and clears its metadata area's beginning.
pub(super) async fn label_new(
    device: Arc<dyn Device>,
    appliance: ApplianceId,
    number: DeviceNumber,
    ids: &IdSource,
    force: bool,
) -> Result<(Arc<DeviceHandle>, Superblock), VerbError> {
    let info = device.info();
    let layout = DeviceLayout::for_capacity(info.capacity).ok_or(VerbError::DeviceTooSmall {
        capacity: ByteSize(info.capacity),
        needed: ByteSize(MIN_CAPACITY),
    })?;
    let handle = Arc::new(DeviceHandle::new(DeviceId::random(ids), Arc::clone(&device)));
    match superblock::read(&handle).await {
        Ok(Some(found)) if !force && found.appliance == appliance => {
            return Err(VerbError::DeviceKnown(found.number));
        }
        Ok(Some(found)) if !force => return Err(VerbError::ForeignAppliance(found.appliance)),
        Err(error) if !force => return Err(error.into()),
        _ => {}
    }
    let foreign = if force {
        Vec::new()
    } else {
        signature::examine(&*device).await?
    };
    if !foreign.is_empty() {
        return Err(VerbError::ForeignContent(foreign));
    }
    signature::erase(&*device).await?;
    handle.zero(layout.metadata, false).await?;
    // Old frames must not come back after the superblock says that this is ours.
    handle.flush().await?;
    let superblock = Superblock {
        device: handle.id(),
        appliance,
        number,
        sequence: 1,
        layout,
        member: None,
    };
    superblock::write(&handle, &superblock).await?;
    Ok((handle, superblock))
}

impl Appliance {
    /// Adds a device. With `force` whatever it holds is given up; without, a device of any appliance is refused.
    pub async fn add_device(&self, device: Arc<dyn Device>, force: bool) -> Result<DeviceNumber, VerbError> {
        let _one_verb = self.working.lock().await;
        let number = self
            .ledger
            .store
            .read(|truth| lowest_free(truth.devices.keys().map(|number| number.0)))
            .await;
        let number = DeviceNumber(number);
        let (handle, superblock) = label_new(device, self.id, number, &self.ids, force).await?;
        let record = DeviceRecord {
            number,
            id: handle.id(),
            capacity: handle.info().capacity,
        };
        self.ledger.store.commit(vec![Record::Device(record)]).await?;
        self.admit_device(&handle, superblock);
        self.ledger.renew_holders().await?;
        Ok(number)
    }

    pub(super) fn admit_device(&self, handle: &Arc<DeviceHandle>, superblock: Superblock) {
        let present = Present {
            handle: Arc::clone(handle),
            superblock,
        };
        self.ledger.present().insert(handle.id(), present);
    }

    /// Every device that the appliance knows.
    pub async fn devices(&self) -> Vec<DeviceState> {
        let records: Vec<DeviceRecord> = self
            .ledger
            .store
            .read(|truth| truth.devices.values().cloned().collect())
            .await;
        let present = self.ledger.present();
        records
            .into_iter()
            .map(|record| {
                let handle = present.get(&record.id).map(|present| &present.handle);
                DeviceState {
                    present: handle.is_some(),
                    failure: handle.and_then(|handle| handle.failure().map(str::to_owned)),
                    record,
                }
            })
            .collect()
    }

    /// Takes a device of this appliance into service again that was absent or had failed: its group begins to copy to
    /// it what it missed. The device must have been opened anew.
    pub async fn return_device(&self, device: Arc<dyn Device>) -> Result<DeviceNumber, VerbError> {
        let _one_verb = self.working.lock().await;
        let probe = DeviceHandle::new(DeviceId(uuid::Uuid::nil()), Arc::clone(&device));
        let found = superblock::read(&probe).await?;
        let found = found.ok_or(VerbError::NoSuchDevice(DeviceNumber(u32::MAX)))?;
        if found.appliance != self.id {
            return Err(VerbError::ForeignAppliance(found.appliance));
        }
        let handle = Arc::new(DeviceHandle::new(found.device, device));
        let number = found.number;
        let serves = self
            .ledger
            .device(found.device)
            .is_some_and(|known| known.failure().is_none());
        if serves {
            return Err(VerbError::DeviceServes(number));
        }
        self.admit_device(&handle, found.clone());
        self.rejoin(&handle, &found).await?;
        self.ledger.renew_holders().await?;
        Ok(number)
    }

    /// Has a device that is there again join its group, where its past allows it.
    pub(super) async fn rejoin(
        &self,
        handle: &Arc<DeviceHandle>,
        superblock: &Superblock,
    ) -> Result<(), VerbError> {
        let group = self.groups.borrow().values().find_map(|slot| match slot {
            GroupSlot::Serving { group, .. } if group.record().member(handle.id()).is_some() => {
                Some(Arc::clone(group))
            }
            _ => None,
        });
        let Some(group) = group else { return Ok(()) };
        let record = group.record();
        let member = record.member(handle.id()).expect("found above");
        let blank = record.members[member].status == MemberStatus::Blank;
        if !blank && !descends(&record, superblock) {
            tracing::warn!(device = %superblock.number, "the device's past differs from its group's: it is not taken in");
            return Ok(());
        }
        group.join(member, Arc::clone(handle)).await?;
        Ok(())
    }
}

/// Whether the membership in a device's superblock is in the line of descent of its group's record.
pub(super) fn descends(record: &GroupRecord, superblock: &Superblock) -> bool {
    let label = superblock
        .member
        .as_ref()
        .filter(|label| label.group == record.id);
    let labelled = label.and_then(|label| journal::decode(&label.record));
    labelled.is_some_and(|labelled| record.descends_from(labelled.membership))
}

/// The lowest number that is not among `taken`, which come in ascending order.
pub(super) fn lowest_free(taken: impl Iterator<Item = u32>) -> u32 {
    let mut free = 0;
    for number in taken {
        if number != free {
            break;
        }
        free += 1;
    }
    free
}
