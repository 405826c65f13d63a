//! RAID groups and their logical devices.

use ashlar_openapi::Problem;
use ashlar_openapi::operations::{
    ChangeRaidGroup, CreateRaidGroup, DeleteRaidGroup, FormatRaidGroup, GetRaidGroup, ListLogicalDevices,
    ListRaidGroups, ReplaceMember, ScrubRaidGroup,
};
use ashlar_openapi::raid_groups::RaidGroupChange;
use ashlar_openapi::sort::{NumberedKey, Sort};
use uuid::Uuid;

use super::{check_present, chosen, number, wire_presence};
use crate::api::incoming::Incoming;
use crate::api::{Asked, Routes};
use crate::app::intent::Intent;
use crate::app::jobs::verbs::check_limit;
use crate::app::scrubs::check_schedule;
use crate::app::{Answer, App, check_match, no_such, order, raid_groups, reading};
use crate::catalog;

pub fn routes(routes: Routes) -> Routes {
    routes
        .on::<ListRaidGroups, _>(list)
        .on::<CreateRaidGroup, _>(create)
        .on::<GetRaidGroup, _>(get)
        .on::<ChangeRaidGroup, _>(change)
        .on::<DeleteRaidGroup, _>(delete)
        .on::<ReplaceMember, _>(replace)
        .on::<FormatRaidGroup, _>(format)
        .on::<ScrubRaidGroup, _>(scrub)
        .on::<ListLogicalDevices, _>(list_logical_devices)
}

async fn list(asked: Asked, incoming: Incoming<ListRaidGroups>) -> Result<Answer, Problem> {
    let filter = catalog::raid_groups::RaidGroupFilter {
        number: number(incoming.query.number),
        name: incoming.query.name,
        level: None,
        presence: wire_presence(incoming.query.presence),
    };
    let order = incoming
        .query
        .sort
        .unwrap_or(Sort::ascending(NumberedKey::Number));
    let part = order::part(&incoming.paging.wanted(), order)?;
    let found = reading(&asked.app.catalog, async |connection| {
        catalog::raid_groups::page(connection, &filter, &part).await
    })
    .await?;
    let ids: Vec<Uuid> = found.rows.iter().map(|row| row.id).collect();
    let live = asked.app.live_groups(ids).await.unwrap_or_default();
    let of = |index: usize| live.get(index).and_then(Option::as_ref);
    let items = found.rows.iter().enumerate();
    let items = items
        .map(|(index, row)| raid_groups::view(row, of(index)))
        .collect();
    Ok(Answer::of::<ListRaidGroups>(&order::page(
        items,
        order,
        found.next.as_ref(),
    )))
}

async fn get(asked: Asked, incoming: Incoming<GetRaidGroup>) -> Result<Answer, Problem> {
    show(&asked.app, incoming.id()).await
}

async fn show(app: &App, id: Uuid) -> Result<Answer, Problem> {
    let found = reading(&app.catalog, async |connection| {
        raid_groups::show(app, connection, id).await
    })
    .await?;
    let (body, tag) = found.ok_or_else(|| no_such("RAID group", id))?;
    Ok(Answer::of::<GetRaidGroup>(&body).tagged(tag))
}

async fn check(app: &App, id: Uuid, if_match: Option<&str>) -> Result<(), Problem> {
    let found = reading(&app.catalog, async |connection| {
        raid_groups::find(app, connection, id).await
    })
    .await?;
    check_present("RAID group", id, found.as_ref().map(|(row, ..)| row.presence))?;
    found.map_or(Ok(()), |(.., tag)| check_match(if_match, &tag))
}

async fn create(asked: Asked, incoming: Incoming<CreateRaidGroup>) -> Result<Answer, Problem> {
    let id = chosen(incoming.body.id);
    if incoming.dry_run {
        let preview = asked.app.preview_group(id, &incoming.body).await?;
        return Ok(Answer::of::<CreateRaidGroup>(&preview).status(200));
    }
    let intent = Intent::CreateRaidGroup {
        id,
        new: incoming.body,
    };
    asked.app.change(&asked.caller, intent, async |_| Ok(())).await
}

async fn change(asked: Asked, incoming: Incoming<ChangeRaidGroup>) -> Result<Answer, Problem> {
    let id = incoming.id();
    let change = incoming.body;
    if change == RaidGroupChange::default() {
        check(&asked.app, id, incoming.if_match.as_deref()).await?;
        return show(&asked.app, id).await;
    }
    check_limit(change.rate_limit_bytes_per_s.flatten())?;
    check_schedule(change.scrub_schedule.flatten())?;
    let if_match = incoming.if_match;
    asked
        .app
        .change(
            &asked.caller,
            Intent::ChangeRaidGroup { id, change },
            async |app| check(app, id, if_match.as_deref()).await,
        )
        .await
}

async fn delete(asked: Asked, incoming: Incoming<DeleteRaidGroup>) -> Result<Answer, Problem> {
    let id = incoming.id();
    let if_match = incoming.if_match;
    asked
        .app
        .change(&asked.caller, Intent::DeleteRaidGroup { id }, async |app| {
            check(app, id, if_match.as_deref()).await
        })
        .await
}

async fn replace(asked: Asked, incoming: Incoming<ReplaceMember>) -> Result<Answer, Problem> {
    let id = incoming.id();
    let intent = Intent::ReplaceMember {
        id,
        old: incoming.body.old,
        new: incoming.body.new,
    };
    let answer = asked
        .app
        .change(&asked.caller, intent, async |app| check(app, id, None).await)
        .await?;
    asked
        .app
        .wait_for_job::<ReplaceMember>(answer, incoming.wait, |job| job)
        .await
}

async fn format(asked: Asked, incoming: Incoming<FormatRaidGroup>) -> Result<Answer, Problem> {
    let id = incoming.id();
    check(&asked.app, id, None).await?;
    asked
        .app
        .format_group(&asked.caller, id, incoming.dry_run, incoming.wait)
        .await
}

async fn scrub(asked: Asked, incoming: Incoming<ScrubRaidGroup>) -> Result<Answer, Problem> {
    let id = incoming.id();
    let wanted = incoming.body;
    check_limit(wanted.rate_limit_bytes_per_s)?;
    let intent = Intent::ScrubRaidGroup { id, wanted };
    let answer = asked
        .app
        .change(&asked.caller, intent, async |app| check(app, id, None).await)
        .await?;
    asked
        .app
        .wait_for_job::<ScrubRaidGroup>(answer, incoming.wait, |job| job)
        .await
}

async fn list_logical_devices(
    asked: Asked,
    incoming: Incoming<ListLogicalDevices>,
) -> Result<Answer, Problem> {
    let found = asked
        .app
        .logical_devices(&incoming.query, &incoming.paging.wanted())
        .await?;
    Ok(Answer::of::<ListLogicalDevices>(&found))
}
