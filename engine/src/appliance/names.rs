//! Names that people give to devices, groups, volumes and exports: one rule for all, each name once per kind.

use super::Appliance;
use super::error::VerbError;
use super::operation::answered;
use super::records::Record;
use crate::types::{DeviceId, OperationId, VolumeId};

/// Whether people may call something so.
pub(super) fn check_name(name: &str) -> Result<(), VerbError> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let begins = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if begins && name.len() <= 64 && name.chars().all(good) {
        Ok(())
    } else {
        Err(VerbError::Name(name.to_owned()))
    }
}

/// Whether a thing may have this name; `is_taken`: another of its kind has it.
pub(super) fn check_new(name: &str, is_taken: bool) -> Result<(), VerbError> {
    check_name(name)?;
    if is_taken {
        return Err(VerbError::NameTaken(name.to_owned()));
    }
    Ok(())
}

impl Appliance {
    /// Renames a device; without a name it has none.
    pub async fn rename_device(
        &self,
        operation: OperationId,
        id: DeviceId,
        name: Option<&str>,
    ) -> Result<(), VerbError> {
        self.once(operation, async || {
            let checked = self.ledger.store.read(|truth| {
                truth.devices.find(id).ok_or(VerbError::NoSuchDevice(id))?;
                let owner = |name| truth.device_names.owner(name);
                name.map_or(Ok(()), |name| {
                    check_new(name, owner(name).is_some_and(|it| it != id))
                })
            });
            checked.await?;
            let name = name.map(str::to_owned);
            let record = Record::DeviceName { device: id, name };
            let records = vec![record, answered(operation, &())];
            Ok(self.ledger.store.commit(records).await?)
        })
        .await
    }

    /// Renames a volume; its exports keep their names.
    pub async fn rename_volume(
        &self,
        operation: OperationId,
        id: VolumeId,
        name: &str,
    ) -> Result<(), VerbError> {
        self.once(operation, async || {
            let checked = self.ledger.store.read(|truth| {
                let known = truth.volumes.find(id).ok_or(VerbError::NoSuchVolume(id))?;
                let called = truth.volumes.named(name);
                check_new(name, called.is_some_and(|other| other.record.id != id))?;
                let mut record = known.record.clone();
                record.name = name.to_owned();
                Ok::<_, VerbError>(record)
            });
            let records = vec![Record::Volume(checked.await?), answered(operation, &())];
            Ok(self.ledger.store.commit(records).await?)
        })
        .await
    }
}
