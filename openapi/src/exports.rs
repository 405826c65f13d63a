//! Exports: volumes as hosts attach them.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::devices::Presence;
use crate::operation::content;
use crate::sort::NamedSort;
use crate::values::{Name, Natural, Page, Timestamp};

/// How hosts attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    #[default]
    Nbd,
}

/// How well a connection must be protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protection {
    #[default]
    Plain,
    /// Encrypted.
    Tls,
    /// Encrypted, and the client shows a certificate of the appliance's client authority.
    TlsClientCertificate,
}

impl Protection {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "tls",
            Self::TlsClientCertificate => "tls_client_certificate",
        }
    }
}

/// Whether a connection that is out of work polls before it sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Polling {
    Never,
    /// As long as the client sends its next request right after each reply.
    #[default]
    WhenQuick,
}

impl Polling {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::WhenQuick => "when_quick",
        }
    }
}

/// An export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Export {
    pub id: Uuid,
    /// What hosts ask for.
    pub name: Name,
    pub protocol: Protocol,
    pub volume: Uuid,
    pub read_only: bool,
    /// Addresses that may attach, as `192.0.2.7` or `192.0.2.0/24`; empty for all.
    pub clients: Vec<String>,
    pub protection: Protection,
    /// A new attachment ends the old one.
    pub exclusive: bool,
    pub polling: Polling,
    pub enabled: bool,
    /// It is offered at this moment.
    pub offered: bool,
    /// Connections at this moment.
    pub attached: Natural,
    /// What a host attaches, as `nbd://HOST:PORT/NAME`.
    pub uri: String,
    pub presence: Presence,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// An export to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewExport {
    /// Chosen by the client: a repeated request then finds what the first one made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub id: Option<Uuid>,
    /// As the volume's unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    #[serde(default)]
    pub protocol: Protocol,
    pub volume: Uuid,
    #[serde(default)]
    pub read_only: bool,
    #[serde(default)]
    #[schema(max_items = 256)]
    pub clients: Vec<String>,
    #[serde(default)]
    pub protection: Protection,
    #[serde(default)]
    pub exclusive: bool,
    #[serde(default)]
    pub polling: Polling,
    /// `true` unless given.
    #[serde(default = "yes")]
    pub enabled: bool,
}

fn yes() -> bool {
    true
}

/// An edit of an export. Connections are ended, after what they have begun.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub read_only: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_items = 256)]
    pub clients: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub protection: Option<Protection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub exclusive: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub polling: Option<Polling>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub enabled: Option<bool>,
}

/// Which exports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ExportFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub volume: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, inline)]
    pub presence: Option<Presence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, inline)]
    pub sort: Option<NamedSort>,
}

content!(Export, Page<Export>, NewExport, ExportChange);
