//! Which handler answers which operation, and what stands beside the API.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;

use super::{Routes, problem};
use crate::app::App;

/// Everything that is served.
pub fn router(app: Arc<App>) -> Router {
    let routes = super::appliance::routes(Routes::new());
    let routes = super::objects::routes(routes);
    let routes = super::jobs::routes(routes);
    let routes = super::events::routes(routes);
    let routes = super::webhooks::routes(routes);
    let routes = super::support_bundle::routes(routes);
    let routes = super::accounts::routes(routes);
    let routes = super::auth::routes(routes);
    let routes = super::audit::routes(routes);
    routes
        .finish()
        .merge(super::beside::routes())
        .fallback(async |request: Request| -> Response { problem::no_such_path(request.uri().path()) })
        .method_not_allowed_fallback(async |method: Method| -> Response {
            problem::method_not_allowed(method.as_str())
        })
        .layer(axum::middleware::from_fn(super::headers))
        .with_state(app)
}
