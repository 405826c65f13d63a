//! Webhooks: events sent to where somebody wants them.
//!
//! Every delivery is a POST of one event as JSON with `Ashlar-Event`, `Ashlar-Delivery`, `Ashlar-Timestamp` and
//! `Ashlar-Signature: v1=HEX`, the HMAC-SHA-256 of timestamp, a dot and the body under the secret. While a secret is
//! being changed, the header holds one signature per secret, separated by commas.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::operation::content;
use crate::sort::{NamedSort, TimedSort};
use crate::values::{Bytes, Name, Natural, Page, Timestamp};

/// A webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Webhook {
    pub id: Uuid,
    pub name: Name,
    pub url: String,
    /// Kinds of events, or their beginnings that end in a dot; empty for all.
    pub kinds: Vec<String>,
    pub enabled: bool,
    /// Until when signatures by the former secret are sent too.
    pub former_secret_until: Option<Timestamp>,
    /// The number of the last event that was considered.
    pub last_event: Bytes,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A webhook to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWebhook {
    /// Chosen by the client: a repeated request then finds what the first one made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub id: Option<Uuid>,
    pub name: Name,
    /// `http://` or `https://`
    #[schema(min_length = 1, max_length = 2048)]
    pub url: String,
    #[serde(default)]
    #[schema(max_items = 64)]
    pub kinds: Vec<String>,
    /// `true` unless given.
    #[serde(default = "yes")]
    pub enabled: bool,
}

fn yes() -> bool {
    true
}

/// The answer that tells a secret: it is told once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhookMade {
    pub webhook: Webhook,
    /// Signs deliveries.
    pub secret: String,
}

/// An edit of a webhook.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 2048)]
    pub url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_items = 64)]
    pub kinds: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub enabled: Option<bool>,
}

/// How the receiver answered a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Probed {
    pub delivered: bool,
    /// The receiver's status.
    pub status: Option<u16>,
    /// Why there is none.
    pub error: Option<String>,
    pub took_ms: Natural,
}

/// How a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It will be tried, or tried again.
    Pending,
    Delivered,
    /// It was tried as often as is tried.
    Failed,
}

/// A delivery of one event to one webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Delivery {
    pub id: Uuid,
    pub event: Bytes,
    pub state: DeliveryState,
    pub attempts: Natural,
    pub next_attempt_at: Option<Timestamp>,
    pub last_status: Option<u16>,
    pub last_error: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// In which order webhooks are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct WebhookFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, inline)]
    pub sort: Option<NamedSort>,
}

/// Which deliveries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct DeliveryFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, inline)]
    pub state: Option<DeliveryState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, inline)]
    pub sort: Option<TimedSort>,
}

content!(
    Webhook,
    Page<Webhook>,
    NewWebhook,
    WebhookMade,
    WebhookChange,
    Probed,
    Delivery,
    Page<Delivery>
);
