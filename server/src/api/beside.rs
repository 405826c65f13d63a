//! What stands beside `/api/v1`: health, metrics, and the API's documentation as a page.

use std::sync::{Arc, LazyLock};

use ashlar_openapi::document::BASE;
use ashlar_openapi::operations::METRICS_SCOPE;
use ashlar_openapi::{Problem, ProblemType, Roles};
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use serde_json::json;
use utoipa_swagger_ui::Config;

use super::authenticate::Shown;
use super::{authenticate, problem};
use crate::app::App;
use crate::catalog::CatalogState;
use crate::engine::EngineState;
use crate::listen::Origin;

static PAGE: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::new([format!("{BASE}/openapi.json")]).use_base_layout()));

/// Only from here; the page's own style attributes aside.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; \
                      img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'";

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/docs", get(async || Redirect::permanent("/docs/")))
        .route("/docs/", get(async || page("")))
        .route("/docs/{*file}", get(async |Path(file): Path<String>| page(&file)))
}

/// The process answers.
async fn health() -> &'static str {
    "ok\n"
}

/// Whether everything can be used: hosts' data and the catalog.
async fn ready(State(app): State<Arc<App>>) -> Response {
    let engine = match &*app.engine.state().borrow() {
        EngineState::Open => "open",
        EngineState::Blank => "blank",
        EngineState::Unavailable(_) => "unavailable",
        EngineState::Stopped => "stopped",
    };
    let catalog = match &*app.catalog.state().borrow() {
        CatalogState::Starting => "starting",
        CatalogState::Ready => "ready",
        CatalogState::Away { .. } => "away",
        CatalogState::Restoring => "restoring",
    };
    let ready = catalog == "ready" && matches!(engine, "open" | "blank");
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        axum::Json(json!({"ready": ready, "engine": engine, "catalog": catalog})),
    )
        .into_response()
}

/// Metrics, for whoever may read them; also while the catalog is away, at the maintenance socket.
async fn metrics(State(app): State<Arc<App>>, request: Request) -> Response {
    let origin = request.extensions().get::<Origin>().copied();
    let shown = Shown::of(origin, request.headers());
    let admitted = match authenticate::anybody(&app, &shown).await {
        Ok(actor) => actor.may(Roles::Everybody, METRICS_SCOPE),
        Err(refused) => Err(refused),
    };
    if let Err(refused) = admitted {
        return problem::respond(&refused);
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics().await).into_response()
}

/// A file of the page with the documentation.
fn page(file: &str) -> Response {
    let found = utoipa_swagger_ui::serve(file, Arc::clone(&PAGE));
    let Ok(Some(file)) = found else {
        return problem::respond(&Problem::new(
            ProblemType::NoSuchPath,
            format!("there is no file {file:?} of the documentation"),
            "begin at /docs/",
        ));
    };
    let mut response = file.bytes.into_owned().into_response();
    let headers = response.headers_mut();
    if let Ok(kind) = HeaderValue::from_str(&file.content_type) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    if file.gzpipped {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}
