//! Webhooks: making and editing them, their deliveries, trying one out.
//!
//! [`check`] says which may be, [`sign`] and [`send`] are one delivery, and [`crate::background::deliveries`] does them.

pub mod check;
pub mod edit;
pub mod send;
pub mod sign;

use ashlar_openapi::operations::{ListDeliveries, ListWebhooks};
use ashlar_openapi::sort::{NamedKey, Sort, TimedKey};
use ashlar_openapi::webhooks::{Delivery, DeliveryFilter, DeliveryState, Probed, Webhook};
use ashlar_openapi::{Bytes, Natural, Problem, Timestamp};
use time::OffsetDateTime;
use uuid::Uuid;

use super::devices::{bytes, natural};
use super::look_up::Wanted;
use super::{Answer, App, events, no_such, order, reading};
use crate::catalog::{webhook_deliveries as deliveries, webhooks};

/// A webhook as the contract has it.
pub fn view(row: &webhooks::Webhook) -> Option<Webhook> {
    let former = row
        .previous_secret_until
        .filter(|until| *until > OffsetDateTime::now_utc());
    Some(Webhook {
        id: row.id,
        name: row.name.parse().ok()?,
        url: row.url.clone(),
        kinds: row.kinds.clone(),
        enabled: row.enabled,
        former_secret_until: former.map(Timestamp),
        last_event: bytes(row.next_event - 1),
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.updated_at),
    })
}

/// Names a state of the webhook.
pub fn tag(row: &webhooks::Webhook) -> String {
    super::etag(row.version, row.updated_at)
}

/// A delivery as the contract has it.
pub fn delivery_view(row: &deliveries::WebhookDelivery) -> Delivery {
    Delivery {
        id: row.id,
        event: bytes(row.event),
        state: match row.state {
            deliveries::DeliveryState::Pending => DeliveryState::Pending,
            deliveries::DeliveryState::Delivered => DeliveryState::Delivered,
            deliveries::DeliveryState::Failed => DeliveryState::Failed,
        },
        attempts: natural(row.attempts),
        next_attempt_at: row.next_attempt_at.map(Timestamp),
        last_status: row.last_status.and_then(|status| u16::try_from(status).ok()),
        last_error: row.last_error.clone(),
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.last_attempt_at.unwrap_or(row.created_at)),
    }
}

impl App {
    /// The row of a webhook.
    ///
    /// # Errors
    /// Where there is none, or the catalog is away.
    pub async fn webhook(&self, id: Uuid) -> Result<webhooks::Webhook, Problem> {
        let row = reading(&self.catalog, async |connection| {
            webhooks::get(connection, id).await
        })
        .await?;
        row.ok_or_else(|| no_such("webhook", id))
    }

    /// One page of webhooks, by name unless sorted otherwise.
    ///
    /// # Errors
    /// Where the cursor is none, or the catalog is away.
    pub async fn list_webhooks(
        &self,
        sort: Option<Sort<NamedKey>>,
        wanted: &Wanted<'_>,
    ) -> Result<Answer, Problem> {
        let order = sort.unwrap_or(Sort::ascending(NamedKey::Name));
        let part = order::part(wanted, order)?;
        let found = reading(&self.catalog, async |connection| {
            webhooks::page(connection, &part).await
        })
        .await?;
        let items = found.rows.iter().filter_map(view).collect();
        Ok(Answer::of::<ListWebhooks>(&order::page(
            items,
            order,
            found.next.as_ref(),
        )))
    }

    /// One page of a webhook's deliveries, the newest first unless sorted otherwise.
    ///
    /// # Errors
    /// As [`Self::list_webhooks`]; also where there is no such webhook.
    pub async fn list_deliveries(
        &self,
        webhook: Uuid,
        filter: &DeliveryFilter,
        wanted: &Wanted<'_>,
    ) -> Result<Answer, Problem> {
        let state = filter.state.map(|state| match state {
            DeliveryState::Pending => deliveries::DeliveryState::Pending,
            DeliveryState::Delivered => deliveries::DeliveryState::Delivered,
            DeliveryState::Failed => deliveries::DeliveryState::Failed,
        });
        let order = filter.sort.unwrap_or(Sort::descending(TimedKey::CreatedAt));
        let part = order::part(wanted, order)?;
        self.webhook(webhook).await?;
        let found = reading(&self.catalog, async |connection| {
            deliveries::page(connection, webhook, state, &part).await
        })
        .await?;
        let items = found.rows.iter().map(delivery_view).collect();
        Ok(Answer::of::<ListDeliveries>(&order::page(
            items,
            order,
            found.next.as_ref(),
        )))
    }

    /// Sends a test event now. It has no number, is not tried again, and leaves no delivery.
    ///
    /// # Errors
    /// Where there is no such webhook.
    pub async fn probe_webhook(&self, id: Uuid) -> Result<Probed, Problem> {
        let row = self.webhook(id).await?;
        let event = ashlar_openapi::events::Event {
            number: Bytes(0),
            kind: events::kinds::PROBE.to_owned(),
            subject: Some(ashlar_openapi::jobs::Subject {
                kind: "webhook".into(),
                id,
            }),
            at: Timestamp(OffsetDateTime::now_utc()),
            data: serde_json::json!({}),
        };
        let begun = tokio::time::Instant::now();
        let sent = send::send(&row, Uuid::new_v4(), &event).await;
        let took = u32::try_from(begun.elapsed().as_millis()).unwrap_or(u32::MAX >> 1);
        Ok(Probed {
            delivered: sent.is_ok(),
            status: match &sent {
                Ok(status) => Some(*status),
                Err(error) => error.status(),
            },
            error: sent.err().map(|error| error.to_string()),
            took_ms: Natural(took),
        })
    }
}
