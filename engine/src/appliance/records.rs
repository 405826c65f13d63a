//! What the metadata keeps of an appliance: the durable truth that serving data needs (R7, R8).
//!
//! Invariants: tables grow with fragmentation and with the number of objects, never with capacity: runs of slices, runs
//! of a map. What indexes them changes with them, in [`Truth::apply`] alone ([`Truth::invariant`]). The order of the
//! variants of [`Record`] is part of the format: new ones are added at the end.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::group_settings::CareSettings;
use super::operation::{Answer, Answers};
use super::owned_slices::{OwnedSlices, Owner};
use super::scrubs::{ScrubEnded, ScrubSchedule, Scrubs};
use super::spares::SpareFor;
use super::stored_runs::StoredRuns;
use super::tables::{Names, Row, Table};
use crate::device::ErrorCounts;
use crate::export::Polling;
use crate::export::access::Protection;
use crate::logical_device::Slices;
use crate::map::Run;
use crate::metadata::State;
use crate::raid::{GroupRecord, ScrubRun};
use crate::types::{
    ApplianceId, DeviceId, DeviceNumber, EmulationType, ExportId, GroupId, GroupNumber, OperationId,
    VolumeId, VolumeNumber,
};
use uuid::Uuid;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    /// Whether an administrator keeps the device out of service.
    DeviceTakenOut {
        device: DeviceId,
        is_out: bool,
    },
    /// Most bytes per second that a group copies, or any number.
    GroupCopyLimit {
        group: GroupId,
        limit: Option<u64>,
    },
    ScrubBegun {
        group: GroupId,
        run: ScrubRun,
    },
    /// How far a scrub is.
    ScrubAt {
        group: GroupId,
        run: ScrubRun,
    },
    ScrubEnded {
        group: GroupId,
        ended: ScrubEnded,
    },
    /// When a group is scrubbed by itself, and when that was set.
    ScrubSchedule {
        group: GroupId,
        schedule: Option<ScrubSchedule>,
        since: Option<u64>,
    },
    /// For whom a device is a spare; `None`: it is none.
    Spare {
        device: DeviceId,
        spare: Option<SpareFor>,
    },
    /// What a group does about members that are out or suspect.
    GroupCare {
        group: GroupId,
        care: CareSettings,
    },
    /// What failed on a device so far.
    DeviceErrors {
        device: DeviceId,
        errors: ErrorCounts,
    },
}

/// A volume with everything that it owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeTruth {
    pub record: VolumeRecord,
    pub runs: StoredRuns,
    pub slices: Vec<GroupSlices>,
}

impl Row for DeviceRecord {
    type Key = DeviceNumber;
    type Other = DeviceId;

    fn key(&self) -> DeviceNumber {
        self.number
    }

    fn other(&self) -> DeviceId {
        self.id
    }
}

impl Row for GroupRecord {
    type Key = GroupNumber;
    type Other = GroupId;

    fn key(&self) -> GroupNumber {
        self.number
    }

    fn other(&self) -> GroupId {
        self.id
    }
}

impl Row for VolumeTruth {
    type Key = VolumeNumber;
    type Other = VolumeId;

    fn key(&self) -> VolumeNumber {
        self.record.number
    }

    fn other(&self) -> VolumeId {
        self.record.id
    }

    fn name(&self) -> Option<&str> {
        Some(&self.record.name)
    }
}

impl Row for ExportRecord {
    type Key = ExportId;
    /// The exports of a volume stand together.
    type Other = (VolumeId, ExportId);

    fn key(&self) -> ExportId {
        self.id
    }

    fn other(&self) -> (VolumeId, ExportId) {
        (self.volume, self.id)
    }

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
}

/// Everything.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    pub appliance: Option<ApplianceId>,
    pub devices: Table<DeviceRecord>,
    pub groups: Table<GroupRecord>,
    pub volumes: Table<VolumeTruth>,
    /// The group of every member.
    members: BTreeMap<DeviceId, GroupNumber>,
    /// The slices of all volumes, and those that are to be cleared.
    pub owned: OwnedSlices,
    pub device_names: Names<DeviceId>,
    /// Devices that an administrator keeps out of service.
    pub taken_out: BTreeSet<DeviceId>,
    /// Devices that take failed members' places; none of them is a member of a group.
    pub spares: BTreeMap<DeviceId, SpareFor>,
    /// What failed on devices, as of when it was stored last.
    pub errors: BTreeMap<DeviceId, ErrorCounts>,
    pub group_names: Names<GroupId>,
    /// Of groups that do otherwise than is usual.
    pub care: BTreeMap<GroupId, CareSettings>,
    /// Most bytes per second that groups copy.
    pub copy_limits: BTreeMap<GroupId, u64>,
    /// Of groups that there are.
    pub scrubs: BTreeMap<GroupId, Scrubs>,
    pub exports: Table<ExportRecord>,
    pub settings: ApplianceSettings,
    pub epoch: u64,
    pub answers: Answers,
}

