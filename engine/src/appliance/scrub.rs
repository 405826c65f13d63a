//! Scrubs of groups: beginning and ending them, by a schedule too, and keeping how far they are.
//!
//! Invariants: a group has one scrub at a time. How far it is becomes durable from time to time, after what it has mended:
//! a start goes on there and compares some of it again, never less. A scrub that is over stands in the metadata before
//! anybody is told.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;
use tokio::time::Instant;

use super::Appliance;
use super::clock::Clock;
use super::error::VerbError;
use super::journal::Ledger;
use super::operation::answered;
use super::records::Record;
use super::scrubs::ScrubEnded;
use crate::event::{EventKind, Events};
use crate::io::IoError;
use crate::metadata::StoreError;
use crate::raid::{Group, GroupState, ScrubMode, ScrubRun, ScrubStep};
use crate::types::{GroupId, OperationId};

/// How often it is looked whether one is due, and how long one that failed waits for its next try.
const PERIOD: Duration = Duration::from_secs(10);
/// How far a scrub is becomes durable so often, or each time that this share of it was done.
const SAVED: Duration = Duration::from_secs(30);
const SHARE: u64 = 100;

/// What scrubs of all groups are kept with.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) ledger: Arc<Ledger>,
    pub(super) events: Arc<Events>,
    pub(super) clock: Rc<Clock>,
}

/// Why a scrub does not go on.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error("metadata: {0}")]
    Store(#[from] StoreError),
}

/// Scrubs a group when that was asked for or is due, until background work is to end.
pub(super) async fn tend(group: &Group, keeper: &Keeper) {
    while !group.is_halted() && group.state() != GroupState::Failed {
        if let Err(error) = keeper.begin_due(group).await {
            tracing::warn!(group = %group.number(), %error, "a scrub that is due could not be begun");
        }
        if let Err(error) = keeper.walk(group).await {
            tracing::warn!(group = %group.number(), %error, "a scrub could not go on");
        }
        let woken = tokio::time::timeout(PERIOD, group.scrub_changed());
        select(pin!(woken), pin!(group.halted())).await;
    }
}

impl Keeper {
    /// Begins a scrub, durably, with `records` beside it. `false`, and nothing changed, where one is under way.
    async fn begin(&self, group: &Group, run: ScrubRun, records: Vec<Record>) -> Result<bool, StoreError> {
        let _one_change = group.change_scrub().await;
        if group.scrub().is_some() {
            return Ok(false);
        }
        let run = ScrubRun {
            begun_at: self.clock.now(),
            ..run
        };
        let begun = Record::ScrubBegun {
            group: group.id(),
            run: run.clone(),
        };
        let all = std::iter::once(begun).chain(records);
        self.ledger.store.commit(all.collect()).await?;
        self.events.emit(EventKind::ScrubStarted {
            group: group.id(),
            mode: run.mode,
        });
        group.set_scrub(Some(run));
        Ok(true)
    }

    /// Begins what is due by the group's schedule. A group that is not whole waits: most of it could not be compared.
    async fn begin_due(&self, group: &Group) -> Result<(), StoreError> {
        let is_whole = group.state() == GroupState::Optimal && group.regions_to_sync() == 0;
        let Some(now) = self.clock.now().filter(|_| is_whole && group.scrub().is_none()) else {
            return Ok(());
        };
        let looked = self.ledger.store.read(|truth| {
            let scrubs = truth.scrubs.get(&group.id())?;
            let schedule = scrubs
                .schedule
                .filter(|_| scrubs.due().is_some_and(|due| due <= now));
            schedule.map(|schedule| schedule.mode)
        });
        if let Some(mode) = looked.await {
            let run = group.new_scrub(OperationId::random(&self.ledger.ids), mode);
            self.begin(group, run, Vec::new()).await?;
        }
        Ok(())
    }

