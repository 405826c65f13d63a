//! What people set of a RAID group: its name, how fast it copies, and when it is scrubbed.

use super::Appliance;
use super::error::VerbError;
use super::names::check_new;
use super::operation::answered;
use super::records::Record;
use super::scrubs::ScrubSchedule;
use crate::types::{GroupId, OperationId};

/// Settings of a group to be changed; the outer `None` leaves one as it is.
#[derive(Debug, Clone, Default)]
pub struct GroupChange {
    /// `Some(None)`: no name.
    pub name: Option<Option<String>>,
    /// Most bytes per second that it copies to its members. `Some(None)`: as fast as it goes.
    pub copy_limit: Option<Option<u64>>,
    /// `Some(None)`: it is scrubbed only when somebody asks for it.
    pub scrub_schedule: Option<Option<ScrubSchedule>>,
}

impl Appliance {
    /// Changes a group's settings. A limit holds at once, also for what is being copied.
    pub async fn change_group(
        &self,
        operation: OperationId,
        id: GroupId,
        change: GroupChange,
    ) -> Result<(), VerbError> {
        self.once(operation, async || {
            let GroupChange {
                name,
                copy_limit,
                scrub_schedule,
            } = change;
            let checked = self.ledger.store.read(|truth| {
                let group = truth.groups.find(id).ok_or(VerbError::NoSuchGroup(id))?;
                if let Some(Some(name)) = &name {
                    let owner = truth.group_names.owner(name);
                    check_new(name, owner.is_some_and(|it| it != id))?;
                }
                Ok::<_, VerbError>(group.number)
            });
            let number = checked.await?;
            let name = name.map(|name| Record::GroupName { group: id, name });
            let limit = copy_limit.map(|limit| Record::GroupCopyLimit { group: id, limit });
            let schedule = scrub_schedule.map(|schedule| Record::ScrubSchedule {
                group: id,
                schedule,
                since: self.keeper.clock.now(),
            });
            let records = name.into_iter().chain(limit).chain(schedule);
            let records = records.chain([answered(operation, &())]).collect();
            self.ledger.store.commit(records).await?;
            if let (Some(limit), Some(group)) = (copy_limit, self.group(number)) {
                group.set_standing_copy_limit(limit);
            }
            Ok(())
        })
        .await
    }
}
