//! Keeps the catalog usable: connects, migrates, has it reconciled, and sees when it is no longer what it was.
//!
//! ```text
//!   Starting ──reached──► Restoring ──reconciled──► Ready
//!                             ▲  │                  │  │
//!              reached again  │  └──lost──► Away ◄──┘  │ found empty, or not as it was left
//!                             ├───────────────┘        │
//!                             └────────────────────────┘
//! ```
//! Invariant: the catalog is *ready* only while its row of identity is the one that this process wrote, in the table
//! that it wrote it to, and its events have not gone back. A restored dump has made its tables anew, a restored copy of
//! the cluster has fewer events.

use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::error::has_code;
use super::identity::{self, Identity, Written};
use super::{Catalog, CatalogError, CatalogState, Source, connect};

/// The catalog's schema.
pub static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// How often it is looked whether the catalog is still what it was.
const LOOK: Duration = Duration::from_secs(1);
/// How long an answer to that may take.
const ANSWER: Duration = Duration::from_secs(2);
/// How long it may take to connect, and to make the database.
const SESSION: Duration = Duration::from_secs(30);
/// How long migrations may take.
const MIGRATION: Duration = Duration::from_secs(600);
/// Pause before the next try, doubled with each failure in a row up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);
const NO_SUCH_TABLE: &str = "42P01";

/// What was found when the catalog was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// None: it is empty.
    pub identity: Option<Identity>,
    /// It is as this process left it: only away for a while. What was begun meanwhile may be unfinished. Where it is
    /// not, and the epoch is the engine's own of this start, a dump of this life was restored.
    pub continued: bool,
}

/// Whose the catalog is now, or why it cannot be used.
pub type Reconciled = Result<Identity, Box<dyn std::error::Error + Send + Sync>>;

/// The task that keeps the catalog.
pub struct Keeper {
    pub(super) catalog: Catalog,
    pub(super) source: Source,
    pub(super) options: PgConnectOptions,
    /// Of this life.
    pub(super) incarnation: Uuid,
    /// None: nothing was left yet.
    pub(super) left: Option<Left>,
}

/// How a catalog was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    /// Postgres' number of the table of identity: another one each time that it is made.
    table: i64,
    /// Of the last event.
    events: i64,
}

impl Keeper {
    /// Keeps the catalog until it is dropped. `reconcile` is called each time that the catalog was reached, with a
    /// handle that works before everybody else's does. It is dropped where Postgres goes away, and runs again.
    pub async fn run<R, F>(mut self, reconcile: R)
    where
        R: Fn(Catalog, Found) -> F + Send + Sync,
        F: Future<Output = Reconciled> + Send,
    {
        let mut pause = FIRST_PAUSE;
        let mut since = OffsetDateTime::now_utc();
        loop {
            let mut was_ready = false;
            let Err(error) = self.session(&reconcile, &mut was_ready).await;
            if was_ready {
                pause = FIRST_PAUSE;
                since = OffsetDateTime::now_utc();
            }
            let why = error.to_string();
            match *self.catalog.shared.state.borrow() {
                CatalogState::Starting => tracing::info!(why, "the catalog is not there yet"),
                _ => tracing::warn!(why, "the catalog is away"),
            }
            let away = CatalogState::Away { why, since };
            self.catalog.shared.state.send_replace(away);
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// From one connection to its end.
    async fn session<R, F>(&mut self, reconcile: &R, was_ready: &mut bool) -> Result<Never, CatalogError>
    where
        R: Fn(Catalog, Found) -> F + Send + Sync,
        F: Future<Output = Reconciled> + Send,
    {
        let session = timeout(SESSION, connect::session(&self.source, &self.options)).await;
        let mut conn = session.map_err(no_answer)??;
        loop {
            let found = self.find(&mut conn).await?;
            tracing::info!(?found, "the catalog is there");
            self.catalog.shared.state.send_replace(CatalogState::Restoring);
            let reconciled = tokio::select! {
                reconciled = reconcile(self.catalog.before_ready(), found) => reconciled,
                why = no_longer_answers(&mut conn) => return Err(why),
            };
            let identity = reconciled.map_err(|why| CatalogError::Unusable(why.to_string()))?;
            let incarnation = self.incarnation;
            let written = identity::write(
                &mut conn,
                Written {
                    identity,
                    incarnation,
                },
            );
            timeout(ANSWER, written).await.map_err(no_answer)??;
            let left = timeout(ANSWER, look(&mut conn)).await.map_err(no_answer)??;
            self.left = left.map(|(_, left)| left);
            self.catalog.shared.state.send_replace(CatalogState::Ready);
            *was_ready = true;
            while self.is_as_left(&mut conn).await? {
                tokio::select! {
                    () = sleep(LOOK) => {}
                    () = self.catalog.shared.suspected.notified() => {}
                }
            }
            tracing::warn!("the catalog is not as it was left");
            self.catalog.shared.state.send_replace(CatalogState::Restoring);
        }
    }

    /// Brings the tables up to date and says whose they are.
    async fn find(&mut self, conn: &mut PgConnection) -> Result<Found, CatalogError> {
        let migrated = timeout(MIGRATION, migrate(conn)).await;
        migrated.map_err(|_late| CatalogError::Unavailable("migrations took too long".into()))??;
        let continued = self.is_as_left(conn).await?;
        let read = timeout(ANSWER, identity::read(conn)).await.map_err(no_answer)?;
        let written = read.map_err(|error| match has_code(&error, NO_SUCH_TABLE) {
            true => CatalogError::Unusable(
                "some of its tables are gone, and its list of migrations is not: drop the schema, to have all made anew"
                    .into(),
            ),
            false => error.into(),
        })?;
        Ok(Found {
            identity: written.map(|written| written.identity),
            continued,
        })
    }

    async fn is_as_left(&mut self, conn: &mut PgConnection) -> Result<bool, CatalogError> {
        let looked = timeout(ANSWER, look(conn)).await;
        match looked.map_err(no_answer)? {
            Ok(Some((incarnation, now))) => {
                let as_left = |left: Left| left.table == now.table && left.events <= now.events;
                let same = incarnation == self.incarnation && self.left.is_none_or(as_left);
                if same {
                    self.left = Some(now);
                }
                Ok(same)
            }
            Ok(None) => Ok(false),
            Err(error) if has_code(&error, NO_SUCH_TABLE) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn no_answer(_late: Elapsed) -> CatalogError {
    CatalogError::Unavailable("Postgres does not answer".into())
}

/// Waits until it does not.
async fn no_longer_answers(conn: &mut PgConnection) -> CatalogError {
    loop {
        sleep(LOOK).await;
        match timeout(ANSWER, conn.ping()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.into(),
            Err(late) => return no_answer(late),
        }
    }
}

/// A session only ends with an error.
enum Never {}

/// The incarnation that wrote it last, and how it is.
async fn look(conn: &mut PgConnection) -> Result<Option<(Uuid, Left)>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select incarnation, identity.tableoid::int8 as "table!", last as events
           from catalog_identity as identity, event_counter"#
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| {
        let (table, events) = (row.table, row.events);
        (row.incarnation, Left { table, events })
    }))
}

/// # Errors
/// Where the tables are of a newer version, or Postgres fails.
pub async fn migrate(conn: &mut PgConnection) -> Result<(), CatalogError> {
    // Somebody may have dropped it with all that was in it.
    sqlx::query!("create schema if not exists public")
        .execute(&mut *conn)
        .await?;
    MIGRATOR.run_direct(None, conn, false).await?;
    Ok(())
}
