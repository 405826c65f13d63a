//! Jobs: work that takes long.
//!
//! ```text
//!   queued ──► running ◄──► paused        running | paused | queued ──► cancelling ──► cancelled
//!                 └──► succeeded | failed
//! ```

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::operation::content;
use crate::problem::Problem;
use crate::sort::TimedSort;
use crate::values::{Bytes, Page, Timestamp, some};

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum JobKind {
    /// Copies to a member of a RAID group what it lacks.
    #[serde(rename = "raid_group.rebuild")]
    Rebuild,
    /// Makes the free logical devices of a RAID group blank on its devices.
    #[serde(rename = "raid_group.format")]
    Format,
    /// Compares what the members of a RAID group hold.
    #[serde(rename = "raid_group.scrub")]
    Scrub,
    /// Keeps a device busy so that its light shows where it is.
    #[serde(rename = "device.identify")]
    Identify,
    /// Gathers logs, states and configuration.
    #[serde(rename = "support_bundle")]
    SupportBundle,
}

impl JobKind {
    pub const ALL: [Self; 5] = [
        Self::Rebuild,
        Self::Format,
        Self::Scrub,
        Self::Identify,
        Self::SupportBundle,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rebuild => "raid_group.rebuild",
            Self::Format => "raid_group.format",
            Self::Scrub => "raid_group.scrub",
            Self::Identify => "device.identify",
            Self::SupportBundle => "support_bundle",
        }
    }
}

/// How a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    Queued,
    Running,
    Paused,
    Cancelling,
    Succeeded,
    Failed,
    Cancelled,
}

impl JobState {
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Running,
        Self::Paused,
        Self::Cancelling,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn has_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// What a job, an event or an audit entry is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Subject {
    /// `device`, `raid_group`, `volume`, `export`, `job`, `user`, `token`, `webhook` or `appliance`.
    pub kind: String,
    pub id: Uuid,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    pub id: Uuid,
    pub kind: JobKind,
    pub state: JobState,
    pub subject: Subject,
    pub bytes_done: Bytes,
    /// `null` where it is not known.
    pub bytes_total: Option<Bytes>,
    /// Over the last seconds; `null` where nothing moves.
    pub rate_bytes_per_s: Option<Bytes>,
    /// `null` where it cannot be told.
    pub eta_s: Option<Bytes>,
    pub rate_limit_bytes_per_s: Option<Bytes>,
    /// What it waits for, and since when.
    pub waiting_for: Option<String>,
    pub waiting_since: Option<Timestamp>,
    /// Why it failed.
    pub failure: Option<Problem>,
    /// Where its outcome can be fetched.
    pub result_path: Option<String>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub updated_at: Timestamp,
}

/// An edit of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobChange {
    /// `null` takes the limit away.
    #[serde(default, deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Bytes>)]
    pub rate_limit_bytes_per_s: Option<Option<Bytes>>,
}

/// Which jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct JobFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, inline)]
    pub kind: Option<JobKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, inline)]
    pub state: Option<JobState>,
    /// Id of the object that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub subject: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, inline)]
    pub sort: Option<TimedSort>,
}

content!(Job, Page<Job>, JobChange);
