//! Why a verb was refused. Nothing was changed.

use crate::device::DeviceError;
use crate::device::signature::Signature;
use crate::device::superblock::SuperblockError;
use crate::export::access::ClientRangeError;
use crate::export::registry::RegistryError;
use crate::io::IoError;
use crate::logical_device::numbering::NumberingError;
use crate::logical_device::slices::SliceLengthError;
use crate::map::PlacementError;
use crate::metadata::StoreError;
use crate::types::geometry::CapacityError;
use crate::types::{
    ApplianceId, ByteSize, DeviceId, DeviceNumber, ExportId, GroupId, GroupNumber, OperationId, VolumeId,
    VolumeNumber,
};

/// A refused verb, with what would have been right.
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    #[error("the device has {capacity}; a device needs at least {needed}")]
    DeviceTooSmall { capacity: ByteSize, needed: ByteSize },
    #[error("the device belongs to another appliance, {0}; add it with force to give its content up")]
    ForeignAppliance(ApplianceId),
    #[error("the device holds {}; add it with force to give that up", listed(.0))]
    ForeignContent(Vec<Signature>),
    #[error("the device is device {0} of this appliance already")]
    DeviceKnown(DeviceNumber),
    #[error("operation {0} was answered already, and was something else")]
    OperationReused(OperationId),
    #[error("identity {0} is taken")]
    IdTaken(uuid::Uuid),
    #[error("number {0} is taken")]
    NumberTaken(u32),
    #[error("appliance {0} is made already: open it")]
    ApplianceMade(ApplianceId),
    #[error("no device is given")]
    NoDevices,
    #[error("the device was in RAID group {0} of this appliance; add it with force to give its content up")]
    DeviceWasMember(GroupId),
    #[error("there is no device {0}")]
    NoSuchDevice(DeviceId),
    #[error("the device belongs to no appliance")]
    NoSuperblock,
    #[error("device {0} is the last one")]
    LastDevice(DeviceNumber),
    #[error("RAID group {group} would lose data without device {device}")]
    NotRedundant {
        device: DeviceNumber,
        group: GroupNumber,
    },
    #[error("device {0} is not there")]
    DeviceAbsent(DeviceNumber),
    #[error("device {0} was taken out of service by an administrator")]
    DeviceTakenOut(DeviceNumber),
    #[error("device {0} is in service")]
    DeviceServes(DeviceNumber),
    #[error("device {device} is in RAID group {group}")]
    DeviceInUse {
        device: DeviceNumber,
        group: GroupNumber,
    },
    #[error("device {0} is a spare")]
    DeviceIsSpare(DeviceNumber),
    #[error("device {0} is suspect: it has lost too many places")]
    DeviceSuspect(DeviceNumber),
    #[error("RAID group {0} has no redundancy: a spare could not be given what a lost member held")]
    NoRedundancy(GroupNumber),
    #[error("device {device} is no member of RAID group {group}")]
    NotAMember {
        device: DeviceNumber,
        group: GroupNumber,
    },
    #[error("device {0} is named twice")]
    DeviceTwice(DeviceNumber),
    #[error("a group of this level needs at least {needed} members, {given} are given")]
    TooFewMembers { needed: usize, given: usize },
    #[error("a group of this level has a multiple of {step} members, {given} are given")]
    OddMembers { step: usize, given: usize },
    #[error("a group has at most {most} members, {given} are given")]
    TooManyMembers { most: usize, given: usize },
    #[error("stripe unit {unit} is not a power of two from 4 KiB to 1 MiB")]
    Unit { unit: ByteSize },
    #[error("the members have no room for a single logical device of {slice}")]
    NoRoom { slice: ByteSize },
    #[error("the new device offers {offered} for the group's data, its members need {needed}")]
    MemberTooSmall { offered: ByteSize, needed: ByteSize },
    #[error("the new device has blocks of {block} bytes, its group serves blocks of {group_block}")]
    MemberBlock { block: u32, group_block: u32 },
    #[error("there is no RAID group {0}")]
    NoSuchGroup(GroupId),
    #[error("RAID group {0} waits for members")]
    GroupWaits(GroupNumber),
    #[error("RAID group {0} is being scrubbed")]
    ScrubRuns(GroupNumber),
    #[error("RAID group {group} is used by {volumes} volumes")]
    GroupInUse { group: GroupNumber, volumes: usize },
    #[error("there is no volume {0}")]
    NoSuchVolume(VolumeId),
    #[error("volume {volume} is not served: RAID group {group}, on which it lies, waits for members")]
    VolumeWaits {
        volume: VolumeNumber,
        group: GroupNumber,
    },
    #[error("volume {0} is not served: its stored map contradicts itself")]
    VolumeUnsound(VolumeNumber),
    #[error("volume {volume} is exported as {}", exports.join(", "))]
    VolumeExported {
        volume: VolumeNumber,
        exports: Vec<String>,
    },
    #[error("there is no export {0}")]
    NoSuchExport(ExportId),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    ClientRange(#[from] ClientRangeError),
    #[error(transparent)]
    Capacity(#[from] CapacityError),
    #[error("the name {0:?} is taken")]
    NameTaken(String),
    #[error(
        "{0:?} is no name: use 1 to 64 letters, digits, '-', '_' or '.', beginning with a letter or digit"
    )]
    Name(String),
    #[error(
        "volume blocks of {block} bytes need devices with such blocks; RAID group {group} has {group_block}"
    )]
    Block {
        block: u32,
        group: GroupNumber,
        group_block: u32,
    },
    #[error(transparent)]
    Placement(#[from] PlacementError),
    #[error(transparent)]
    SliceLength(#[from] SliceLengthError),
    #[error(transparent)]
    Numbering(#[from] NumberingError),
    /// The outcome may be unknown, see [`StoreError`].
    #[error("metadata: {0}")]
    Store(#[from] StoreError),
    /// The group has stopped; whether it took the change shows at the next start.
    #[error("the RAID group's members may not be durable: {0}")]
    Membership(IoError),
    /// It took no changes before already: of this one it has nothing.
    #[error("the metadata takes no changes: {0}")]
    MetadataUnavailable(StoreError),
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    #[error("device: {0}")]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Io(#[from] IoError),
}

fn listed(signatures: &[Signature]) -> String {
    signatures
        .iter()
        .map(Signature::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
