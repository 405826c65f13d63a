//! How a group's membership becomes durable: in the metadata first, then in the superblocks of the members in sync.
//!
//! Metadata first: a superblock never tells of a membership that enough holders could not confirm.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::records::{Record, Truth};
use crate::device::superblock::{self, MemberLabel, Superblock};
use crate::device::{DeviceHandle, ErrorCounts};
use crate::metadata::store::MAX_HOLDERS;
use crate::metadata::{Store, StoreError};
use crate::raid::membership::{Journal, JournalError};
use crate::raid::{GroupRecord, MemberStatus};
use crate::types::{ByteRange, DeviceId, GroupId, IdSource};

/// A device that is there, and what its superblock says.
#[derive(Clone)]
pub(super) struct Present {
    pub(super) handle: Arc<DeviceHandle>,
    pub(super) superblock: Superblock,
}

/// Records that are to be stored with a change of a group's membership: with the first that gives this device, as a
/// member of this group, that status.
pub(super) struct Along {
    pub(super) group: GroupId,
    pub(super) device: DeviceId,
    pub(super) status: MemberStatus,
    pub(super) records: Vec<Record>,
}

impl Along {
    fn belongs_to(&self, record: &GroupRecord) -> bool {
        let member = record.member(self.device).map(|member| record.members[member]);
        record.id == self.group && member.is_some_and(|member| member.status == self.status)
    }
}

/// The metadata, and the devices that are there.
pub(super) struct Ledger {
    pub(super) store: Store<Truth>,
    pub(super) present: Mutex<BTreeMap<DeviceId, Present>>,
    /// What the verb that runs wants to be stored with what it changes.
    pub(super) along: Mutex<Option<Along>>,
    pub(super) ids: IdSource,
}

impl Ledger {
    /// Writes into a device's superblock that it belongs to this group.
    pub(super) async fn label(
        &self,
        device: &DeviceHandle,
        record: &GroupRecord,
    ) -> Result<(), JournalError> {
        self.relabel(
            device,
            Some(MemberLabel {
                group: record.id,
                record: encode(record),
            }),
        )
        .await
    }

    /// Writes a device's superblock with another label.
    pub(super) async fn relabel(
        &self,
        device: &DeviceHandle,
        label: Option<MemberLabel>,
    ) -> Result<(), JournalError> {
        let next = {
            let mut present = self.present();
            let known = present.get_mut(&device.id()).map(|known| &mut known.superblock);
            let known = known.ok_or_else(|| JournalError("device without superblock".into()))?;
            known.sequence += 1;
            known.member = label;
            known.clone()
        };
        superblock::write(device, &next)
            .await
            .map_err(|error| JournalError(error.to_string()))
    }

