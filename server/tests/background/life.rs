//! An appliance for a test, and the next life of it on the same data folder and database.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ashlar_engine::appliance::{Appliance, GroupStatus};
use ashlar_engine::types::GroupId;
use ashlar_openapi::appliance::CatalogKind;
use ashlar_openapi::devices::{DeviceSource, NewDevice};
use ashlar_openapi::{Bytes, Operation};
use ashlar_server::app::change::NewEvent;
use ashlar_server::app::intent::Intent;
use ashlar_server::app::{Answer, App, Caller, Key, Parts};
use ashlar_server::auth::Actor;
use ashlar_server::auth::sessions::Sessions;
use ashlar_server::background::{self, Background};
use ashlar_server::catalog::events::{self, EventFilter};
use ashlar_server::catalog::jobs::Job;
use ashlar_server::catalog::{Catalog, CatalogState, Identity, Source};
use ashlar_server::engine::Engine;
use ashlar_server::log_ring::LogRing;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::cluster::{Database, within};

pub(crate) struct Life {
    pub(crate) app: Arc<App>,
    pub(crate) database: Arc<Database>,
    folder: Arc<tempfile::TempDir>,
    keeper: JoinHandle<()>,
    background: Option<Background>,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Life {
    /// An appliance whose catalog is ready, and which does nothing by itself.
    pub(crate) async fn idle() -> Self {
        let database = Database::migrated().await;
        // Somebody is there, so that the start makes no administrator: event numbers begin with what a test does.
        database
            .run(
                "insert into users (id, name, password_hash, role, enabled) \
                 values ('00000000-0000-4000-8000-000000000001', 'somebody', '$argon2id$v=19$', 'admin', true)",
            )
            .await;
        Self::of(Arc::new(database), Arc::new(tempfile::tempdir().unwrap())).await
    }

    pub(crate) async fn busy() -> Self {
        let mut life = Self::idle().await;
        life.start();
        life
    }

    async fn of(database: Arc<Database>, folder: Arc<tempfile::TempDir>) -> Self {
        let url = format!(
            "postgres://ashlar@localhost/{}?host={}",
            database.name,
            database.server.sockets().display()
        );
        let (catalog, keeper) = Catalog::open(Source::Url(url)).unwrap();
        let app = App::new(Parts {
            catalog,
            catalog_kind: CatalogKind::External,
            engine: Engine::begin(folder.path(), 1).await.unwrap(),
            sessions: Sessions::open(folder.path().join("keys.json")).unwrap(),
            nbd_uri: "nbd://127.0.0.1".into(),
            data_dir: folder.path().to_owned(),
            limit_path: folder.path().join("limit.json"),
            support_folder: folder.path().join("support"),
            log: LogRing::default(),
        });
        let app = Arc::new(app.unwrap());
        // What is brought to the catalog at a start is not what these tests look at: its events would be in the way.
        let for_keeper = Arc::clone(&app);
        let keeper = tokio::spawn(keeper.run(move |_, _| {
            let app = Arc::clone(&for_keeper);
            async move {
                Ok(Identity {
                    appliance: app.engine.id().0,
                    epoch: app.epoch().await,
                })
            }
        }));
        let life = Self {
            app,
            database,
            folder,
            keeper,
            background: None,
        };
        let mut state = life.app.catalog.state();
        within(state.wait_for(|state| *state == CatalogState::Ready))
            .await
            .unwrap();
        life
    }

    pub(crate) fn start(&mut self) {
        self.background = Some(background::start(Arc::clone(&self.app)));
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(background) = self.background.take() {
            within(background::stop(background)).await;
        }
    }

    /// Ends this life, and begins the next one.
    pub(crate) async fn next(mut self) -> Self {
        self.stop().await;
        self.app.engine.stop().await;
        self.app.catalog.close().await;
        self.keeper.abort();
        let _ = (&mut self.keeper).await;
        Self::of(Arc::clone(&self.database), Arc::clone(&self.folder)).await
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Somebody at the maintenance socket.
    pub(crate) fn caller<O: Operation>() -> Caller {
        Caller {
            actor: Actor::maintenance("root".into()),
            request_id: Uuid::new_v4().to_string(),
            operation: O::ID,
            key: None,
        }
    }

    pub(crate) fn keyed<O: Operation>(key: &str) -> Caller {
        Caller {
            key: Some(Key {
                key: key.into(),
                fingerprint: [7; 32],
            }),
            ..Self::caller::<O>()
        }
    }

    /// Makes a file that is known as a device's place, and no more.
    pub(crate) fn place(&self) -> Uuid {
        let id = Uuid::new_v4();
        let path = self.path().join(id.to_string());
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        self.app
            .engine
            .locations
            .note(id, &file(&path, None), None)
            .unwrap();
        id
    }

    /// Adds a device.
    pub(crate) async fn device(&self, size: u64) -> Uuid {
        let id = Uuid::new_v4();
        let new = NewDevice {
            id: Some(id),
            name: None,
            source: file(&self.path().join(id.to_string()), Some(size)),
            force: false,
        };
        self.change::<ashlar_openapi::operations::AddDevice>(Intent::AddDevice { id, new })
            .await;
        id
    }

    pub(crate) async fn change<O: Operation>(&self, intent: Intent) -> Answer {
        let caller = Self::caller::<O>();
        self.app.change(&caller, intent, async |_| Ok(())).await.unwrap()
    }

    /// The job, once it is as wanted.
    pub(crate) async fn job(&self, id: Uuid, wanted: impl Fn(&Job) -> bool) -> Job {
        until(async || Some(self.app.job(id).await.unwrap()).filter(&wanted)).await
    }

    /// What the engine says of a RAID group.
    pub(crate) async fn status(&self, group: Uuid) -> GroupStatus {
        let find = async move |appliance: &Appliance| appliance.find_group(GroupId(group)).await;
        self.app.engine.with(find).await.unwrap().unwrap()
    }

    /// Every event that there is, oldest first.
    pub(crate) async fn events(&self) -> Vec<events::Event> {
        let connection = &mut *self.app.catalog.acquire().await.unwrap();
        events::after(connection, 0, &EventFilter::default(), 100_000)
            .await
            .unwrap()
    }

    /// Writes events of one kind, and tells of them.
    pub(crate) async fn append(&self, kind: &'static str, count: usize) {
        for _ in 0..count {
            self.append_event(NewEvent {
                kind,
                subject_kind: "volume",
                subject: Uuid::from_u128(7),
                data: serde_json::json!({}),
            })
            .await;
        }
    }

    pub(crate) async fn append_event(&self, event: NewEvent) {
        let mut transaction = self.app.catalog.begin().await.unwrap();
        let new = events::NewEvent {
            kind: event.kind,
            subject_kind: event.subject_kind,
            subject_id: Some(event.subject),
            data: &event.data,
            engine: None,
        };
        events::append(&mut transaction, &new).await.unwrap();
        transaction.commit().await.unwrap();
        self.app.catalog.changed();
    }
}

fn file(path: &Path, size: Option<u64>) -> DeviceSource {
    DeviceSource::File {
        path: path.display().to_string(),
        size_bytes: size.map(Bytes),
        cache: None,
    }
}

/// What an answer says.
pub(crate) fn body<T: DeserializeOwned>(answer: &Answer) -> T {
    serde_json::from_str(answer.body.as_ref().unwrap().get()).unwrap()
}

/// Looks again and again until there is something; fails where that takes forever.
pub(crate) async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    within(async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}
