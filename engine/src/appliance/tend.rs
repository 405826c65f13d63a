//! What goes on beside the requests of a group: making copies equal, and taking marks back while it is idle.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

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
    pub(super) fn of(group: &Arc<Group>) -> Self {
        Self {
            group: Arc::clone(group),
            task: Some(tokio::task::spawn_local(tend(Arc::clone(group)))),
        }
    }

    /// Ends the task at its next step, and waits for that: what it has begun is not cut off.
    pub(super) async fn end(mut self) {
        self.group.halt();
        let Some(task) = self.task.take() else { return };
        if let Err(error) = task.await {
            tracing::error!(group = %self.group.number(), %error, "background work of a group failed");
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

async fn tend(group: Arc<Group>) {
    let mut last = 0;
    while !group.is_halted() && group.state() != GroupState::Failed {
        let unequal = group.regions_to_sync() > 0 || group.state() == GroupState::Rebuilding;
        if unequal && let Err(error) = group.sync().await {
            tracing::warn!(group = %group.number(), %error, "copies could not be made equal");
        }
        if let Err(error) = group.take_back_marks(&mut last).await {
            tracing::warn!(group = %group.number(), %error, "marks could not be taken back");
        }
        // Either way round: a member that joins is copied to at once.
        let _ = tokio::time::timeout(PERIOD, group.wants_sync()).await;
    }
}
