//! Jobs as they stand in the catalog: making one, or finding the one that runs; showing one.

use ashlar_openapi::devices::Identify;
use ashlar_openapi::jobs::{Job, JobKind, JobState, Subject};
use ashlar_openapi::{Bytes, Problem, Timestamp};
use serde_json::Value;
use sqlx::PgConnection;
use std::time::Duration;
use uuid::Uuid;

use super::devices::bytes;
use super::{Answer, App, Caller};
use crate::catalog::{self, CatalogError};

/// A job to be made.
#[derive(Debug, Clone)]
pub struct NewJob {
    pub kind: JobKind,
    pub subject_kind: &'static str,
    pub subject: Uuid,
    pub params: Value,
    pub bytes_total: Option<u64>,
}

/// How fast a job goes, over the last seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    pub bytes_per_s: u64,
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
        rate_limit_bytes_per_s: None,
        operation,
    };
    let (job, _made) = catalog::jobs::insert_or_unfinished(connection, &row).await?;
    Ok(job)
}

/// A job as the contract has it.
pub fn view(row: &catalog::jobs::Job, pace: Option<Pace>) -> Job {
    let kind = JobKind::ALL.into_iter().find(|kind| kind.as_str() == row.kind);
    let state = JobState::ALL
        .into_iter()
        .find(|state| state.as_str() == row.state.as_str());
    let left = row
        .bytes_total
        .map(|total| u64::try_from(total - row.bytes_done).unwrap_or(0));
    let pace = pace.filter(|_| state == Some(JobState::Running));
    Job {
        id: row.id,
        kind: kind.unwrap_or(JobKind::SupportBundle),
        state: state.unwrap_or(JobState::Failed),
        subject: Subject {
            kind: row.subject_kind.clone(),
            id: row.subject_id,
        },
        bytes_done: bytes(row.bytes_done),
        bytes_total: row.bytes_total.map(bytes),
        rate_bytes_per_s: pace.map(|pace| Bytes(pace.bytes_per_s)),
        eta_s: pace
            .zip(left)
            .and_then(|(pace, left)| Some(Bytes(left.checked_div(pace.bytes_per_s)?))),
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
    done.then(|| format!("{}/support-bundle/{}", ashlar_openapi::document::BASE, row.id))
}

impl App {
    /// Makes the device seen.
    pub async fn identify(
        &self,
        _caller: &Caller,
        _id: Uuid,
        _wanted: Identify,
        _wait: Option<Duration>,
    ) -> Result<Answer, Problem> {
        Err(super::internal())
    }

    /// Waits for the job of an answer to end, and answers it as it is then.
    pub async fn wait_for_job(&self, answer: Answer, _wait: Option<Duration>) -> Result<Answer, Problem> {
        Ok(answer)
    }
}
