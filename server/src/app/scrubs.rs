//! Scrubs of RAID groups: asking for one, and showing what they found.

use ashlar_engine::appliance::{ScrubEnded as Ended, ScrubSchedule as Schedule, ScrubStatus};
use ashlar_engine::raid::{ScrubFindings as Found, ScrubMode as EngineMode, ScrubRun};
use ashlar_engine::types::{GroupId, OperationId};
use ashlar_openapi::jobs::JobKind;
use ashlar_openapi::scrubs::{
    Scrub, ScrubEnded, ScrubFindings, ScrubMode, ScrubPlace, ScrubRunning, ScrubSchedule, Scrubs,
};
use ashlar_openapi::{Bytes, Natural, Problem, ProblemType, Timestamp};
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::App;
use super::change::Audited;
use super::jobs::NewJob;
use super::operations::Done;
use super::show::Show;

/// Begins a scrub, whose identity is the operation's; it is followed by a job.
pub async fn start(app: &App, operation: Uuid, id: Uuid, wanted: Scrub) -> Result<Done, Problem> {
    let mode = to_engine(wanted.mode);
    let limit = wanted.rate_limit_bytes_per_s.map(|limit| limit.0);
    let total = app
        .verb(async move |appliance| {
            let (operation, id) = (OperationId(operation), GroupId(id));
            appliance.tell_time(seconds_now());
            appliance.start_scrub(operation, id, mode, limit).await?;
            let Some(status) = appliance.find_group(id).await else {
                return Ok(None);
            };
            // Asked for again after a crash, it may be over.
            let running = status.scrub.running.map(|run| (run.id, run.findings.total));
            let last = status.scrub.last.map(|last| (last.id, last.findings.total));
            let mut known = [running, last].into_iter().flatten();
            Ok(known.find(|(of, _)| *of == operation).map(|(_, total)| total))
        })
        .await?;
    Ok(Done {
        touched: Vec::new(),
        show: Show::Job(job(id, operation, total, limit)),
        // The engine tells of the beginning itself: scrubs begin by schedules too.
        event: None,
        audited: Audited {
            object_kind: "raid_group",
            object: id,
            before: None,
            after: Some(json!({"scrub": wanted})),
        },
    })
}

/// The job that follows a scrub.
pub fn job(group: Uuid, scrub: Uuid, total: Option<u64>, limit: Option<u64>) -> NewJob {
    NewJob {
        kind: JobKind::Scrub,
        subject_kind: "raid_group",
        subject: group,
        params: json!({"scrub": scrub}),
        bytes_total: total,
        limit,
    }
}

/// Whether a group may be scrubbed so.
///
/// # Errors
/// Where the time is none that a schedule can have.
pub fn check_schedule(schedule: Option<ScrubSchedule>) -> Result<(), Problem> {
    let most = ScrubSchedule::MOST_HOURS;
    match schedule.map(|schedule| schedule.every_hours.0) {
        Some(hours) if !(1..=most).contains(&hours) => Err(Problem::new(
            ProblemType::InvalidValue,
            format!("{hours} hours are not possible between scrubs"),
            format!("give 1 to {most} hours, or null for no schedule"),
        )
        .at("/scrub_schedule/every_hours")),
        _ => Ok(()),
    }
}

/// A schedule as the engine has it.
pub fn schedule_to_engine(schedule: ScrubSchedule) -> Schedule {
    Schedule {
        every_hours: schedule.every_hours.0,
        mode: to_engine(schedule.mode),
    }
}

/// A schedule as the contract has it.
pub fn schedule(schedule: Schedule) -> ScrubSchedule {
    ScrubSchedule {
        every_hours: Natural(schedule.every_hours),
        mode: mode(schedule.mode),
    }
}

fn to_engine(mode: ScrubMode) -> EngineMode {
    match mode {
        ScrubMode::Check => EngineMode::Check,
        ScrubMode::Repair => EngineMode::Repair,
    }
}

/// A mode as the contract has it.
pub fn mode(mode: EngineMode) -> ScrubMode {
    match mode {
        EngineMode::Check => ScrubMode::Check,
        EngineMode::Repair => ScrubMode::Repair,
    }
}

/// A group's scrubs as the contract has them.
pub fn view(status: &ScrubStatus) -> Scrubs {
    Scrubs {
        due_at: moment(status.due),
        running: status.running.as_ref().map(running),
        last: status.last.as_ref().map(ended),
    }
}

fn running(run: &ScrubRun) -> ScrubRunning {
    ScrubRunning {
        mode: mode(run.mode),
        paused: run.paused,
        began_at: moment(run.begun_at),
        findings: findings(&run.findings),
    }
}

fn ended(ended: &Ended) -> ScrubEnded {
    ScrubEnded {
        mode: mode(ended.mode),
        cancelled: ended.cancelled,
        began_at: moment(ended.begun_at),
        ended_at: moment(ended.ended_at),
        findings: findings(&ended.findings),
    }
}

/// Findings as the contract has them.
pub fn findings(found: &Found) -> ScrubFindings {
    let places = found.places.iter().map(|place| ScrubPlace {
        device: place.device.0,
        offset: Bytes(place.at),
        unreadable: place.unreadable,
    });
    ScrubFindings {
        checked_blocks: Bytes(found.checked),
        mismatched_blocks: Bytes(found.mismatched),
        unreadable_places: Bytes(found.unreadable),
        repaired: Bytes(found.repaired),
        unrepairable: Bytes(found.unrepairable),
        left_out_bytes: Bytes(found.left_out),
        bytes_done: Bytes(found.done),
        bytes_total: Bytes(found.total),
        places: places.collect(),
    }
}

/// What the engine is told of the time: seconds since 1970.
pub fn seconds_now() -> u64 {
    u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or(0)
}

fn moment(seconds: Option<u64>) -> Option<Timestamp> {
    let seconds = i64::try_from(seconds?).ok()?;
    OffsetDateTime::from_unix_timestamp(seconds).ok().map(Timestamp)
}
