//! Volumes.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::devices::Presence;
use crate::operation::content;
use crate::sort::NumberedSort;
use crate::values::{Bytes, Extent, Name, Natural, Page, Range, Timestamp, Tracks};

/// Whether hosts can use a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    Serving,
    /// A RAID group of it waits or has failed.
    NotServing,
}

/// How many cylinders, heads and tracks a count-key-data volume has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Geometry {
    pub cylinders: Natural,
    pub heads: Natural,
    /// Bytes of a track's slot.
    pub track_bytes: Bytes,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Volume {
    pub id: Uuid,
    pub number: Natural,
    pub name: Name,
    /// `open-512`, `open-4096` or a count-key-data type like `3390-3`.
    pub emulation_type: String,
    /// Of count-key-data types.
    pub geometry: Option<Geometry>,
    pub capacity_bytes: Bytes,
    pub block_bytes: Natural,
    /// Maps only some of its addresses.
    pub partial: bool,
    pub mapped_bytes: Bytes,
    /// How many runs its map has.
    pub runs: Natural,
    pub state: VolumeState,
    pub presence: Presence,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A range and where it is to lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    pub range: Extent,
    pub raid_group: Uuid,
}

/// How ranges lie on logical devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlacementLayout {
    /// Each logical device holds one contiguous range.
    #[default]
    Aligned,
    /// A logical device holds several ranges.
    Packed,
}

/// A volume to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewVolume {
    /// Chosen by the client: a repeated request then finds what the first one made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub id: Option<Uuid>,
    /// The lowest free one unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub number: Option<Natural>,
    pub name: Name,
    /// `open-512` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_length = 64)]
    pub emulation_type: Option<String>,
    /// Follows from a count-key-data type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub capacity_bytes: Option<Bytes>,
    /// Where everything lies that no placement names; without it the volume is partial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub raid_group: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 10000)]
    pub placements: Vec<Placement>,
    #[serde(default)]
    pub layout: PlacementLayout,
    /// Refuses a placement that would begin or end inside an earlier one's rounding.
    #[serde(default)]
    pub exact: bool,
}

/// The answer to giving a volume space, or to asking what would be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeMade {
    /// `null` where a dry run asked for a new one.
    pub volume: Option<Volume>,
    /// Every address that a host can reach from now on and could not before.
    pub mapped: Vec<Range>,
    /// Placements, counted from 0, of which a part lies with an earlier one: inside its rounding.
    pub trimmed: Vec<Natural>,
}

/// An edit of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
}

/// More ranges of a partial volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MorePlacements {
    #[schema(min_items = 1, max_items = 10000)]
    pub placements: Vec<Placement>,
    #[serde(default)]
    pub layout: PlacementLayout,
    #[serde(default)]
    pub exact: bool,
}

/// More capacity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Expand {
    /// What it is to have in all.
    pub capacity_bytes: Bytes,
    /// Where the new addresses lie; left out for a partial volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub raid_group: Option<Uuid>,
}

/// A stretch of a volume and where it lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MapRun {
    pub range: Range,
    /// The same in tracks, where it begins and ends at tracks of a count-key-data volume.
    pub tracks: Option<Tracks>,
    /// `null` where nothing is mapped.
    pub placed: Option<MapPlace>,
}

/// Where a stretch lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MapPlace {
    pub raid_group: Uuid,
    pub raid_group_offset_bytes: Bytes,
    pub first_logical_device: Natural,
    pub logical_devices: Natural,
    /// The members of the RAID group, by role.
    pub devices: Vec<Uuid>,
}

/// Which volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct VolumeFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, inline)]
    pub number: Option<Natural>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, inline)]
    pub presence: Option<Presence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, inline)]
    pub sort: Option<NumberedSort>,
}

/// Which part of a map.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct MapFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, minimum = 0, maximum = 9007199254740991u64)]
    pub offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, minimum = 1, maximum = 9007199254740991u64)]
    pub length: Option<u64>,
}

/// Where to look for a volume's ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct RangesOfFilter {
    /// Ranges on this RAID group.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub raid_group: Option<Uuid>,
    /// Ranges on the RAID group that this device is a member of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub device: Option<Uuid>,
    /// Ranges on this logical device, by number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, inline)]
    pub logical_device: Option<Natural>,
}

content!(
    Volume,
    Page<Volume>,
    NewVolume,
    VolumeMade,
    VolumeChange,
    MorePlacements,
    Expand,
    Page<MapRun>,
    Page<Range>
);
