//! What people set for the whole appliance, and how many starts there were.

use super::Appliance;
use super::error::VerbError;
use super::names::check_name;
use super::operation::answered;
use super::records::{ApplianceSettings, Record};
use crate::types::OperationId;

/// Settings to be changed; `None` leaves one as it is.
#[derive(Debug, Clone, Default)]
pub struct SettingsChange {
    pub name: Option<String>,
    pub number: Option<u32>,
    /// Bytes. Volumes that exist already are not affected.
    pub smallest_volume: Option<u64>,
}

impl Appliance {
    pub async fn settings(&self) -> ApplianceSettings {
        self.ledger.store.read(|truth| truth.settings.clone()).await
    }

    /// Changes settings.
    pub async fn change_settings(
        &self,
        operation: OperationId,
        change: SettingsChange,
    ) -> Result<(), VerbError> {
        self.once(operation, async || {
            let mut settings = self.settings().await;
            if let Some(name) = change.name {
                check_name(&name)?;
                settings.name = name;
            }
            settings.number = change.number.unwrap_or(settings.number);
            settings.smallest_volume = change.smallest_volume.unwrap_or(settings.smallest_volume);
            let records = vec![Record::Settings(settings), answered(operation, &())];
            Ok(self.ledger.store.commit(records).await?)
        })
        .await
    }

    /// How many starts of this appliance there were that could change it, this one included. Grows with each, durably;
    /// with it goes the numbering of events.
    pub async fn epoch(&self) -> u64 {
        self.ledger.store.read(|truth| truth.epoch).await
    }
}
