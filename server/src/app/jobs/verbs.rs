//! Verbs on jobs: limit, pause, resume, cancel; and asking for the jobs that begin with a request of their own.
//!
//! Invariant: a verb changes the row alone. Who does the work sees the row's state and follows it, so that a verb holds
//! also where the process ends right after it.

use std::time::Duration;

use ashlar_openapi::devices::Identify;
use ashlar_openapi::jobs::{JobChange, JobKind};
use ashlar_openapi::operations::{CreateSupportBundle, IdentifyDevice, ListAuditLog};
use ashlar_openapi::{Bytes, Operation, Problem, ProblemType};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{NewJob, event, kind, make, tag};
use crate::app::change::{Audited, Begun, Change};
use crate::app::{Answer, App, Caller, catalog_problem, check_match, no_such};
use crate::catalog::CatalogError;
use crate::catalog::jobs::{self, Job, JobState, Transition};

/// How long a device is made to be seen, in seconds.
const USUAL_SECONDS: u32 = 30;
const MOST_SECONDS: u32 = 3600;

/// What can be done to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Limit,
    Pause,
    Resume,
    Cancel,
}

/// What a verb means to a job in some state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    To(JobState),
    /// It is so already.
    AsItIs,
    Refused,
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "a change of the rate limit",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
        }
    }

    /// Whether jobs of the kind know the verb. A rebuild cannot be cancelled: its group lacks the copies until it is
    /// through. A bundle is made within moments.
    pub fn is_known_by(self, kind: JobKind) -> bool {
        match kind {
            JobKind::Rebuild => self != Self::Cancel,
            JobKind::Identify | JobKind::Format | JobKind::Scrub => true,
            JobKind::SupportBundle => self == Self::Cancel,
        }
    }

    /// What becomes of a job in `state`, which was started or not.
    pub fn applied(self, state: JobState, started: bool) -> Move {
        use JobState::{Cancelled, Cancelling, Paused, Queued, Running};
        match (self, state) {
            (Self::Limit, Queued | Running | Paused) => Move::To(state),
            (Self::Pause, Queued | Running) => Move::To(Paused),
            (Self::Resume, Paused) if started => Move::To(Running),
            (Self::Resume, Paused) => Move::To(Queued),
            (Self::Cancel, Queued | Running | Paused) => Move::To(Cancelling),
            (Self::Pause, Paused)
            | (Self::Resume, Queued | Running)
            | (Self::Cancel, Cancelling | Cancelled) => Move::AsItIs,
            _ => Move::Refused,
        }
    }

    fn event(self) -> &'static str {
        match self {
            Self::Limit => "job.changed",
            Self::Pause => "job.paused",
            Self::Resume => "job.resumed",
            Self::Cancel => "job.cancelling",
        }
    }

    fn check(self, row: &Job) -> Result<Move, Problem> {
        if kind(row).is_none_or(|kind| !self.is_known_by(kind)) {
            let knowing = JobKind::ALL.into_iter().filter(|kind| self.is_known_by(*kind));
            return Err(Problem::new(
                ProblemType::JobKind,
                format!("jobs of kind {} do not know {}", row.kind, self.as_str()),
                "jobs of these kinds do",
            )
            .allowing(knowing.map(JobKind::as_str)));
        }
        match self.applied(row.state, row.started_at.is_some()) {
            Move::Refused => {
                let started = row.started_at.is_some();
                let good = |state: &JobState| self.applied(*state, started) != Move::Refused;
                Err(Problem::new(
                    ProblemType::JobState,
                    format!(
                        "the job is {}, which does not allow {}",
                        row.state.as_str(),
                        self.as_str()
                    ),
                    "it has to be in one of these states",
                )
                .allowing(states().filter(good).map(JobState::as_str)))
            }
            legal => Ok(legal),
        }
    }
}

/// Whether something may be limited so.
///
/// # Errors
/// Where nothing would ever be done.
pub fn check_limit(limit: Option<Bytes>) -> Result<(), Problem> {
    if limit != Some(Bytes(0)) {
        return Ok(());
    }
    Err(Problem::new(
        ProblemType::InvalidValue,
        "a limit of 0 bytes per second would be no progress at all",
        "give at least 1, or pause the job",
    )
    .at("/rate_limit_bytes_per_s"))
}

