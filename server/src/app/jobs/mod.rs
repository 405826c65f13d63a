//! Jobs as they stand in the catalog: making one, or finding the one that runs; showing one. [`verbs`] changes them,
//! [`live`] knows what of them stands only in memory, and [`crate::background::jobs`] does their work.

pub mod live;
pub mod throttle;
pub mod verbs;

use std::time::Duration;

use ashlar_openapi::document::BASE;
use ashlar_openapi::jobs::{Job, JobKind, JobState, Subject};
use ashlar_openapi::operations::GetJob;
use ashlar_openapi::{Bytes, Operation, Problem, ProblemType, Timestamp};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::change::{NewEvent, append_events};
use super::devices::bytes;
use super::{Answer, App};
use crate::catalog::{self, CatalogError};

/// Whoever waits for a job looks at it so often, where nothing tells of it.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A job to be made.
#[derive(Debug, Clone)]
pub struct NewJob {
    pub kind: JobKind,
    pub subject_kind: &'static str,
    pub subject: Uuid,
    pub params: Value,
    pub bytes_total: Option<u64>,
    /// Bytes per second that it begins with.
    pub limit: Option<u64>,
}

/// Makes a job, or answers the one that does the same already.
///
/// # Errors
/// As the catalog's.
pub async fn make(
    connection: &mut PgConnection,
    new: NewJob,
    operation: Option<Uuid>,
) -> Result<catalog::jobs::Job, CatalogError> {
    let row = catalog::jobs::NewJob {
        id: Uuid::new_v4(),
        kind: new.kind.as_str(),
        subject_kind: new.subject_kind,
        subject_id: new.subject,
        params: &new.params,
        bytes_total: new.bytes_total.and_then(|total| i64::try_from(total).ok()),
        rate_limit_bytes_per_s: new.limit.and_then(|limit| i64::try_from(limit).ok()),
        operation,
    };
    let (job, made) = catalog::jobs::insert_or_unfinished(connection, &row).await?;
    if made {
        happened(connection, "job.created", &job, None).await?;
    }
    Ok(job)
}

/// Appends an event of a job. What a transaction does after it must wait for nobody.
///
/// # Errors
/// As the catalog's.
pub async fn happened(
    connection: &mut PgConnection,
    kind: &'static str,
    job: &catalog::jobs::Job,
    note: Option<&str>,
) -> Result<(), CatalogError> {
    append_events(connection, &[event(kind, job, note)]).await
}

/// An event of a job.
pub fn event(kind: &'static str, job: &catalog::jobs::Job, note: Option<&str>) -> NewEvent {
    let mut data = json!({
        "kind": job.kind,
        "state": job.state.as_str(),
        "subject": {"kind": job.subject_kind, "id": job.subject_id},
    });
    if let Some(note) = note {
        data["note"] = note.into();
    }
    if let Some(failure) = &job.failure {
        data["failure"] = failure.clone();
    }
    NewEvent {
        kind,
        subject_kind: "job",
        subject: job.id,
        data,
    }
}

/// The kind of a job of the catalog.
pub fn kind(row: &catalog::jobs::Job) -> Option<JobKind> {
    JobKind::ALL.into_iter().find(|kind| kind.as_str() == row.kind)
}

/// Names a state of the job.
pub fn tag(row: &catalog::jobs::Job) -> String {
    super::etag(row.version, row.created_at)
}

