//! Problem documents as responses.

use ashlar_openapi::{Problem, ProblemType};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

/// The response that a problem is.
pub fn respond(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let retry_after = problem.correction.retry_after_s;
    let body = serde_json::to_string(problem).unwrap_or_default();
    let kind = [(header::CONTENT_TYPE, "application/problem+json")];
    let mut response = (status, kind, body).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"ashlar\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// Nothing is routed there.
pub fn no_such_path(path: &str) -> Response {
    respond(&Problem::new(
        ProblemType::NoSuchPath,
        format!("there is nothing at {path}"),
        "see /docs for what there is",
    ))
}

/// Something is routed there, for other methods.
pub fn method_not_allowed(method: &str) -> Response {
    respond(&Problem::new(
        ProblemType::MethodNotAllowed,
        format!("{method} is not known here"),
        "use one of the methods in the header Allow",
    ))
}
