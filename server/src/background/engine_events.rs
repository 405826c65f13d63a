//! Relays what happens in the engine into the catalog's outbox.
//!
//! Invariant: each event of the engine becomes one event, also where the catalog or the process goes away in between: the
//! place in the engine's numbers is written with the event. What the engine has forgotten before it was relayed becomes
//! one event that says so. The events of a start that the engine could not count have no place there: the process keeps it.

use std::sync::Arc;
use std::time::Duration;

use ashlar_engine::event::{EventKind, Events};
use ashlar_engine::raid::GroupState;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::transact;
use crate::app::App;
use crate::app::scrubs;
use crate::catalog::events::{self, NewEvent};
use crate::catalog::{Catalog, CatalogError};

/// How often it is looked where nothing calls for it.
const PERIOD: Duration = Duration::from_secs(5);
/// Events of one transaction: it holds the lock of the numbers.
const BATCH: usize = 200;

/// Relays until the appliance stops.
pub async fn run(app: Arc<App>) {
    let (mut engine, mut catalog) = (app.engine.state(), app.catalog.state());
    let mut told = 0;
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
        match relay(&app.catalog, app.engine.id().0, &events, &mut told).await {
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

/// Relays what was not. Returns whether there is more. `told` is the place where the engine's start was not counted.
///
/// # Errors
/// Where the catalog is away; then nothing of it was relayed, or all.
pub async fn relay(
    catalog: &Catalog,
    appliance: Uuid,
    from: &Events,
    told: &mut u64,
) -> Result<bool, CatalogError> {
    let epoch = from.is_counted().then(|| stored(from.epoch()));
    let last = match epoch {
        Some(epoch) => relayed(catalog, epoch).await?,
        None => *told,
    };
    let (mut new, lost) = from.since(last);
    let more = new.len() > BATCH;
    new.truncate(BATCH);
    let (Some(first), Some(newest)) = (new.first(), new.last()) else {
        return Ok(false);
    };
    transact(catalog, async |connection| {
        if lost {
            let to = first.number - 1;
            let data = json!({"epoch": from.epoch(), "from": last + 1, "to": to});
            let gap = ("engine.events_lost", "appliance", appliance, data);
            append(connection, epoch, to, gap).await?;
        }
        for event in &new {
            append(connection, epoch, event.number, describe(&event.kind)).await?;
        }
        Ok(())
    })
    .await?;
    *told = newest.number;
    Ok(more)
}

/// The last event of this start of the engine that was relayed.
async fn relayed(catalog: &Catalog, epoch: i64) -> Result<u64, CatalogError> {
    let relayed = catalog.guard(async { events::newest_of_engine(&mut *catalog.acquire().await?).await });
    Ok(match relayed.await? {
        Some((at, number)) if at == epoch => u64::try_from(number).unwrap_or(0),
        _ => 0,
    })
}

/// Kind, subject and data of an event.
type Described = (&'static str, &'static str, Uuid, Value);

async fn append(
    connection: &mut PgConnection,
    epoch: Option<i64>,
    number: u64,
    (kind, subject_kind, subject, data): Described,
) -> Result<(), CatalogError> {
    let event = NewEvent {
        kind,
        subject_kind,
        subject_id: Some(subject),
        data: &data,
        engine: epoch.map(|epoch| (epoch, stored(number))),
    };
    events::append(connection, &event).await.map(drop)
}

fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn describe(kind: &EventKind) -> Described {
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
        EventKind::ScrubStarted { group, mode } => {
            let data = json!({"mode": scrubs::mode(*mode)});
            ("raid_group.scrub_started", "raid_group", group.0, data)
        }
        EventKind::ScrubMismatch { group, findings } => {
            let data = json!({"findings": scrubs::findings(findings)});
            ("raid_group.scrub_mismatch", "raid_group", group.0, data)
        }
        EventKind::ScrubFinished {
            group,
            mode,
            cancelled,
            findings,
        } => {
            let (mode, findings) = (scrubs::mode(*mode), scrubs::findings(findings));
            let data = json!({"mode": mode, "cancelled": cancelled, "findings": findings});
            ("raid_group.scrub_finished", "raid_group", group.0, data)
        }
        EventKind::DeviceSuspect { device, lost_places } => {
            let data = json!({"lost_places": lost_places});
            ("device.suspect", "device", device.0, data)
        }
        EventKind::SpareTookOver { group, old, new } => {
            let data = json!({"old": old.0, "new": new.0});
            ("raid_group.spare_took_over", "raid_group", group.0, data)
        }
        EventKind::NoSpareFits { group, device, why } => {
            let data = json!({"device": device.0, "why": why});
            ("raid_group.no_spare_fits", "raid_group", group.0, data)
        }
        EventKind::SpareUnreadable { device, why } => {
            ("device.spare_unreadable", "device", device.0, json!({"why": why}))
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
