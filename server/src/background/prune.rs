//! Forgets what is old enough, in small transactions: nobody waits for it.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use crate::app::App;
use crate::app::support_bundle::keep;
use crate::catalog::{
    CatalogError, PRUNE_BATCH, audit, events, idempotency, jobs, operations, refresh_tokens,
    sign_in_failures, webhook_deliveries,
};

const PERIOD: Duration = Duration::from_secs(3600);
/// After a catalog that went away.
const AGAIN: Duration = Duration::from_secs(60);
/// What people look back at, and what holds the answers of requests.
const MONTH: time::Duration = time::Duration::days(30);
const AUDIT: time::Duration = time::Duration::days(400);
/// Those of a refused sign-in count for minutes; tokens that expired are told from unknown ones for a while.
const DAY: time::Duration = time::Duration::days(1);

/// Prunes until the appliance stops.
pub async fn run(app: Arc<App>) {
    // A clock that is wrong after a start has time to be set.
    let mut pause = PERIOD;
    loop {
        tokio::select! {
            () = app.until_stopping() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = match prune(&app, OffsetDateTime::now_utc()).await {
            Ok(0) => PERIOD,
            Ok(pruned) => {
                tracing::info!(pruned, "old records were forgotten");
                PERIOD
            }
            Err(error) => {
                tracing::debug!(%error, "pruning waits for the catalog");
                AGAIN
            }
        };
    }
}

/// Forgets what is too old at `now`. Returns how many rows.
///
/// # Errors
/// Where the catalog is away.
pub async fn prune(app: &App, now: OffsetDateTime) -> Result<u64, CatalogError> {
    let folder = app.support_folder.clone();
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || keep::prune(&folder)).await {
        tracing::warn!(%error, "old support bundles are still there");
    }
    let mut pruned = 0;
    macro_rules! table {
        ($table:ident $(, $before:expr)?) => {
            loop {
                let batch = app.catalog.guard(async {
                    $table::prune(&mut *app.catalog.acquire().await? $(, $before)?).await
                });
                let batch = batch.await?;
                pruned += batch;
                if batch < PRUNE_BATCH {
                    break;
                }
            }
        };
    }
    table!(webhook_deliveries, now - MONTH);
    table!(events, now - MONTH);
    table!(jobs, now - MONTH);
    table!(idempotency);
    table!(operations, now - MONTH);
    table!(audit, now - AUDIT);
    table!(refresh_tokens, now - DAY);
    table!(sign_in_failures, now - DAY);
    Ok(pruned)
}
