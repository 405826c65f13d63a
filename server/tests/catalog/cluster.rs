//! One cluster for the tests of a process, and a database for each.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use ashlar_server::catalog::{CatalogError, keeper};
use ashlar_server::postgres::{Cluster, Running, State};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

pub(crate) struct Server {
    // Stopped before its folder goes.
    pub(crate) running: Running,
    _folder: tempfile::TempDir,
}

/// It ends with the last test that uses it.
static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());

impl Server {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let running = Running::start(Cluster::prepare(folder.path(), None).unwrap()).unwrap();
        Self {
            running,
            _folder: folder,
        }
    }

    fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    pub(crate) fn sockets(&self) -> &Path {
        self.running.cluster().socket_folder()
    }

    pub(crate) async fn ready(&self) {
        let mut state = self.running.state();
        within(state.wait_for(|state| *state == State::Ready))
            .await
            .unwrap();
    }

    pub(crate) fn options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(self.sockets())
            .port(5432)
            .username("ashlar")
            .database(database)
    }

    /// Does something that is no query of the product.
    pub(crate) async fn run(&self, database: &str, sql: &str) {
        let mut conn = self.options(database).connect().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut conn)
            .await
            .unwrap();
    }
}

/// A database with the catalog's tables.
pub(crate) struct Database {
    pub(crate) pool: PgPool,
    pub(crate) name: String,
    pub(crate) server: Arc<Server>,
}

impl Database {
    pub(crate) async fn empty() -> Self {
        let server = Server::shared();
        server.ready().await;
        let name = format!("test_{}", Uuid::new_v4().simple());
        server
            .run("postgres", &format!("create database {name} template template0"))
            .await;
        let pool = PgPoolOptions::new()
            .max_connections(10)
            .connect_with(server.options(&name))
            .await
            .unwrap();
        Self { pool, name, server }
    }

    pub(crate) async fn migrated() -> Self {
        let database = Self::empty().await;
        keeper::migrate(&mut database.pool.acquire().await.unwrap())
            .await
            .unwrap();
        database
    }

    /// The constraint that refuses this.
    pub(crate) async fn refusal(&self, sql: &str) -> String {
        let refused = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&self.pool)
            .await;
        match refused.map_err(CatalogError::from) {
            Err(CatalogError::Constraint { name }) => name,
            other => format!("{other:?}"),
        }
    }

    pub(crate) async fn run(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&self.pool)
            .await
            .unwrap();
    }
}

/// Fails where it would take forever.
pub(crate) async fn within<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), work)
        .await
        .expect("it does not take forever")
}

pub(crate) fn hash(of: u8) -> [u8; 32] {
    [of; 32]
}

pub(crate) fn in_an_hour() -> OffsetDateTime {
    OffsetDateTime::now_utc() + time::Duration::hours(1)
}
