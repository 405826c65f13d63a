//! Gathers what goes into a bundle.

use ashlar_openapi::Problem;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Part, redact};
use crate::app::{App, appliance, devices, events, exports, raid_groups, reading, volumes};
use crate::catalog::{self, CatalogError, Part as Listed};

/// Rows that are listed of each table of the engine's objects.
const MOST_OBJECTS: u32 = 10_000;
/// The newest of what goes on.
const MOST_NEWEST: u32 = 1000;
/// Facts of the operating system: file and name in the bundle.
const FACTS: [(&str, &str); 8] = [
    ("/proc/meminfo", "system/meminfo"),
    ("/proc/uptime", "system/uptime"),
    ("/proc/version", "system/version"),
    ("/proc/loadavg", "system/loadavg"),
    ("/proc/partitions", "system/partitions"),
    ("/proc/self/status", "system/process-status"),
    ("/proc/self/limits", "system/process-limits"),
    ("/etc/os-release", "system/os-release"),
];

/// Everything that goes into a bundle, without secrets. What tells of who did what, only where `audit_log` is wanted.
///
/// # Errors
/// Where the catalog is away.
pub async fn gather(app: &App, audit_log: bool) -> Result<Vec<Part>, Problem> {
    let mut parts = vec![
        json_part("versions.json", &versions(app)),
        json_part("configuration.json", &configuration(app)),
        json_part("appliance.json", &appliance::look(app).await.0),
    ];
    let rows = reading(&app.catalog, async |connection| Rows::read(connection).await).await?;
    parts.extend(objects(app, &rows).await);
    let told = rows.events.into_iter().map(events::view);
    let told: Vec<_> = told
        .filter(|event| audit_log || !events::kinds::concerns_accounts(&event.kind))
        .collect();
    parts.push(json_part("events.json", &told));
    let listed: Vec<_> = rows.jobs.iter().map(|job| app.job_view(job)).collect();
    parts.push(json_part("jobs.json", &listed));
    if audit_log {
        let entries: Vec<_> = rows.audit.iter().map(audited).collect();
        parts.push(json_part("audit-log.json", &entries));
    }
    parts.push(json_part(
        "webhooks.json",
        &rows.webhooks.iter().map(webhook).collect::<Vec<_>>(),
    ));
    let log: String = app
        .log
        .lines()
        .iter()
        .map(|line| redact::text(line) + "\n")
        .collect();
    parts.push(Part {
        name: "log.txt",
        content: log.into_bytes(),
    });
    parts.extend(facts().await);
    Ok(parts)
}

fn json_part<T: Serialize + ?Sized>(name: &'static str, value: &T) -> Part {
    let value = redact::value(json!(value));
    Part {
        name,
        content: format!("{value:#}\n").into_bytes(),
    }
}

fn versions(app: &App) -> Value {
    json!({
        "ashlar": env!("CARGO_PKG_VERSION"),
        "operating_system": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "started_at": app.started_at.to_string(),
    })
}

fn configuration(app: &App) -> Value {
    let places = app.engine.locations.known();
    let places = places
        .iter()
        .map(|(id, source)| json!({"device": id, "source": source}));
    json!({
        "nbd_uri": app.nbd_uri,
        "catalog": app.catalog_kind,
        "catalog_state": format!("{:?}", *app.catalog.state().borrow()),
        "engine_state": format!("{:?}", *app.engine.state().borrow()),
        "data_threads": app.engine.threads(),
        "rate_limit_bytes_per_s": app.rate_limit(),
        "devices": places.collect::<Vec<_>>(),
    })
}

/// What is read of the catalog.
struct Rows {
    devices: Vec<catalog::devices::Device>,
    groups: Vec<catalog::raid_groups::RaidGroup>,
    volumes: Vec<catalog::volumes::Volume>,
    exports: Vec<catalog::exports::Export>,
    jobs: Vec<catalog::jobs::Job>,
    events: Vec<catalog::events::Event>,
    audit: Vec<catalog::audit::AuditEntry>,
    webhooks: Vec<catalog::webhooks::Webhook>,
}

