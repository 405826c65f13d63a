//! The audit log: who changed what, from where, before and after.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::operation::content;
use crate::problem::ProblemType;
use crate::values::{Bytes, Page, Timestamp};

/// How somebody was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// By name and password.
    User,
    /// By an API token.
    Token,
    /// At the maintenance socket, by the operating system's user.
    Maintenance,
    /// Nobody was let in.
    Anonymous,
    /// The appliance itself.
    Appliance,
}

impl ActorKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Token => "token",
            Self::Maintenance => "maintenance",
            Self::Anonymous => "anonymous",
            Self::Appliance => "appliance",
        }
    }
}

/// Whether a change was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Succeeded,
    Refused,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    pub number: Bytes,
    pub at: Timestamp,
    pub actor: ActorKind,
    pub actor_id: Option<Uuid>,
    pub actor_name: String,
    /// `null` at the maintenance socket.
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    pub request_id: String,
    /// The operation's id in the OpenAPI document.
    pub operation: String,
    pub object_kind: Option<String>,
    pub object_id: Option<Uuid>,
    pub outcome: Outcome,
    /// Why it was refused.
    pub problem: Option<ProblemType>,
    #[schema(value_type = Option<Object>)]
    pub before: Option<serde_json::Value>,
    #[schema(value_type = Option<Object>)]
    pub after: Option<serde_json::Value>,
}

/// Which entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct AuditFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub actor_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub operation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub object_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, inline)]
    pub outcome: Option<Outcome>,
}

content!(Page<AuditEntry>);
