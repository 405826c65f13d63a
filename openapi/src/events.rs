//! Events: what happened, numbered.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::jobs::Subject;
use crate::operation::content;
use crate::values::{Bytes, Page, Timestamp};

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Grows by one with every event.
    pub number: Bytes,
    /// Like `volume.created` or `raid_group.state_changed`.
    pub kind: String,
    pub subject: Option<Subject>,
    pub at: Timestamp,
    /// What there is to say, by kind.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
}

/// Which events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct EventFilter {
    /// A kind, or the beginning of one that ends in a dot: `volume.`
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, max_length = 64)]
    pub kind: Option<String>,
    /// Id of the object that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub subject: Option<Uuid>,
    /// Only events after this number; like `Last-Event-ID`, which counts where both are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, minimum = 0, maximum = 9007199254740991u64)]
    pub after: Option<u64>,
}

content!(Event, Page<Event>);
