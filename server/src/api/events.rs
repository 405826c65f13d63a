//! Events: a page of them, or a stream.

use std::sync::Arc;

use ashlar_openapi::operations::ListEvents;
use ashlar_openapi::values::MOST;
use ashlar_openapi::{Problem, ProblemType};
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
    if !incoming.wants_event_stream {
        let paging = &incoming.paging;
        let page = asked
            .app
            .list_events(&incoming.query, paging.cursor.as_deref(), paging.limit);
        return Ok(respond(Answer::of::<ListEvents>(&page.await?)));
    }
    let after = incoming.last_event_id.or(incoming.query.after);
    let (app, shown) = (Arc::clone(&asked.app), asked.shown);
    let still_may = move || {
        let (app, shown) = (Arc::clone(&app), shown.clone());
        async move { authenticate::still_may::<ListEvents>(&app, &shown).await }
    };
    let stream = follow(asked.app, incoming.query, after, still_may);
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
