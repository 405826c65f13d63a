//! RAID groups.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::devices::{DeviceErrors, MemberState, Presence};
use crate::jobs::Job;
use crate::operation::content;
use crate::scrubs::{ScrubSchedule, Scrubs};
use crate::sort::NumberedSort;
use crate::values::{Bytes, Name, Natural, Page, Range, Timestamp, some};

/// RAID level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum RaidLevel {
    /// Stripes without redundancy; with one member a plain disk.
    #[serde(rename = "0")]
    Raid0,
    /// Every member holds everything.
    #[serde(rename = "1")]
    Raid1,
    /// Stripes, and their sum on the last member; all move together.
    #[serde(rename = "3")]
    Raid3,
    /// Stripes, and their sum on each member in turn: bears the loss of any one.
    #[serde(rename = "5")]
    Raid5,
    /// Stripes and two sums: bears the loss of any two.
    #[serde(rename = "6")]
    Raid6,
    /// Stripes over pairs of members that hold the same, in the order in which they are given.
    #[serde(rename = "10")]
    Raid10,
}

/// How a RAID group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RaidGroupState {
    Optimal,
    /// Serves with fewer members than it has places.
    Degraded,
    /// Members are being copied to.
    Rebuilding,
    /// Serves no writes.
    Failed,
    /// Not started; `waiting` says why.
    Waiting,
}

/// What a member holds of its RAID group's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberHolds {
    Data,
    /// The same as at least one other member.
    Copy,
    /// Sums of what the others hold.
    Parity,
    /// Data and sums in turn, row by row.
    Rotating,
}

/// How a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberCondition {
    InSync,
    /// In sync, on a device that is expected to fail.
    Suspect,
    /// It is being copied to.
    Rebuilding,
    /// Its device is not there, or not taken in.
    Missing,
    /// Its device is out of service.
    Failed,
}

/// A member of a RAID group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// Its place, counted from 0.
    pub role: Natural,
    pub holds: MemberHolds,
    pub device: Uuid,
    /// `null` where the appliance does not know the device any more.
    pub device_number: Option<Natural>,
    pub state: MemberState,
    /// It is there and answers.
    pub serving: bool,
    pub condition: MemberCondition,
    pub errors: DeviceErrors,
}

/// A device that may take a member's place by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupSpare {
    pub device: Uuid,
    pub device_number: Natural,
    /// Other RAID groups may take it as well.
    pub shared: bool,
}

/// Why a RAID group was not started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Waiting {
    pub why: String,
    /// Devices whose coming would help.
    pub missing: Vec<Uuid>,
}

/// A RAID group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RaidGroup {
    pub id: Uuid,
    pub number: Natural,
    pub name: Option<Name>,
    pub level: RaidLevel,
    pub stripe_unit_bytes: Bytes,
    /// Whether what its members hold has checksums (CRC32C of each 4 KiB).
    pub checksums: bool,
    /// Length of a logical device.
    pub slice_length_bytes: Bytes,
    pub capacity_bytes: Bytes,
    pub logical_devices: Natural,
    pub free_logical_devices: Natural,
    pub free_bytes: Bytes,
    /// Free stretches of the group's address space, the first hundred of them.
    pub free_ranges: Vec<Range>,
    pub state: RaidGroupState,
    pub waiting: Option<Waiting>,
    /// By role.
    pub members: Vec<Member>,
    /// What must still be copied before all members are equal.
    pub bytes_to_sync: Bytes,
    /// Most that is copied to its members in a second; the appliance's limit and a job's count beside it.
    pub rate_limit_bytes_per_s: Option<Bytes>,
    /// When it is scrubbed by itself; `null`: only when that is asked for.
    pub scrub_schedule: Option<ScrubSchedule>,
    pub scrubs: Scrubs,
    /// Those that are kept for it before those that it shares.
    pub spares: Vec<GroupSpare>,
    /// For how long a member is out before a spare takes its place. `null`: not at all where its device failed or was
    /// taken out, a minute where it is merely absent.
    pub spare_after_seconds: Option<Natural>,
    /// A spare takes a suspect member's place while all members are in sync and no other is suspect.
    pub replace_suspect: bool,
    /// Places that a member may lose, unreadable or unfit for their checksums; with more it is suspect.
    pub suspect_after: Natural,
    pub presence: Presence,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A RAID group to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRaidGroup {
    /// Chosen by the client: a repeated request then finds what the first one made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    pub level: RaidLevel,
    /// Devices in the order of their roles.
    #[schema(min_items = 1, max_items = 64)]
    pub members: Vec<Uuid>,
    /// A power of two from 4 KiB to 1 MiB; 64 KiB unless given, at level 3 4 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub stripe_unit_bytes: Option<Bytes>,
    /// A power of two from 1 MiB up to the smallest volume; as large as that unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub slice_length_bytes: Option<Bytes>,
    /// Whether what the members hold gets checksums, so that silent damage is found and mended; it does unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub checksums: Option<bool>,
}

/// Space of a larger member that its group does not use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Waste {
    pub device: Uuid,
    pub bytes: Bytes,
}

/// The answer to making a RAID group, or to asking what would be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RaidGroupMade {
    /// `null` for a dry run.
    pub raid_group: Option<RaidGroup>,
    pub capacity_bytes: Bytes,
    pub logical_devices: Natural,
    /// The smallest member counts: what is not used of the others.
    pub waste: Vec<Waste>,
}

/// An edit of a RAID group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RaidGroupChange {
    /// `null` takes the name away.
    #[serde(default, deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Name>)]
    pub name: Option<Option<Name>>,
    /// Most that is copied to its members in a second, from now on; `null` takes the limit away.
    #[serde(default, deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Bytes>)]
    pub rate_limit_bytes_per_s: Option<Option<Bytes>>,
    /// When it is scrubbed by itself; `null`: only when that is asked for, as it is for a new one.
    #[serde(default, deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ScrubSchedule>)]
    pub scrub_schedule: Option<Option<ScrubSchedule>>,
    /// For how long a member is out before a spare takes its place. `null`: not at all where its device failed or was
    /// taken out, a minute where it is merely absent.
    #[serde(default, deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Natural>)]
    pub spare_after_seconds: Option<Option<Natural>>,
    /// Whether a spare takes a suspect member's place while all members are in sync and no other is suspect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub replace_suspect: Option<bool>,
    /// Places that a member may lose, unreadable or unfit for their checksums; with more it is suspect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub suspect_after: Option<Natural>,
}

/// A free device in the place of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Replace {
    pub old: Uuid,
    pub new: Uuid,
}

/// What formatting a RAID group comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Formatting {
    /// `null` for a dry run.
    pub job: Option<Job>,
    /// Free logical devices, which are made blank.
    pub logical_devices: Natural,
    pub bytes: Bytes,
}

/// Which RAID groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct RaidGroupFilter {
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

content!(
    RaidGroup,
    Page<RaidGroup>,
    NewRaidGroup,
    RaidGroupMade,
    RaidGroupChange,
    Replace,
    Formatting
);