impl App {
    /// Does a verb to a job.
    ///
    /// # Errors
    /// Where the job's kind or state does not allow it, or it is another state than `if_match`.
    pub async fn job_verb(
        &self,
        caller: &Caller,
        id: Uuid,
        verb: Verb,
        limit: Option<u64>,
        if_match: Option<&str>,
    ) -> Result<Answer, Problem> {
        let mut change = match Change::begin(&self.catalog, caller).await? {
            Begun::New(change) => change,
            Begun::Answered(answer) => return Ok(answer),
        };
        let locked = self.catalog.guard(jobs::lock(change.connection(), id)).await;
        let row = locked
            .map_err(|error| catalog_problem(&error))?
            .ok_or_else(|| no_such("job", id))?;
        check_match(if_match, &tag(&row))?;
        let changed = match verb.check(&row)? {
            Move::To(to) => {
                let written = self
                    .catalog
                    .guard(write(&mut change, &row, verb, to, limit))
                    .await;
                written
                    .map_err(|error| catalog_problem(&error))?
                    .ok_or_else(|| no_such("job", id))?
            }
            Move::AsItIs | Move::Refused => row.clone(),
        };
        if changed != row {
            change.audit(Audited {
                object_kind: "job",
                object: id,
                before: Some(told(&row)),
                after: Some(told(&changed)),
            });
            change.event(event(verb.event(), &changed, None));
        }
        let answer = change.commit(self.job_answer(&changed)).await?;
        self.jobs.changed();
        Ok(answer)
    }

    /// Edits a job.
    ///
    /// # Errors
    /// As [`Self::job_verb`]; also where the limit is none.
    pub async fn change_job(
        &self,
        caller: &Caller,
        id: Uuid,
        change: JobChange,
        if_match: Option<&str>,
    ) -> Result<Answer, Problem> {
        let Some(limit) = change.rate_limit_bytes_per_s else {
            let row = self.job(id).await?;
            check_match(if_match, &tag(&row))?;
            return Ok(self.job_answer(&row));
        };
        check_limit(limit)?;
        let limit = limit.map(|limit| limit.0);
        self.job_verb(caller, id, Verb::Limit, limit, if_match).await
    }

    /// Makes a device seen.
    ///
    /// # Errors
    /// Where the time is too long, or the device has no light to be seen.
    pub async fn identify(
        &self,
        caller: &Caller,
        id: Uuid,
        wanted: Identify,
        wait: Option<Duration>,
    ) -> Result<Answer, Problem> {
        let seconds = wanted.seconds.map_or(USUAL_SECONDS, |seconds| seconds.0);
        if !(1..=MOST_SECONDS).contains(&seconds) {
            return Err(Problem::new(
                ProblemType::InvalidValue,
                format!("{seconds} seconds are not possible"),
                format!("give 1 to {MOST_SECONDS} seconds"),
            )
            .at("/seconds"));
        }
        if let Some(ashlar_openapi::devices::DeviceSource::Nbd { .. }) = self.engine.locations.of(id) {
            return Err(Problem::new(
                ProblemType::JobKind,
                "the device is reached over a network: it has no light here",
                "look for it at its server",
            )
            .allowing(["file", "block"]));
        }
        let new = NewJob {
            kind: JobKind::Identify,
            subject_kind: "device",
            subject: id,
            params: json!({"seconds": seconds}),
            bytes_total: None,
            limit: None,
        };
        self.begin_job::<IdentifyDevice>(caller, new, wait, |job| job)
            .await
    }

    /// Has a support bundle made; while one is being made, that one. What the audit log tells is in it where the caller may
    /// read that.
    ///
    /// # Errors
    /// Where the catalog is away.
    pub async fn create_support_bundle(
        &self,
        caller: &Caller,
        wait: Option<Duration>,
    ) -> Result<Answer, Problem> {
        let actor = &caller.actor;
        let reads_audit_log = actor.may(ListAuditLog::ROLES, ListAuditLog::SCOPE).is_ok();
        let new = NewJob {
            kind: JobKind::SupportBundle,
            subject_kind: "appliance",
            subject: self.engine.id().0,
            params: json!({"audit_log": reads_audit_log}),
            bytes_total: None,
            limit: None,
        };
        self.begin_job::<CreateSupportBundle>(caller, new, wait, |job| job)
            .await
    }

