//! What people set of a RAID group: its name, how fast it copies, when it is scrubbed, and what becomes of members that are
//! out or suspect.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Appliance;
use super::error::VerbError;
use super::names::check_new;
use super::operation::answered;
use super::records::Record;
use super::scrubs::ScrubSchedule;
use crate::types::{GroupId, OperationId};

/// How long a member that is merely absent is waited for, where nobody set it. A lost network device, or one that comes up
/// late after a start, is most often back within a minute, and then it needs only what it missed; a whole rebuild takes
/// hours, in which the group bears one failure less.
const USUAL_WAIT: Duration = Duration::from_secs(60);

/// What a group does about members that are out or suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CareSettings {
    /// Seconds that a member is out before a spare takes its place. `None`: none where its device failed while it served
    /// or was taken out, since that comes back by somebody's hand alone; a minute where it is merely absent.
    pub spare_after: Option<u32>,
    /// A spare takes a suspect member's place while the group is whole, and no other member is suspect. The group bears one
    /// failure less until the spare is copied to, and what only the suspect member can give is lost: so not unless told.
    pub replace_suspect: bool,
    /// Places that a device may lose: that it cannot read, or that do not fit their checksums. With more it is suspect.
    pub suspect_after: u32,
}

impl Default for CareSettings {
    fn default() -> Self {
        Self {
            spare_after: None,
            replace_suspect: false,
            suspect_after: 10,
        }
    }
}

impl CareSettings {
    /// How long a member is out before a spare takes its place.
    pub(super) fn wait(&self, is_absent: bool) -> Duration {
        match self.spare_after {
            Some(seconds) => Duration::from_secs(seconds.into()),
            None if is_absent => USUAL_WAIT,
            None => Duration::ZERO,
        }
    }
}

/// Settings of a group to be changed; the outer `None` leaves one as it is.
#[derive(Debug, Clone, Default)]
pub struct GroupChange {
    /// `Some(None)`: no name.
    pub name: Option<Option<String>>,
    /// Most bytes per second that it copies to its members. `Some(None)`: as fast as it goes.
    pub copy_limit: Option<Option<u64>>,
    /// `Some(None)`: it is scrubbed only when somebody asks for it.
    pub scrub_schedule: Option<Option<ScrubSchedule>>,
    /// See [`CareSettings`]. `Some(None)`: as is usual.
    pub spare_after: Option<Option<u32>>,
    pub replace_suspect: Option<bool>,
    pub suspect_after: Option<u32>,
}

impl GroupChange {
    /// What it makes of a group's care; `None` where it leaves that as it is.
    fn care(&self, known: CareSettings) -> Option<CareSettings> {
        let wanted = CareSettings {
            spare_after: self.spare_after.unwrap_or(known.spare_after),
            replace_suspect: self.replace_suspect.unwrap_or(known.replace_suspect),
            suspect_after: self.suspect_after.unwrap_or(known.suspect_after),
        };
        (wanted != known).then_some(wanted)
    }
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
            let checked = self.ledger.store.read(|truth| {
                let group = truth.groups.find(id).ok_or(VerbError::NoSuchGroup(id))?;
                if let Some(Some(name)) = &change.name {
                    let owner = truth.group_names.owner(name);
                    check_new(name, owner.is_some_and(|it| it != id))?;
                }
                let known = truth.care.get(&id).copied().unwrap_or_default();
                Ok::<_, VerbError>((group.number, change.care(known)))
            });
            let (number, care) = checked.await?;
            let GroupChange {
                name,
                copy_limit,
                scrub_schedule,
                ..
            } = change;
            let care = care.map(|care| Record::GroupCare { group: id, care });
            let name = name.map(|name| Record::GroupName { group: id, name });
            let limit = copy_limit.map(|limit| Record::GroupCopyLimit { group: id, limit });
            let schedule = scrub_schedule.map(|schedule| Record::ScrubSchedule {
                group: id,
                schedule,
                since: self.keeper.clock.now(),
            });
            let records = name.into_iter().chain(limit).chain(schedule).chain(care);
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
