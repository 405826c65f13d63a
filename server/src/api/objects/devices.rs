//! Storage devices.

use ashlar_openapi::operations::{
    AddDevice, ChangeDevice, ExamineDevice, FailDevice, GetDevice, IdentifyDevice, ListDevices, RemoveDevice,
    ReturnDevice, SetSpare,
};
use ashlar_openapi::sort::{NumberedKey, Sort};
use ashlar_openapi::{Operation, Problem};
use uuid::Uuid;

use super::{check_present, chosen, number, wire_presence};
use crate::api::incoming::Incoming;
use crate::api::{Asked, Routes};
use crate::app::intent::Intent;
use crate::app::{Answer, App, check_match, devices, no_such, order, reading};
use crate::catalog;

pub fn routes(routes: Routes) -> Routes {
    routes
        .on::<ListDevices, _>(list)
        .on::<AddDevice, _>(add)
        .on::<ExamineDevice, _>(examine)
        .on::<GetDevice, _>(get)
        .on::<ChangeDevice, _>(change)
        .on::<RemoveDevice, _>(remove)
        .on::<FailDevice, _>(fail)
        .on::<ReturnDevice, _>(give_back)
        .on::<SetSpare, _>(set_spare)
        .on::<IdentifyDevice, _>(identify)
}

async fn list(asked: Asked, incoming: Incoming<ListDevices>) -> Result<Answer, Problem> {
    let filter = catalog::devices::DeviceFilter {
        number: number(incoming.query.number),
        name: incoming.query.name,
        kind: incoming.query.kind.and_then(|kind| kind.as_str().parse().ok()),
        presence: wire_presence(incoming.query.presence),
    };
    let order = incoming
        .query
        .sort
        .unwrap_or(Sort::ascending(NumberedKey::Number));
    let part = order::part(&incoming.paging.wanted(), order)?;
    let found = reading(&asked.app.catalog, async |connection| {
        catalog::devices::page(connection, &filter, &part).await
    })
    .await?;
    let ids: Vec<Uuid> = found.rows.iter().map(|row| row.id).collect();
    let live = asked.app.live_devices(ids).await.unwrap_or_default();
    let of = |index: usize| live.get(index).and_then(Option::as_ref);
    let items = found.rows.iter().enumerate();
    let items = items.map(|(index, row)| devices::view(row, of(index))).collect();
    Ok(Answer::of::<ListDevices>(&order::page(
        items,
        order,
        found.next.as_ref(),
    )))
}

async fn get(asked: Asked, incoming: Incoming<GetDevice>) -> Result<Answer, Problem> {
    let id = incoming.id();
    let found = reading(&asked.app.catalog, async |connection| {
        devices::show(&asked.app, connection, id).await
    })
    .await?;
    let (body, tag) = found.ok_or_else(|| no_such("device", id))?;
    Ok(Answer::of::<GetDevice>(&body).tagged(tag))
}

/// Whether the device can be changed, and is in the state that the edit is meant for.
async fn check(app: &App, id: Uuid, if_match: Option<&str>) -> Result<(), Problem> {
    let (row, shown) = reading(&app.catalog, async |connection| {
        let row = catalog::devices::get(connection, id).await?;
        Ok((row, devices::show(app, connection, id).await?))
    })
    .await?;
    check_present("device", id, row.map(|row| row.presence))?;
    shown.map_or(Ok(()), |(_, tag)| check_match(if_match, &tag))
}

async fn add(asked: Asked, incoming: Incoming<AddDevice>) -> Result<Answer, Problem> {
    let intent = Intent::AddDevice {
        id: chosen(incoming.body.id),
        new: incoming.body,
    };
    asked.app.change(&asked.caller, intent, async |_| Ok(())).await
}

async fn examine(asked: Asked, incoming: Incoming<ExamineDevice>) -> Result<Answer, Problem> {
    let examined = devices::look(&asked.app, incoming.body.source).await?;
    Ok(Answer::of::<ExamineDevice>(&examined))
}

async fn change(asked: Asked, incoming: Incoming<ChangeDevice>) -> Result<Answer, Problem> {
    let id = incoming.id();
    let Some(name) = incoming.body.name else {
        check(&asked.app, id, incoming.if_match.as_deref()).await?;
        return show::<ChangeDevice>(asked, id).await;
    };
    let intent = Intent::RenameDevice {
        id,
        name: name.map(|name| name.into_string()),
    };
    let if_match = incoming.if_match;
    asked
        .app
        .change(&asked.caller, intent, async |app| {
            check(app, id, if_match.as_deref()).await
        })
        .await
}

/// The device as it is: what an edit that says nothing answers.
async fn show<O: Operation<Answer = ashlar_openapi::devices::Device>>(
    asked: Asked,
    id: Uuid,
) -> Result<Answer, Problem> {
    let found = reading(&asked.app.catalog, async |connection| {
        devices::show(&asked.app, connection, id).await
    })
    .await?;
    let (body, tag) = found.ok_or_else(|| no_such("device", id))?;
    Ok(Answer::of::<O>(&body).tagged(tag))
}

async fn verb<O: Operation>(asked: Asked, incoming: Incoming<O>, intent: Intent) -> Result<Answer, Problem> {
    let id = incoming.id();
    let if_match = incoming.if_match;
    asked
        .app
        .change(&asked.caller, intent, async |app| {
            check(app, id, if_match.as_deref()).await
        })
        .await
}

async fn remove(asked: Asked, incoming: Incoming<RemoveDevice>) -> Result<Answer, Problem> {
    let intent = Intent::RemoveDevice { id: incoming.id() };
    verb(asked, incoming, intent).await
}

async fn fail(asked: Asked, incoming: Incoming<FailDevice>) -> Result<Answer, Problem> {
    let intent = Intent::FailDevice { id: incoming.id() };
    verb(asked, incoming, intent).await
}

async fn give_back(asked: Asked, incoming: Incoming<ReturnDevice>) -> Result<Answer, Problem> {
    let id = incoming.id();
    asked
        .app
        .change(&asked.caller, Intent::ReturnDevice { id }, async |app| {
            check(app, id, incoming.if_match.as_deref()).await?;
            devices::check_returnable(app, id).await
        })
        .await
}

async fn set_spare(asked: Asked, incoming: Incoming<SetSpare>) -> Result<Answer, Problem> {
    let intent = Intent::SetSpare {
        id: incoming.id(),
        spare: incoming.body.spare,
    };
    verb(asked, incoming, intent).await
}

async fn identify(asked: Asked, incoming: Incoming<IdentifyDevice>) -> Result<Answer, Problem> {
    let id = incoming.id();
    check(&asked.app, id, None).await?;
    asked
        .app
        .identify(&asked.caller, id, incoming.body, incoming.wait)
        .await
}
