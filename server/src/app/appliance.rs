//! The appliance itself: what it is, its settings, taking over devices, making the catalog anew.

use ashlar_engine::appliance::{ApplianceSettings, SettingsChange};
use ashlar_engine::types::OperationId;
use ashlar_openapi::appliance::{Appliance, ApplianceChange, ApplianceState};
use ashlar_openapi::{Bytes, Natural, Problem, Timestamp};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::App;
use super::change::{Audited, NewEvent};
use super::devices::count;
use super::operations::Done;
use super::show::Show;
use crate::catalog::CatalogError;
use crate::engine::EngineState;

/// What the engine says of the appliance.
struct Live {
    settings: ApplianceSettings,
    epoch: u64,
    waiting_for: Vec<String>,
    devices: usize,
    groups: usize,
    volumes: usize,
    exports: usize,
}

async fn live(app: &App) -> Option<Live> {
    let asked = app.engine.with(async |appliance| {
        let mut waiting_for = Vec::new();
        for group in appliance.group_statuses().await {
            if let Some(waiting) = group.waiting {
                waiting_for.push(format!("RAID group {}: {}", group.record.number, waiting.why));
            }
        }
        let devices = appliance.devices().await;
        // Nobody waits for what an administrator took out.
        for device in devices
            .iter()
            .filter(|device| !device.present && !device.taken_out)
        {
            waiting_for.push(format!("device {} is not there", device.record.number));
        }
        Live {
            settings: appliance.settings().await,
            epoch: appliance.epoch().await,
            waiting_for,
            devices: devices.len(),
            groups: appliance.group_count().await,
            volumes: appliance.volume_count().await,
            exports: appliance.exports().await.len(),
        }
    });
    asked.await.ok()
}

/// The appliance, as the contract has it, with its ETag.
pub async fn show(app: &App, _connection: &mut PgConnection) -> Result<(Appliance, String), CatalogError> {
    Ok(look(app).await)
}

/// The same, without the catalog.
pub async fn look(app: &App) -> (Appliance, String) {
    let live = live(app).await;
    let state = match (&*app.engine.state().borrow(), &live) {
        (EngineState::Blank, _) => ApplianceState::Blank,
        (EngineState::Open, Some(live)) if live.waiting_for.is_empty() => ApplianceState::Serving,
        (EngineState::Open, Some(_)) => ApplianceState::Waiting,
        _ => ApplianceState::Unavailable,
    };
    let waiting_for = match &*app.engine.state().borrow() {
        EngineState::Unavailable(why) => vec![why.clone()],
        _ => live
            .as_ref()
            .map(|live| live.waiting_for.clone())
            .unwrap_or_default(),
    };
    let settings = live
        .as_ref()
        .map(|live| live.settings.clone())
        .unwrap_or_default();
    let known = live.as_ref();
    let limit = app.rate_limit();
    let appliance = Appliance {
        id: app.engine.id().0,
        name: known.and_then(|_| settings.name.parse().ok()),
        number: known.map(|_| Natural(settings.number)),
        state,
        waiting_for,
        smallest_volume_bytes: Bytes(settings.smallest_volume),
        rate_limit_bytes_per_s: limit.map(Bytes),
        epoch: Bytes(known.map_or(0, |live| live.epoch)),
        started_at: Timestamp(app.started_at),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        catalog: app.catalog_kind,
        nbd_uri: app.nbd_uri.clone(),
        devices: count(known.map_or(0, |live| live.devices)),
        raid_groups: count(known.map_or(0, |live| live.groups)),
        volumes: count(known.map_or(0, |live| live.volumes)),
        exports: count(known.map_or(0, |live| live.exports)),
    };
    let tag = tag(&settings, limit);
    (appliance, tag)
}

/// Names the settings, which are all that can be edited.
fn tag(settings: &ApplianceSettings, limit: Option<u64>) -> String {
    let text = format!("{settings:?} {limit:?}");
    format!(
        "\"{}\"",
        &crate::auth::secrets::hex(&crate::auth::secrets::kept(&text))[..16]
    )
}

/// Changes settings.
pub async fn change(app: &App, operation: Uuid, id: Uuid, change: ApplianceChange) -> Result<Done, Problem> {
    let before = look(app).await.0;
    let wanted = SettingsChange {
        name: change.name.as_ref().map(ToString::to_string),
        number: change.number.map(|number| number.0),
        smallest_volume: change.smallest_volume_bytes.map(|bytes| bytes.0),
    };
    app.verb(async move |appliance| appliance.change_settings(OperationId(operation), wanted).await)
        .await?;
    if let Some(limit) = change.rate_limit_bytes_per_s {
        app.set_rate_limit(limit.map(|limit| limit.0)).await?;
    }
    let after = json!(change);
    Ok(Done {
        touched: Vec::new(),
        show: Show::Appliance,
        event: Some(NewEvent {
            kind: "appliance.changed",
            subject_kind: "appliance",
            subject: id,
            data: after.clone(),
        }),
        audited: Audited {
            object_kind: "appliance",
            object: id,
            before: Some(json!({
                "name": before.name,
                "number": before.number,
                "smallest_volume_bytes": before.smallest_volume_bytes,
                "rate_limit_bytes_per_s": before.rate_limit_bytes_per_s,
            })),
            after: Some(after),
        },
    })
}
