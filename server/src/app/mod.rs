//! What the appliance does when it is asked: permission was checked, no HTTP is left. Validation, the engine, the catalog,
//! the audit log.
//!
//! Two kinds of changes. One of the catalog alone is one transaction ([`change`]). One that the engine takes part in is
//! an [`intent`], written down before the engine hears of it and rolled forward after a crash ([`operations`]).

pub mod answer;
pub mod change;
pub mod cursor;
pub mod locks;

use ashlar_openapi::{Problem, ProblemType};

use crate::auth::Actor;
use crate::catalog::{Catalog, CatalogError};

pub use answer::Answer;

/// Who asks for one operation, and how to recognise the same request when it comes again.
#[derive(Debug, Clone)]
pub struct Caller {
    pub actor: Actor,
    pub request_id: String,
    /// The operation's id in the OpenAPI document.
    pub operation: &'static str,
    pub key: Option<Key>,
}

/// An idempotency key, and what the request with it was.
#[derive(Debug, Clone)]
pub struct Key {
    pub key: String,
    /// SHA-256 of operation, path, query and body.
    pub fingerprint: [u8; 32],
}

/// The problem that an error of the catalog is.
pub fn catalog_problem(error: &CatalogError) -> Problem {
    match error {
        CatalogError::Unavailable(why) | CatalogError::Unusable(why) => {
            tracing::debug!(why, "a request needs the catalog");
            let mut problem = Problem::new(
                ProblemType::CatalogUnavailable,
                "the catalog cannot be reached",
                "try again; hosts are served meanwhile",
            );
            problem.correction.retry_after_s = Some(2);
            problem
        }
        CatalogError::Cursor => Problem::new(
            ProblemType::InvalidCursor,
            "the cursor does not belong to this list",
            "use `next_cursor` of a page with the same filters",
        )
        .at("cursor"),
        CatalogError::Constraint { name } => {
            tracing::error!(name, "a change ran against a constraint");
            internal()
        }
        CatalogError::NotFound | CatalogError::Other(_) => {
            tracing::error!(%error, "the catalog failed");
            internal()
        }
    }
}

/// The problem of a mistake of this program.
pub fn internal() -> Problem {
    Problem::new(
        ProblemType::Internal,
        "the appliance made a mistake, which stands in its log under the request's id",
        "try again; if it stays so, make a support bundle",
    )
}

/// The problem of an id that leads nowhere.
pub fn no_such(kind: &str, id: uuid::Uuid) -> Problem {
    Problem::new(
        ProblemType::NoSuchObject,
        format!("there is no {kind} {id}"),
        "list what there is; it may have been deleted",
    )
}

/// Names one state of an object: the number of its changes, and when the last one was, so that a catalog made anew does
/// not repeat names.
pub fn etag(version: i64, updated_at: time::OffsetDateTime) -> String {
    format!("\"{version}-{:x}\"", updated_at.unix_timestamp_nanos() / 1000)
}

/// Whether an edit is meant for this state of the object.
///
/// # Errors
/// [`ProblemType::Stale`].
pub fn check_match(wanted: Option<&str>, stands: &str) -> Result<(), Problem> {
    let Some(wanted) = wanted else { return Ok(()) };
    if wanted == "*" || wanted.split(',').any(|one| one.trim() == stands) {
        return Ok(());
    }
    Err(Problem::new(
        ProblemType::Stale,
        "the object was changed after it was read",
        "read it again, and send its ETag as If-Match",
    )
    .at("If-Match")
    .allowing([stands]))
}

/// What is read of the catalog in one go.
///
/// # Errors
/// As the work's, as a problem.
pub async fn reading<T>(
    catalog: &Catalog,
    work: impl AsyncFnOnce(&mut sqlx::PgConnection) -> Result<T, CatalogError>,
) -> Result<T, Problem> {
    let done = catalog.guard(async {
        let mut connection = catalog.acquire().await?;
        work(&mut connection).await
    });
    done.await.map_err(|error| catalog_problem(&error))
}
