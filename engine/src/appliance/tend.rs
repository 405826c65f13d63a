//! What goes on beside the requests of a group: making copies equal, and taking marks back while it is idle.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::raid::{Group, GroupState};

/// How often marks of idle regions are taken back, and how long a failed copy waits for its next try.
const PERIOD: Duration = Duration::from_secs(5);

/// The background task of a group; ends with this.
pub(super) struct Tending(JoinHandle<()>);

impl Tending {
    pub(super) fn of(group: &Arc<Group>) -> Self {
        Self(tokio::task::spawn_local(tend(Arc::clone(group))))
    }
}

impl Drop for Tending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn tend(group: Arc<Group>) {
    let mut last = 0;
    loop {
        if group.state() == GroupState::Failed {
            return;
        }
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
