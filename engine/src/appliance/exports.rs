//! Exports: what hosts attach to, kept with the volumes so that they are offered without the catalog (R8).
//!
//! Invariants: what is offered was made durable before; every enabled export whose volume has been taken into service is
//! offered. An export names its volume by identity, so that neither's name follows the other's.

use std::sync::Arc;

use super::Appliance;
use super::error::VerbError;
use super::names::check_new;
use super::operation::{ExportMade, answered};
use super::records::{ExportRecord, Record, Truth};
use crate::export::access::{ClientRange, Protection};
use crate::export::{Access, Export, Polling};
use crate::types::{ExportId, OperationId, VolumeId};
use crate::volume::Volume;

/// An export to be made.
#[derive(Debug, Clone)]
pub struct NewExport {
    /// A random one is taken unless one is given.
    pub id: Option<ExportId>,
    pub name: String,
    pub volume: VolumeId,
    pub read_only: bool,
    /// Addresses (`192.0.2.7`) or ranges of them (`192.0.2.0/24`); empty for all.
    pub clients: Vec<String>,
    pub protection: Protection,
    pub exclusive: bool,
    pub polling: Polling,
    pub enabled: bool,
}

/// What is to be different of an export; `None` leaves a fact as it is.
#[derive(Debug, Clone, Default)]
pub struct ExportChange {
    pub name: Option<String>,
    pub read_only: Option<bool>,
    pub clients: Option<Vec<String>>,
    pub protection: Option<Protection>,
    pub exclusive: Option<bool>,
    pub polling: Option<Polling>,
    pub enabled: Option<bool>,
}

/// What an export says of itself.
#[derive(Debug, Clone)]
pub struct ExportStatus {
    pub record: ExportRecord,
    /// Hosts can attach: it is enabled and its volume is in service.
    pub offered: bool,
    /// Connections attached at this moment.
    pub connections: usize,
}

impl ExportChange {
    fn apply(self, record: &ExportRecord) -> ExportRecord {
        let old = record.clone();
        ExportRecord {
            id: old.id,
            name: self.name.unwrap_or(old.name),
            volume: old.volume,
            read_only: self.read_only.unwrap_or(old.read_only),
            clients: self.clients.unwrap_or(old.clients),
            protection: self.protection.unwrap_or(old.protection),
            exclusive: self.exclusive.unwrap_or(old.exclusive),
            polling: self.polling.unwrap_or(old.polling),
            enabled: self.enabled.unwrap_or(old.enabled),
        }
    }
}

/// Whether an export may be so, beside all others.
fn check(truth: &Truth, record: &ExportRecord) -> Result<(), VerbError> {
    let called = truth.exports.named(&record.name);
    check_new(&record.name, called.is_some_and(|other| other.id != record.id))?;
    truth
        .volumes
        .find(record.volume)
        .ok_or(VerbError::NoSuchVolume(record.volume))?;
    client_ranges(record)?;
    Ok(())
}

fn client_ranges(record: &ExportRecord) -> Result<Vec<ClientRange>, VerbError> {
    let ranges: Result<_, _> = record.clients.iter().map(|text| text.parse()).collect();
    Ok(ranges?)
}

impl Appliance {
    /// Makes an export, and offers it where it is enabled.
    pub async fn create_export(
        &self,
        operation: OperationId,
        new: NewExport,
    ) -> Result<ExportMade, VerbError> {
        self.once(operation, async || {
            let id = new.id.unwrap_or_else(|| ExportId::random(&self.ids));
            let record = ExportRecord {
                id,
                name: new.name,
                volume: new.volume,
                read_only: new.read_only,
                clients: new.clients,
                protection: new.protection,
                exclusive: new.exclusive,
                polling: new.polling,
                enabled: new.enabled,
            };
            let checked = self.ledger.store.read(|truth| {
                if truth.exports.contains(id) {
                    return Err(VerbError::IdTaken(id.0));
                }
                check(truth, &record)
            });
            checked.await?;
            let made = ExportMade { id };
            let records = vec![Record::Export(record.clone()), answered(operation, &made)];
            self.ledger.store.commit(records).await?;
            self.offer(&record);
            Ok(made)
        })
        .await
    }

