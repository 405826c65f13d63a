//! Works on jobs: one task for each that is running or paused.
//!
//! A round looks at every unfinished job: a queued one is started, one that is to be cancelled and has no task is ended,
//! one that runs and has no task (the process was restarted) gets one, and each task is told how its job is now.
//!
//! Invariants: a state and the event that tells of it are one transaction. Only the task of a job, or a round where there
//! is none, brings the job to its end.

pub mod format;
pub mod identify;
pub mod rebuild;
pub mod scrub;
pub mod support_bundle;
pub mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ashlar_openapi::jobs::JobKind;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use uuid::Uuid;

use super::transact;
use crate::app::App;
use crate::app::jobs::{happened, kind};
use crate::catalog::CatalogError;
use crate::catalog::jobs::{self, Job, JobState};
use work::{Control, Outcome, Work};

/// How often a round is made where nothing calls for one.
const PERIOD: Duration = Duration::from_secs(2);

struct Runner {
    app: Arc<App>,
    tasks: JoinSet<()>,
    working: BTreeMap<Uuid, Working>,
    /// Jobs that were started in this life.
    begun: BTreeSet<Uuid>,
}

struct Working {
    control: watch::Sender<Control>,
    task: AbortHandle,
}

/// Works on jobs until the appliance stops.
pub async fn run(app: Arc<App>) {
    let mut runner = Runner {
        app: Arc::clone(&app),
        tasks: JoinSet::new(),
        working: BTreeMap::new(),
        begun: BTreeSet::new(),
    };
    let mut catalog = app.catalog.state();
    loop {
        scrub::tell_time(&app).await;
        if let Err(error) = runner.round().await {
            tracing::debug!(%error, "jobs wait for the catalog");
        }
        tokio::select! {
            () = app.until_stopping() => break,
            () = app.jobs.woken() => {}
            Some(_) = runner.tasks.join_next() => {}
            _ = catalog.changed() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
    runner.tasks.shutdown().await;
}

impl Runner {
    async fn round(&mut self) -> Result<(), CatalogError> {
        while self.tasks.try_join_next().is_some() {}
        self.working.retain(|_, working| !working.task.is_finished());
        let app = Arc::clone(&self.app);
        self.start_queued().await?;
        let unfinished = app
            .catalog
            .guard(async { jobs::unfinished(&mut *app.catalog.acquire().await?).await })
            .await?;
        for job in &unfinished {
            self.look_after(job).await?;
        }
        rebuild::make_wanted(&app, &unfinished).await?;
        scrub::make_wanted(&app, &unfinished).await
    }

    async fn start_queued(&mut self) -> Result<(), CatalogError> {
        let kinds: Vec<String> = JobKind::ALL.iter().map(|kind| kind.as_str().to_owned()).collect();
        loop {
            let started = transact(&self.app.catalog, async |connection| {
                let started = jobs::claim(connection, &kinds).await?;
                if let Some(job) = &started {
                    happened(connection, "job.started", job, None).await?;
                }
                Ok(started)
            });
            let Some(job) = started.await? else { return Ok(()) };
            self.begun.insert(job.id);
        }
    }

    async fn look_after(&mut self, job: &Job) -> Result<(), CatalogError> {
        let control = Control::of(job);
        if let Some(working) = self.working.get(&job.id) {
            working.control.send_if_modified(|stands| {
                let changed = *stands != control;
                *stands = control;
                changed
            });
            return Ok(());
        }
        match (job.state, kind(job)) {
            // The engine scrubs whether or not there is a task: it has to be told.
            (JobState::Cancelling, Some(JobKind::Scrub)) => {
                self.work_on(job.clone(), JobKind::Scrub, control);
            }
            (JobState::Cancelling, _) => {
                work::finish(&self.app, job.id, &Outcome::Cancelled(None)).await?;
            }
            (JobState::Running | JobState::Paused, Some(kind)) => self.work_on(job.clone(), kind, control),
            _ => {}
        }
        Ok(())
    }

    fn work_on(&mut self, job: Job, kind: JobKind, control: Control) {
        let id = job.id;
        let (sender, receiver) = watch::channel(control);
        let restarted = job.started_at.is_some() && !self.begun.contains(&id);
        let work = Work::new(Arc::clone(&self.app), job, receiver, restarted);
        let task = self.tasks.spawn(guarded(Arc::clone(&self.app), id, kind, work));
        self.working.insert(
            id,
            Working {
                control: sender,
                task,
            },
        );
    }
}

/// Does the work, and brings the job to its end: a panic is its failure, and no new try without end.
async fn guarded(app: Arc<App>, id: Uuid, kind: JobKind, mut work: Work) {
    let mut inner = JoinSet::new();
    inner.spawn(async move {
        let outcome = match kind {
            JobKind::Rebuild => rebuild::run(&mut work).await,
            JobKind::Format => format::run(&mut work).await,
            JobKind::Scrub => scrub::run(&mut work).await,
            JobKind::Identify => identify::run(&mut work).await,
            JobKind::SupportBundle => support_bundle::run(&mut work).await,
        };
        let outcome = outcome.unwrap_or(Outcome::Cancelled(None));
        work.end(outcome).await;
    });
    if let Some(Err(error)) = inner.join_next().await {
        tracing::error!(job = %id, %error, "the work on a job panicked");
        let failed = Outcome::Failed(crate::app::internal());
        if let Err(error) = work::finish(&app, id, &failed).await {
            tracing::debug!(job = %id, %error, "the failure of a job is not written");
        }
    }
    app.jobs.forget(id);
}
