//! Logical devices, as runs: never one by one.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::operation::content;
use crate::values::{Bytes, Natural, Page};

/// Whose logical devices are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogicalDeviceState {
    Free,
    InUse,
    /// Of a deleted volume, and not yet cleared.
    Clearing,
}

/// Adjacent logical devices of one RAID group in the same use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogicalDeviceRun {
    /// Number of the first one.
    pub first_number: Natural,
    pub count: Natural,
    pub raid_group: Uuid,
    /// Where the first one begins in its RAID group.
    pub raid_group_offset_bytes: Bytes,
    /// Of each.
    pub length_bytes: Bytes,
    pub state: LogicalDeviceState,
    pub volume: Option<Uuid>,
}

/// Which logical devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct LogicalDeviceFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub raid_group: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, inline)]
    pub state: Option<LogicalDeviceState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub volume: Option<Uuid>,
}

content!(Page<LogicalDeviceRun>);
