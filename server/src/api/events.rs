//! Events: a page of them, or a stream.

use std::sync::Arc;

use ashlar_openapi::operations::{ListEvents, ListUsers};
use ashlar_openapi::values::MOST;
use ashlar_openapi::{Operation as _, Problem, ProblemType};
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;

use super::incoming::Incoming;
use super::{Asked, Routes, authenticate, respond};
use crate::app::Answer;
use crate::app::events::follow::follow;

pub fn routes(routes: Routes) -> Routes {
    routes.on_raw::<ListEvents, _>(list)
}

async fn list(asked: Asked, incoming: Incoming<ListEvents>) -> Result<Response, Problem> {
    if let Some(after) = incoming.query.after.filter(|after| *after > MOST) {
        return Err(Problem::new(
            ProblemType::InvalidParameter,
            format!("{after} is beyond every number"),
            format!("give at most {MOST}"),
        )
        .at("after"));
    }
    let sees_accounts = asked.caller.actor.may(ListUsers::ROLES, ListUsers::SCOPE).is_ok();
    if !incoming.wants_event_stream {
        let paging = &incoming.paging;
        let (cursor, limit) = (paging.cursor.as_deref(), paging.limit);
        let page = asked
            .app
            .list_events(&incoming.query, sees_accounts, cursor, limit);
        return Ok(respond(Answer::of::<ListEvents>(&page.await?)));
    }
    let after = incoming.last_event_id.or(incoming.query.after);
    let (app, shown) = (Arc::clone(&asked.app), asked.shown);
    let still_may = move || {
        let (app, shown) = (Arc::clone(&app), shown.clone());
        async move {
            let sees_as_before = !sees_accounts || authenticate::still_may::<ListUsers>(&app, &shown).await;
            sees_as_before && authenticate::still_may::<ListEvents>(&app, &shown).await
        }
    };
    let stream = follow(asked.app, incoming.query, sees_accounts, after, still_may);
    let mut response = Response::new(Body::from_stream(stream));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    // Proxies that gather answers before they pass them on would hold events up.
    response
        .headers_mut()
        .insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}
