//! Relays what happens in the engine into the catalog's outbox.
//!
//! Invariant: each event of the engine becomes one event, also where the catalog or the process goes away in between: the
//! place in the engine's numbers is written with the event. What the engine has forgotten before it was relayed becomes
//! one event that says so.

use std::sync::Arc;
use std::time::Duration;

use ashlar_engine::event::{Event, EventKind, Events};
use ashlar_engine::raid::GroupState;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::transact;
use crate::app::App;
use crate::catalog::events::{self, NewEvent};
use crate::catalog::{Catalog, CatalogError};

/// How often it is looked where nothing calls for it.
const PERIOD: Duration = Duration::from_secs(5);
/// Events of one transaction: it holds the lock of the numbers.
const BATCH: usize = 200;

/// Relays until the appliance stops.
pub async fn run(app: Arc<App>) {
    let (mut engine, mut catalog) = (app.engine.state(), app.catalog.state());
    loop {
        let events = app.engine.with(async |appliance| appliance.events()).await;
        let Ok(events) = events else {
            tokio::select! {
                () = app.until_stopping() => return,
                _ = engine.changed() => continue,
                () = tokio::time::sleep(PERIOD) => continue,
            }
        };
        let mut newest = events.newest();
        newest.mark_unchanged();
        match relay(&app.catalog, app.engine.id().0, &events).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "events of the engine wait for the catalog"),
        }
        tokio::select! {
            () = app.until_stopping() => return,
            // Where the appliance has gone, its events come no more.
            Ok(()) = newest.changed() => {}
            _ = engine.changed() => {}
            _ = catalog.changed() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// Relays what was not. Returns whether there is more.
///
/// # Errors
/// Where the catalog is away; then nothing of it was relayed, or all.
pub async fn relay(catalog: &Catalog, appliance: Uuid, from: &Events) -> Result<bool, CatalogError> {
    let epoch = i64::try_from(from.epoch()).unwrap_or(i64::MAX);
    let relayed = catalog
        .guard(async { events::newest_of_engine(&mut *catalog.acquire().await?).await })
        .await?;
    let last = match relayed {
        Some((at, number)) if at == epoch => u64::try_from(number).unwrap_or(0),
        _ => 0,
    };
    let (new, lost) = from.since(last);
    if new.is_empty() {
        return Ok(false);
    }
    let more = new.len() > BATCH;
    transact(catalog, async |connection| {
        if lost && let Some(first) = new.first() {
            append_lost(connection, appliance, epoch, last + 1, first.number - 1).await?;
        }
        for event in new.iter().take(BATCH) {
            append(connection, epoch, event).await?;
        }
        Ok(())
    })
    .await?;
    Ok(more)
}

async fn append_lost(
    connection: &mut PgConnection,
    appliance: Uuid,
    epoch: i64,
    from: u64,
    to: u64,
) -> Result<(), CatalogError> {
    let data = json!({"epoch": epoch, "from": from, "to": to});
    let event = NewEvent {
        kind: "engine.events_lost",
        subject_kind: "appliance",
        subject_id: Some(appliance),
        data: &data,
        engine: Some((epoch, stored(to))),
    };
    events::append(connection, &event).await.map(drop)
}

async fn append(connection: &mut PgConnection, epoch: i64, event: &Event) -> Result<(), CatalogError> {
    let (kind, subject_kind, subject, data) = told(&event.kind);
    let event = NewEvent {
        kind,
        subject_kind,
        subject_id: Some(subject),
        data: &data,
        engine: Some((epoch, stored(event.number))),
    };
    events::append(connection, &event).await.map(drop)
}

fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Kind, subject and data of an event of the engine.
fn told(kind: &EventKind) -> (&'static str, &'static str, Uuid, Value) {
    match kind {
        EventKind::DeviceFailed { device, why } => ("device.failed", "device", device.0, json!({"why": why})),
        EventKind::DeviceReturned { device } => ("device.returned", "device", device.0, json!({})),
        EventKind::GroupStateChanged { group, from, to } => {
            let data = json!({"from": from.map(state), "to": state(*to)});
            ("raid_group.state_changed", "raid_group", group.0, data)
        }
        EventKind::GroupWaiting { group, why } => {
            ("raid_group.waiting", "raid_group", group.0, json!({"why": why}))
        }
        EventKind::VolumeServing { volume } => ("volume.serving", "volume", volume.0, json!({})),
        EventKind::VolumeNotServing { volume } => ("volume.not_serving", "volume", volume.0, json!({})),
    }
}

fn state(state: GroupState) -> &'static str {
    match state {
        GroupState::Optimal => "optimal",
        GroupState::Degraded => "degraded",
        GroupState::Rebuilding => "rebuilding",
        GroupState::Failed => "failed",
    }
}
