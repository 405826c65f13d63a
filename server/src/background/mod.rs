//! What the appliance does without being asked: working on jobs, telling of events, sending them to webhooks, relaying
//! the engine's, pruning.
//!
//! Each is a task that looks at what there is to do and does it (*level-triggered*): signals and timers only say when to
//! look. So nothing is lost with a signal, with the catalog's going away, or with the process.

pub mod deliveries;
pub mod engine_events;
pub mod event_feed;
pub mod jobs;
pub mod prune;

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tokio::task::JoinSet;

use crate::app::App;
use crate::catalog::{Catalog, CatalogError};

/// How long tasks may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// The tasks.
pub struct Background {
    app: Arc<App>,
    tasks: JoinSet<()>,
}

/// Starts all.
pub fn start(app: Arc<App>) -> Background {
    let mut tasks = JoinSet::new();
    tasks.spawn(jobs::run(Arc::clone(&app)));
    tasks.spawn(event_feed::run(Arc::clone(&app)));
    tasks.spawn(engine_events::run(Arc::clone(&app)));
    tasks.spawn(deliveries::run(Arc::clone(&app)));
    tasks.spawn(prune::run(Arc::clone(&app)));
    Background { app, tasks }
}

/// Ends all, and with them everybody who streams or waits: the appliance stops. What jobs have not done goes on after
/// the next start.
pub async fn stop(mut background: Background) {
    background.app.stopping.send_replace(true);
    let ended = async { while background.tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        background.tasks.shutdown().await;
    }
}

/// Does something in one transaction, and has those look who follow the events.
async fn transact<T>(
    catalog: &Catalog,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, CatalogError>,
) -> Result<T, CatalogError> {
    let done = catalog.guard(async {
        let mut transaction = catalog.begin().await?;
        let done = work(&mut transaction).await?;
        transaction.commit().await?;
        Ok::<_, CatalogError>(done)
    });
    let done = done.await?;
    catalog.changed();
    Ok(done)
}
