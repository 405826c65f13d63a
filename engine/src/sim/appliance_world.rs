//! The real appliance as the program under test.
//!
//! Disk number n of the shape is the appliance's device n, group n its RAID group n. Spares are devices in no group.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::device::SimDevice;
use super::dice::Dice;
use super::shape::{Level, Shape, VolumeShape};
use super::world::{GroupHealth, OpenVolume, Verb, World, WorldError};
use crate::appliance::{
    Appliance, ApplianceSettings, NewAppliance, NewDevice, NewGroupRequest, NewVolume, OpenError,
    OpenOptions, VerbError,
};
use crate::device::Device;
use crate::logical_device::SliceLength;
use crate::map::{Layout, PlacementError};
use crate::metadata::StoreError;
use crate::planted::Planted;
use crate::raid::membership::Serving;
use crate::raid::{self, Group, GroupRecord, GroupState, MemberStatus};
use crate::types::geometry::OpenBlock;
use crate::types::{
    ApplianceId, ByteRange, DeviceId, DeviceNumber, EmulationType, GroupId, GroupNumber, IdSource,
    OperationId, VolumeId,
};
use crate::volume::Volume;

/// Bytes of a disk beside its share of logical devices: what the smallest device leaves to its metadata and logs.
const RESERVED: u64 = 12 << 20;
/// The metadata area of the smallest disk and of those a little larger: sealed frames, on several holders.
const CHECKED: (u64, u64) = (64 << 10, 4 << 20);
/// How often [`World::settle`] looks.
const LOOK: Duration = Duration::from_secs(1);

enum Stage {
    Running(Rc<Appliance>),
    /// What was said at the end.
    Stopped(Vec<GroupHealth>),
}

/// An appliance on simulated disks.
pub struct ApplianceWorld {
    stage: RefCell<Stage>,
    /// Groups of the shape.
    groups: usize,
    /// Index of every disk that the appliance knows.
    disks: BTreeMap<DeviceId, usize>,
}

impl ApplianceWorld {
    async fn new<'a>(
        appliance: Appliance,
        groups: usize,
        there: impl Iterator<Item = &'a SimDevice>,
    ) -> Self {
        let index = |number: DeviceNumber| usize::try_from(number.0).expect("a shape is small");
        let known = appliance.devices().await.into_iter().map(|state| state.record);
        let disks: BTreeMap<DeviceId, usize> =
            known.map(|device| (device.id, index(device.number))).collect();
        for disk in there {
            let id = disks
                .iter()
                .find(|(_, index)| **index == disk.index())
                .map(|(id, _)| *id);
            let groups = (0..groups).filter_map(|group| appliance.group(GroupNumber(number(group))));
            let records: Vec<GroupRecord> = groups.map(|group| group.record()).collect();
            let of_group = |record| id.map_or(Vec::new(), |id| verified(record, id));
            disk.also_check(records.iter().flat_map(of_group));
        }
        Self {
            stage: RefCell::new(Stage::Running(Rc::new(appliance))),
            groups,
            disks,
        }
    }

    fn appliance(&self) -> Result<Rc<Appliance>, WorldError> {
        match &*self.stage.borrow() {
            Stage::Running(appliance) => Ok(Rc::clone(appliance)),
            Stage::Stopped(_) => Err(WorldError::Failed("stopped".into())),
        }
    }
}

/// What is verified of a member, and can be computed from the others also after a crash. Copies without a journal are
/// not: of a block that was being written nobody can tell then who is right.
fn verified(record: &GroupRecord, device: DeviceId) -> Vec<ByteRange> {
    let sums = record.layout.sums() > 0;
    let Some(member) = record.member(device).filter(|_| sums) else {
        return Vec::new();
    };
    let checksums = record.checksums_of(member);
    checksums.map_or(Vec::new(), |checksums| vec![checksums, record.data_of(member)])
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("a shape is small")
}

fn refused(error: VerbError) -> WorldError {
    match error {
        VerbError::Placement(PlacementError::Slices(_)) => WorldError::NoSpace,
        VerbError::GroupWaits(_)
        | VerbError::VolumeWaits { .. }
        | VerbError::Store(StoreError::NotTaken)
        | VerbError::MetadataUnavailable(StoreError::NotTaken) => WorldError::Waiting(error.to_string()),
        other => WorldError::Failed(other.to_string()),
    }
}

fn devices<'a>(disks: impl Iterator<Item = &'a SimDevice>) -> Vec<Arc<dyn Device>> {
    disks
        .map(|disk| Arc::new(disk.clone()) as Arc<dyn Device>)
        .collect()
}