/// A job as the contract has it; its pace in bytes per second, where that is known.
pub fn view(row: &catalog::jobs::Job, pace: Option<u64>) -> Job {
    let state = JobState::ALL
        .into_iter()
        .find(|state| state.as_str() == row.state.as_str());
    let left = row
        .bytes_total
        .map(|total| u64::try_from(total - row.bytes_done).unwrap_or(0));
    let pace = pace.filter(|_| state == Some(JobState::Running));
    Job {
        id: row.id,
        kind: kind(row).unwrap_or(JobKind::SupportBundle),
        state: state.unwrap_or(JobState::Failed),
        subject: Subject {
            kind: row.subject_kind.clone(),
            id: row.subject_id,
        },
        bytes_done: bytes(row.bytes_done),
        bytes_total: row.bytes_total.map(bytes),
        rate_bytes_per_s: pace.map(Bytes),
        eta_s: pace
            .zip(left)
            .and_then(|(pace, left)| Some(Bytes(left.checked_div(pace)?))),
        rate_limit_bytes_per_s: row.rate_limit_bytes_per_s.map(bytes),
        waiting_for: row.waiting_for.clone(),
        waiting_since: row.waiting_since.map(Timestamp),
        failure: row
            .failure
            .clone()
            .and_then(|failure| serde_json::from_value(failure).ok()),
        result_path: result_path(row),
        created_at: Timestamp(row.created_at),
        started_at: row.started_at.map(Timestamp),
        finished_at: row.finished_at.map(Timestamp),
        updated_at: Timestamp(row.finished_at.or(row.started_at).unwrap_or(row.created_at)),
    }
}

fn result_path(row: &catalog::jobs::Job) -> Option<String> {
    let done =
        row.kind == JobKind::SupportBundle.as_str() && row.state.as_str() == JobState::Succeeded.as_str();
    done.then(|| format!("{}/support-bundle/{}", BASE, row.id))
}

impl App {
    /// A job as it is, with its ETag.
    ///
    /// # Errors
    /// Where there is none, or the catalog is away.
    pub async fn job(&self, id: Uuid) -> Result<catalog::jobs::Job, Problem> {
        let row = super::reading(&self.catalog, async |connection| {
            catalog::jobs::get(connection, id).await
        })
        .await?;
        row.ok_or_else(|| super::no_such("job", id))
    }

    /// A job as the contract has it.
    pub fn job_view(&self, row: &catalog::jobs::Job) -> Job {
        view(row, self.jobs.pace(row.id))
    }

    /// An answer that shows a job.
    pub fn job_answer(&self, row: &catalog::jobs::Job) -> Answer {
        Answer::of::<GetJob>(&self.job_view(row)).tagged(tag(row))
    }

    /// The job when it has ended, or as it is when the time is over or the appliance stops.
    ///
    /// # Errors
    /// As [`Self::job`].
    pub async fn job_within(&self, id: Uuid, wait: Duration) -> Result<catalog::jobs::Job, Problem> {
        let over = tokio::time::sleep(wait);
        tokio::pin!(over);
        let mut changes = self.jobs.changes();
        loop {
            changes.mark_unchanged();
            let row = self.job(id).await?;
            if row.finished_at.is_some() {
                return Ok(row);
            }
            tokio::select! {
                () = &mut over => return self.job(id).await,
                () = self.until_stopping() => return Ok(row),
                _ = changes.changed() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Waits for the job of an answer to end: 200 with the job where it has within the time, else 202 with it as it is.
    /// `body` tells of it as the operation does.
    ///
    /// # Errors
    /// Where the job has gone.
    pub async fn wait_for_job<O: Operation>(
        &self,
        answer: Answer,
        wait: Option<Duration>,
        body: impl Fn(Job) -> O::Answer,
    ) -> Result<Answer, Problem> {
        let (Some(wait), Some(id)) = (wait, job_of(&answer)) else {
            return Ok(answer);
        };
        let row = match self.job_within(id, wait).await {
            Ok(row) => row,
            // The job was made, which is what was asked for.
            Err(problem) if problem.kind == ProblemType::CatalogUnavailable => return Ok(answer),
            Err(problem) => return Err(problem),
        };
        let status = if row.finished_at.is_some() { 200 } else { 202 };
        Ok(Answer::of::<O>(&body(self.job_view(&row)))
            .tagged(tag(&row))
            .status(status)
            .located(format_args!("/jobs/{id}")))
    }
}

/// The job that an answer tells of.
fn job_of(answer: &Answer) -> Option<Uuid> {
    let path = answer.location.as_deref()?.strip_prefix(BASE)?;
    path.strip_prefix("/jobs/")?.parse().ok()
}