    /// Changes an export. It is withdrawn and offered anew: connections end after their running requests.
    pub async fn change_export(
        &self,
        operation: OperationId,
        id: ExportId,
        change: ExportChange,
    ) -> Result<(), VerbError> {
        self.once(operation, async || {
            let old = self.export_record(id).await?;
            let record = change.apply(&old);
            self.ledger.store.read(|truth| check(truth, &record)).await?;
            let records = vec![Record::Export(record.clone()), answered(operation, &())];
            self.ledger.store.commit(records).await?;
            if record != old {
                self.registry.remove(&old.name).await;
                self.offer(&record);
            }
            Ok(())
        })
        .await
    }

    /// Deletes an export once the running requests of its connections have ended.
    pub async fn delete_export(&self, operation: OperationId, id: ExportId) -> Result<(), VerbError> {
        self.once(operation, async || {
            let old = self.export_record(id).await?;
            let records = vec![Record::RemoveExport(id), answered(operation, &())];
            self.ledger.store.commit(records).await?;
            self.registry.remove(&old.name).await;
            self.export_counters.borrow_mut().remove(&id);
            Ok(())
        })
        .await
    }

    async fn export_record(&self, id: ExportId) -> Result<ExportRecord, VerbError> {
        let known = self.ledger.store.read(|truth| truth.exports.get(id).cloned());
        known.await.ok_or(VerbError::NoSuchExport(id))
    }

    /// Every export that the appliance knows, with who is attached.
    pub async fn exports(&self) -> Vec<ExportStatus> {
        let known = self.ledger.store.read(|truth| {
            let records = truth.exports.values().cloned();
            records.collect::<Vec<_>>()
        });
        known
            .await
            .into_iter()
            .map(|record| self.export_status(record))
            .collect()
    }

    /// One export.
    pub async fn find_export(&self, id: ExportId) -> Option<ExportStatus> {
        let record = self.export_record(id).await.ok()?;
        Some(self.export_status(record))
    }

    fn export_status(&self, record: ExportRecord) -> ExportStatus {
        let attached = self.registry.attached(&record.name);
        ExportStatus {
            offered: attached.is_some(),
            connections: attached.unwrap_or(0),
            record,
        }
    }

    /// Disables every export.
    pub(super) async fn disable_exports(&self) -> Result<(), VerbError> {
        let enabled = self.ledger.store.read(|truth| {
            let enabled = truth.exports.values().filter(|export| export.enabled);
            let disabled = enabled.map(|export| ExportRecord {
                enabled: false,
                ..export.clone()
            });
            disabled.map(Record::Export).collect::<Vec<_>>()
        });
        let records = enabled.await;
        if records.is_empty() {
            return Ok(());
        }
        Ok(self.ledger.store.commit(records).await?)
    }

    /// Offers every export that can be offered.
    pub(super) async fn offer_exports(&self) {
        let all = |truth: &Truth| truth.exports.values().cloned().collect::<Vec<_>>();
        for record in self.ledger.store.read(all).await {
            self.offer(&record);
        }
    }

    /// Offers an export that is not, where it is enabled and its volume serves.
    fn offer(&self, record: &ExportRecord) {
        let volume = self.volume_of(record.volume).filter(|_| record.enabled);
        if let Some(volume) = volume
            && let Err(error) = self.try_offer(record, volume)
        {
            tracing::error!(export = record.name, %error, "stored export cannot be offered");
        }
    }

    fn try_offer(&self, record: &ExportRecord, volume: Arc<Volume>) -> Result<(), VerbError> {
        let export = Export {
            name: record.name.clone(),
            target: volume,
            access: Access {
                clients: client_ranges(record)?,
                protection: record.protection,
                read_only: record.read_only,
            },
            exclusive: record.exclusive,
            polling: record.polling,
            counters: self.export_counters(record.id),
        };
        Ok(self.registry.add(export)?)
    }

    /// Ends all connections, after their running requests.
    pub(super) async fn withdraw_exports(&self) {
        for export in self.exports().await {
            self.registry.remove(&export.record.name).await;
        }
    }
}