fn new_volume(shape: VolumeShape, name: String, rest: GroupId) -> NewVolume {
    let block = if shape.block == 512 {
        OpenBlock::B512
    } else {
        OpenBlock::B4096
    };
    NewVolume {
        id: None,
        number: None,
        name,
        emulation: EmulationType::Open(block),
        capacity: Some(shape.capacity),
        placements: Vec::new(),
        rest: Some(rest),
        layout: Layout::Aligned,
        exact: false,
    }
}

async fn make(appliance: &Appliance, shape: &Shape, ids: &IdSource) -> Result<(), VerbError> {
    let devices = appliance.devices().await;
    let mut groups = Vec::new();
    for group in &shape.groups {
        let level = match group.level {
            Level::Stripe => raid::Level::Raid0,
            Level::Mirror => raid::Level::Raid1,
            Level::StripedMirrors => raid::Level::Raid10,
            Level::SumOnOne => raid::Level::Raid3,
            Level::Sum => raid::Level::Raid5,
            Level::TwoSums => raid::Level::Raid6,
        };
        let request = NewGroupRequest {
            id: None,
            number: None,
            name: None,
            level,
            members: group
                .members
                .iter()
                .map(|&disk| devices[disk].record.id)
                .collect(),
            slice: SliceLength::new(shape.slice, shape.slice)?,
            unit: group.stripe_unit,
            checksums: group.checksums,
        };
        let made = appliance.create_group(OperationId::random(ids), &request);
        groups.push(made.await?.id);
    }
    for (index, volume) in shape.volumes.iter().enumerate() {
        let new = new_volume(*volume, format!("vol{index}"), groups[volume.group]);
        appliance.create_volume(OperationId::random(ids), &new).await?;
    }
    Ok(())
}

async fn format(appliance: &Appliance, group: GroupId) -> Result<(), VerbError> {
    let mut at = 0;
    while let Some(range) = appliance.format_free(group, at, 1 << 20).await? {
        at = range.end();
    }
    Ok(())
}

/// The group of a volume: in this world it lies in one.
fn home(volume: &Volume) -> GroupNumber {
    let shape = volume.shape();
    shape
        .map
        .runs()
        .next()
        .expect("a volume of this world is mapped")
        .group
}

impl ApplianceWorld {
    fn health(&self, appliance: &Appliance, index: usize) -> GroupHealth {
        let Some(group) = appliance.group(GroupNumber(number(index))) else {
            return GroupHealth::default();
        };
        let record = group.record();
        let disk = |device| self.disks.get(device).copied();
        let in_sync = record
            .members
            .iter()
            .filter(|member| member.status == MemberStatus::InSync);
        GroupHealth {
            serving: group.state() != GroupState::Failed,
            settled: group.membership_is_durable(),
            members: record
                .members
                .iter()
                .filter_map(|member| disk(&member.device))
                .collect(),
            in_sync: in_sync.filter_map(|member| disk(&member.device)).collect(),
            in_use: (record.members.iter().zip(group.serving()))
                .filter(|(_, serving)| *serving != Serving::Out)
                .filter_map(|(member, _)| disk(&member.device))
                .collect(),
        }
    }

    /// The identity of the disk with this index.
    fn device(&self, disk: usize) -> Result<DeviceId, WorldError> {
        let found = self.disks.iter().find(|(_, index)| **index == disk);
        found
            .map(|(id, _)| *id)
            .ok_or_else(|| WorldError::Failed(format!("disk {disk} is not known")))
    }

    /// The identity of a group of the shape.
    async fn group(appliance: &Appliance, index: usize) -> Result<GroupId, WorldError> {
        let groups = appliance.group_statuses().await;
        let found = groups.get(index).map(|group| group.record.id);
        found.ok_or_else(|| WorldError::Failed(format!("group {index} is not known")))
    }
}

impl World for ApplianceWorld {
    type Target = Volume;

    const PLANTED: &'static [Planted] = &Planted::ALL;

    fn shape(dice: &mut Dice) -> Shape {
        Shape::random(dice, RESERVED, ByteRange::new(CHECKED.0, CHECKED.1))
    }

    fn mirror(dice: &mut Dice, copies: usize) -> Option<Shape> {
        Some(Shape::mirror(dice, copies, RESERVED))
    }

