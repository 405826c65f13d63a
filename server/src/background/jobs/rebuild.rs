//! Rebuilds: the engine copies, and the job follows it. Copying needs no job: one is made for every group that copies, so
//! that it is seen and can be held up, whatever began it.

use std::time::Duration;

use ashlar_engine::appliance::{Appliance, GroupStatus};
use ashlar_engine::raid::GroupState;
use ashlar_engine::types::GroupId;
use ashlar_openapi::jobs::JobKind;
use ashlar_openapi::{Problem, ProblemType};
use serde_json::json;

use super::work::{Cancelled, Outcome, Progress, Work};
use crate::app::jobs::{NewJob, make};
use crate::app::{App, no_such};
use crate::background::transact;
use crate::catalog::CatalogError;
use crate::catalog::jobs::{Job, JobState};
use crate::engine::copying::Copying;

/// How often the group is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Bytes that the group has still to copy.
fn left(status: &GroupStatus) -> u64 {
    status.regions_to_sync as u64 * status.record.region
}

/// Makes a job for every group that copies and has none.
///
/// # Errors
/// Where the catalog is away.
pub async fn make_wanted(app: &App, unfinished: &[Job]) -> Result<(), CatalogError> {
    let copying = app.engine.with(async |appliance| {
        let statuses = appliance.group_statuses().await;
        statuses.into_iter().filter(copies).collect::<Vec<_>>()
    });
    let Ok(copying) = copying.await else { return Ok(()) };
    for status in copying {
        let id = status.record.id.0;
        let of_group = |job: &&Job| job.kind == JobKind::Rebuild.as_str() && job.subject_id == id;
        if unfinished.iter().any(|job| of_group(&job)) {
            continue;
        }
        let new = NewJob {
            kind: JobKind::Rebuild,
            subject_kind: "raid_group",
            subject: id,
            params: json!({}),
            bytes_total: Some(left(&status)),
        };
        transact(&app.catalog, async move |connection| {
            make(connection, new, None).await
        })
        .await?;
        app.jobs.changed();
    }
    Ok(())
}

fn copies(status: &GroupStatus) -> bool {
    match status.state {
        Some(GroupState::Rebuilding) => true,
        // After a crash copies are made equal that all members have.
        Some(GroupState::Optimal) => status.regions_to_sync > 0,
        Some(GroupState::Degraded | GroupState::Failed) | None => false,
    }
}

/// Follows the group until it is equal.
pub async fn run(work: &mut Work) -> Result<Outcome, Cancelled> {
    let group = work.job.subject_id;
    let mut followed = Followed {
        total: work
            .job
            .bytes_total
            .and_then(|total| u64::try_from(total).ok())
            .unwrap_or(0),
        done: u64::try_from(work.job.bytes_done).unwrap_or(0),
    };
    let outcome = loop {
        let control = work.control();
        let copying = Copying {
            paused: control.state != JobState::Running,
            limit: control.limit,
        };
        let engine = &work.app.engine;
        let found = match engine.copy(group, copying).await {
            Ok(_) => {
                let find = async move |appliance: &Appliance| appliance.find_group(GroupId(group)).await;
                engine.with(find).await
            }
            Err(error) => Err(error),
        };
        let waiting_for = match found {
            Err(error) => Some(error.to_string()),
            Ok(None) => break Outcome::Failed(no_such("RAID group", group)),
            Ok(Some(status)) => {
                followed.see(left(&status));
                match seen(&status) {
                    Seen::Copies => None,
                    Seen::Waits(why) => Some(why),
                    Seen::Ended(outcome) => break outcome,
                }
            }
        };
        work.progress(followed.progress(waiting_for)).await;
        work.control_changed(LOOK).await;
    };
    if outcome == Outcome::Succeeded(None) {
        followed.see(0);
    }
    work.last_progress(followed.progress(None)).await;
    let unlimited = Copying {
        paused: false,
        limit: None,
    };
    // Where there is no engine any more there is nothing to set free.
    let _ = work.app.engine.copy(group, unlimited).await;
    Ok(outcome)
}

enum Seen {
    Copies,
    Waits(String),
    Ended(Outcome),
}

fn seen(status: &GroupStatus) -> Seen {
    match status.state {
        None => {
            let why = status.waiting.as_ref().map_or("members", |waiting| waiting.why);
            Seen::Waits(format!("the RAID group: {why}"))
        }
        Some(GroupState::Failed) => Seen::Ended(Outcome::Failed(Problem::new(
            ProblemType::RaidGroupWaiting,
            format!("RAID group {} failed", status.record.number),
            "bring its devices back",
        ))),
        Some(GroupState::Degraded) => {
            Seen::Waits("a device to copy to: return the one that is out, or replace it".to_owned())
        }
        Some(GroupState::Optimal) if status.regions_to_sync == 0 => Seen::Ended(Outcome::Succeeded(None)),
        Some(GroupState::Optimal | GroupState::Rebuilding) => Seen::Copies,
    }
}

/// What was copied, from what is left: that can grow, for hosts write and devices come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Followed {
    total: u64,
    done: u64,
}

impl Followed {
    fn see(&mut self, left: u64) {
        self.total = self.total.max(self.done + left);
        self.done = self.total - left;
    }

    fn progress(self, waiting_for: Option<String>) -> Progress {
        Progress {
            done: self.done,
            total: Some(self.total),
            waiting_for,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_done_never_goes_back_and_never_beyond_the_whole(left in proptest::collection::vec(0..1000_u64, 1..50)) {
            let mut followed = Followed { total: left[0], done: 0 };
            for left in left {
                let before = followed.done;
                followed.see(left);
                prop_assert!(followed.done >= before);
                prop_assert_eq!(followed.total - followed.done, left);
            }
        }
    }
}
