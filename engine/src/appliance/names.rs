//! Names that people give to devices, groups, volumes and exports: one rule for all, each name once per kind.

use super::Appliance;
use super::error::VerbError;
use super::operation::answered;
use super::records::Record;
use crate::types::{DeviceId, GroupId, OperationId, VolumeId};

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

/// Whether a thing may have this name, where `others` are those of its kind.
pub(super) fn check_new<'a>(
    name: &str,
    mut others: impl Iterator<Item = &'a String>,
) -> Result<(), VerbError> {
    check_name(name)?;
    if others.any(|other| other == name) {
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
                truth.device(id).ok_or(VerbError::NoSuchDevice(id))?;
                let others = truth.device_names.iter().filter(|(other, _)| **other != id);
                name.map_or(Ok(()), |name| check_new(name, others.map(|(_, name)| name)))
            });
            checked.await?;
            let name = name.map(str::to_owned);
            let record = Record::DeviceName { device: id, name };
            let records = vec![record, answered(operation, &())];
            Ok(self.ledger.store.commit(records).await?)
        })
        .await
    }

    /// Renames a group; without a name it has none.
    pub async fn rename_group(
        &self,
        operation: OperationId,
        id: GroupId,
        name: Option<&str>,
    ) -> Result<(), VerbError> {
        self.once(operation, async || {
            let checked = self.ledger.store.read(|truth| {
                truth.group(id).ok_or(VerbError::NoSuchGroup(id))?;
                let others = truth.group_names.iter().filter(|(other, _)| **other != id);
                name.map_or(Ok(()), |name| check_new(name, others.map(|(_, name)| name)))
            });
            checked.await?;
            let name = name.map(str::to_owned);
            let record = Record::GroupName { group: id, name };
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
                let known = truth.volume(id).ok_or(VerbError::NoSuchVolume(id))?;
                let volumes = truth.volumes.values().map(|volume| &volume.record);
                let others = volumes.filter(|other| other.id != id);
                check_new(name, others.map(|other| &other.name))?;
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
