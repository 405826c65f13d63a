//! What is compared with: a plain server on axum and sqlx, without accounts, promises or an engine, on a Postgres of the
//! same version and settings with the same tables.
//!
//! A read is one select, a write one transaction of one row. `/whole` does what our changes write, row by row, and
//! nothing else: beside it, it is seen what the promises themselves cost, and what we add to that.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ashlar_server::catalog::audit::{self, NewAuditEntry};
use ashlar_server::catalog::events::{self, NewEvent};
use ashlar_server::catalog::idempotency::{self, Claim};
use ashlar_server::catalog::operations::{self, NewOperation};
use ashlar_server::catalog::{CatalogError, keeper};
use ashlar_server::data_dir::DataDir;
use ashlar_server::postgres::{Cluster, PORT, ROLE, Running, State as PostgresState};
use ashlar_server::stand_back::stand_back;
use ashlar_tests::appliance::Store;
use axum::extract::{Path as InPath, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{PgConnection, PgPool};
use tempfile::TempDir;
use time::OffsetDateTime;
use uuid::Uuid;

/// As many as our server has.
const CONNECTIONS: u32 = 8;
/// How its line begins when it serves.
const READY: &str = "floor ready: ";

/// The floor in a process of its own. Dropping it ends it.
pub(crate) struct Floor {
    child: Child,
    pub(crate) address: SocketAddr,
    _folder: TempDir,
}

impl Floor {
    /// With so many volumes in its table.
    pub(crate) fn start(volumes: u64) -> Self {
        let folder = ashlar_tests::server::open_folder(Store::Memory);
        let mut child = Command::new(std::env::current_exe().expect("the program's own file"))
            .arg("floor")
            .arg(folder.path())
            .env("VOLUMES", volumes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it can be started");
        let mut said = std::io::BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let mut line = String::new();
        std::io::BufRead::read_line(&mut said, &mut line).expect("it says where it listens");
        let address = line.trim().strip_prefix(READY).map(str::parse);
        let Some(Ok(address)) = address else {
            panic!("the floor did not start: {line}")
        };
        Self {
            child,
            address,
            _folder: folder,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // The end of its input is what it waits for.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A volume's or a webhook's id, by number.
pub(crate) fn id(number: u64) -> Uuid {
    Uuid::from_u64_pair(0x4000, 0x8000_0000_0000_0000 | number)
}

/// The floor's process, until its input ends.
pub(crate) fn serve(folder: &Path) {
    // As our server does, and Postgres under both.
    stand_back();
    let data = DataDir::open(folder).expect("the folder is ours");
    let cluster = Cluster::prepare(data.path(), None).expect("Postgres is installed");
    let postgres = Running::start(cluster).expect("a thread can be started");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("the system gives threads");
    runtime.block_on(async {
        let mut state = postgres.state();
        let ready = state.wait_for(|state| *state == PostgresState::Ready);
        drop(ready.await.expect("Postgres starts"));
        let pool = tables(postgres.cluster().socket_folder()).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let router = Router::new()
            .route("/volumes/{id}", get(volume))
            .route("/volumes", get(page))
            .route("/notes", post(note))
            .route("/whole/webhooks/{id}", post(whole_of_catalog))
            .route("/whole/volumes/{id}", post(whole_of_engine))
            .with_state(pool);
        tokio::spawn(async move { axum::serve(listener, router).await });
        println!("{READY}{address}");
        std::io::stdout().flush().expect("somebody listens");
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        let _ = ended.await;
    });
    postgres.stop();
}

/// The catalog's tables with something in them.
async fn tables(socket: &Path) -> PgPool {
    let options = PgConnectOptions::new_without_pgpass()
        .host("localhost")
        .socket(socket)
        .port(PORT)
        .username(ROLE)
        .password("")
        .database("postgres")
        .ssl_mode(PgSslMode::Disable)
        .statement_cache_capacity(200);
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .connect_with(options);
    let pool = pool.await.expect("Postgres is ready");
    let mut connection = pool.acquire().await.expect("Postgres is ready");
    keeper::migrate(&mut connection).await.expect("an empty database");
    let volumes = i64::try_from(crate::number("VOLUMES", 1000)).expect("a count");
    for (statement, count) in [
        ("create table notes (id uuid primary key, text text not null)", 0),
        (
            "insert into volumes (id, number, name, emulation, capacity, partial, presence) \
             select ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, n, 'volume-' || n, 'open-512', \
               1 << 20, false, 'present' from generate_series(0, $1 - 1) as n",
            volumes,
        ),
        (
            "insert into webhooks (id, name, url, kinds, subjects, secret, enabled, next_event) \
             select ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'webhook-' || n, \
               'https://localhost/', '{}', '{}', 'secret', false, 1 from generate_series(0, $1 - 1) as n",
            64,
        ),
    ] {
        let mut query = sqlx::query(statement);
        if count > 0 {
            query = query.bind(count);
        }
        query
            .execute(&mut *connection)
            .await
            .expect("the tables are there");
    }
    drop(connection);
    pool
}

/// A mistake of Postgres' or ours.
struct Failed(String);

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<CatalogError> for Failed {
    fn from(error: CatalogError) -> Self {
        Self(error.to_string())
    }
}

impl axum::response::IntoResponse for Failed {
    fn into_response(self) -> axum::response::Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.0).into_response()
    }
}

#[derive(Serialize, sqlx::FromRow)]
struct Volume {
    id: Uuid,
    number: i32,
    name: String,
    emulation: String,
    capacity: i64,
    partial: bool,
    presence: String,
    version: i64,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

async fn volume(State(pool): State<PgPool>, InPath(id): InPath<Uuid>) -> Result<Json<Volume>, Failed> {
    let found = sqlx::query_as("select * from volumes where id = $1").bind(id);
    Ok(Json(found.fetch_one(&pool).await?))
}

#[derive(Deserialize)]
struct Part {
    after: i32,
    limit: i64,
}

async fn page(State(pool): State<PgPool>, Query(part): Query<Part>) -> Result<Json<Vec<Volume>>, Failed> {
    let found = sqlx::query_as("select * from volumes where number > $1 order by number limit $2");
    Ok(Json(
        found.bind(part.after).bind(part.limit).fetch_all(&pool).await?,
    ))
}

async fn note(State(pool): State<PgPool>, Json(body): Json<Value>) -> Result<StatusCode, Failed> {
    let mut transaction = pool.begin().await?;
    sqlx::query("insert into notes (id, text) values ($1, $2)")
        .bind(Uuid::new_v4())
        .bind(body.to_string())
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(StatusCode::CREATED)
}

/// What a change of the catalog alone writes: its key, its row, audit log, event.
async fn whole_of_catalog(
    State(pool): State<PgPool>,
    InPath(id): InPath<Uuid>,
    Json(body): Json<Value>,
) -> Result<Json<Value>, Failed> {
    let key = Uuid::new_v4().to_string();
    let mut transaction = pool.begin().await?;
    claim(&mut transaction, &key, None).await?;
    let name = body["name"].as_str().unwrap_or_default();
    sqlx::query("update webhooks set name = $2, version = version + 1, updated_at = now() where id = $1")
        .bind(id)
        .bind(name)
        .execute(&mut *transaction)
        .await?;
    idempotency::store_answer(&mut transaction, "somebody", &key, 200, Some(&body), None).await?;
    tell(&mut transaction, "webhook", id, &body).await?;
    transaction.commit().await?;
    Ok(Json(body))
}

/// What a change of the engine writes: key and intent first, then row, audit log, outcome, event.
async fn whole_of_engine(
    State(pool): State<PgPool>,
    InPath(id): InPath<Uuid>,
    Json(body): Json<Value>,
) -> Result<Json<Value>, Failed> {
    let (operation, key) = (Uuid::new_v4(), Uuid::new_v4().to_string());
    let new = NewOperation {
        id: operation,
        kind: "rename_volume",
        intent: &body,
        actor: &json!({"kind": "token", "name": "somebody"}),
        object_kind: "volume",
        object_id: id,
    };
    let mut transaction = pool.begin().await?;
    operations::begin(&mut transaction, &new).await?;
    claim(&mut transaction, &key, Some(operation)).await?;
    transaction.commit().await?;
    let mut transaction = pool.begin().await?;
    let name = body["name"].as_str().unwrap_or_default();
    sqlx::query("update volumes set name = $2, version = version + 1, updated_at = now() where id = $1")
        .bind(id)
        .bind(name)
        .execute(&mut *transaction)
        .await?;
    operations::finish_done(&mut transaction, operation, &body).await?;
    tell(&mut transaction, "volume", id, &body).await?;
    transaction.commit().await?;
    Ok(Json(body))
}

async fn claim(connection: &mut PgConnection, key: &str, operation: Option<Uuid>) -> Result<(), Failed> {
    match idempotency::claim(connection, "somebody", key, &[0; 32], operation).await? {
        Claim::New => Ok(()),
        Claim::Known(_) => Err(Failed("a new key is known".into())),
    }
}

async fn tell(connection: &mut PgConnection, kind: &str, id: Uuid, data: &Value) -> Result<(), Failed> {
    let entry = NewAuditEntry {
        actor_kind: "token",
        actor_id: Some(id),
        actor_name: "somebody",
        address: None,
        request_id: "00000000-0000-4000-8000-000000000000",
        operation: "change",
        object_kind: Some(kind),
        object_id: Some(id),
        object_name: None,
        before: Some(data),
        after: Some(data),
        problem: None,
    };
    audit::append(connection, &entry).await?;
    let event = NewEvent {
        kind: "something.changed",
        subject_kind: kind,
        subject_id: Some(id),
        data,
        engine: None,
    };
    events::append(connection, &event).await?;
    Ok(())
}
