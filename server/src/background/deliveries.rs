//! Sends events to webhooks.
//!
//! Invariants: every event that a webhook wants is sent to it, in their order: one at a time for each webhook, and the
//! next one only after the one before was delivered or given up. It may be sent twice where the process or the catalog
//! goes away before the outcome is written; its delivery has the same id then. A webhook that is disabled or deleted is
//! sent nothing any more, and what was being sent is broken off.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use time::OffsetDateTime;
use tokio::task::{AbortHandle, JoinSet};
use uuid::Uuid;

use crate::app::App;
use crate::app::events::kinds::concerns_accounts;
use crate::app::events::view;
use crate::app::webhooks::send::send;
use crate::catalog::webhook_deliveries::{self, Attempt, WebhookDelivery};
use crate::catalog::{CatalogError, events, webhooks};

/// How often it is looked where nothing calls for it: attempts become due with time.
const PERIOD: Duration = Duration::from_secs(2);
/// How long changes gather before it is looked what they brought: each look touches every webhook's row.
const GATHER: Duration = Duration::from_millis(100);
/// Deliveries at a time, each to another webhook.
const MOST: u32 = 32;
/// How often an event is tried.
pub const TRIES: i32 = 12;
const FIRST_PAUSE_S: i64 = 10;
const LAST_PAUSE_S: i64 = 3600;

/// The pause after so many attempts that failed; `None`: it is given up.
pub fn pause_after(attempts: i32) -> Option<time::Duration> {
    if attempts >= TRIES {
        return None;
    }
    let doubled = FIRST_PAUSE_S << (attempts - 1).clamp(0, 16);
    Some(time::Duration::seconds(doubled.min(LAST_PAUSE_S)))
}

/// Sends until the appliance stops.
pub async fn run(app: Arc<App>) {
    let mut sender = Sender {
        app: Arc::clone(&app),
        tasks: JoinSet::new(),
        sending: BTreeMap::new(),
    };
    let (mut changes, mut state) = (app.catalog.changes(), app.catalog.state());
    loop {
        changes.mark_unchanged();
        if let Err(error) = sender.round().await {
            tracing::debug!(%error, "deliveries wait for the catalog");
        }
        tokio::select! {
            () = app.until_stopping() => break,
            Some(_) = sender.tasks.join_next() => {}
            _ = changes.changed() => tokio::time::sleep(GATHER).await,
            _ = state.changed() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
    sender.tasks.shutdown().await;
}

struct Sender {
    app: Arc<App>,
    tasks: JoinSet<()>,
    /// By webhook.
    sending: BTreeMap<Uuid, AbortHandle>,
}

impl Sender {
    async fn round(&mut self) -> Result<(), CatalogError> {
        while self.tasks.try_join_next().is_some() {}
        self.sending.retain(|_, task| !task.is_finished());
        let app = Arc::clone(&self.app);
        let enabled = app
            .catalog
            .guard(async {
                let mut transaction = app.catalog.begin().await?;
                webhook_deliveries::queue_events(&mut transaction).await?;
                let enabled = webhooks::enabled(&mut transaction).await?;
                transaction.commit().await?;
                Ok::<_, CatalogError>(enabled)
            })
            .await?;
        for (webhook, task) in &self.sending {
            if !enabled.contains(webhook) {
                task.abort();
            }
        }
        let busy: Vec<Uuid> = self.sending.keys().copied().collect();
        let places = MOST.saturating_sub(u32::try_from(busy.len()).unwrap_or(MOST));
        if places == 0 || enabled.is_empty() {
            return Ok(());
        }
        let due = app.catalog.guard(async {
            webhook_deliveries::due(&mut *app.catalog.acquire().await?, &busy, places).await
        });
        for delivery in due.await? {
            let (webhook, app) = (delivery.webhook, Arc::clone(&self.app));
            let task = self.tasks.spawn(async move {
                if let Err(error) = deliver(&app, &delivery).await {
                    tracing::debug!(delivery = %delivery.id, %error, "a delivery waits for the catalog");
                }
            });
            self.sending.insert(webhook, task);
        }
        Ok(())
    }
}

/// Makes one attempt, and writes how it went.
///
/// # Errors
/// Where the catalog is away: then the attempt is made again.
pub async fn deliver(app: &App, delivery: &WebhookDelivery) -> Result<(), CatalogError> {
    let found = app.catalog.guard(async {
        let connection = &mut *app.catalog.acquire().await?;
        let webhook = webhooks::get(connection, delivery.webhook).await?;
        Ok::<_, CatalogError>(webhook.zip(events::get(connection, delivery.event).await?))
    });
    // Deleted within this moment.
    let Some((webhook, event)) = found.await? else {
        return Ok(());
    };
    let mut told = view(event);
    if concerns_accounts(&told.kind) {
        // Who manages webhooks need not be one who manages accounts: only which one it is.
        told.data = json!({});
    }
    let sent = send(&webhook, delivery.id, &told).await;
    let error = sent.as_ref().err().map(ToString::to_string).unwrap_or_default();
    let attempt = match &sent {
        Ok(status) => Attempt::Delivered { status: *status },
        Err(why) => match pause_after(delivery.attempts.saturating_add(1)) {
            Some(pause) => Attempt::Again {
                status: why.status(),
                error: &error,
                at: OffsetDateTime::now_utc() + pause,
            },
            None => Attempt::GivenUp {
                status: why.status(),
                error: &error,
            },
        },
    };
    let noted = app.catalog.guard(async {
        webhook_deliveries::note_attempt(&mut *app.catalog.acquire().await?, delivery.id, attempt).await
    });
    noted.await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour_and_end_after_the_last_try() {
        let pauses: Vec<i64> = (1..TRIES)
            .filter_map(|attempts| Some(pause_after(attempts)?.whole_seconds()))
            .collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]);
        assert_eq!(pause_after(TRIES), None);
        assert_eq!(pause_after(i32::MAX), None);
    }
}
