//! Devices out of service: taken out by an administrator, and coming back, whatever they were out for.
//!
//! Invariants: a device that an administrator took out stays out, over starts too, until it is returned or removed. That
//! it is out is durable with its group's going on without it, and no more before its group begins to copy to it again: so
//! a member that is marked as out is never in sync.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Appliance;
use super::devices::probe;
use super::error::VerbError;
use super::journal::{self, Along, Present};
use super::operation::{DeviceMade, answered};
use super::records::{Record, Truth};
use crate::device::superblock::{self, Superblock};
use crate::device::{Device, DeviceHandle};
use crate::metadata::Store;
use crate::planted::{self, Planted};
use crate::raid::membership::Serving;
use crate::raid::{Group, GroupRecord, GroupState, MemberStatus};
use crate::types::{DeviceId, DeviceNumber, GroupNumber, OperationId};

/// Why a device is out of service that was taken out.
pub(super) const BY_HAND: &str = "taken out of service by an administrator";

/// Closes the latches of the devices that an administrator took out; returns the others.
pub(super) async fn keep_out(store: &Store<Truth>, found: &[Present]) -> Vec<Present> {
    if planted::is(Planted::ForgetTakenOut) {
        return found.to_vec();
    }
    let taken_out: BTreeSet<DeviceId> = store.read(|truth| truth.taken_out.clone()).await;
    let is_out = |present: &&Present| taken_out.contains(&present.handle.id());
    for present in found.iter().filter(is_out) {
        present.handle.fail(BY_HAND);
    }
    found.iter().filter(|present| !is_out(present)).cloned().collect()
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

impl Appliance {
    /// Takes a device out of service, whether it is there or not, until it is [returned](Self::return_device). Its group
    /// goes on without it; refused where that would lose data.
    pub async fn fail_device(&self, operation: OperationId, id: DeviceId) -> Result<(), VerbError> {
        self.once(operation, async || {
            let (number, user) = self.known_device(id).await?;
            let taken_out = Record::DeviceTakenOut {
                device: id,
                is_out: true,
            };
            let records = vec![taken_out, answered(operation, &())];
            match user {
                Some(group) => self.take_member_out((number, id), group, records).await?,
                None => {
                    self.check_others_hold(id, number)?;
                    self.ledger.renew_holders_without(Some(id)).await?;
                    self.ledger.store.commit(records).await?;
                }
            }
            if let Some(handle) = self.ledger.device(id) {
                handle.fail(BY_HAND);
            }
            Ok(())
        })
        .await
    }

    async fn take_member_out(
        &self,
        (device, id): (DeviceNumber, DeviceId),
        group: GroupNumber,
        records: Vec<Record>,
    ) -> Result<(), VerbError> {
        let serving = self.serving_group(group)?;
        *self.ledger.along() = Some(Along {
            group: serving.id(),
            device: id,
            status: MemberStatus::Out,
            records,
        });
        let out = serving.take_out(id, BY_HAND).await;
        let (out, left) = self.ledger.along_with(out)?;
        if !out {
            return Err(VerbError::NotRedundant { device, group });
        }
        match left {
            // It was out before: that it stays so is new.
            Some(along) => Ok(self.ledger.store.commit(along.records).await?),
            None => Ok(()),
        }
    }

    /// The open device behind a handle that is out of service: it can be returned as it is where it answers again, and
    /// cannot be opened a second time.
    pub fn held_device(&self, id: DeviceId) -> Option<Arc<dyn Device>> {
        let handle = self.ledger.device(id)?;
        handle.failure().is_some().then(|| handle.device())
    }

    /// Takes a device of this appliance into service again that was absent, had failed or was taken out: its group begins
    /// to copy to it what it missed; one that stopped resumes where enough members are there with it. The device must have
    /// been opened anew. Once it is in service, what keeps it out of its group shows in the group's state.
    pub async fn return_device(
        &self,
        operation: OperationId,
        device: Arc<dyn Device>,
    ) -> Result<DeviceMade, VerbError> {
        self.once(operation, async || {
            let found = superblock::read(&probe(Arc::clone(&device))).await?;
            let found = found.ok_or(VerbError::NoSuperblock)?;
            if found.appliance != self.id {
                return Err(VerbError::ForeignAppliance(found.appliance));
            }
            let id = found.device;
            let (number, _) = self.known_device(id).await?;
            let known = self.ledger.device(id);
            if known.as_ref().is_some_and(|known| known.failure().is_none()) {
                return Err(VerbError::DeviceServes(number));
            }
            let stopped = self.place_of(id).await;
            let stopped = stopped.filter(|(group, _)| group.state() == GroupState::Failed);
            if stopped.is_none() {
                self.leave_group(id, number).await?;
            }
            let made = DeviceMade { number, id };
            let back = Record::DeviceTakenOut {
                device: id,
                is_out: false,
            };
            self.ledger
                .store
                .commit(vec![back, answered(operation, &made)])
                .await?;
            let handle = Arc::new(DeviceHandle::new(id, device));
            if let Some(before) = known {
                handle.doubt_as(&before);
            }
            self.ledger.admit(&handle, found.clone()).await;
            match self.place_of(id).await {
                Some(_) if stopped.is_some() => self.caring.look_at_stopped(),
                Some((group, _)) => self.ledger.rejoin(&group, &handle, &found).await,
                None => {}
            }
            self.renew_holders().await;
            Ok(made)
        })
        .await
    }

    /// The serving group of a device, and its place there.
    pub(super) async fn place_of(&self, id: DeviceId) -> Option<(Arc<Group>, usize)> {
        let known = self
            .ledger
            .store
            .read(|truth| truth.group_of(id).map(|group| group.number));
        let group = self.group(known.await?)?;
        let member = group.record().member(id)?;
        Some((group, member))
    }

    /// Has its group do without a device that failed, where it did not notice that yet.
    async fn leave_group(&self, id: DeviceId, device: DeviceNumber) -> Result<(), VerbError> {
        let Some((group, member)) = self.place_of(id).await else {
            return Ok(());
        };
        if group.serving()[member] == Serving::Out || group.take_out(id, "it failed").await? {
            return Ok(());
        }
        let group = group.number();
        Err(VerbError::NotRedundant { device, group })
    }
}
