//! The management API over HTTP: thin handlers, one file per resource, around what every operation has in common.
//!
//! A request's way: who asks ([`authenticate`]) → may they → what is asked ([`incoming`]) → the handler → the answer or
//! a problem document ([`problem`]). Handlers call [`crate::app`] and know neither roles nor status codes.
//!
//! Invariants: every operation of the contract is routed, exactly once, and nothing else below `/api/v1`. A handler runs
//! to its end also where its client leaves: what it began in several steps is not cut off between them.

pub mod accounts;
pub mod appliance;
pub mod audit;
pub mod auth;
pub mod authenticate;
pub mod beside;
pub mod decode;
pub mod events;
pub mod incoming;
pub mod jobs;
pub mod objects;
pub mod problem;
pub mod room;
pub mod routes;
pub mod support_bundle;
pub mod webhooks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use ashlar_openapi::document::BASE;
use ashlar_openapi::{Operation, Problem, ProblemType, Roles, Trait};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, on};
use uuid::Uuid;

use crate::app::{Answer, App, Caller, Key};
use crate::auth::Actor;
use crate::listen::Origin;
use authenticate::Shown;
use incoming::Incoming;
use room::{Place, Rooms};

pub use routes::router;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id that is taken over from a client.
const LONGEST_REQUEST_ID: usize = 64;

/// What a handler gets beside the request.
#[derive(Clone)]
pub struct Asked {
    pub app: Arc<App>,
    pub caller: Caller,
    pub shown: Shown,
}

/// Collects routes and sees to it that none is missing.
pub struct Routes {
    router: Router<Arc<App>>,
    routed: BTreeSet<&'static str>,
    rooms: Arc<Rooms>,
}

impl Routes {
    fn new() -> Self {
        Self {
            router: Router::new(),
            routed: BTreeSet::new(),
            rooms: Arc::default(),
        }
    }

