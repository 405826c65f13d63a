//! Exports.

use ashlar_openapi::operations::{ChangeExport, CreateExport, DeleteExport, GetExport, ListExports};
use ashlar_openapi::sort::{NamedKey, Sort};
use ashlar_openapi::{Operation as _, Problem};
use uuid::Uuid;

use super::{check_present, chosen, wire_presence};
use crate::api::incoming::Incoming;
use crate::api::{Asked, Routes};
use crate::app::intent::Intent;
use crate::app::{Answer, App, check_match, etag, exports, no_such, order, reading};
use crate::catalog;

pub fn routes(routes: Routes) -> Routes {
    routes
        .on::<ListExports, _>(list)
        .on::<CreateExport, _>(create)
        .on::<GetExport, _>(get)
        .on::<ChangeExport, _>(change)
        .on::<DeleteExport, _>(delete)
}

async fn list(asked: Asked, incoming: Incoming<ListExports>) -> Result<Answer, Problem> {
    let filter = catalog::exports::ExportFilter {
        name: incoming.query.name,
        volume: incoming.query.volume,
        read_only: None,
        enabled: None,
        presence: wire_presence(incoming.query.presence),
    };
    let order = incoming.query.sort.unwrap_or(Sort::ascending(NamedKey::Name));
    let part = order::part(&incoming.paging.wanted(), order)?;
    let found = reading(&asked.app.catalog, async |connection| {
        catalog::exports::page(connection, &filter, &part).await
    })
    .await?;
    let ids: Vec<Uuid> = found.rows.iter().map(|row| row.id).collect();
    let live = asked.app.live_exports(ids).await.unwrap_or_default();
    let of = |index: usize| live.get(index).and_then(Option::as_ref);
    let items = found.rows.iter().enumerate();
    let items = items
        .filter_map(|(index, row)| exports::view(&asked.app, row, of(index)))
        .collect();
    Ok(Answer::of::<ListExports>(&order::page(
        items,
        order,
        found.next.as_ref(),
    )))
}

async fn get(asked: Asked, incoming: Incoming<GetExport>) -> Result<Answer, Problem> {
    let id = incoming.id();
    let found = reading(&asked.app.catalog, async |connection| {
        exports::show(&asked.app, connection, id).await
    })
    .await?;
    let (body, tag) = found.ok_or_else(|| no_such("export", id))?;
    Ok(Answer::of::<GetExport>(&body).tagged(tag))
}

async fn check(app: &App, id: Uuid, if_match: Option<&str>) -> Result<(), Problem> {
    let row = reading(&app.catalog, async |connection| {
        catalog::exports::get(connection, id).await
    })
    .await?;
    check_present("export", id, row.as_ref().map(|row| row.presence))?;
    row.map_or(Ok(()), |row| {
        check_match(if_match, &etag(row.version, row.updated_at))
    })
}

async fn create(asked: Asked, incoming: Incoming<CreateExport>) -> Result<Answer, Problem> {
    let intent = Intent::CreateExport {
        id: chosen(incoming.body.id),
        new: incoming.body,
    };
    asked.app.change(&asked.caller, intent, async |_| Ok(())).await
}

async fn change(asked: Asked, incoming: Incoming<ChangeExport>) -> Result<Answer, Problem> {
    let id = incoming.id();
    let if_match = incoming.if_match;
    let intent = Intent::ChangeExport {
        id,
        change: incoming.body,
    };
    let answer = asked
        .app
        .change(&asked.caller, intent, async |app| {
            check(app, id, if_match.as_deref()).await
        })
        .await?;
    Ok(answer.status(ChangeExport::STATUS))
}

async fn delete(asked: Asked, incoming: Incoming<DeleteExport>) -> Result<Answer, Problem> {
    let id = incoming.id();
    let if_match = incoming.if_match;
    asked
        .app
        .change(&asked.caller, Intent::DeleteExport { id }, async |app| {
            check(app, id, if_match.as_deref()).await
        })
        .await
}
