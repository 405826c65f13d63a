//! Holding up what a RAID group copies to its members: the one place that asks the engine for it.

use ashlar_engine::types::GroupId;
use uuid::Uuid;

use super::{Engine, EngineError};

/// How a group is to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copying {
    pub paused: bool,
    /// Bytes per second.
    pub limit: Option<u64>,
}

impl Engine {
    /// Bounds what all groups copy together, in bytes per second.
    ///
    /// # Errors
    /// Where there is no appliance.
    pub async fn limit_copying(&self, all: Option<u64>) -> Result<(), EngineError> {
        self.with(async move |appliance| appliance.set_copy_limits(all))
            .await
    }

    /// Has a group copy so from now on. Returns whether it serves: one that does not has nothing to hold up.
    ///
    /// # Errors
    /// Where there is no appliance.
    pub async fn copy(&self, group: Uuid, copying: Copying) -> Result<bool, EngineError> {
        self.with(async move |appliance| {
            let Some(status) = appliance.find_group(GroupId(group)).await else {
                return false;
            };
            let Some(group) = appliance.group(status.record.number) else {
                return false;
            };
            // Each time begins its pace anew: only where it is another one.
            if group.copy_limit() != copying.limit {
                group.set_copy_limit(copying.limit);
            }
            if group.is_copy_paused() != copying.paused {
                group.set_copy_paused(copying.paused);
            }
            true
        })
        .await
    }
}
