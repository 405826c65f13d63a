//! Rebuilds: the engine copies, and the job follows it. Copying needs no job: one is made for every group that copies, so
//! that it is seen and can be held up, whatever began it.

use std::time::Duration;

use ashlar_engine::appliance::{Appliance, GroupStatus};
use ashlar_engine::raid::{CopyProgress, GroupState};
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
            bytes_total: Some(status.copy.left),
            limit: None,
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
    let mut followed = Followed::since(u64::try_from(work.job.bytes_done).unwrap_or(0));
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
                followed.see(status.copy);
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

/// What was copied. The engine counts anew with each copying that begins, and with each start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Followed {
    /// By copyings before the one that goes on.
    before: u64,
    now: CopyProgress,
}

impl Followed {
    /// From where an earlier life of the process has come to.
    fn since(before: u64) -> Self {
        let now = CopyProgress::default();
        Self { before, now }
    }

    fn see(&mut self, copy: CopyProgress) {
        if copy.done < self.now.done {
            self.before += self.now.done;
        }
        self.now = copy;
    }

    fn done(self) -> u64 {
        self.before + self.now.done
    }

    fn progress(self, waiting_for: Option<String>) -> Progress {
        Progress {
            done: self.done(),
            total: Some(self.done() + self.now.left),
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
        fn what_is_done_never_goes_back_and_never_beyond_the_whole(
            before in 0..1000_u64,
            seen in proptest::collection::vec((0..1000_u64, 0..1000_u64), 1..50),
        ) {
            let mut followed = Followed::since(before);
            for (done, left) in seen {
                let last = followed.done();
                followed.see(CopyProgress { done, left });
                prop_assert!(followed.done() >= last);
                let progress = followed.progress(None);
                prop_assert_eq!(progress.total.unwrap() - progress.done, left);
            }
        }
    }

    #[test]
    fn copyings_one_after_the_other_add_up() {
        let mut followed = Followed::since(5);
        for (done, left) in [(0, 10), (10, 0), (0, 4), (3, 1)] {
            followed.see(CopyProgress { done, left });
        }
        let progress = followed.progress(None);
        assert_eq!((progress.done, progress.total), (18, Some(19)));
    }
}
