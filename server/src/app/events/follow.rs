//! Following the events: a stream of server-sent events for one listener.
//!
//! ```text
//!   catching up ──nothing newer in the catalog──► live ──too slow, or a number is missing──► catching up
//! ```
//! Invariants: within one stream numbers only grow, but for a catalog that was replaced by an older one; no event that
//! the filter lets through is left out without an `events.lost` that says so. While the catalog is away the stream stays.
//! Who listens is looked at again whenever accounts were changed, and with each heartbeat for what only expires: a
//! stream ends with what let its listener in.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ashlar_openapi::events::{Event, EventFilter};
use ashlar_openapi::{Bytes, Problem, Timestamp};
use axum::body::Bytes as Chunk;
use futures_util::Stream;
use serde_json::json;
use time::OffsetDateTime;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::{Interval, MissedTickBehavior};

use super::feed::{Frame, Told, sse};
use super::{catalog_filter, stored, view};
use crate::app::{App, reading};
use crate::catalog::{CatalogState, events};

/// A comment is sent so often, so that both ends see that the other one is there.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events that are read at once.
const BATCH: u32 = 500;
/// Before the catalog is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// What a listener hears first, once it is known where it goes on from: whatever happens after this is told.
const HELLO: &[u8] = b": events follow\n\n";
const BEAT: &[u8] = b":\n\n";

struct Listener<M> {
    app: Arc<App>,
    still_may: M,
    /// Accounts may have changed since it was seen that the listener may listen.
    doubtful: bool,
    filter: EventFilter,
    sees_accounts: bool,
    told: broadcast::Receiver<Told>,
    /// Number of the last event that was sent or passed over; `None`: from now on, once the catalog is there.
    last: Option<u64>,
    live: bool,
    greeted: bool,
    ready: VecDeque<Chunk>,
    heartbeat: Interval,
    catalog: watch::Receiver<CatalogState>,
}

/// Events after the number, or from now on, until the appliance stops or the listener may not listen any more. Those of
/// accounts are told to whoever sees accounts.
pub fn follow<M, F>(
    app: Arc<App>,
    filter: EventFilter,
    sees_accounts: bool,
    after: Option<u64>,
    still_may: M,
) -> impl Stream<Item = Result<Chunk, Infallible>> + Send + 'static
where
    M: Fn() -> F + Send + 'static,
    F: Future<Output = bool> + Send,
{
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat.reset();
    let listener = Listener {
        // Before anything is read: what comes meanwhile is told.
        told: app.feed.subscribe(),
        catalog: app.catalog.state(),
        app,
        still_may,
        // Who listens was let in before what comes is told.
        doubtful: true,
        filter,
        sees_accounts,
        last: after,
        live: false,
        greeted: false,
        ready: VecDeque::new(),
        heartbeat,
    };
    futures_util::stream::unfold(listener, async |mut listener| {
        let chunk = listener.next().await?;
        Some((Ok(chunk), listener))
    })
}