    /// Routes an operation that answers JSON, or nothing.
    fn on<O: Operation, F>(
        self,
        handler: impl Fn(Asked, Incoming<O>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Answer, Problem>> + Send + 'static,
    {
        self.on_raw::<O, _>(move |asked, incoming| {
            let answered = handler(asked, incoming);
            async move { answered.await.map(respond) }
        })
    }

    /// Routes an operation that makes its response itself.
    fn on_raw<O: Operation, F>(
        mut self,
        handler: impl Fn(Asked, Incoming<O>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Response, Problem>> + Send + 'static,
    {
        assert!(self.routed.insert(O::ID), "{} is routed twice", O::ID);
        let filter = match O::METHOD {
            ashlar_openapi::Method::Get => MethodFilter::GET,
            ashlar_openapi::Method::Post => MethodFilter::POST,
            ashlar_openapi::Method::Put => MethodFilter::PUT,
            ashlar_openapi::Method::Patch => MethodFilter::PATCH,
            ashlar_openapi::Method::Delete => MethodFilter::DELETE,
        };
        let rooms = Arc::clone(&self.rooms);
        let route = on(
            filter,
            async move |State(app): State<Arc<App>>, params: RawPathParams, request: Request| {
                let path = params
                    .iter()
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect();
                // Before there is a task: a client that asks and leaves at once must not make them without end.
                let place = rooms.enter::<O>(request.extensions().get::<Origin>().copied());
                // A task of its own: it runs to its end also where the client leaves.
                let handled = tokio::spawn(handle::<O, F>(app, path, request, place, handler));
                handled.await.unwrap_or_else(|error| {
                    tracing::error!(operation = O::ID, %error, "a handler panicked");
                    problem::respond(&crate::app::internal())
                })
            },
        );
        self.router = self.router.route(&format!("{BASE}{}", O::PATH), route);
        self
    }

    fn finish(self) -> Router<Arc<App>> {
        for described in ashlar_openapi::operations::ALL {
            assert!(
                self.routed.contains(described.id),
                "{} is not routed",
                described.id
            );
        }
        self.router
    }
}

/// One request of one operation, from its headers to its response.
async fn handle<O: Operation, F>(
    app: Arc<App>,
    path: BTreeMap<String, String>,
    request: Request,
    place: Result<Place, Problem>,
    handler: impl Fn(Asked, Incoming<O>) -> F,
) -> Response
where
    F: Future<Output = Result<Response, Problem>>,
{
    let begun = Instant::now();
    let request_id = request_id(request.headers());
    let answered = match place {
        Ok(mut place) => answer::<O, F>(&app, &path, request, &request_id, &mut place, handler).await,
        Err(busy) => Err(busy),
    };
    let mut response = answered.unwrap_or_else(|mut refused| {
        refused.request_id.clone_from(&request_id);
        problem::respond(&refused)
    });
    let status = response.status();
    app.api_metrics.note(O::ID, status.as_u16(), begun.elapsed());
    // The others tell of what is away or full, not of a defect.
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(operation = O::ID, request_id, %status, "a request failed");
    } else {
        tracing::debug!(operation = O::ID, request_id, %status, "a request was answered");
    }
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

async fn answer<O: Operation, F>(
    app: &Arc<App>,
    path: &BTreeMap<String, String>,
    request: Request,
    request_id: &str,
    place: &mut Place,
    handler: impl Fn(Asked, Incoming<O>) -> F,
) -> Result<Response, Problem>
where
    F: Future<Output = Result<Response, Problem>>,
{
    let origin = request.extensions().get::<Origin>().copied();
    let (parts, body) = request.into_parts();
    let shown = Shown::of(origin, &parts.headers);
    let actor = authenticate::actor::<O>(app, &shown).await?;
    let mut caller = Caller {
        actor,
        request_id: request_id.to_owned(),
        operation: O::ID,
        key: None,
    };
    if let Err(refused) = caller.actor.may(O::ROLES, O::SCOPE) {
        note_refusal::<O>(app, &caller, &refused).await;
        return Err(refused);
    }
    let body = place.read::<O>(body).await?;
    let incoming = Incoming::<O>::parse(path, parts.uri.query(), &parts.headers, &body)?;
    caller.key = incoming.idempotency_key.clone().map(|key| Key {
        key,
        fingerprint: fingerprint::<O>(app, parts.uri.path(), parts.uri.query(), &body),
    });
    let asked = Asked {
        app: Arc::clone(app),
        caller: caller.clone(),
        shown,
    };
    let done = handler(asked, incoming).await;
    if let Err(refused) = &done {
        note_refusal::<O>(app, &caller, refused).await;
    }
    done
}

/// Writes into the audit log that a change was refused to somebody who is known. What is open to everybody notes by
/// itself what there is to note, also at the maintenance socket, where everybody is known.
async fn note_refusal<O: Operation>(app: &App, caller: &Caller, refused: &Problem) {
    let reads = O::METHOD == ashlar_openapi::Method::Get || O::has(Trait::WithoutCatalog);
    if reads
        || O::ROLES == Roles::Public
        || caller.actor.role.is_none()
        || refused.kind == ProblemType::CatalogUnavailable
    {
        return;
    }
    let Some(left_out) = app.refusal_log.admit(&caller.actor.principal(), Instant::now()) else {
        return;
    };
    if let Err(error) = crate::app::note_refusal(&app.catalog, caller, refused, left_out).await {
        tracing::warn!(%error, "a refusal is not in the audit log");
    }
}

fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let good = |text: &&str| {
        (1..=LONGEST_REQUEST_ID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    given
        .filter(good)
        .map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

/// What makes two requests the same. Keyed: a body may hold a password, which a plain digest would let guess.
fn fingerprint<O: Operation>(app: &App, path: &str, query: Option<&str>, body: &Bytes) -> [u8; 32] {
    let query = query.unwrap_or_default();
    let parts = [O::ID.as_bytes(), path.as_bytes(), query.as_bytes(), body];
    app.service_key.digest("fingerprint of a request", &parts)
}

/// An answer as a response.
fn respond(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = match answer.body {
        Some(body) => {
            let kind = [(header::CONTENT_TYPE, "application/json")];
            (status, kind, String::from(Box::<str>::from(body))).into_response()
        }
        None => status.into_response(),
    };
    let headers = [(header::ETAG, answer.etag), (header::LOCATION, answer.location)];
    for (name, value) in headers {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// The actor at this end of a request that belongs to nobody yet.
fn anonymous(origin: Option<Origin>) -> Actor {
    match origin {
        Some(Origin::Network(address)) => Actor::anonymous(Some(address.ip().to_canonical())),
        Some(Origin::Maintenance { .. }) | None => Actor::anonymous(None),
    }
}

/// Headers of every response: nobody keeps, guesses or frames what is answered.
async fn headers(request: Request, next: axum::middleware::Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'",
        ));
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
