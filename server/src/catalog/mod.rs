//! The catalog: what people manage, in Postgres. Accounts, tokens, intents and their answers, jobs, events, webhooks, the
//! audit log, and mirrors of the engine's objects for listing and searching.
//!
//! [`connect`] gets there, [`keeper`] keeps it usable, and each table has a module with its rows and what is done with
//! them. Their functions take a connection, so that a change, its event and its audit entry are one transaction.
//!
//! Invariants: serving hosts never waits for the catalog. A request that needs it waits for seconds at most: it is told
//! that the catalog is [`CatalogError::Unavailable`]. Row locks are taken before the lock of the event counter: within a
//! transaction, [`events::append`] comes last.

pub mod api_tokens;
pub mod audit;
pub mod connect;
pub mod devices;
pub mod error;
pub mod events;
pub mod exports;
pub mod idempotency;
pub mod identity;
pub mod jobs;
pub mod keeper;
pub mod mirror;
pub mod operations;
pub mod page;
pub mod raid_groups;
pub mod refresh_tokens;
pub mod sign_in_failures;
pub mod text;
pub mod users;
pub mod volumes;
pub mod webhook_deliveries;
pub mod webhooks;

use std::sync::Arc;

use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres, Transaction};
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

pub use connect::Source;
pub use error::CatalogError;
pub use identity::Identity;
pub use keeper::{Found, Keeper, Reconciled};
pub use mirror::Presence;
pub use page::{After, Page, Part};

/// Most rows that one call to a table's `prune` removes. Fewer were removed: there is no more to prune.
pub const PRUNE_BATCH: u64 = 10_000;
/// The same, for Postgres.
const PRUNE_LIMIT: i64 = 10_000;

/// How the catalog is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogState {
    /// It was not reached yet.
    Starting,
    Ready,
    /// It cannot be reached or used.
    Away {
        why: String,
        since: OffsetDateTime,
    },
    /// It was reached, and is being brought to what the engine says.
    Restoring,
}

struct Shared {
    pool: PgPool,
    state: watch::Sender<CatalogState>,
    suspected: Notify,
    /// Counts the changes that may have brought events.
    changes: watch::Sender<u64>,
}

/// The catalog, for everybody who uses it.
#[derive(Clone)]
pub struct Catalog {
    shared: Arc<Shared>,
    /// Works while it is restored: the handle of who restores it.
    before_ready: bool,
}

impl Catalog {
    /// Reaches for nothing yet: that the keeper does, once it runs.
    ///
    /// # Errors
    /// Where the source cannot be right.
    pub fn open(source: Source) -> Result<(Self, Keeper), CatalogError> {
        let options = source.options()?;
        let catalog = Self {
            shared: Arc::new(Shared {
                pool: connect::pool(&options),
                state: watch::Sender::new(CatalogState::Starting),
                suspected: Notify::new(),
                changes: watch::Sender::new(0),
            }),
            before_ready: false,
        };
        let keeper = Keeper {
            catalog: catalog.clone(),
            source,
            options,
            incarnation: Uuid::new_v4(),
            left: None,
        };
        Ok((catalog, keeper))
    }

    fn before_ready(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            before_ready: true,
        }
    }

    /// How it is, and each change of that.
    pub fn state(&self) -> watch::Receiver<CatalogState> {
        self.shared.state.subscribe()
    }

    /// A transaction, rolled back unless it is committed.
    ///
    /// # Errors
    /// [`CatalogError::Unavailable`] at once while the catalog is not ready, or where there is no connection to be had.
    pub async fn begin(&self) -> Result<Transaction<'static, Postgres>, CatalogError> {
        let begun = self.guard(async { Ok(self.shared.pool.begin().await?) }).await;
        self.suspect_after(begun)
    }

    /// A connection without a transaction: for one statement that reads.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub async fn acquire(&self) -> Result<PoolConnection<Postgres>, CatalogError> {
        let acquired = self.guard(async { Ok(self.shared.pool.acquire().await?) }).await;
        self.suspect_after(acquired)
    }

    /// Does the work for as long as the catalog is usable: a Postgres that stopped answering holds up nobody. The work
    /// is dropped then, and with it its transaction; whether a commit was reached is not known.
    ///
    /// # Errors
    /// The work's own, or [`CatalogError::Unavailable`].
    pub async fn guard<T, E: From<CatalogError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut state = self.state();
        tokio::select! {
            biased;
            why = self.unusable(&mut state) => Err(CatalogError::Unavailable(why).into()),
            done = work => done,
        }
    }

    /// Says that a query failed: the keeper looks at once.
    pub fn suspect(&self) {
        self.shared.suspected.notify_one();
    }

    /// Says that a change was committed: whoever follows the events looks.
    pub fn changed(&self) {
        self.shared.changes.send_modify(|changes| *changes += 1);
    }

    /// Each change that this process committed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Ends every connection but the keeper's.
    pub async fn close(&self) {
        self.shared.pool.close().await;
    }

    fn suspect_after<T>(&self, outcome: Result<T, CatalogError>) -> Result<T, CatalogError> {
        if matches!(outcome, Err(CatalogError::Unavailable(_))) {
            self.suspect();
        }
        outcome
    }

    /// Waits until the catalog cannot be used through this handle, and says why.
    async fn unusable(&self, state: &mut watch::Receiver<CatalogState>) -> String {
        let unusable = |state: &CatalogState| match state {
            CatalogState::Ready => false,
            CatalogState::Restoring => !self.before_ready,
            CatalogState::Starting | CatalogState::Away { .. } => true,
        };
        match state.wait_for(unusable).await.as_deref() {
            Ok(CatalogState::Away { why, .. }) => why.clone(),
            Ok(CatalogState::Restoring) => "it is being restored".into(),
            _ => "it was not reached yet".into(),
        }
    }
}
