//! Scrubs of RAID groups: all written space is read and compared between the members.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::operation::content;
use crate::values::{Bytes, Natural, Timestamp};

/// What a scrub does with what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScrubMode {
    /// Counts it.
    Check,
    /// Mends it as well.
    Repair,
}

/// A scrub to be begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scrub {
    pub mode: ScrubMode,
    /// Most that is read of the group's space in a second; beside it the group's and the appliance's limits count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub rate_limit_bytes_per_s: Option<Bytes>,
}

/// When a RAID group is scrubbed by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScrubSchedule {
    /// From the beginning of one to that of the next: 1 to 8784 (366 days). The first one begins so long after this was
    /// set.
    pub every_hours: Natural,
    pub mode: ScrubMode,
}

impl ScrubSchedule {
    /// Longest time between two.
    pub const MOST_HOURS: u32 = 366 * 24;
}

/// Where a scrub found something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScrubPlace {
    pub device: Uuid,
    /// Address on the device.
    pub offset: Bytes,
    /// It cannot be read; else its content does not fit the others'.
    pub unreadable: bool,
}

/// What a scrub has found. A block is the same 4 KiB of all copies, or of all members of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScrubFindings {
    pub checked_blocks: Bytes,
    /// Their copies differ, their sums do not fit the data, or a part does not fit its checksum.
    pub mismatched_blocks: Bytes,
    /// Places of 4 KiB on one member that cannot be read.
    pub unreadable_places: Bytes,
    /// Mismatched blocks and unreadable places that were mended.
    pub repaired: Bytes,
    /// Places that are unreadable or do not fit their checksum, and cannot be had from the other members.
    pub unrepairable: Bytes,
    /// What could not be compared: a member was missing, or copies were still to be made equal there.
    pub left_out_bytes: Bytes,
    pub bytes_done: Bytes,
    pub bytes_total: Bytes,
    /// The first places, up to 32.
    pub places: Vec<ScrubPlace>,
}

/// A scrub under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScrubRunning {
    pub mode: ScrubMode,
    pub paused: bool,
    /// `null` where the time was not known.
    pub began_at: Option<Timestamp>,
    pub findings: ScrubFindings,
}

/// A scrub that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScrubEnded {
    pub mode: ScrubMode,
    /// It was ended before all was looked at.
    pub cancelled: bool,
    /// `null` where the time was not known.
    pub began_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub findings: ScrubFindings,
}

/// The scrubs of a RAID group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Scrubs {
    /// When the next one is due by the schedule; a group that is not whole waits with it.
    pub due_at: Option<Timestamp>,
    pub running: Option<ScrubRunning>,
    pub last: Option<ScrubEnded>,
}

content!(Scrub);
