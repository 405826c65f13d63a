//! The keeper: what it does when Postgres is killed, emptied, restored, or not ours.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ashlar_server::catalog::events::{self, NewEvent};
use ashlar_server::catalog::{Catalog, CatalogError, CatalogState, Found, Identity, Source, identity};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use sqlx::ConnectOptions as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::cluster::{Database, Server, within};

const APPLIANCE: Uuid = Uuid::from_u128(0xa);

/// A catalog that is kept until this is dropped.
struct Kept {
    catalog: Catalog,
    /// What each call to `reconcile` was told.
    found: mpsc::UnboundedReceiver<Found>,
    keeper: JoinHandle<()>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Kept {
    fn of(source: Source, epoch: i64) -> Self {
        let (catalog, keeper) = Catalog::open(source).unwrap();
        let (tell, found) = mpsc::unbounded_channel();
        let keeper = tokio::spawn(keeper.run(move |catalog, found| {
            let tell = tell.clone();
            async move {
                // It can be used by who restores it, before anybody else.
                catalog.begin().await?.commit().await?;
                tell.send(found)?;
                Ok(Identity {
                    appliance: APPLIANCE,
                    epoch,
                })
            }
        }));
        Self {
            catalog,
            found,
            keeper,
        }
    }

    fn private(server: &Server, epoch: i64) -> Self {
        Self::of(Source::Private(server.sockets().to_owned()), epoch)
    }

    async fn reconciled(&mut self) -> Found {
        let found = within(self.found.recv()).await.unwrap();
        self.is(|state| *state == CatalogState::Ready).await;
        found
    }

    async fn is(&self, wanted: impl Fn(&CatalogState) -> bool) {
        let mut state = self.catalog.state();
        let reached = tokio::time::timeout(Duration::from_secs(60), state.wait_for(|state| wanted(state)))
            .await
            .is_ok_and(|reached| reached.is_ok());
        assert!(reached, "{:?}", *self.catalog.state().borrow());
    }

    async fn newest(&self) -> Result<i64, CatalogError> {
        events::newest(&mut *self.catalog.acquire().await?).await
    }

    async fn append(&self) -> i64 {
        let event = NewEvent {
            kind: "k",
            subject_kind: "s",
            subject_id: None,
            data: &json!({}),
            engine: None,
        };
        let mut tx = self.catalog.begin().await.unwrap();
        let number = events::append(&mut tx, &event).await.unwrap();
        tx.commit().await.unwrap();
        number
    }
}

const EMPTY: Found = Found {
    identity: None,
    continued: false,
};

fn found(epoch: i64, continued: bool) -> Found {
    Found {
        identity: Some(Identity {
            appliance: APPLIANCE,
            epoch,
        }),
        continued,
    }
}

fn url(database: &Database) -> Source {
    let sockets = database.server.sockets().display();
    Source::Url(format!(
        "postgres://ashlar@localhost/{}?host={sockets}",
        database.name
    ))
}

fn kill(server: &Server) {
    let file = server.running.cluster().data().join("postmaster.pid");
    let text = std::fs::read_to_string(file).unwrap();
    let pid = text.lines().next().unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_killed_postgres_is_away_and_what_was_there_is_there_again() {
    let server = Server::start();
    let mut kept = Kept::private(&server, 1);
    // Its database does not exist yet.
    assert_eq!(kept.reconciled().await, EMPTY);
    assert_eq!(kept.append().await, 1);
    let mut away = kept.catalog.state();
    kill(&server);
    within(away.wait_for(|state| matches!(state, CatalogState::Away { .. })))
        .await
        .unwrap();
    assert_eq!(kept.reconciled().await, found(1, true));
    assert_eq!(kept.newest().await.unwrap(), 1);
}

#[tokio::test]
async fn requests_are_told_at_once_while_it_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let kept = Kept::of(Source::Private(folder.path().to_owned()), 1);
    kept.is(|state| matches!(state, CatalogState::Away { .. })).await;
    let refused = kept.newest().await;
    assert!(
        matches!(refused, Err(CatalogError::Unavailable(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn work_on_a_postgres_that_stopped_answering_is_given_up() {
    let server = Server::start();
    let mut kept = Kept::private(&server, 1);
    kept.reconciled().await;
    let mut tx = kept.catalog.begin().await.unwrap();
    let mut conn = server.options("ashlar").connect().await.unwrap();
    let ours: Vec<i32> =
        sqlx::query_scalar("select pid from pg_stat_activity where application_name = 'ashlar'")
            .fetch_all(&mut conn)
            .await
            .unwrap();
    let tell_ours = |signal| {
        for pid in &ours {
            kill_process(Pid::from_raw(*pid).unwrap(), signal).unwrap();
        }
    };
    tell_ours(Signal::STOP);
    let stuck = kept.catalog.guard(async { events::newest(&mut tx).await });
    let given_up = within(stuck).await;
    tell_ours(Signal::CONT);
    assert!(
        matches!(given_up, Err(CatalogError::Unavailable(_))),
        "{given_up:?}"
    );
    assert_eq!(kept.reconciled().await, found(1, true));
}

#[tokio::test]
async fn an_emptied_catalog_is_made_anew_and_reconciled() {
    let database = Database::empty().await;
    let mut kept = Kept::of(url(&database), 1);
    assert_eq!(kept.reconciled().await, EMPTY);
    kept.append().await;
    database.run("drop schema public cascade").await;
    let refused = kept.newest().await;
    assert!(
        matches!(refused, Err(CatalogError::Unavailable(_))),
        "{refused:?}"
    );
    kept.catalog.suspect();
    assert_eq!(kept.reconciled().await, EMPTY);
    assert_eq!(kept.append().await, 1);
    database
        .run(
            "truncate catalog_identity, events, event_counter cascade; \
             insert into event_counter (last) values (0)",
        )
        .await;
    assert_eq!(
        kept.reconciled().await,
        EMPTY,
        "without its rows it is empty, too"
    );
}

#[tokio::test]
async fn a_database_that_vanished_is_created_again() {
    let server = Server::start();
    let mut kept = Kept::private(&server, 1);
    assert_eq!(kept.reconciled().await, EMPTY);
    server.run("postgres", "drop database ashlar with (force)").await;
    assert_eq!(kept.reconciled().await, EMPTY);
}

#[tokio::test]
async fn the_epoch_of_an_older_dump_is_told() {
    let database = Database::empty().await;
    let mut first = Kept::of(url(&database), 1);
    assert_eq!(first.reconciled().await, EMPTY);
    drop(first);
    let mut second = Kept::of(url(&database), 2);
    assert_eq!(second.reconciled().await, found(1, false));
    // What a restored dump puts there: another life's row.
    database
        .run("update catalog_identity set epoch = 1, incarnation = gen_random_uuid()")
        .await;
    assert_eq!(second.reconciled().await, found(1, false));
    // A dump of this very moment, restored: the tables are not the same ones.
    let restored = "begin; \
         alter table catalog_identity rename to was; \
         create table catalog_identity (like was including all); \
         insert into catalog_identity select * from was; \
         drop table was; \
         commit";
    database.run(restored).await;
    assert_eq!(second.reconciled().await, found(2, false));
    // A copy of this life's cluster, put back: only the events tell.
    second.append().await;
    second.append().await;
    second.catalog.suspect();
    tokio::time::timeout(Duration::from_secs(60), async {
        // Until the keeper has seen them.
        while second.found.try_recv().is_err() {
            database.run("update event_counter set last = 2").await;
            tokio::task::yield_now().await;
            database.run("update event_counter set last = 0").await;
            second.catalog.suspect();
        }
    })
    .await
    .expect("it is told");
}

#[tokio::test]
async fn an_epoch_that_the_appliance_itself_noted_is_no_restored_dump() {
    let database = Database::empty().await;
    let mut kept = Kept::of(url(&database), 0);
    kept.reconciled().await;
    let mut conn = kept.catalog.acquire().await.unwrap();
    identity::set_epoch(&mut conn, 1).await.unwrap();
    drop(conn);
    drop(kept);
    let mut next = Kept::of(url(&database), 2);
    assert_eq!(next.reconciled().await, found(1, false));
}

#[tokio::test]
async fn a_second_appliance_on_the_same_database_is_refused_until_the_first_is_gone() {
    let database = Database::empty().await;
    let mut first = Kept::of(url(&database), 1);
    first.reconciled().await;
    let mut second = Kept::of(url(&database), 1);
    second
        .is(|state| matches!(state, CatalogState::Away { why, .. } if why.contains("another appliance")))
        .await;
    assert!(second.found.try_recv().is_err());
    drop(first);
    assert_eq!(second.reconciled().await, found(1, false));
}

#[tokio::test]
async fn tables_that_are_gone_without_their_list_are_not_taken_for_an_empty_catalog() {
    let database = Database::migrated().await;
    database.run("drop table catalog_identity").await;
    let kept = Kept::of(url(&database), 1);
    kept.is(|state| matches!(state, CatalogState::Away { why, .. } if why.contains("tables are gone")))
        .await;
}

#[tokio::test]
async fn a_catalog_of_a_newer_version_is_left_alone() {
    let database = Database::migrated().await;
    database
        .run(
            "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
             values (9999, 'later', true, '', 0)",
        )
        .await;
    let kept = Kept::of(url(&database), 1);
    kept.is(|state| matches!(state, CatalogState::Away { why, .. } if why.contains("newer version")))
        .await;
}

#[tokio::test]
async fn what_the_reconciliation_refuses_is_not_ready() {
    let database = Database::empty().await;
    let (catalog, keeper) = Catalog::open(url(&database)).unwrap();
    let refusing = tokio::spawn(keeper.run(|_catalog, _found| async { Err("it is somebody else's".into()) }));
    let mut state = catalog.state();
    let refused =
        |state: &CatalogState| matches!(state, CatalogState::Away { why, .. } if why.contains("else's"));
    within(state.wait_for(refused)).await.unwrap();
    refusing.abort();
}

#[tokio::test]
async fn a_reconciliation_that_postgres_left_alone_is_begun_again() {
    let server = Server::start();
    let (catalog, keeper) = Catalog::open(Source::Private(server.sockets().to_owned())).unwrap();
    let (begun, mut told) = mpsc::unbounded_channel();
    let calls = AtomicU32::new(0);
    let keeper = tokio::spawn(keeper.run(move |_catalog, _found| {
        let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
        let begun = begun.clone();
        async move {
            begun.send(())?;
            if first {
                // A query whose answer never comes.
                std::future::pending::<()>().await;
            }
            Ok(Identity {
                appliance: APPLIANCE,
                epoch: 1,
            })
        }
    }));
    within(told.recv()).await.unwrap();
    assert_eq!(*catalog.state().borrow(), CatalogState::Restoring);
    kill(&server);
    let mut state = catalog.state();
    within(state.wait_for(|state| *state == CatalogState::Ready))
        .await
        .unwrap();
    keeper.abort();
}