impl Truth {
    /// The group that a device is a member of.
    pub(super) fn group_of(&self, device: DeviceId) -> Option<&GroupRecord> {
        self.groups.get(*self.members.get(&device)?)
    }

    /// The exports of a volume.
    pub(super) fn exports_of(&self, volume: VolumeId) -> impl Iterator<Item = &ExportRecord> {
        let all = (volume, ExportId(Uuid::nil()))..=(volume, ExportId(Uuid::max()));
        self.exports.find_all(all)
    }

    /// Slices that belong to nobody and whose content is to be made *never written*.
    pub(super) fn to_clear(&self) -> impl Iterator<Item = GroupSlices> {
        let clearing = self.owned.iter().filter(|(_, owner)| *owner == Owner::Clearing);
        clearing.map(|(slices, _)| slices)
    }

    fn forget_members(&mut self, group: &GroupRecord) {
        for member in &group.members {
            if self.members.get(&member.device) == Some(&group.number) {
                self.members.remove(&member.device);
            }
        }
    }

    /// Takes a new group, or a known one's new facts.
    fn set_group(&mut self, group: GroupRecord) {
        if let Some(old) = self.groups.remove(group.number) {
            self.forget_members(&old);
        }
        for member in &group.members {
            self.members.insert(member.device, group.number);
            // In the commit that makes it a member: no crash can lose a spare or have it used twice.
            self.spares.remove(&member.device);
        }
        self.groups.insert(group);
    }

    fn set_volume(&mut self, record: VolumeRecord) {
        if self.volumes.contains(record.number) {
            return self.volumes.change(record.number, |known| known.record = record);
        }
        self.volumes.insert(VolumeTruth {
            runs: StoredRuns::default(),
            slices: Vec::new(),
            record,
        });
    }

    fn add_slices(&mut self, volume: VolumeNumber, slices: Vec<GroupSlices>) {
        if self.volumes.contains(volume) {
            for owned in &slices {
                self.owned.set(*owned, Owner::Volume(volume));
            }
        }
        self.volumes.change(volume, |known| known.slices.extend(slices));
    }

    fn remove_group(&mut self, number: GroupNumber) {
        if let Some(group) = self.groups.remove(number) {
            self.forget_members(&group);
            self.group_names.set(group.id, None);
            self.copy_limits.remove(&group.id);
            self.scrubs.remove(&group.id);
            self.care.remove(&group.id);
            self.spares.retain(|_, spare| *spare != SpareFor::Group(group.id));
        }
        // The number may be given again: nothing of the old group may be cleared in the new one.
        self.owned.remove_group(number);
    }

    /// Changes what is kept of a group's scrubs, where there is such a group.
    fn change_scrubs(&mut self, group: GroupId, change: impl FnOnce(&mut Scrubs)) {
        if self.groups.find(group).is_some() {
            change(self.scrubs.entry(group).or_default());
        }
    }

    /// Whether every index agrees with what it indexes. Always true of records that do not contradict each other.
    pub fn invariant(&self) -> bool {
        let members: BTreeMap<DeviceId, GroupNumber> = (self.groups.values())
            .flat_map(|group| group.members.iter().map(|member| (member.device, group.number)))
            .collect();
        let mut owned = OwnedSlices::default();
        for slices in self.to_clear() {
            owned.set(slices, Owner::Clearing);
        }
        for volume in self.volumes.values() {
            for slices in &volume.slices {
                owned.set(*slices, Owner::Volume(volume.record.number));
            }
        }
        members == self.members
            && self.spares.keys().all(|device| !members.contains_key(device))
            && owned == self.owned
            && self.devices.invariant()
            && self.groups.invariant()
            && self.volumes.invariant()
            && self.exports.invariant()
            && self.device_names.invariant()
            && self.group_names.invariant()
            && self.volumes.values().all(|volume| volume.runs.invariant())
    }

    /// What people said of devices and groups, and what was asked of groups.
    fn said(&self) -> impl Iterator<Item = Record> {
        let devices = self.device_names.iter().map(|(device, name)| Record::DeviceName {
            device,
            name: Some(name.clone()),
        });
        let taken_out = self
            .taken_out
            .iter()
            .map(|&device| Record::DeviceTakenOut { device, is_out: true });
        let groups = self.group_names.iter().map(|(group, name)| Record::GroupName {
            group,
            name: Some(name.clone()),
        });
        let limits = self
            .copy_limits
            .iter()
            .map(|(&group, &limit)| Record::GroupCopyLimit {
                group,
                limit: Some(limit),
            });
        let scrubs = self
            .scrubs
            .iter()
            .flat_map(|(&group, scrubs)| scrubs.records(group));
        let spares = self.spares.iter().map(|(&device, &spare)| Record::Spare {
            device,
            spare: Some(spare),
        });
        let care = self
            .care
            .iter()
            .map(|(&group, &care)| Record::GroupCare { group, care });
        let said = devices.chain(groups).chain(taken_out).chain(limits);
        said.chain(scrubs).chain(spares).chain(care)
    }