impl<M, F> Listener<M>
where
    M: Fn() -> F,
    F: Future<Output = bool>,
{
    async fn next(&mut self) -> Option<Chunk> {
        loop {
            if *self.app.stopping.borrow() {
                return None;
            }
            if std::mem::take(&mut self.doubtful) && !(self.still_may)().await {
                return None;
            }
            if let Some(chunk) = self.ready.pop_front() {
                return Some(chunk);
            }
            let beat = if self.live {
                self.listen().await
            } else {
                self.catch_up_or_wait().await
            };
            if !self.greeted {
                self.greeted = true;
                return Some(Chunk::from_static(HELLO));
            }
            if beat {
                self.doubtful = true;
                return Some(Chunk::from_static(BEAT));
            }
        }
    }

    /// Waits for what is told. Returns whether it is time for a heartbeat.
    async fn listen(&mut self) -> bool {
        let told = tokio::select! {
            told = self.told.recv() => told,
            _ = self.heartbeat.tick() => return true,
            () = self.app.until_stopping() => return false,
        };
        let last = self.last.unwrap_or(0);
        match told {
            Ok(Told::Event(frame)) if frame.number <= last => {}
            Ok(Told::Event(frame)) if frame.number == last + 1 => self.take(&frame),
            Ok(Told::Begun | Told::Event(_)) | Err(RecvError::Lagged(_) | RecvError::Closed) => {
                self.live = false;
            }
            Ok(Told::WentBack(newest)) => self.go_back(newest),
        }
        false
    }

    fn take(&mut self, frame: &Frame) {
        self.last = Some(frame.number);
        self.doubtful |= frame.concerns_accounts();
        if frame.passes(&self.filter) && (self.sees_accounts || !frame.concerns_accounts()) {
            self.ready.push_back(frame.text.clone());
        }
    }

    fn go_back(&mut self, newest: u64) {
        let last = self.last.unwrap_or(0);
        if last > newest {
            self.lost(newest + 1, last, newest);
        }
        self.live = false;
    }

    /// Says that events from one number to another cannot be had any more, and goes on after `last`.
    fn lost(&mut self, from: u64, to: u64, last: u64) {
        let event = Event {
            number: Bytes(to),
            kind: "events.lost".into(),
            subject: None,
            at: Timestamp(OffsetDateTime::now_utc()),
            data: json!({"from": from, "to": to}),
        };
        self.last = Some(last);
        self.ready.push_back(sse(last, &event).into());
    }

    /// Reads what the catalog has. Returns whether it is time for a heartbeat.
    async fn catch_up_or_wait(&mut self) -> bool {
        let caught_up = tokio::select! {
            caught_up = self.app.read_after(self.last, &self.filter) => caught_up,
            _ = self.heartbeat.tick() => return true,
        };
        match caught_up {
            Ok(read) => {
                self.add(read);
                false
            }
            Err(problem) => {
                tracing::debug!(%problem, "a listener waits for the catalog");
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => false,
                    _ = self.catalog.changed() => false,
                    () = self.app.until_stopping() => false,
                    _ = self.heartbeat.tick() => true,
                }
            }
        }
    }

    fn add(&mut self, read: Read) {
        let last = self.last.unwrap_or(read.newest);
        self.last = Some(last);
        if last > read.newest {
            self.lost(read.newest + 1, last, read.newest);
        } else if last + 1 < read.oldest {
            self.lost(last + 1, read.oldest - 1, read.oldest - 1);
        }
        let whole = u32::try_from(read.rows.len()).is_ok_and(|rows| rows < BATCH);
        for row in read.rows {
            self.take(&Frame::of(&view(row)));
        }
        // What the filter does not let through was not looked at.
        self.doubtful = true;
        if whole {
            // All up to the newest one was seen.
            self.last = self.last.max(Some(read.newest));
            self.live = true;
        }
    }
}

/// What the catalog has after a number.
struct Read {
    rows: Vec<events::Event>,
    /// Number of the last event there was before the rows were read.
    newest: u64,
    /// Number of the oldest event that is kept, after the rows were read; one more than the newest where there is none.
    oldest: u64,
}

impl App {
    /// Events after the number; none where there is no number, but where it would go on.
    async fn read_after(&self, last: Option<u64>, filter: &EventFilter) -> Result<Read, Problem> {
        let wanted = catalog_filter(filter);
        let number = |number: i64| u64::try_from(number).unwrap_or(0);
        reading(&self.catalog, async |connection| {
            let newest = events::newest(connection).await?;
            let rows = match last {
                Some(last) => events::after(connection, stored(last), &wanted, BATCH).await?,
                None => Vec::new(),
            };
            let oldest = events::oldest(connection).await?;
            Ok(Read {
                rows,
                newest: number(newest),
                oldest: number(oldest.unwrap_or(newest + 1)),
            })
        })
        .await
    }
}