    pub(super) fn present(&self) -> MutexGuard<'_, BTreeMap<DeviceId, Present>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn along(&self) -> MutexGuard<'_, Option<Along>> {
        self.along.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device that is there.
    pub(super) fn device(&self, id: DeviceId) -> Option<Arc<DeviceHandle>> {
        self.present().get(&id).map(|present| Arc::clone(&present.handle))
    }

    /// The devices of a group's members that are there.
    pub(super) fn member_devices(&self, record: &GroupRecord) -> Vec<Option<Arc<DeviceHandle>>> {
        let members = record.members.iter();
        members.map(|member| self.device(member.device)).collect()
    }

    /// Takes a device among those that are there; what failed on it before counts on.
    pub(super) async fn admit(&self, handle: &Arc<DeviceHandle>, superblock: Superblock) {
        handle.carry_on(self.errors(handle.id()).await);
        let present = Present {
            handle: Arc::clone(handle),
            superblock,
        };
        self.present().insert(handle.id(), present);
    }

    /// What failed on a device so far.
    pub(super) async fn errors(&self, id: DeviceId) -> ErrorCounts {
        match self.device(id) {
            Some(device) => device.errors(),
            None => {
                let stored = self.store.read(|truth| truth.errors.get(&id).copied());
                stored.await.unwrap_or_default()
            }
        }
    }

    /// Has the devices that are there count on from what is stored.
    pub(super) async fn carry_errors_on(&self) {
        let stored = self.store.read(|truth| truth.errors.clone()).await;
        for (id, errors) in stored {
            if let Some(device) = self.device(id) {
                device.carry_on(errors);
            }
        }
    }

    /// Lets devices that are there take the places of metadata holders that are not.
    pub(super) async fn renew_holders(&self) -> Result<(), StoreError> {
        self.renew_holders_without(None).await
    }

    /// The same, and has one device hold the metadata no more.
    pub(super) async fn renew_holders_without(&self, but: Option<DeviceId>) -> Result<(), StoreError> {
        let named = self.store.holders().await;
        let there = self
            .present()
            .values()
            .filter(|present| present.handle.failure().is_none() && Some(present.handle.id()) != but)
            .cloned()
            .collect();
        let chosen = choose_holders(there, &named);
        if self.store.is_held_by(&chosen).await {
            Ok(())
        } else {
            self.store.take_holders(chosen, false).await
        }
    }
}

/// Up to [`MAX_HOLDERS`] devices with their metadata areas, those first that hold the metadata already; an odd number
/// where more than two.
pub(super) fn choose_holders(there: Vec<Present>, named: &[DeviceId]) -> Vec<(Arc<DeviceHandle>, ByteRange)> {
    choose_at_least(0, there, named)
}

/// With whom a start begins: the same, and every device that is there and holds the metadata already, be they more. A
/// start that a crash cut off leaves a list on its way from one to the next, which counts with half of either; one that is
/// not asked cannot stand in where another takes no writes. Whoever is too many goes once the holders are renewed.
pub(super) fn holders_at_start(
    there: Vec<Present>,
    named: &[DeviceId],
) -> Vec<(Arc<DeviceHandle>, ByteRange)> {
    let holds = |present: &&Present| named.contains(&present.handle.id());
    let holding = there.iter().filter(holds).count();
    choose_at_least(holding, there, named)
}

fn choose_at_least(
    least: usize,
    there: Vec<Present>,
    named: &[DeviceId],
) -> Vec<(Arc<DeviceHandle>, ByteRange)> {
    let (mut all, others): (Vec<_>, Vec<_>) = there
        .into_iter()
        .partition(|present| named.contains(&present.handle.id()));
    all.extend(others);
    let wanted = match all.len().min(MAX_HOLDERS) {
        even if even > 2 && even.is_multiple_of(2) => even - 1,
        few_or_odd => few_or_odd,
    };
    all.truncate(wanted.max(least));
    all.into_iter()
        .map(|present| (present.handle, present.superblock.layout.metadata))
        .collect()
}

/// A group's record as it stands in a superblock.
pub(super) fn encode(record: &GroupRecord) -> Vec<u8> {
    postcard::to_stdvec(record).expect("plain data with known lengths always serialises into memory")
}

pub(super) fn decode(bytes: &[u8]) -> Option<GroupRecord> {
    postcard::from_bytes(bytes).ok()
}

impl Journal for Ledger {
    fn record<'a>(
        &'a self,
        record: &'a GroupRecord,
        members: &'a [Arc<DeviceHandle>],
    ) -> Pin<Box<dyn Future<Output = Result<(), JournalError>> + 'a>> {
        Box::pin(async move {
            let mut records = vec![Record::Group(record.clone())];
            let along = self.along().take_if(|along| along.belongs_to(record));
            records.extend(along.into_iter().flat_map(|along| along.records));
            let commit = self.store.commit(records).await;
            commit.map_err(|error| JournalError(error.to_string()))?;
            // A member that failed may have been a holder: the next failure must find enough of them.
            if let Err(error) = self.renew_holders().await {
                tracing::warn!(%error, "metadata holders could not be renewed");
            }
            for device in members {
                // A survivor that fails here has closed its latch: the group sees that and takes it out as well.
                let _ = self.label(device, record).await;
            }
            Ok(())
        })
    }

    fn ids(&self) -> &IdSource {
        &self.ids
    }
}
