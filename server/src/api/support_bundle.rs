//! Support bundles.

use ashlar_openapi::operations::{CreateSupportBundle, GetSupportBundle};
use ashlar_openapi::{Operation as _, Problem};
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

use super::incoming::Incoming;
use super::{Asked, Routes};
use crate::app::support_bundle::keep;
use crate::app::{Answer, internal, no_such};

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

pub fn routes(routes: Routes) -> Routes {
    routes
        .on::<CreateSupportBundle, _>(create)
        .on_raw::<GetSupportBundle, _>(get)
}

async fn create(asked: Asked, incoming: Incoming<CreateSupportBundle>) -> Result<Answer, Problem> {
    asked
        .app
        .create_support_bundle(&asked.caller, incoming.wait)
        .await
}

async fn get(asked: Asked, incoming: Incoming<GetSupportBundle>) -> Result<Response, Problem> {
    let id = incoming.id();
    let file = match File::open(keep::path(&asked.app.support_folder, id)).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(no_such("support bundle", id));
        }
        other => other.map_err(|error| unreadable(&error))?,
    };
    let length = file.metadata().await.map_err(|error| unreadable(&error))?.len();
    let pieces = futures_util::stream::unfold(file, async |mut file| {
        let mut piece = vec![0; PIECE];
        match file.read(&mut piece).await {
            Ok(0) => None,
            Ok(read) => {
                piece.truncate(read);
                Some((Ok(Bytes::from(piece)), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    });
    let mut response = Response::new(Body::from_stream(pieces));
    *response.status_mut() = StatusCode::from_u16(GetSupportBundle::STATUS).unwrap_or_default();
    let name = format!("attachment; filename=\"ashlar-support-{id}.tar.gz\"");
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/gzip"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if let Ok(name) = HeaderValue::from_str(&name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

fn unreadable(error: &std::io::Error) -> Problem {
    tracing::error!(%error, "a support bundle cannot be read");
    internal()
}
