//! Scrubs: the engine walks, and the job follows it. A scrub needs no job: one is made for every one that is under way, so
//! that it is seen and can be held up, whatever began it. What time it is, by which schedules go, the engine is told here.

use std::time::Duration;

use ashlar_engine::appliance::GroupStatus;
use ashlar_engine::raid::GroupState;
use ashlar_engine::types::{GroupId, OperationId};
use ashlar_openapi::jobs::JobKind;
use ashlar_openapi::{Problem, ProblemType};
use uuid::Uuid;

use super::work::{Cancelled, Outcome, Progress, Work};
use crate::app::jobs::make;
use crate::app::{App, no_such, scrubs};
use crate::background::transact;
use crate::catalog::CatalogError;
use crate::catalog::jobs::{Job, JobState};

/// How often the group is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Why a job ends whose scrub nobody knows any more.
const GONE: &str = "the RAID group does not know of this scrub any more";

/// Tells the engine what time it is.
pub async fn tell_time(app: &App) {
    let now = scrubs::seconds_now();
    // Where there is no appliance, there is nothing to begin.
    let _ = app
        .engine
        .with(async move |appliance| appliance.tell_time(now))
        .await;
}

/// Makes a job for every scrub that has none.
///
/// # Errors
/// Where the catalog is away.
pub async fn make_wanted(app: &App, unfinished: &[Job]) -> Result<(), CatalogError> {
    let serving = app.engine.with(async |appliance| {
        let mut statuses = appliance.group_statuses().await;
        statuses.retain(|status| !matches!(status.state, None | Some(GroupState::Failed)));
        statuses
    });
    let Ok(serving) = serving.await else { return Ok(()) };
    for status in serving {
        let Some(run) = status.scrub.running else { continue };
        let id = status.record.id.0;
        let of_group = |job: &Job| job.kind == JobKind::Scrub.as_str() && job.subject_id == id;
        if unfinished.iter().any(of_group) {
            continue;
        }
        let new = scrubs::job(id, run.id.0, Some(run.findings.total), run.limit);
        transact(&app.catalog, async move |connection| {
            make(connection, new, None).await
        })
        .await?;
        app.jobs.changed();
    }
    Ok(())
}

/// Follows the scrub to its end.
///
/// # Errors
/// Where the job is cancelled; then the scrub has ended.
pub async fn run(work: &mut Work) -> Result<Outcome, Cancelled> {
    let group = GroupId(work.job.subject_id);
    let scrub = work.job.params["scrub"]
        .as_str()
        .and_then(|text| text.parse::<Uuid>().ok());
    let scrub = OperationId(scrub.unwrap_or_default());
    loop {
        let control = work.control();
        let paused = control.state != JobState::Running;
        let asked = work.app.engine.with(async move |appliance| {
            let steered = match control.state {
                JobState::Cancelling => appliance.cancel_scrub(group, scrub).await,
                _ => appliance.hold_scrub(group, scrub, paused, control.limit).await,
            };
            (steered, appliance.find_group(group).await)
        });
        let waiting_for = match asked.await {
            Err(error) => Some(error.to_string()),
            Ok((_, None)) => return Ok(Outcome::Failed(no_such("RAID group", group.0))),
            Ok((steered, Some(status))) => match seen(&status, scrub) {
                Seen::Ended(outcome) => {
                    if let Some(last) = &status.scrub.last {
                        work.last_progress(progress(last.findings.done, last.findings.total))
                            .await;
                    }
                    return Ok(outcome);
                }
                Seen::Goes(now) => {
                    let why = steered.err().map(|error| error.to_string());
                    work.progress(Progress {
                        waiting_for: why,
                        ..now
                    })
                    .await;
                    work.control_changed(LOOK).await;
                    continue;
                }
                Seen::Waits(why) => Some(why),
            },
        };
        let done = u64::try_from(work.job.bytes_done).unwrap_or(0);
        let total = work.job.bytes_total.and_then(|total| u64::try_from(total).ok());
        work.progress(Progress {
            done,
            total,
            waiting_for,
        })
        .await;
        work.control_changed(LOOK).await;
    }
}

enum Seen {
    Goes(Progress),
    Waits(String),
    Ended(Outcome),
}

fn seen(status: &GroupStatus, scrub: OperationId) -> Seen {
    if let Some(last) = status.scrub.last.as_ref().filter(|last| last.id == scrub) {
        return Seen::Ended(match last.cancelled {
            true => Outcome::Cancelled(None),
            false => Outcome::Succeeded(serde_json::to_value(scrubs::findings(&last.findings)).ok()),
        });
    }
    match (status.state, &status.scrub.running) {
        (None, _) => {
            let why = status.waiting.as_ref().map_or("members", |waiting| waiting.why);
            Seen::Waits(format!("the RAID group: {why}"))
        }
        (Some(GroupState::Failed), _) => Seen::Ended(Outcome::Failed(Problem::new(
            ProblemType::RaidGroupWaiting,
            format!("RAID group {} failed", status.record.number),
            "bring its devices back: the scrub goes on then",
        ))),
        (_, Some(run)) if run.id == scrub => Seen::Goes(progress(run.findings.done, run.findings.total)),
        _ => Seen::Ended(Outcome::Cancelled(Some(GONE))),
    }
}

fn progress(done: u64, total: u64) -> Progress {
    Progress {
        done,
        total: Some(total),
        waiting_for: None,
    }
}