    /// Makes a job, or finds the one that does the same, and waits for it. `body` tells of it as the operation does.
    ///
    /// # Errors
    /// Where the catalog is away.
    pub(in crate::app) async fn begin_job<O: Operation>(
        &self,
        caller: &Caller,
        new: NewJob,
        wait: Option<Duration>,
        body: impl Fn(ashlar_openapi::jobs::Job) -> O::Answer,
    ) -> Result<Answer, Problem> {
        let answer = match Change::begin(&self.catalog, caller).await? {
            Begun::Answered(answer) => answer,
            Begun::New(mut change) => {
                let made = self.catalog.guard(make(change.connection(), new, None)).await;
                let row = made.map_err(|error| catalog_problem(&error))?;
                change.audit(Audited {
                    object_kind: "job",
                    object: row.id,
                    before: None,
                    after: Some(told(&row)),
                });
                let answer = Answer::of::<O>(&body(self.job_view(&row))).tagged(tag(&row));
                let answer = answer.located(format_args!("/jobs/{}", row.id));
                let answer = change.commit(answer).await?;
                self.jobs.changed();
                answer
            }
        };
        self.wait_for_job::<O>(answer, wait, body).await
    }
}

async fn write(
    change: &mut Change<'_>,
    row: &Job,
    verb: Verb,
    to: JobState,
    limit: Option<u64>,
) -> Result<Option<Job>, CatalogError> {
    let connection = change.connection();
    if verb == Verb::Limit {
        let limit = limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX));
        return jobs::set_rate_limit(connection, row.id, limit).await;
    }
    let transition = match to {
        JobState::Paused => Transition::Pause,
        JobState::Running => Transition::Run,
        JobState::Cancelling => Transition::Cancel,
        _ => Transition::Queue,
    };
    jobs::transition(connection, row.id, &[row.state], transition).await
}

fn states() -> impl Iterator<Item = JobState> {
    JobState::WORDS.iter().filter_map(|word| word.parse().ok())
}

/// What of a job stands in the audit log.
fn told(row: &Job) -> Value {
    json!({
        "kind": row.kind,
        "state": row.state.as_str(),
        "subject": {"kind": row.subject_kind, "id": row.subject_id},
        "rate_limit_bytes_per_s": row.rate_limit_bytes_per_s,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The diagram of the contract.
    fn is_legal(from: JobState, to: JobState) -> bool {
        use JobState::{Cancelling, Paused, Queued, Running};
        matches!(
            (from, to),
            (Queued, Running | Paused | Cancelling)
                | (Running, Paused | Cancelling)
                | (Paused, Queued | Running | Cancelling)
        )
    }

    const VERBS: [Verb; 4] = [Verb::Limit, Verb::Pause, Verb::Resume, Verb::Cancel];

    proptest! {
        #[test]
        fn verbs_in_any_order_make_legal_moves_only_and_the_same_one_twice_moves_once(
            verbs in proptest::collection::vec(proptest::sample::select(&VERBS[..]), 0..40),
            start_at in 0..40_usize,
        ) {
            let (mut state, mut started) = (JobState::Queued, false);
            for (at, verb) in verbs.into_iter().enumerate() {
                if at == start_at && state == JobState::Queued {
                    (state, started) = (JobState::Running, true);
                }
                match verb.applied(state, started) {
                    Move::To(to) if to == state => prop_assert_eq!(verb, Verb::Limit),
                    Move::To(to) => {
                        prop_assert!(is_legal(state, to), "{state:?} to {to:?}");
                        prop_assert!(started || to != JobState::Running);
                        state = to;
                        prop_assert_eq!(verb.applied(state, started), Move::AsItIs);
                    }
                    Move::AsItIs => {}
                    Move::Refused => prop_assert!(
                        state == JobState::Cancelling || state == JobState::Cancelled
                    ),
                }
            }
        }
    }

    #[test]
    fn nothing_is_done_to_a_job_that_has_ended_but_to_say_that_it_is_cancelled() {
        for state in [JobState::Succeeded, JobState::Failed, JobState::Cancelled] {
            for verb in VERBS {
                let wanted = match (verb, state) {
                    (Verb::Cancel, JobState::Cancelled) => Move::AsItIs,
                    _ => Move::Refused,
                };
                assert_eq!(verb.applied(state, true), wanted, "{verb:?} {state:?}");
            }
        }
    }
}
