//! What the metadata keeps of an appliance: the durable truth that serving data needs (R7, R8).
//!
//! Invariant: tables grow with fragmentation and with the number of objects, never with capacity: runs of slices, runs
//! of a map. The order of the variants of [`Record`] is part of the format: new ones are added at the end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::operation::{Answer, Answers};
use crate::export::Polling;
use crate::export::access::Protection;
use crate::logical_device::Slices;
use crate::map::Run;
use crate::metadata::State;
use crate::raid::GroupRecord;
use crate::types::{
    ApplianceId, DeviceId, DeviceNumber, EmulationType, ExportId, GroupId, GroupNumber, OperationId,
    VolumeId, VolumeNumber,
};

/// Runs in one record: bounds a record's size.
const RUNS_PER_RECORD: usize = 1024;

/// A device that belongs to the appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    pub number: DeviceNumber,
    pub id: DeviceId,
    /// Bytes, as it was when added.
    pub capacity: u64,
}

/// A volume, without its map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    pub number: VolumeNumber,
    pub id: VolumeId,
    pub name: String,
    pub emulation: EmulationType,
    pub capacity: u64,
    /// Maps only some of its addresses; the rest is answered with an error.
    pub partial: bool,
}

/// A volume under a name that hosts attach to (R8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRecord {
    pub id: ExportId,
    pub name: String,
    pub volume: VolumeId,
    pub read_only: bool,
    /// Client ranges as people write them; empty for all.
    pub clients: Vec<String>,
    pub protection: Protection,
    /// A new attachment ends the old one.
    pub exclusive: bool,
    pub polling: Polling,
    pub enabled: bool,
}

/// What people set for the whole appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplianceSettings {
    pub name: String,
    /// The controller number that peers know it by.
    pub number: u32,
    /// Bytes that a new volume has at least.
    pub smallest_volume: u64,
}

impl Default for ApplianceSettings {
    fn default() -> Self {
        Self {
            name: "ashlar".into(),
            number: 0,
            smallest_volume: 64 << 20,
        }
    }
}

/// Slices of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSlices {
    pub group: GroupNumber,
    pub slices: Slices,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    Appliance(ApplianceId),
    Device(DeviceRecord),
    Group(GroupRecord),
    RemoveGroup(GroupNumber),
    /// A new volume, or new facts of a known one.
    Volume(VolumeRecord),
    /// Further parts of a volume's map.
    AddRuns {
        volume: VolumeNumber,
        runs: Vec<Run>,
    },
    /// Further slices that a volume owns.
    AddSlices {
        volume: VolumeNumber,
        slices: Vec<GroupSlices>,
    },
    /// The volume is gone; its slices are to be cleared before they are free.
    RemoveVolume(VolumeNumber),
    /// Slices of a removed volume whose content is gone.
    Cleared(GroupSlices),
    /// Slices found in need of clearing, when a snapshot is written.
    ToClear(GroupSlices),
    /// The device belongs here no more.
    RemoveDevice(DeviceNumber),
    DeviceName {
        device: DeviceId,
        name: Option<String>,
    },
    GroupName {
        group: GroupId,
        name: Option<String>,
    },
    /// What an operation was answered, in the commit that did it.
    Answered {
        operation: OperationId,
        answer: Answer,
    },
    /// A new export, or new facts of a known one.
    Export(ExportRecord),
    RemoveExport(ExportId),
    Settings(ApplianceSettings),
    /// How many starts there were.
    Epoch(u64),
}

/// A volume with everything that it owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeTruth {
    pub record: VolumeRecord,
    pub runs: Vec<Run>,
    pub slices: Vec<GroupSlices>,
}

/// Everything.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    pub appliance: Option<ApplianceId>,
    pub devices: BTreeMap<DeviceNumber, DeviceRecord>,
    pub groups: BTreeMap<GroupNumber, GroupRecord>,
    pub volumes: BTreeMap<VolumeNumber, VolumeTruth>,
    pub clearing: Vec<GroupSlices>,
    pub device_names: BTreeMap<DeviceId, String>,
    pub group_names: BTreeMap<GroupId, String>,
    pub exports: BTreeMap<ExportId, ExportRecord>,
    pub settings: ApplianceSettings,
    pub epoch: u64,
    pub answers: Answers,
}

impl Truth {
    pub(super) fn device(&self, id: DeviceId) -> Option<&DeviceRecord> {
        self.devices.values().find(|device| device.id == id)
    }

    pub(super) fn group(&self, id: GroupId) -> Option<&GroupRecord> {
        self.groups.values().find(|group| group.id == id)
    }

    pub(super) fn volume(&self, id: VolumeId) -> Option<&VolumeTruth> {
        self.volumes.values().find(|volume| volume.record.id == id)
    }