    /// What was seen of devices.
    fn seen(&self) -> impl Iterator<Item = Record> {
        let errors = self.errors.iter();
        errors.map(|(&device, &errors)| Record::DeviceErrors { device, errors })
    }

    fn remove_device(&mut self, number: DeviceNumber) {
        if let Some(device) = self.devices.remove(number) {
            self.device_names.set(device.id, None);
            self.taken_out.remove(&device.id);
            self.spares.remove(&device.id);
            self.errors.remove(&device.id);
        }
    }
}

impl State for Truth {
    type Record = Record;

    fn apply(&mut self, record: Record) {
        match record {
            Record::Appliance(id) => self.appliance = Some(id),
            Record::Device(device) => self.devices.insert(device),
            Record::Group(group) => self.set_group(group),
            Record::RemoveGroup(number) => self.remove_group(number),
            Record::Volume(record) => self.set_volume(record),
            Record::AddRuns { volume, runs } => self.volumes.change(volume, |known| known.runs.add(runs)),
            Record::AddSlices { volume, slices } => self.add_slices(volume, slices),
            Record::RemoveVolume(number) => {
                let removed = self.volumes.remove(number);
                for slices in removed.into_iter().flat_map(|volume| volume.slices) {
                    self.owned.set(slices, Owner::Clearing);
                }
            }
            Record::Cleared(slices) => self.owned.free(slices),
            Record::ToClear(slices) => self.owned.set(slices, Owner::Clearing),
            Record::RemoveDevice(number) => self.remove_device(number),
            Record::DeviceName { device, name } => self.device_names.set(device, name),
            Record::GroupName { group, name } => self.group_names.set(group, name),
            Record::Answered { operation, answer } => self.answers.note(operation, answer),
            Record::Export(export) => self.exports.insert(export),
            Record::RemoveExport(id) => drop(self.exports.remove(id)),
            Record::Settings(settings) => self.settings = settings,
            Record::Epoch(epoch) => self.epoch = epoch,
            Record::GroupCopyLimit {
                group,
                limit: Some(limit),
            } => drop(self.copy_limits.insert(group, limit)),
            Record::GroupCopyLimit { group, limit: None } => drop(self.copy_limits.remove(&group)),
            Record::ScrubBegun { group, run } => self.change_scrubs(group, |known| known.running = Some(run)),
            Record::ScrubAt { group, run } => self.change_scrubs(group, |known| known.go_on(run)),
            Record::ScrubEnded { group, ended } => self.change_scrubs(group, |known| known.end(ended)),
            Record::ScrubSchedule {
                group,
                schedule,
                since,
            } => self.change_scrubs(group, |known| (known.schedule, known.since) = (schedule, since)),
            Record::DeviceTakenOut { device, is_out: true } => drop(self.taken_out.insert(device)),
            Record::DeviceTakenOut {
                device,
                is_out: false,
            } => drop(self.taken_out.remove(&device)),
            Record::Spare {
                device,
                spare: Some(spare),
            } => drop(self.spares.insert(device, spare)),
            Record::Spare { device, spare: None } => drop(self.spares.remove(&device)),
            Record::GroupCare { group, care } => set_unless_usual(&mut self.care, group, care),
            Record::DeviceErrors { device, errors } => drop(self.errors.insert(device, errors)),
        }
    }

    fn snapshot(&self) -> Box<dyn Iterator<Item = Record> + '_> {
        let volumes = self.volumes.values().flat_map(|volume| {
            let number = volume.record.number;
            let runs = volume.runs.as_slice().chunks(RUNS_PER_RECORD);
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
                .chain(self.to_clear().map(Record::ToClear))
                .chain(self.said())
                .chain(self.seen())
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

/// Keeps what differs from what is usual.
fn set_unless_usual<T: Default + PartialEq>(all: &mut BTreeMap<GroupId, T>, group: GroupId, value: T) {
    match value == T::default() {
        true => drop(all.remove(&group)),
        false => drop(all.insert(group, value)),
    }
}

/// The records that add runs to a volume, in bounded pieces.
pub(super) fn add_runs(volume: VolumeNumber, runs: &[Run]) -> impl Iterator<Item = Record> + '_ {
    runs.chunks(RUNS_PER_RECORD).map(move |runs| Record::AddRuns {
        volume,
        runs: runs.to_vec(),
    })
}
