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
    routes
        .finish()
        .fallback(async |request: Request| -> Response { problem::no_such_path(request.uri().path()) })
        .method_not_allowed_fallback(async |method: Method| -> Response {
            problem::method_not_allowed(method.as_str())
        })
        .with_state(app)
}
