//! Volumes.

use ashlar_openapi::Problem;
use ashlar_openapi::operations::{
    ChangeVolume, CreateVolume, DeleteVolume, ExpandVolume, GetVolume, ListVolumes, MapVolume, PlaceVolume,
    VolumeRangesOf,
};
use ashlar_openapi::sort::{NumberedKey, Sort};
use uuid::Uuid;

use super::{check_present, chosen, number, wire_presence};
use crate::api::incoming::Incoming;
use crate::api::{Asked, Routes};
use crate::app::intent::Intent;
use crate::app::{Answer, App, check_match, etag, no_such, order, reading, volumes};
use crate::catalog;

pub fn routes(routes: Routes) -> Routes {
    routes
        .on::<ListVolumes, _>(list)
        .on::<CreateVolume, _>(create)
        .on::<GetVolume, _>(get)
        .on::<ChangeVolume, _>(change)
        .on::<DeleteVolume, _>(delete)
        .on::<PlaceVolume, _>(place)
        .on::<ExpandVolume, _>(expand)
        .on::<MapVolume, _>(map)
        .on::<VolumeRangesOf, _>(ranges_of)
}

async fn list(asked: Asked, incoming: Incoming<ListVolumes>) -> Result<Answer, Problem> {
    let filter = catalog::volumes::VolumeFilter {
        number: number(incoming.query.number),
        name: incoming.query.name,
        emulation: None,
        partial: None,
        presence: wire_presence(incoming.query.presence),
    };
    let order = incoming
        .query
        .sort
        .unwrap_or(Sort::ascending(NumberedKey::Number));
    let part = order::part(&incoming.paging.wanted(), order)?;
    let found = reading(&asked.app.catalog, async |connection| {
        catalog::volumes::page(connection, &filter, &part).await
    })
    .await?;
    let ids: Vec<Uuid> = found.rows.iter().map(|row| row.id).collect();
    let live = asked.app.live_volumes(ids).await.unwrap_or_default();
    let of = |index: usize| live.get(index).and_then(Option::as_ref);
    let items = found.rows.iter().enumerate();
    let items = items
        .filter_map(|(index, row)| volumes::view(row, of(index)))
        .collect();
    Ok(Answer::of::<ListVolumes>(&order::page(
        items,
        order,
        found.next.as_ref(),
    )))
}

async fn get(asked: Asked, incoming: Incoming<GetVolume>) -> Result<Answer, Problem> {
    show(&asked.app, incoming.id()).await
}

async fn show(app: &App, id: Uuid) -> Result<Answer, Problem> {
    let found = reading(&app.catalog, async |connection| {
        volumes::show(app, connection, id).await
    })
    .await?;
    let (body, tag) = found.ok_or_else(|| no_such("volume", id))?;
    Ok(Answer::of::<GetVolume>(&body).tagged(tag))
}

async fn check(app: &App, id: Uuid, if_match: Option<&str>) -> Result<(), Problem> {
    let row = reading(&app.catalog, async |connection| {
        catalog::volumes::get(connection, id).await
    })
    .await?;
    check_present("volume", id, row.as_ref().map(|row| row.presence))?;
    row.map_or(Ok(()), |row| {
        check_match(if_match, &etag(row.version, row.updated_at))
    })
}

async fn run(asked: Asked, id: Uuid, if_match: Option<String>, intent: Intent) -> Result<Answer, Problem> {
    asked
        .app
        .change(&asked.caller, intent, async |app| {
            check(app, id, if_match.as_deref()).await
        })
        .await
}

async fn create(asked: Asked, incoming: Incoming<CreateVolume>) -> Result<Answer, Problem> {
    let id = chosen(incoming.body.id);
    if incoming.dry_run {
        let preview = asked.app.preview_volume(id, incoming.body).await?;
        return Ok(Answer::of::<CreateVolume>(&preview).status(200));
    }
    let intent = Intent::CreateVolume {
        id,
        new: Box::new(incoming.body),
    };
    asked.app.change(&asked.caller, intent, async |_| Ok(())).await
}

async fn change(asked: Asked, incoming: Incoming<ChangeVolume>) -> Result<Answer, Problem> {
    let id = incoming.id();
    let Some(name) = incoming.body.name else {
        check(&asked.app, id, incoming.if_match.as_deref()).await?;
        return show(&asked.app, id).await;
    };
    let intent = Intent::RenameVolume {
        id,
        name: name.into_string(),
    };
    run(asked, id, incoming.if_match, intent).await
}

async fn delete(asked: Asked, incoming: Incoming<DeleteVolume>) -> Result<Answer, Problem> {
    let id = incoming.id();
    run(asked, id, incoming.if_match, Intent::DeleteVolume { id }).await
}

async fn place(asked: Asked, incoming: Incoming<PlaceVolume>) -> Result<Answer, Problem> {
    let (id, more) = (incoming.id(), incoming.body);
    if incoming.dry_run {
        let preview = asked.app.preview_placements(id, more).await?;
        return Ok(Answer::of::<PlaceVolume>(&preview));
    }
    run(asked, id, incoming.if_match, Intent::PlaceVolume { id, more }).await
}

async fn expand(asked: Asked, incoming: Incoming<ExpandVolume>) -> Result<Answer, Problem> {
    let (id, expand) = (incoming.id(), incoming.body);
    if incoming.dry_run {
        let preview = asked.app.preview_expand(id, expand).await?;
        return Ok(Answer::of::<ExpandVolume>(&preview));
    }
    run(asked, id, incoming.if_match, Intent::ExpandVolume { id, expand }).await
}

async fn map(asked: Asked, incoming: Incoming<MapVolume>) -> Result<Answer, Problem> {
    let found = asked
        .app
        .volume_map(incoming.id(), &incoming.query, &incoming.paging.wanted())
        .await?;
    Ok(Answer::of::<MapVolume>(&found))
}

async fn ranges_of(asked: Asked, incoming: Incoming<VolumeRangesOf>) -> Result<Answer, Problem> {
    let found = asked
        .app
        .ranges_of(incoming.id(), &incoming.query, &incoming.paging.wanted())
        .await?;
    Ok(Answer::of::<VolumeRangesOf>(&found))
}