    /// The group that a device is a member of.
    pub(super) fn group_of(&self, device: DeviceId) -> Option<&GroupRecord> {
        self.groups.values().find(|group| group.member(device).is_some())
    }

    fn names(&self) -> impl Iterator<Item = Record> {
        let devices = self
            .device_names
            .iter()
            .map(|(&device, name)| Record::DeviceName {
                device,
                name: Some(name.clone()),
            });
        let groups = self.group_names.iter().map(|(&group, name)| Record::GroupName {
            group,
            name: Some(name.clone()),
        });
        devices.chain(groups)
    }
}

/// Sets or clears a name.
fn set_name<K: Ord>(names: &mut BTreeMap<K, String>, of: K, name: Option<String>) {
    match name {
        Some(name) => drop(names.insert(of, name)),
        None => drop(names.remove(&of)),
    }
}

impl State for Truth {
    type Record = Record;

    fn apply(&mut self, record: Record) {
        match record {
            Record::Appliance(id) => self.appliance = Some(id),
            Record::Device(device) => drop(self.devices.insert(device.number, device)),
            Record::Group(group) => drop(self.groups.insert(group.number, group)),
            Record::RemoveGroup(number) => {
                if let Some(group) = self.groups.remove(&number) {
                    self.group_names.remove(&group.id);
                }
                // The number may be given again: nothing of the old group may be cleared in the new one.
                self.clearing.retain(|owned| owned.group != number);
            }
            Record::Volume(record) => match self.volumes.get_mut(&record.number) {
                Some(known) => known.record = record,
                None => {
                    let truth = VolumeTruth {
                        runs: Vec::new(),
                        slices: Vec::new(),
                        record,
                    };
                    self.volumes.insert(truth.record.number, truth);
                }
            },
            Record::AddRuns { volume, runs } => {
                if let Some(known) = self.volumes.get_mut(&volume) {
                    known.runs.extend(runs);
                }
            }
            Record::AddSlices { volume, slices } => {
                if let Some(known) = self.volumes.get_mut(&volume) {
                    known.slices.extend(slices);
                }
            }
            Record::RemoveVolume(number) => {
                let removed = self.volumes.remove(&number);
                self.clearing
                    .extend(removed.into_iter().flat_map(|volume| volume.slices));
            }
            Record::Cleared(slices) => self.clearing.retain(|known| *known != slices),
            Record::ToClear(slices) => self.clearing.push(slices),
            Record::RemoveDevice(number) => {
                if let Some(device) = self.devices.remove(&number) {
                    self.device_names.remove(&device.id);
                }
            }
            Record::DeviceName { device, name } => set_name(&mut self.device_names, device, name),
            Record::GroupName { group, name } => set_name(&mut self.group_names, group, name),
            Record::Answered { operation, answer } => self.answers.note(operation, answer),
            Record::Export(export) => drop(self.exports.insert(export.id, export)),
            Record::RemoveExport(id) => drop(self.exports.remove(&id)),
            Record::Settings(settings) => self.settings = settings,
            Record::Epoch(epoch) => self.epoch = epoch,
        }
    }

    fn snapshot(&self) -> Box<dyn Iterator<Item = Record> + '_> {
        let volumes = self.volumes.values().flat_map(|volume| {
            let number = volume.record.number;
            let runs = volume.runs.chunks(RUNS_PER_RECORD);
            let slices = volume.slices.chunks(RUNS_PER_RECORD);
            std::iter::once(Record::Volume(volume.record.clone()))
                .chain(runs.map(move |runs| Record::AddRuns {
                    volume: number,
                    runs: runs.to_vec(),
                }))
                .chain(slices.map(move |slices| Record::AddSlices {
                    volume: number,
                    slices: slices.to_vec(),
                }))
        });
        Box::new(
            (self.appliance.map(Record::Appliance).into_iter())
                .chain(self.devices.values().cloned().map(Record::Device))
                .chain(self.groups.values().cloned().map(Record::Group))
                .chain(volumes)
                .chain(self.clearing.iter().copied().map(Record::ToClear))
                .chain(self.names())
                .chain(self.exports.values().cloned().map(Record::Export))
                .chain([Record::Settings(self.settings.clone()), Record::Epoch(self.epoch)])
                .chain(
                    self.answers
                        .iter()
                        .cloned()
                        .map(|(operation, answer)| Record::Answered { operation, answer }),
                ),
        )
    }
}

/// The records that add runs to a volume, in bounded pieces.
pub(super) fn add_runs(volume: VolumeNumber, runs: &[Run]) -> impl Iterator<Item = Record> + '_ {
    runs.chunks(RUNS_PER_RECORD).map(move |runs| Record::AddRuns {
        volume,
        runs: runs.to_vec(),
    })
}
