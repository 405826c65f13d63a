//! Storage devices.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::operation::content;
use crate::sort::NumberedSort;
use crate::values::{Bytes, Name, Natural, Page, Timestamp, some};

/// What kind of device it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A regular file.
    File,
    /// A disk or partition.
    Block,
    /// An export of another server.
    Nbd,
}

impl DeviceKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Block => "block",
            Self::Nbd => "nbd",
        }
    }
}

/// Whether hosts' data passes the kernel's page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cache {
    /// It does not.
    Direct,
    /// It does.
    Buffered,
}

/// Where a device is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum DeviceSource {
    /// A regular file.
    File {
        /// Absolute path.
        #[schema(min_length = 1, max_length = 4096)]
        path: String,
        /// Makes the file with this size; it must not exist then. Without it an existing file is used.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size_bytes: Option<Bytes>,
        /// `buffered` unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cache: Option<Cache>,
    },
    /// A disk or partition.
    Block {
        /// Absolute path below `/dev`.
        #[schema(min_length = 1, max_length = 4096)]
        path: String,
        /// `direct` unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cache: Option<Cache>,
    },
    /// An export of another server.
    Nbd {
        /// `nbd://HOST[:PORT]/NAME` or `nbd+unix:///NAME?socket=PATH`
        #[schema(min_length = 1, max_length = 4096)]
        uri: String,
    },
}

/// How a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    InService,
    /// It was not there when the appliance started, or could not be opened.
    Absent,
    /// It is out of service; `failure` says why.
    Failed,
}

/// Whether catalog and devices agree that an object exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    Present,
    /// Found on the devices and not in the catalog, and taken in.
    Adopted,
    /// In the catalog and not on the devices.
    Missing,
}

impl Presence {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Adopted => "adopted",
            Self::Missing => "missing",
        }
    }
}

/// How a device is, by what failed on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceHealth {
    Healthy,
    /// It serves, and has lost more places than is borne: it is expected to fail.
    Suspect,
    /// It is out of service.
    Failed,
}

/// What failed on a device since it was added; each operation counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceErrors {
    /// Places that could not be read; the device serves on.
    pub medium: Bytes,
    /// Blocks that were read and did not fit their checksums.
    pub checksums: Bytes,
    pub reads: Bytes,
    /// Zeroing and trimming included.
    pub writes: Bytes,
    pub flushes: Bytes,
    /// Operations without an answer in time.
    pub timeouts: Bytes,
    /// Lost places that were written anew from the rest of the RAID group.
    pub mended: Bytes,
}

/// For whom a device is a spare, which takes a lost member's place by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Spare {
    /// It is none.
    None,
    /// For whichever RAID group needs one first and has none of its own that fits.
    Shared,
    /// For one RAID group.
    RaidGroup { raid_group: Uuid },
}

/// A device to be made a spare, or none any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SpareChange {
    pub spare: Spare,
}

/// A member's place in a RAID group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Membership {
    pub raid_group: Uuid,
    /// Counted from 0.
    pub role: Natural,
    pub state: MemberState,
}

/// Whether a member's content counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// Holds everything that was acknowledged.
    InSync,
    /// Missed writes, which are being copied or will be when it is there.
    Out,
    /// Never held anything of this group.
    Blank,
}

/// A storage device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Device {
    pub id: Uuid,
    pub number: Natural,
    pub name: Option<Name>,
    pub kind: DeviceKind,
    /// Path or URI; empty where it is not known here.
    pub location: String,
    pub capacity_bytes: Bytes,
    /// `null` where it is absent.
    pub block_bytes: Option<Natural>,
    pub state: DeviceState,
    pub failure: Option<String>,
    /// An administrator took it out of service: until it is returned it stays out, over restarts too.
    pub taken_out: bool,
    /// The RAID group that it is a member of.
    pub membership: Option<Membership>,
    pub spare: Spare,
    /// The RAID group that it was a member of until another device took its place. It is free, and not taken in again.
    pub former_raid_group: Option<Uuid>,
    pub health: DeviceHealth,
    pub errors: DeviceErrors,
    /// It holds a copy of the appliance's metadata.
    pub holds_metadata: bool,
    pub presence: Presence,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A device to be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDevice {
    /// Chosen by the client: a repeated request then finds what the first one made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    pub source: DeviceSource,
    /// Gives up whatever the device holds.
    #[serde(default)]
    pub force: bool,
}

/// An edit of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceChange {
    /// `null` takes the name away.
    #[serde(default, deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Name>)]
    pub name: Option<Option<Name>>,
}

/// A device to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Examine {
    pub source: DeviceSource,
}

/// What a device says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Examined {
    pub capacity_bytes: Bytes,
    pub block_bytes: Natural,
    /// What stands on it that is not an appliance's, for people.
    pub signatures: Vec<String>,
    /// `null` where it is no device of any appliance.
    pub appliance_device: Option<ExaminedDevice>,
}

/// A device of some appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExaminedDevice {
    pub appliance: Uuid,
    pub device: Uuid,
    pub number: Natural,
    /// Grows with every change of its superblock.
    pub sequence: Bytes,
    /// Generation of the metadata that it holds.
    pub metadata_generation: Option<Bytes>,
    pub metadata_is_damaged: bool,
    /// The RAID group that it says it belongs to.
    pub raid_group: Option<Uuid>,
    pub raid_group_number: Option<Natural>,
}

/// For how long a device is made to be seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Identify {
    /// 30 unless given, at most 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub seconds: Option<Natural>,
}

/// Which devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct DeviceFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, inline)]
    pub number: Option<Natural>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, inline)]
    pub kind: Option<DeviceKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, inline)]
    pub presence: Option<Presence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, inline)]
    pub sort: Option<NumberedSort>,
}

content!(
    Device,
    Page<Device>,
    NewDevice,
    DeviceChange,
    Examine,
    Examined,
    Identify,
    SpareChange
);
