//! How a group's membership becomes durable: in the metadata first, then in the superblocks of the members in sync.
//!
//! Metadata first: a superblock never tells of a membership that enough holders could not confirm.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use super::records::{Record, Truth};
use crate::device::DeviceHandle;
use crate::device::superblock::{self, MemberLabel, Superblock};
use crate::metadata::Store;
use crate::raid::GroupRecord;
use crate::raid::membership::{Journal, JournalError};
use crate::types::{DeviceId, IdSource};

/// The metadata and the superblocks of the devices that are there.
pub(super) struct Ledger {
    pub(super) store: Store<Truth>,
    pub(super) superblocks: Mutex<BTreeMap<DeviceId, Superblock>>,
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
            let mut superblocks = self.superblocks.lock().unwrap_or_else(PoisonError::into_inner);
            let known = superblocks
                .get_mut(&device.id())
                .ok_or_else(|| JournalError("device without superblock".into()))?;
            known.sequence += 1;
            known.member = label;
            known.clone()
        };
        superblock::write(device, &next)
            .await
            .map_err(|error| JournalError(error.to_string()))
    }
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
            let commit = self.store.commit(vec![Record::Group(record.clone())]).await;
            commit.map_err(|error| JournalError(error.to_string()))?;
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