fn first<S>(sort: S) -> Listed<S> {
    Listed {
        sort,
        descending: false,
        after: None,
        limit: MOST_OBJECTS,
    }
}

impl Rows {
    async fn read(connection: &mut PgConnection) -> Result<Self, CatalogError> {
        use catalog::{audit, devices, events, exports, jobs, raid_groups, volumes, webhooks};
        let by_number = first(devices::DeviceSort::Number);
        let devices = devices::page(connection, &devices::DeviceFilter::default(), &by_number).await?;
        let by_number = first(raid_groups::RaidGroupSort::Number);
        let filter = raid_groups::RaidGroupFilter::default();
        let groups = raid_groups::page(connection, &filter, &by_number).await?;
        let by_number = first(volumes::VolumeSort::Number);
        let volumes = volumes::page(connection, &volumes::VolumeFilter::default(), &by_number).await?;
        let by_name = first(exports::ExportSort::Name);
        let exports = exports::page(connection, &exports::ExportFilter::default(), &by_name).await?;
        let newest = Listed {
            descending: true,
            limit: MOST_NEWEST,
            ..first(jobs::JobSort::CreatedAt)
        };
        let jobs = jobs::page(connection, &jobs::JobFilter::default(), &newest).await?;
        let last = events::newest(connection).await? - i64::from(MOST_NEWEST);
        let filter = events::EventFilter::default();
        let events = events::after(connection, last, &filter, MOST_NEWEST).await?;
        let filter = audit::AuditFilter::default();
        let (audit, _) = audit::page(connection, &filter, None, MOST_NEWEST).await?;
        let webhooks = webhooks::page(connection, &first(webhooks::WebhookSort::Name)).await?;
        Ok(Self {
            devices: devices.rows,
            groups: groups.rows,
            volumes: volumes.rows,
            exports: exports.rows,
            jobs: jobs.rows,
            events,
            audit,
            webhooks: webhooks.rows,
        })
    }
}

/// The engine's objects, as the API shows them.
async fn objects(app: &App, rows: &Rows) -> Vec<Part> {
    macro_rules! shown {
        ($name:literal, $rows:expr, $live:ident, $view:expr) => {{
            let ids: Vec<Uuid> = $rows.iter().map(|row| row.id).collect();
            let live = app.$live(ids).await.unwrap_or_default();
            let of = |index: usize| live.get(index).and_then(Option::as_ref);
            let items = $rows.iter().enumerate().map(|(index, row)| $view(row, of(index)));
            json_part($name, &items.collect::<Vec<_>>())
        }};
    }
    vec![
        shown!("devices.json", rows.devices, live_devices, devices::view),
        shown!("raid-groups.json", rows.groups, live_groups, raid_groups::view),
        shown!("volumes.json", rows.volumes, live_volumes, volumes::view),
        shown!("exports.json", rows.exports, live_exports, |row, live| {
            exports::view(app, row, live)
        }),
    ]
}

fn audited(entry: &catalog::audit::AuditEntry) -> Value {
    json!({
        "number": entry.id,
        "at": entry.at.to_string(),
        "actor": entry.actor_kind,
        "actor_id": entry.actor_id,
        "actor_name": entry.actor_name,
        "address": entry.address,
        "request_id": entry.request_id,
        "operation": entry.operation,
        "object_kind": entry.object_kind,
        "object_id": entry.object_id,
        "before": entry.before,
        "after": entry.after,
        "outcome": entry.outcome.as_str(),
        "problem": entry.problem,
    })
}

fn webhook(row: &catalog::webhooks::Webhook) -> Value {
    json!({
        "id": row.id,
        "name": row.name,
        "url": redact::url(&row.url),
        "kinds": row.kinds,
        "enabled": row.enabled,
        "next_event": row.next_event,
    })
}

async fn facts() -> Vec<Part> {
    let read = tokio::task::spawn_blocking(|| {
        let read = FACTS.iter().filter_map(|(path, name)| {
            let text = String::from_utf8_lossy(&std::fs::read(path).ok()?).into_owned();
            Some(Part {
                name,
                content: redact::text(&text).into_bytes(),
            })
        });
        read.collect()
    });
    read.await.unwrap_or_default()
}