    /// Walks on, where a scrub is under way, until it ends or is held up.
    async fn walk(&self, group: &Group) -> Result<(), Interrupted> {
        let Some(mut saved) = group.scrub() else {
            return Ok(());
        };
        let mut saved_at = Instant::now();
        let mut found = saved.findings.mismatched + saved.findings.unreadable;
        loop {
            let step = group.scrub_on().await?;
            let Some(run) = group.scrub().filter(|run| run.id == saved.id) else {
                return Ok(());
            };
            let findings = &run.findings;
            if found == 0 && findings.mismatched + findings.unreadable > 0 {
                found = findings.mismatched + findings.unreadable;
                self.events.emit(EventKind::ScrubMismatch {
                    group: group.id(),
                    findings: Box::new(findings.clone()),
                });
            }
            match step {
                ScrubStep::End => return Ok(self.end(group, run.id, false).await.map(drop)?),
                ScrubStep::Held => return self.save(group, &saved, run).await,
                ScrubStep::On => {}
            }
            let share = findings.total / SHARE;
            if saved_at.elapsed() >= SAVED || findings.done - saved.findings.done > share {
                self.save(group, &saved, run.clone()).await?;
                (saved, saved_at) = (run, Instant::now());
            }
        }
    }

    /// Writes down how far a scrub is, and before that makes durable what it has mended.
    async fn save(&self, group: &Group, saved: &ScrubRun, run: ScrubRun) -> Result<(), Interrupted> {
        if *saved == run {
            return Ok(());
        }
        group.flush_scrubbed().await?;
        let group = group.id();
        Ok(self
            .ledger
            .store
            .commit(vec![Record::ScrubAt { group, run }])
            .await?)
    }

    /// Ends a scrub, durably. Returns whether it was under way.
    async fn end(&self, group: &Group, id: OperationId, cancelled: bool) -> Result<bool, StoreError> {
        let _one_change = group.change_scrub().await;
        let Some(run) = group.scrub().filter(|run| run.id == id) else {
            return Ok(false);
        };
        let ended = ScrubEnded::of(run, self.clock.now(), cancelled);
        let record = Record::ScrubEnded {
            group: group.id(),
            ended: ended.clone(),
        };
        self.ledger.store.commit(vec![record]).await?;
        self.events.emit(EventKind::ScrubFinished {
            group: group.id(),
            mode: ended.mode,
            cancelled,
            findings: Box::new(ended.findings),
        });
        group.set_scrub(None);
        Ok(true)
    }
}

impl Appliance {
    /// Begins to scrub a group; the operation's identity is the scrub's. `limit`: most bytes per second.
    pub async fn start_scrub(
        &self,
        operation: OperationId,
        id: GroupId,
        mode: ScrubMode,
        limit: Option<u64>,
    ) -> Result<(), VerbError> {
        self.once(operation, async || {
            let number = self.group_number(id).await?;
            let group = self.serving_group(number)?;
            if group.state() == GroupState::Failed {
                return Err(VerbError::GroupWaits(number));
            }
            let run = ScrubRun {
                limit,
                ..group.new_scrub(operation, mode)
            };
            match self
                .keeper
                .begin(&group, run, vec![answered(operation, &())])
                .await?
            {
                true => Ok(()),
                false => Err(VerbError::ScrubRuns(number)),
            }
        })
        .await
    }

    /// Ends the scrub with this identity, where it is under way: what it has found so far is kept, and what it has mended
    /// stays mended.
    pub async fn cancel_scrub(&self, id: GroupId, scrub: OperationId) -> Result<(), VerbError> {
        let _turn = self.turn.lock().await;
        let group = self.serving_group(self.group_number(id).await?)?;
        group.flush_scrubbed().await?;
        self.keeper.end(&group, scrub, true).await?;
        Ok(())
    }

    /// Has the scrub with this identity go on or not, where it is under way, and as fast as that; over starts too.
    pub async fn hold_scrub(
        &self,
        id: GroupId,
        scrub: OperationId,
        paused: bool,
        limit: Option<u64>,
    ) -> Result<(), VerbError> {
        let _turn = self.turn.lock().await;
        let group = self.serving_group(self.group_number(id).await?)?;
        let _one_change = group.change_scrub().await;
        if group.scrub().is_none_or(|run| run.id != scrub) {
            return Ok(());
        }
        let Some(run) = group.hold_scrub(paused, limit) else {
            return Ok(());
        };
        // It is as it was last stored that a start goes on with: what it had mended by then is made durable first.
        group.flush_scrubbed().await?;
        let group = group.id();
        Ok(self
            .ledger
            .store
            .commit(vec![Record::ScrubAt { group, run }])
            .await?)
    }
}

#[cfg(test)]
mod tests;
