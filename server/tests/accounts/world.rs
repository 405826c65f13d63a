//! An appliance without devices, asked as over the network.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ashlar_openapi::appliance::CatalogKind;
use ashlar_server::api;
use ashlar_server::app::accounts::first_admin;
use ashlar_server::app::{App, Parts};
use ashlar_server::auth::sessions::Sessions;
use ashlar_server::catalog::{Catalog, CatalogState, Identity, Source};
use ashlar_server::engine::Engine;
use ashlar_server::listen::Origin;
use ashlar_server::log_ring::LogRing;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use axum::response::Response;
use serde_json::{Value, json};
use sqlx::Row as _;
use tokio::task::JoinHandle;
use tower::Service as _;
use uuid::Uuid;

use crate::cluster::{Database, within};

/// Strong enough, and no secret.
pub(crate) const PASSWORD: &str = "correct horse battery";
pub(crate) const HERE: &str = "192.0.2.1:40000";

pub(crate) struct World {
    pub(crate) app: Arc<App>,
    pub(crate) database: Database,
    router: Router,
    folder: tempfile::TempDir,
    keeper: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(crate) fn text(&self, field: &str) -> String {
        self.body[field].as_str().unwrap().to_owned()
    }

    pub(crate) fn id(&self) -> Uuid {
        self.text("id").parse().unwrap()
    }

    /// Status, and what kind of problem, without what all have in common.
    pub(crate) fn problem(&self) -> (u16, &str) {
        let kind = self.body["type"].as_str().unwrap_or_default();
        (
            self.status,
            kind.trim_start_matches(ashlar_openapi::problem::PREFIX),
        )
    }
}

/// A request in the making.
pub(crate) struct Ask<'a> {
    world: &'a World,
    request: axum::http::request::Builder,
    origin: Origin,
    body: Body,
}

impl Ask<'_> {
    pub(crate) fn by(self, credential: &str) -> Self {
        self.with("authorization", &format!("Bearer {credential}"))
    }

    pub(crate) fn with(mut self, header: &str, value: &str) -> Self {
        self.request = self.request.header(header, value);
        self
    }

    pub(crate) fn key(self, key: &str) -> Self {
        self.with("idempotency-key", key)
    }

    pub(crate) fn from(mut self, address: &str) -> Self {
        self.origin = Origin::Network(address.parse::<SocketAddr>().unwrap());
        self
    }

    pub(crate) fn at_the_socket(mut self) -> Self {
        let uid = rustix::process::geteuid().as_raw();
        self.origin = Origin::Maintenance { uid };
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        let mut ask = self.with("content-type", "application/json");
        ask.body = Body::from(body.to_string());
        ask
    }

    /// The answer's content as it comes.
    pub(crate) async fn stream(self) -> axum::body::BodyDataStream {
        let response = self.respond().await;
        assert_eq!(response.status(), 200);
        response.into_body().into_data_stream()
    }

    async fn respond(self) -> Response {
        let mut request: Request<Body> = self.request.body(self.body).unwrap();
        request.extensions_mut().insert(self.origin);
        let mut router = self.world.router.clone();
        within(router.call(request)).await.unwrap()
    }

    pub(crate) async fn send(self) -> Reply {
        let (parts, body) = self.respond().await.into_parts();
        let content = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: match content.is_empty() {
                true => Value::Null,
                false => serde_json::from_slice(&content).unwrap(),
            },
        }
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        let database = Database::empty().await;
        let folder = tempfile::tempdir().unwrap();
        let sockets = database.server.sockets().display();
        let url = format!("postgres://ashlar@localhost/{}?host={sockets}", database.name);
        let (catalog, keeper) = Catalog::open(Source::Url(url)).unwrap();
        let data_dir = folder.path().to_owned();
        let keeper = tokio::spawn(keeper.run(move |catalog, _| {
            let data_dir = data_dir.clone();
            async move {
                first_admin(&catalog, &data_dir)
                    .await
                    .map_err(|problem| problem.to_string())?;
                Ok(Identity {
                    appliance: Uuid::from_u128(0xa),
                    epoch: 0,
                })
            }
        }));
        let path = |name: &str| -> PathBuf { folder.path().join(name) };
        let app = App::new(Parts {
            catalog,
            catalog_kind: CatalogKind::Private,
            engine: Engine::begin(folder.path(), 1).await.unwrap(),
            sessions: Sessions::open(path("keys.json")).unwrap(),
            nbd_uri: "nbd://127.0.0.1:10809".to_owned(),
            data_dir: folder.path().to_owned(),
            limit_path: path("rate-limit.json"),
            support_folder: path("support"),
            log: LogRing::default(),
        });
        let app = Arc::new(app.unwrap());
        let world = Self {
            router: api::router(Arc::clone(&app)),
            app,
            database,
            folder,
            keeper,
        };
        world.ready().await;
        world
    }

    pub(crate) async fn ready(&self) {
        let mut state = self.app.catalog.state();
        within(state.wait_for(|state| *state == CatalogState::Ready))
            .await
            .unwrap();
    }

    pub(crate) fn password_file(&self) -> PathBuf {
        self.folder.path().join("admin-password")
    }

    pub(crate) fn first_password(&self) -> String {
        let text = std::fs::read_to_string(self.password_file()).unwrap();
        text.trim().to_owned()
    }

    pub(crate) fn ask(&self, method: &str, path: &str) -> Ask<'_> {
        Ask {
            world: self,
            request: Request::builder().method(method).uri(format!("/api/v1{path}")),
            origin: Origin::Network(HERE.parse().unwrap()),
            body: Body::empty(),
        }
    }

    pub(crate) async fn sign_in(&self, name: &str, password: &str) -> Reply {
        let body = json!({"name": name, "password": password});
        self.ask("POST", "/auth/login").json(&body).send().await
    }

    /// The first admin's access token.
    pub(crate) async fn admin(&self) -> String {
        let reply = self.sign_in("admin", &self.first_password()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.text("access_token")
    }

    /// Makes a user with [`PASSWORD`].
    pub(crate) async fn make(&self, admin: &str, name: &str, role: &str) -> Reply {
        let body = json!({"name": name, "password": PASSWORD, "role": role});
        let reply = self.ask("POST", "/users").by(admin).json(&body).send().await;
        assert_eq!(reply.status, 201, "{reply:?}");
        reply
    }

    /// A new user's access token.
    pub(crate) async fn user(&self, admin: &str, name: &str, role: &str) -> String {
        self.make(admin, name, role).await;
        self.sign_in(name, PASSWORD).await.text("access_token")
    }

    pub(crate) async fn token(&self, by: &str, body: &Value) -> Reply {
        self.ask("POST", "/tokens").by(by).json(body).send().await
    }

    /// Whether a credential lets anybody in.
    pub(crate) async fn lets_in(&self, credential: &str) -> bool {
        let reply = self.ask("GET", "/auth/me").by(credential).send().await;
        assert!(matches!(reply.status, 200 | 401), "{reply:?}");
        reply.status == 200
    }

    /// Everything that the catalog keeps, as text.
    pub(crate) async fn everything(&self) -> String {
        let tables = sqlx::query("select tablename from pg_tables where schemaname = 'public'")
            .fetch_all(&self.database.pool)
            .await
            .unwrap();
        let mut all = String::new();
        for table in tables {
            let table: String = table.get(0);
            let rows = sqlx::query(sqlx::AssertSqlSafe(format!("select t::text from {table} t")))
                .fetch_all(&self.database.pool)
                .await
                .unwrap();
            for row in rows {
                all.push_str(&row.get::<String, _>(0));
                all.push('\n');
            }
        }
        all
    }
}
