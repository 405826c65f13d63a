//! Long work.
//!
//! ```text
//!   queued ⇄ paused     running ⇄ paused     queued, running, paused ──► cancelling ──► cancelled
//!   queued ──► running ──► succeeded, failed
//! ```
//! Invariant: of one kind there is one unfinished job for a subject. The version is raised by changes of state and of
//! the rate limit, not by progress.

use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::page::{After, Listing, Page, Part, SortBy, time_text};
use super::text::text_enum;
use super::{CatalogError, PRUNE_LIMIT};

text_enum! {
    JobState {
        Queued = "queued",
        Running = "running",
        Paused = "paused",
        Cancelling = "cancelling",
        Succeeded = "succeeded",
        Failed = "failed",
        Cancelled = "cancelled",
    }
}

/// A row.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Job {
    pub id: Uuid,
    pub kind: String,
    pub state: JobState,
    pub subject_kind: String,
    pub subject_id: Uuid,
    pub params: Value,
    pub bytes_done: i64,
    pub bytes_total: Option<i64>,
    pub rate_limit_bytes_per_s: Option<i64>,
    pub waiting_for: Option<String>,
    pub waiting_since: Option<OffsetDateTime>,
    /// Where it failed.
    pub failure: Option<Value>,
    /// Where it succeeded and has something to say.
    pub result: Option<Value>,
    pub operation: Option<Uuid>,
    pub version: i64,
    pub created_at: OffsetDateTime,
    pub started_at: Option<OffsetDateTime>,
    pub finished_at: Option<OffsetDateTime>,
}

#[derive(Debug, Clone)]
pub struct NewJob<'a> {
    pub id: Uuid,
    pub kind: &'a str,
    pub subject_kind: &'a str,
    pub subject_id: Uuid,
    pub params: &'a Value,
    pub bytes_total: Option<i64>,
    pub rate_limit_bytes_per_s: Option<i64>,
    pub operation: Option<Uuid>,
}

/// A state to come into, with what exists only then.
#[derive(Debug, Clone, Copy)]
pub enum Transition<'a> {
    Queue,
    Run,
    Pause,
    Cancel,
    Succeed(Option<&'a Value>),
    Fail(&'a Value),
    EndCancelled,
}

impl Transition<'_> {
    fn state(self) -> JobState {
        match self {
            Self::Queue => JobState::Queued,
            Self::Run => JobState::Running,
            Self::Pause => JobState::Paused,
            Self::Cancel => JobState::Cancelling,
            Self::Succeed(_) => JobState::Succeeded,
            Self::Fail(_) => JobState::Failed,
            Self::EndCancelled => JobState::Cancelled,
        }
    }
}

/// Which are wanted; `None` is all.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    pub kind: Option<String>,
    pub state: Option<JobState>,
    pub subject_kind: Option<String>,
    pub subject_id: Option<Uuid>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobSort {
    CreatedAt,
}

impl SortBy for JobSort {
    type Row = Job;

    fn sql(self) -> (&'static str, &'static str) {
        match self {
            Self::CreatedAt => ("created_at", "timestamptz"),
        }
    }

    fn place_of(self, row: &Job) -> After {
        let value = match self {
            Self::CreatedAt => time_text(row.created_at),
        };
        After { value, id: row.id }
    }
}

macro_rules! jobs {
    ($before:literal, $after:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Job,
            $before + " id, kind, state as \"state: JobState\", subject_kind, subject_id, params, bytes_done, \
             bytes_total, rate_limit_bytes_per_s, waiting_for, waiting_since, failure, result, operation, version, \
             created_at, started_at, finished_at " + $after
            $(, $argument)*
        )
    };
}

/// Queues the job, or says which unfinished one of that kind the subject has; and whether it is the new one.
pub async fn insert_or_unfinished(
    conn: &mut PgConnection,
    new: &NewJob<'_>,
) -> Result<(Job, bool), CatalogError> {
    let inserted = jobs!(
        "insert into jobs (id, kind, subject_kind, subject_id, params, bytes_total, rate_limit_bytes_per_s, \
           operation) values ($1, $2, $3, $4, $5, $6, $7, $8) \
         on conflict (kind, subject_kind, subject_id) \
         where state in ('queued', 'running', 'paused', 'cancelling') do nothing returning",
        "",
        new.id,
        new.kind,
        new.subject_kind,
        new.subject_id,
        new.params,
        new.bytes_total,
        new.rate_limit_bytes_per_s,
        new.operation,
    );
    if let Some(job) = inserted.fetch_optional(&mut *conn).await? {
        return Ok((job, true));
    }
    let unfinished = jobs!(
        "select",
        "from jobs where kind = $1 and subject_kind = $2 and subject_id = $3 \
         and state in ('queued', 'running', 'paused', 'cancelling')",
        new.kind,
        new.subject_kind,
        new.subject_id,
    );
    let finished_just_now = || CatalogError::Unavailable("the job that was there ended just now".into());
    let job = unfinished.fetch_optional(conn).await?;
    Ok((job.ok_or_else(finished_just_now)?, false))
}

