//! The appliance, and its own description.

use ashlar_openapi::operations::{
    ChangeAppliance, GetAppliance, GetOpenApi, ImportAppliance, RebuildCatalog,
};
use ashlar_openapi::{Operation as _, Problem};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use super::incoming::Incoming;
use super::{Asked, Routes};
use crate::app::intent::Intent;
use crate::app::{Answer, appliance, check_match};

pub fn routes(routes: Routes) -> Routes {
    routes
        .on::<GetAppliance, _>(get)
        .on::<ChangeAppliance, _>(change)
        .on::<ImportAppliance, _>(import)
        .on::<RebuildCatalog, _>(rebuild)
        .on_raw::<GetOpenApi, _>(document)
}

async fn get(asked: Asked, _: Incoming<GetAppliance>) -> Result<Answer, Problem> {
    let (body, tag) = appliance::look(&asked.app).await;
    Ok(Answer::of::<GetAppliance>(&body).tagged(tag))
}

async fn change(asked: Asked, incoming: Incoming<ChangeAppliance>) -> Result<Answer, Problem> {
    let intent = Intent::ChangeAppliance {
        id: asked.app.engine.id().0,
        change: incoming.body,
    };
    let wanted = incoming.if_match;
    asked
        .app
        .change(&asked.caller, intent, async |app| {
            let (_, tag) = appliance::look(app).await;
            check_match(wanted.as_deref(), &tag)
        })
        .await
}

async fn import(asked: Asked, incoming: Incoming<ImportAppliance>) -> Result<Answer, Problem> {
    asked.app.import(&asked.caller, incoming.body).await
}

async fn rebuild(asked: Asked, _: Incoming<RebuildCatalog>) -> Result<Answer, Problem> {
    asked.app.rebuild_catalog(&asked.caller).await
}

async fn document(_: Asked, _: Incoming<GetOpenApi>) -> Result<Response, Problem> {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    let status = axum::http::StatusCode::from_u16(GetOpenApi::STATUS).unwrap_or_default();
    Ok((status, kind, include_str!("../../../openapi/openapi.json")).into_response())
}