    async fn create(disks: &[SimDevice], ids: IdSource, shape: &Shape) -> Result<Self, WorldError> {
        let device = |device| NewDevice {
            force: true,
            ..NewDevice::new(device)
        };
        let new = NewAppliance {
            registry: Default::default(),
            id: ApplianceId::random(&ids),
            settings: ApplianceSettings {
                smallest_volume: 0,
                ..ApplianceSettings::default()
            },
            devices: devices(disks.iter()).into_iter().map(device).collect(),
        };
        let operation = OperationId::random(&ids);
        let appliance = Appliance::create(operation, new, ids.clone())
            .await
            .map_err(refused)?;
        make(&appliance, shape, &ids).await.map_err(refused)?;
        Ok(Self::new(appliance, shape.groups.len(), disks.iter()).await)
    }

    async fn open(disks: &[Option<SimDevice>], groups: usize, ids: IdSource) -> Result<Self, WorldError> {
        let options = OpenOptions::default();
        match Appliance::open(devices(disks.iter().flatten()), &options, ids).await {
            Ok(appliance) => Ok(Self::new(appliance, groups, disks.iter().flatten()).await),
            Err(error @ (OpenError::NoAppliance | OpenError::NoMetadata)) => {
                Err(WorldError::Waiting(error.to_string()))
            }
            Err(error) => Err(WorldError::Failed(error.to_string())),
        }
    }

    fn volumes(&self) -> Vec<OpenVolume<Volume>> {
        let Ok(appliance) = self.appliance() else {
            return Vec::new();
        };
        let index = |number: GroupNumber| usize::try_from(number.0).expect("a shape is small");
        let open = |target: Arc<Volume>| OpenVolume {
            id: target.id(),
            group: index(home(&target)),
            target,
        };
        appliance.volumes().into_iter().map(open).collect()
    }

    fn groups(&self) -> Vec<GroupHealth> {
        match &*self.stage.borrow() {
            Stage::Running(appliance) => (0..self.groups)
                .map(|group| self.health(appliance, group))
                .collect(),
            Stage::Stopped(health) => health.clone(),
        }
    }

    async fn holders(&self) -> Vec<usize> {
        let Ok(appliance) = self.appliance() else {
            return Vec::new();
        };
        let holders = appliance.metadata_holders().await;
        holders
            .iter()
            .filter_map(|device| self.disks.get(device).copied())
            .collect()
    }

    async fn manage(&self, operation: OperationId, verb: Verb) -> Result<Option<VolumeId>, WorldError> {
        let appliance = self.appliance()?;
        let done = match verb {
            Verb::CreateVolume(shape) => {
                let group = Self::group(&appliance, shape.group).await?;
                let new = new_volume(shape, format!("vol-{operation}"), group);
                let made = appliance.create_volume(operation, &new).await;
                return made.map(|made| Some(made.id)).map_err(refused);
            }
            Verb::DeleteVolume(id) => appliance.delete_volume(operation, id).await,
            Verb::ExpandVolume { volume, capacity } => {
                let rest = match appliance.volume_of(volume) {
                    Some(volume) => appliance.group(home(&volume)).map(|group| group.id()),
                    None => None,
                };
                let made = appliance.expand_volume(operation, volume, capacity, rest).await;
                made.map(|_| ())
            }
            Verb::Format(group) => format(&appliance, Self::group(&appliance, group).await?).await,
            Verb::TakeOutDisk(disk) => appliance.fail_device(operation, self.device(disk)?).await,
            Verb::ReturnDisk(disk) => {
                if !disk.drain().await {
                    return Err(WorldError::Failed("the disk is in use".into()));
                }
                let returned = appliance.return_device(operation, Arc::new(disk)).await;
                returned.map(|_| ())
            }
            Verb::ReplaceMember { group, disk, with } => {
                let group = Self::group(&appliance, group).await?;
                let (old, new) = (self.device(disk)?, self.device(with)?);
                appliance.replace_member(operation, group, old, new).await
            }
        };
        done.map(|()| None).map_err(refused)
    }

    async fn settle(&self) {
        let busy = |group: Arc<Group>| group.regions_to_sync() > 0 || group.state() == GroupState::Rebuilding;
        while let Ok(appliance) = self.appliance() {
            let groups = (0..self.groups).filter_map(|group| appliance.group(GroupNumber(number(group))));
            if !groups.into_iter().any(busy) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn stop(&self) {
        let last = self.groups();
        let Stage::Running(appliance) = self.stage.replace(Stage::Stopped(last)) else {
            return;
        };
        if let Ok(appliance) = Rc::try_unwrap(appliance) {
            appliance.stop().await;
        }
    }
}
