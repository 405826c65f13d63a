//! What goes on beside the requests of a group: making copies equal, taking marks back while it is idle, emptying the
//! journal, and [scrubbing](super::scrub). None waits for another: copying may take days, or be paused.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;
use tokio::task::JoinHandle;

use super::scrub::{self, Keeper};
use super::{Appliance, GroupSlot};
use crate::raid::{Group, GroupState};

/// How often marks of idle regions are taken back, and how long a failed copy waits for its next try.
const PERIOD: Duration = Duration::from_secs(5);

/// The background task of a group.
pub(super) struct Tending {
    group: Arc<Group>,
    /// `None` once it has ended.
    task: Option<JoinHandle<()>>,
}

impl Tending {
    pub(super) fn of(group: &Arc<Group>, keeper: &Keeper) -> Self {
        let work = tend(Arc::clone(group), keeper.clone());
        Self {
            group: Arc::clone(group),
            task: Some(tokio::task::spawn_local(work)),
        }
    }

    /// Ends the task at its next step, and waits for that: what it has begun is not cut off.
    pub(super) async fn end(mut self) {
        self.begin_end().await;
    }

    /// The same, for one that stays where it is.
    pub(super) fn begin_end(&mut self) -> impl Future<Output = ()> + use<> {
        self.group.halt();
        let (group, task) = (Arc::clone(&self.group), self.task.take());
        async move {
            let Some(task) = task else { return };
            if let Err(error) = task.await {
                tracing::error!(group = %group.number(), %error, "background work of a group failed");
            }
        }
    }
}

impl Drop for Tending {
    /// The appliance is dropped as it is: as good as a crash.
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn tend(group: Arc<Group>, keeper: Keeper) {
    let scrub = scrub::tend(&group, &keeper);
    tokio::join!(copy(&group), take_back(&group), make_room(&group), scrub);
}

fn is_to_be_tended(group: &Group) -> bool {
    !group.is_halted() && group.state() != GroupState::Failed
}

async fn copy(group: &Group) {
    while is_to_be_tended(group) {
        let unequal = group.regions_to_sync() > 0 || group.state() == GroupState::Rebuilding;
        if unequal
            && !group.is_copy_paused()
            && let Err(error) = group.sync().await
        {
            tracing::warn!(group = %group.number(), %error, "copies could not be made equal");
        }
        // Either way round: a member that joins is copied to at once.
        let _ = tokio::time::timeout(PERIOD, group.wants_sync()).await;
    }
}

async fn take_back(group: &Group) {
    let mut last = 0;
    while is_to_be_tended(group) {
        if let Err(error) = group.take_back_marks(&mut last).await {
            tracing::warn!(group = %group.number(), %error, "marks could not be taken back");
        }
        let _ = tokio::time::timeout(PERIOD, group.halted()).await;
    }
}

/// Empties the journal before writes have to wait for room.
async fn make_room(group: &Group) {
    while is_to_be_tended(group) {
        select(pin!(group.journal_fills()), pin!(group.halted())).await;
        if group.is_halted() {
            return;
        }
        if let Err(error) = group.empty_journal().await {
            tracing::warn!(group = %group.number(), %error, "the journal could not be emptied");
        }
    }
}

impl Appliance {
    /// Most bytes per second that all groups together copy in the background; `None`: as fast as it goes. Forgotten
    /// when the appliance ends.
    pub fn set_copy_limits(&self, all: Option<u64>) {
        self.copy_limit.set(all);
        for slot in self.groups.borrow().values() {
            if let GroupSlot::Serving { group, .. } = slot {
                group.copy_limit_changed();
            }
        }
    }
}

#[cfg(test)]
mod tests;
