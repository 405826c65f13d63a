//! Exports: making, editing, taking away.

use ashlar_engine::appliance::{ExportChange as EngineChange, ExportStatus, NewExport as EngineExport};
use ashlar_engine::export::Polling as EnginePolling;
use ashlar_engine::export::access::Protection as EngineProtection;
use ashlar_engine::types::{ExportId, OperationId, VolumeId};
use ashlar_openapi::exports::{Export, ExportChange, NewExport, Polling, Protection, Protocol};
use ashlar_openapi::{Problem, ProblemType, Timestamp};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::change::{Audited, NewEvent};
use super::devices::{count, presence};
use super::operations::Done;
use super::refusals::of_engine;
use super::show::Show;
use super::touched::Touched;
use super::{App, facts, no_such};
use crate::catalog::{self, CatalogError};
use crate::engine::EngineError;

impl App {
    /// What the engine says of exports; nothing of those that it does not know.
    pub async fn live_exports(&self, ids: Vec<Uuid>) -> Result<Vec<Option<ExportStatus>>, EngineError> {
        self.engine
            .with(async move |appliance| {
                let mut found = Vec::new();
                for id in ids {
                    found.push(appliance.find_export(ExportId(id)).await);
                }
                found
            })
            .await
    }

    async fn export_status(&self, id: Uuid) -> Result<ExportStatus, Problem> {
        let found = self
            .engine
            .with(async move |appliance| appliance.find_export(ExportId(id)).await);
        let found = found.await.map_err(|error| of_engine(&error))?;
        found.ok_or_else(|| no_such("export", id))
    }
}

/// An export as the contract has it.
pub fn view(app: &App, row: &catalog::exports::Export, live: Option<&ExportStatus>) -> Option<Export> {
    Some(Export {
        id: row.id,
        name: row.name.parse().ok()?,
        protocol: Protocol::Nbd,
        volume: row.volume,
        read_only: row.read_only,
        clients: row.clients.clone(),
        protection: match row.protection {
            catalog::exports::ExportProtection::Plain => Protection::Plain,
            catalog::exports::ExportProtection::Tls => Protection::Tls,
            catalog::exports::ExportProtection::TlsClientCertificate => Protection::TlsClientCertificate,
        },
        exclusive: row.exclusive,
        polling: match row.polling_us {
            Some(0) => Polling::Never,
            _ => Polling::WhenQuick,
        },
        enabled: row.enabled,
        offered: live.is_some_and(|live| live.offered),
        attached: count(live.map_or(0, |live| live.connections)),
        uri: format!("{}/{}", app.nbd_uri, row.name),
        presence: presence(row.presence),
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.updated_at),
    })
}

/// An export's row, as the contract has it, with its ETag.
pub async fn show(
    app: &App,
    connection: &mut PgConnection,
    id: Uuid,
) -> Result<Option<(Export, String)>, CatalogError> {
    let Some(row) = catalog::exports::get(connection, id).await? else {
        return Ok(None);
    };
    let live = app
        .live_exports(vec![id])
        .await
        .ok()
        .and_then(|mut found| found.pop().flatten());
    let export = view(app, &row, live.as_ref());
    Ok(export.map(|export| (export, super::etag(row.version, row.updated_at))))
}

fn protection(protection: Protection) -> EngineProtection {
    match protection {
        Protection::Plain => EngineProtection::Plain,
        Protection::Tls => EngineProtection::Tls,
        Protection::TlsClientCertificate => EngineProtection::TlsClientCertificate,
    }
}

fn polling(polling: Polling) -> EnginePolling {
    match polling {
        Polling::Never => EnginePolling::Never,
        Polling::WhenQuick => EnginePolling::WhenQuick,
    }
}

/// What an export is, for events and the audit log.
fn told(status: &ExportStatus) -> serde_json::Value {
    let record = &status.record;
    json!({
        "name": record.name,
        "volume": record.volume.0,
        "read_only": record.read_only,
        "clients": record.clients,
        "exclusive": record.exclusive,
        "enabled": record.enabled,
    })
}

async fn done(
    app: &App,
    id: Uuid,
    status: u16,
    kind: &'static str,
    before: Option<serde_json::Value>,
) -> Result<Done, Problem> {
    let stands = app.export_status(id).await?;
    let after = told(&stands);
    Ok(Done {
        touched: vec![Touched::Export(facts::of_export(&stands))],
        show: Show::Export { id, status },
        event: Some(NewEvent {
            kind,
            subject_kind: "export",
            subject: id,
            data: after.clone(),
        }),
        audited: Audited {
            object_kind: "export",
            object: id,
            before,
            after: Some(after),
        },
    })
}

/// Makes an export.
pub async fn create(app: &App, operation: Uuid, id: Uuid, new: NewExport) -> Result<Done, Problem> {
    let name = match &new.name {
        Some(name) => name.to_string(),
        None => {
            app.volume_status(new.volume)
                .await
                .map_err(|_| {
                    Problem::new(
                        ProblemType::UnknownReference,
                        format!("there is no volume {}", new.volume),
                        "list what there is",
                    )
                    .at("/volume")
                })?
                .record
                .name
        }
    };
    let wanted = EngineExport {
        id: Some(ExportId(id)),
        name,
        volume: VolumeId(new.volume),
        read_only: new.read_only,
        clients: new.clients,
        protection: protection(new.protection),
        exclusive: new.exclusive,
        polling: polling(new.polling),
        enabled: new.enabled,
    };
    app.verb(async move |appliance| appliance.create_export(OperationId(operation), wanted).await)
        .await?;
    done(app, id, 201, "export.created", None).await
}

/// Edits an export.
pub async fn change(app: &App, operation: Uuid, id: Uuid, change: ExportChange) -> Result<Done, Problem> {
    let before = told(&app.export_status(id).await?);
    let wanted = EngineChange {
        name: change.name.map(|name| name.into_string()),
        read_only: change.read_only,
        clients: change.clients,
        protection: change.protection.map(protection),
        exclusive: change.exclusive,
        polling: change.polling.map(polling),
        enabled: change.enabled,
    };
    app.verb(async move |appliance| {
        appliance
            .change_export(OperationId(operation), ExportId(id), wanted)
            .await
    })
    .await?;
    done(app, id, 200, "export.changed", Some(before)).await
}

/// Takes an export away.
pub async fn delete(app: &App, operation: Uuid, id: Uuid) -> Result<Done, Problem> {
    app.verb(async move |appliance| {
        appliance
            .delete_export(OperationId(operation), ExportId(id))
            .await
    })
    .await?;
    Ok(Done {
        touched: vec![Touched::NoExport(id)],
        show: Show::Nothing,
        event: Some(NewEvent {
            kind: "export.deleted",
            subject_kind: "export",
            subject: id,
            data: json!({}),
        }),
        audited: Audited {
            object_kind: "export",
            object: id,
            before: Some(json!({"id": id})),
            after: None,
        },
    })
}
