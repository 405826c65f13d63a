//! What the appliance does when it is asked: permission was checked, no HTTP is left. Validation, the engine, the catalog,
//! the audit log.
//!
//! Two kinds of changes. One of the catalog alone is one transaction ([`change`]). One that the engine takes part in is
//! an [`intent`], written down before the engine hears of it and rolled forward after a crash ([`operations`]).

pub mod accounts;
pub mod adding;
pub mod answer;
pub mod appliance;
pub mod change;
pub mod cursor;
pub mod devices;
pub mod events;
pub mod exports;
pub mod facts;
pub mod intent;
pub mod jobs;
pub mod levels;
pub mod locks;
pub mod look_up;
mod members;
pub mod metrics;
pub mod operations;
pub mod order;
pub mod raid_groups;
pub mod reconcile;
pub mod refusal_log;
pub mod refusals;
pub mod scrubs;
pub mod show;
pub mod support_bundle;
pub mod touched;
pub mod volumes;
pub mod webhooks;

use ashlar_engine::appliance::{Appliance, VerbError};
use ashlar_engine::types::OperationId;
use ashlar_openapi::appliance::CatalogKind;
use ashlar_openapi::{Problem, ProblemType};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::auth::Actor;
use crate::auth::service_key::ServiceKey;
use crate::auth::sessions::{KeysError, Sessions};
use crate::catalog::{Catalog, CatalogError};
use crate::engine::Engine;
use crate::log_ring::LogRing;

pub use answer::Answer;
pub use operations::note_refusal;

/// The running appliance, as everything above it sees it.
pub struct App {
    pub catalog: Catalog,
    pub catalog_kind: CatalogKind,
    pub engine: Engine,
    pub sessions: Sessions,
    pub service_key: ServiceKey,
    /// Where hosts attach.
    pub nbd_uri: String,
    pub data_dir: std::path::PathBuf,
    pub started_at: OffsetDateTime,
    pub locks: locks::Locks,
    /// Told where a change was left unfinished: it is to be rolled forward.
    pub left_unfinished: tokio::sync::Notify,
    pub api_metrics: metrics::ApiMetrics,
    pub refusal_log: refusal_log::RefusalLog,
    /// What of jobs stands only in memory.
    pub jobs: jobs::live::Live,
    /// Events as they come.
    pub feed: events::feed::Feed,
    /// The newest lines of the log.
    pub log: LogRing,
    /// Where support bundles lie.
    pub support_folder: std::path::PathBuf,
    /// Set once: whoever waits or streams comes to an end.
    pub stopping: tokio::sync::watch::Sender<bool>,
    limit: Limit,
}

/// What an [`App`] is made of.
pub struct Parts {
    pub catalog: Catalog,
    pub catalog_kind: CatalogKind,
    pub engine: Engine,
    pub sessions: Sessions,
    pub nbd_uri: String,
    pub data_dir: std::path::PathBuf,
    /// Where the limit of all background work is kept.
    pub limit_path: std::path::PathBuf,
    pub support_folder: std::path::PathBuf,
    pub log: LogRing,
}

/// One limit for all background work, in bytes per second: a setting of this process, kept in the data folder.
struct Limit {
    path: std::path::PathBuf,
    value: tokio::sync::watch::Sender<Option<u64>>,
}

impl App {
    /// # Errors
    /// Where the data folder cannot be read or written.
    pub fn new(parts: Parts) -> Result<Self, KeysError> {
        let limit = crate::files::read_json(&parts.limit_path)?.flatten();
        Ok(Self {
            catalog: parts.catalog,
            catalog_kind: parts.catalog_kind,
            engine: parts.engine,
            sessions: parts.sessions,
            service_key: ServiceKey::open(&parts.data_dir.join("service-key.json"))?,
            nbd_uri: parts.nbd_uri,
            data_dir: parts.data_dir,
            started_at: OffsetDateTime::now_utc(),
            locks: locks::Locks::default(),
            left_unfinished: tokio::sync::Notify::new(),
            api_metrics: metrics::ApiMetrics::default(),
            refusal_log: refusal_log::RefusalLog::default(),
            jobs: jobs::live::Live::default(),
            feed: events::feed::Feed::default(),
            log: parts.log,
            support_folder: parts.support_folder,
            stopping: tokio::sync::watch::Sender::new(false),
            limit: Limit {
                path: parts.limit_path,
                value: tokio::sync::watch::Sender::new(limit),
            },
        })
    }

    /// The limit of all background work together, in bytes per second.
    pub fn rate_limit(&self) -> Option<u64> {
        *self.limit.value.borrow()
    }

    /// Has the engine keep to the limit, also after it was opened anew.
    pub async fn apply_rate_limit(&self) {
        // Without an appliance there is nothing to be limited.
        let _ = self.engine.limit_copying(self.rate_limit()).await;
    }

    async fn set_rate_limit(&self, limit: Option<u64>) -> Result<(), Problem> {
        crate::files::write_json(&self.limit.path, &limit).map_err(|error| devices::file_problem(&error))?;
        self.limit.value.send_replace(limit);
        self.apply_rate_limit().await;
        Ok(())
    }

    /// Waits until the appliance stops.
    pub async fn until_stopping(&self) {
        // The sender lives as long as this.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// Calls a verb of the engine.
    ///
    /// # Errors
    /// Its refusal, as a problem.
    pub async fn verb<T: Send + 'static>(
        &self,
        verb: impl AsyncFnOnce(&Appliance) -> Result<T, VerbError> + Send + 'static,
    ) -> Result<T, Problem> {
        let told = async move |appliance: &Appliance| {
            let done = verb(appliance).await;
            done.map_err(|error| refusals::of_verb_on(appliance, &error))
        };
        let done = self.engine.with(told).await;
        done.map_err(|error| refusals::of_engine(&error))?
    }

    /// Whether the engine has done an operation.
    async fn answered(&self, operation: Uuid) -> Result<bool, Problem> {
        let asked = self
            .engine
            .with(async move |appliance| appliance.answered(OperationId(operation)).await.is_some())
            .await;
        match asked {
            Ok(answered) => Ok(answered),
            Err(crate::engine::EngineError::Blank) => Ok(false),
            Err(error) => Err(refusals::of_engine(&error)),
        }
    }

    /// Whether the engine takes changes. Where there is no appliance yet, one can be made.
    async fn check_changeable(&self) -> Result<(), Problem> {
        let asked = self
            .engine
            .with(async |appliance| appliance.check_changeable().await);
        match asked.await {
            Ok(changeable) => changeable.map_err(|error| refusals::of_verb(&error)),
            Err(crate::engine::EngineError::Blank) => Ok(()),
            Err(error) => Err(refusals::of_engine(&error)),
        }
    }

    /// What a new appliance is called.
    fn first_name(&self) -> String {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let short = host.split('.').next().unwrap_or_default().to_owned();
        short
            .parse::<ashlar_openapi::Name>()
            .map_or_else(|_| "ashlar".to_owned(), |name| name.to_string())
    }
}

/// The id of an operation of the contract, as the contract has it.
fn operation_id(id: &str) -> &'static str {
    let known = ashlar_openapi::operations::ALL
        .iter()
        .find(|known| known.id == id);
    known.map_or("unknown", |known| known.id)
}

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
    /// Of operation, path, query and body; keyed, for the body may hold a password.
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
