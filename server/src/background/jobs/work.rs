//! What the work on every job has in common: following its state, keeping to its limit, telling of progress, ending.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ashlar_openapi::Problem;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::app::App;
use crate::app::jobs::happened;
use crate::app::jobs::throttle::Throttle;
use crate::background::transact;
use crate::catalog::CatalogError;
use crate::catalog::jobs::{self, Job, JobState, Transition};
use uuid::Uuid;

/// Progress is written at most so often.
const PROGRESS: Duration = Duration::from_secs(1);
/// Before an end that could not be written is written again.
const AGAIN: Duration = Duration::from_secs(1);

/// What the row of a job says that its work has to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    pub state: JobState,
    /// Bytes per second.
    pub limit: Option<u64>,
}

impl Control {
    pub fn of(job: &Job) -> Self {
        Self {
            state: job.state,
            limit: job
                .rate_limit_bytes_per_s
                .and_then(|limit| u64::try_from(limit).ok()),
        }
    }
}

/// The job is to be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cancelled;

/// What the work came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Succeeded(Option<Value>),
    Failed(Problem),
    /// And why, where nobody asked for it.
    Cancelled(Option<&'static str>),
}

/// How far the work is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    pub done: u64,
    pub total: Option<u64>,
    pub waiting_for: Option<String>,
}

/// The work on one job.
pub struct Work {
    pub app: Arc<App>,
    /// As it was when the work began.
    pub job: Job,
    control: watch::Receiver<Control>,
    /// An earlier life of the process had begun it.
    pub restarted: bool,
    throttle: Throttle,
    written: Option<(Instant, Progress)>,
}

impl Work {
    pub fn new(app: Arc<App>, job: Job, control: watch::Receiver<Control>, restarted: bool) -> Self {
        Self {
            app,
            job,
            control,
            restarted,
            throttle: Throttle::default(),
            written: None,
        }
    }

    pub fn control(&self) -> Control {
        *self.control.borrow()
    }

    /// Waits for the control to change, at most so long.
    pub async fn control_changed(&mut self, at_most: Duration) {
        match tokio::time::timeout(at_most, self.control.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            // Nobody follows the row any more: the runner ends this task.
            Ok(Err(_)) => std::future::pending().await,
        }
    }

    /// Waits while the job is paused.
    ///
    /// # Errors
    /// Where it is to be cancelled.
    pub async fn allowed(&mut self) -> Result<(), Cancelled> {
        loop {
            match self.control.borrow_and_update().state {
                JobState::Running => return Ok(()),
                JobState::Cancelling => return Err(Cancelled),
                _ => {}
            }
            if self.control.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until so many bytes may go: by the job's limit, and by the one of all work together.
    ///
    /// # Errors
    /// As [`Self::allowed`].
    pub async fn within_limits(&mut self, bytes: u64) -> Result<(), Cancelled> {
        let limit = self.control().limit;
        let own = self.throttle.take(bytes, limit);
        let of_all = self
            .app
            .jobs
            .throttle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(bytes, self.app.rate_limit());
        let from = own.max(of_all);
        loop {
            self.allowed().await?;
            if self.control().limit != limit {
                // What was waited for is another time now.
                self.throttle = Throttle::default();
                return Ok(());
            }
            let Some(left) = from
                .checked_duration_since(Instant::now())
                .filter(|left| !left.is_zero())
            else {
                return Ok(());
            };
            self.control_changed(left).await;
        }
    }

    /// Says how far the work is. What is said in between two writes stands in memory only.
    pub async fn progress(&mut self, progress: Progress) {
        self.app.jobs.note(self.job.id, progress.done);
        let due = self.written.as_ref().is_none_or(|(at, written)| {
            at.elapsed() >= PROGRESS && *written != progress || written.waiting_for != progress.waiting_for
        });
        if due {
            self.write(&progress).await;
            self.written = Some((Instant::now(), progress));
        }
    }

    /// Says how far the work came; at once.
    pub async fn last_progress(&mut self, progress: Progress) {
        self.write(&progress).await;
    }

    async fn write(&self, progress: &Progress) {
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let total = progress.total.map(|total| number(total.max(progress.done)));
        let catalog = &self.app.catalog;
        let written = catalog.guard(async {
            let mut connection = catalog.acquire().await?;
            let waiting_for = progress.waiting_for.as_deref();
            jobs::progress(
                &mut connection,
                self.job.id,
                number(progress.done),
                total,
                waiting_for,
            )
            .await
        });
        if let Err(error) = written.await {
            tracing::debug!(job = %self.job.id, %error, "progress is not written");
        }
    }

    /// Brings the job to its end, as soon as the catalog and its state allow that.
    pub async fn end(&mut self, outcome: Outcome) {
        loop {
            match finish(&self.app, self.job.id, &outcome).await {
                Ok(Finished::Ended) => return,
                // It stays paused until somebody has it go on.
                Ok(Finished::NotNow) => {
                    if self.allowed().await.is_ok() {
                        self.control_changed(AGAIN).await;
                    }
                }
                Err(error) => {
                    tracing::debug!(job = %self.job.id, %error, "the end of a job waits for the catalog");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

/// Whether a job has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// Or there is none any more.
    Ended,
    NotNow,
}

/// Brings a job to its end, where its state allows that: one that is to be cancelled is cancelled whatever its work came
/// to, and one that is paused does not end.
///
/// # Errors
/// Where the catalog is away.
pub async fn finish(app: &App, id: Uuid, outcome: &Outcome) -> Result<Finished, CatalogError> {
    let failure = match outcome {
        Outcome::Failed(problem) => serde_json::to_value(problem).unwrap_or_default(),
        _ => Value::Null,
    };
    let finished = transact(&app.catalog, async |connection| {
        let Some(row) = jobs::lock(connection, id).await? else {
            return Ok(Finished::Ended);
        };
        let (to, kind, note) = match (row.state, outcome) {
            (JobState::Succeeded | JobState::Failed | JobState::Cancelled, _) => return Ok(Finished::Ended),
            (JobState::Cancelling, Outcome::Cancelled(note)) => {
                (Transition::EndCancelled, "job.cancelled", *note)
            }
            (JobState::Cancelling, _) => (Transition::EndCancelled, "job.cancelled", None),
            (state, Outcome::Cancelled(note)) => {
                jobs::transition(connection, id, &[state], Transition::Cancel).await?;
                (Transition::EndCancelled, "job.cancelled", *note)
            }
            (JobState::Running, Outcome::Succeeded(result)) => {
                (Transition::Succeed(result.as_ref()), "job.succeeded", None)
            }
            (JobState::Running, Outcome::Failed(_)) => (Transition::Fail(&failure), "job.failed", None),
            (JobState::Queued | JobState::Paused, _) => return Ok(Finished::NotNow),
        };
        let from = match to {
            Transition::EndCancelled => JobState::Cancelling,
            _ => JobState::Running,
        };
        let ended = jobs::transition(connection, id, &[from], to).await?;
        if let Some(ended) = &ended {
            happened(connection, kind, ended, note).await?;
        }
        Ok(Finished::Ended)
    });
    let finished = finished.await?;
    app.jobs.changed();
    Ok(finished)
}