pub async fn get(conn: &mut PgConnection, id: Uuid) -> Result<Option<Job>, CatalogError> {
    let row = jobs!("select", "from jobs where id = $1", id);
    Ok(row.fetch_optional(conn).await?)
}

/// As [`get`], and nobody else changes it until the transaction ends.
pub async fn lock(conn: &mut PgConnection, id: Uuid) -> Result<Option<Job>, CatalogError> {
    let row = jobs!("select", "from jobs where id = $1 for update", id);
    Ok(row.fetch_optional(conn).await?)
}

/// All that are not finished, oldest first.
pub async fn unfinished(conn: &mut PgConnection) -> Result<Vec<Job>, CatalogError> {
    let rows = jobs!(
        "select",
        "from jobs where state in ('queued', 'running', 'paused', 'cancelling') order by created_at, id"
    );
    Ok(rows.fetch_all(conn).await?)
}

/// Takes the oldest queued job of one of these kinds, which is running then.
pub async fn claim(conn: &mut PgConnection, kinds: &[String]) -> Result<Option<Job>, CatalogError> {
    let row = jobs!(
        "update jobs set state = 'running', started_at = now(), version = version + 1 \
         where id = (select id from jobs where state = 'queued' and kind = any($1) order by created_at, id \
                     for update skip locked limit 1) returning",
        "",
        kinds
    );
    Ok(row.fetch_optional(conn).await?)
}

/// Notes how far an unfinished job is, and what it waits for. Returns whether it is unfinished.
pub async fn progress(
    conn: &mut PgConnection,
    id: Uuid,
    bytes_done: i64,
    bytes_total: Option<i64>,
    waiting_for: Option<&str>,
) -> Result<bool, CatalogError> {
    let noted = sqlx::query!(
        "update jobs set bytes_done = $2, bytes_total = $3, waiting_for = $4, \
           waiting_since = case when $4::text is null then null when waiting_for = $4 then waiting_since \
             else now() end \
         where id = $1 and finished_at is null",
        id,
        bytes_done,
        bytes_total,
        waiting_for,
    )
    .execute(conn)
    .await?;
    Ok(noted.rows_affected() > 0)
}

/// Brings the job from one of the states `from` into another. `None` where it is in none of them, or does not exist.
pub async fn transition(
    conn: &mut PgConnection,
    id: Uuid,
    from: &[JobState],
    to: Transition<'_>,
) -> Result<Option<Job>, CatalogError> {
    let from: Vec<&str> = from.iter().map(|state| state.as_str()).collect();
    let (result, failure) = match to {
        Transition::Succeed(result) => (result, None),
        Transition::Fail(failure) => (None, Some(failure)),
        _ => (None, None),
    };
    let row = jobs!(
        "update jobs set state = $3, version = version + 1, waiting_for = null, waiting_since = null, \
           result = $4, failure = $5, \
           started_at = case when $3 = 'queued' then null \
             when $3 in ('running', 'succeeded') then coalesce(started_at, now()) else started_at end, \
           finished_at = case when $3 in ('succeeded', 'failed', 'cancelled') then now() end \
         where id = $1 and state = any($2) returning",
        "",
        id,
        &from as &[&str],
        to.state().as_str(),
        result,
        failure,
    );
    Ok(row.fetch_optional(conn).await?)
}

/// Of an unfinished job; `None` lifts the limit. `None` is returned where it is finished or does not exist.
pub async fn set_rate_limit(
    conn: &mut PgConnection,
    id: Uuid,
    bytes_per_s: Option<i64>,
) -> Result<Option<Job>, CatalogError> {
    let row = jobs!(
        "update jobs set rate_limit_bytes_per_s = $2, version = version + 1 \
         where id = $1 and finished_at is null returning",
        "",
        id,
        bytes_per_s
    );
    Ok(row.fetch_optional(conn).await?)
}

pub async fn page(
    conn: &mut PgConnection,
    filter: &JobFilter,
    part: &Part<JobSort>,
) -> Result<Page<Job>, CatalogError> {
    Listing::of("jobs")
        .with("kind", filter.kind.as_deref())
        .with("state", filter.state)
        .with("subject_kind", filter.subject_kind.as_deref())
        .with("subject_id", filter.subject_id)
        .part(conn, part)
        .await
}

/// Removes some of those that finished before. Returns how many, see [`super::PRUNE_BATCH`].
pub async fn prune(conn: &mut PgConnection, before: OffsetDateTime) -> Result<u64, CatalogError> {
    let pruned = sqlx::query!(
        "delete from jobs where id in (select id from jobs where finished_at < $1 order by finished_at limit $2)",
        before,
        PRUNE_LIMIT,
    )
    .execute(conn)
    .await?;
    Ok(pruned.rows_affected())
}
