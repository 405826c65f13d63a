//! What the engine says of its objects, as the catalog mirrors it.

use std::collections::{BTreeMap, BTreeSet};

use ashlar_engine::appliance::{Appliance, DeviceState, ExportStatus, GroupStatus, VolumeStatus};
use ashlar_engine::export::Polling;
use ashlar_engine::export::access::Protection;
use ashlar_openapi::devices::DeviceSource;
use uuid::Uuid;

use super::levels;
use crate::catalog::devices::{DeviceFacts, DeviceKind};
use crate::catalog::exports::{ExportFacts, ExportProtection};
use crate::catalog::raid_groups::RaidGroupFacts;
use crate::catalog::volumes::VolumeFacts;
use crate::engine::locations::place;

/// Stands for the place of a device that is not known on this machine.
const NOWHERE: &str = "unknown";

/// Everything that the engine knows.
#[derive(Debug, Default)]
pub struct Facts {
    pub devices: Vec<DeviceFacts>,
    pub raid_groups: Vec<RaidGroupFacts>,
    pub volumes: Vec<VolumeFacts>,
    pub exports: Vec<ExportFacts>,
}

impl Facts {
    /// Reads all of it.
    pub async fn read(appliance: &Appliance, places: &BTreeMap<Uuid, DeviceSource>) -> Self {
        Self {
            devices: appliance
                .devices()
                .await
                .iter()
                .map(|state| of_device(state, places.get(&state.record.id.0)))
                .collect(),
            raid_groups: appliance.group_statuses().await.iter().map(of_group).collect(),
            volumes: appliance.volume_statuses().await.iter().map(of_volume).collect(),
            exports: appliance.exports().await.iter().map(of_export).collect(),
        }
    }

    /// Forgets these objects.
    pub fn leave_out(&mut self, ids: &BTreeSet<Uuid>) {
        self.devices.retain(|device| !ids.contains(&device.id));
        self.raid_groups.retain(|group| !ids.contains(&group.id));
        self.volumes.retain(|volume| !ids.contains(&volume.id));
        self.exports.retain(|export| !ids.contains(&export.id));
    }
}

/// A number of the catalog's; whatever is beyond was never given.
fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn bytes(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

pub fn of_device(state: &DeviceState, source: Option<&DeviceSource>) -> DeviceFacts {
    DeviceFacts {
        id: state.record.id.0,
        number: number(state.record.number.0),
        name: state.name.clone(),
        kind: match source {
            Some(DeviceSource::File { .. }) | None => DeviceKind::File,
            Some(DeviceSource::Block { .. }) => DeviceKind::Block,
            Some(DeviceSource::Nbd { .. }) => DeviceKind::Nbd,
        },
        location: source.map_or(NOWHERE, place).to_owned(),
        capacity: bytes(state.record.capacity),
    }
}

pub fn of_group(status: &GroupStatus) -> RaidGroupFacts {
    let record = &status.record;
    RaidGroupFacts {
        id: record.id.0,
        number: number(record.number.0),
        name: status.name.clone(),
        level: levels::number(record.layout.level),
        stripe_unit: Some(bytes(record.layout.unit)),
        slice_length: bytes(record.slice),
        capacity: bytes(record.layout.capacity()),
    }
}

pub fn of_volume(status: &VolumeStatus) -> VolumeFacts {
    let record = &status.record;
    VolumeFacts {
        id: record.id.0,
        number: number(record.number.0),
        name: record.name.clone(),
        emulation: record.emulation.to_string(),
        capacity: bytes(record.capacity),
        partial: record.partial,
    }
}

pub fn of_export(status: &ExportStatus) -> ExportFacts {
    let record = &status.record;
    ExportFacts {
        id: record.id.0,
        name: record.name.clone(),
        volume: record.volume.0,
        read_only: record.read_only,
        clients: record.clients.clone(),
        protection: match record.protection {
            Protection::Plain => ExportProtection::Plain,
            Protection::Tls => ExportProtection::Tls,
            Protection::TlsClientCertificate => ExportProtection::TlsClientCertificate,
        },
        exclusive: record.exclusive,
        polling_us: match record.polling {
            Polling::WhenQuick => None,
            Polling::Never => Some(0),
            Polling::For(time) => Some(i64::try_from(time.as_micros()).unwrap_or(i64::MAX)),
        },
        enabled: record.enabled,
    }
}
