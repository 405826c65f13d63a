//! `ashlar job`

use ashlar_openapi::client::Call;
use ashlar_openapi::jobs::{Job, JobChange, JobFilter, JobKind, JobState};
use ashlar_openapi::operations::{CancelJob, ChangeJob, GetJob, ListJobs, PauseJob, ResumeJob};
use ashlar_openapi::sort::TimedKey;
use clap::Subcommand;
use uuid::Uuid;

use super::show;
use crate::Context;
use crate::edit::edit;
use crate::failure::Failure;
use crate::find::id;
use crate::format;
use crate::list::{Length, Names, Order, Row, list};
use crate::progress::{ended_well, wait};
use crate::values::{Limit, limit, word};

const KINDS: &[&str] = &[
    "raid_group.rebuild",
    "raid_group.format",
    "raid_group.scrub",
    "device.identify",
    "support_bundle",
];
const STATES: &[&str] = &[
    "queued",
    "running",
    "paused",
    "cancelling",
    "succeeded",
    "failed",
    "cancelled",
];

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the jobs, the newest first
    List {
        /// Only of this kind
        #[arg(long, value_parser = word::<JobKind>(KINDS))]
        kind: Option<JobKind>,
        /// Only in this state
        #[arg(long, value_parser = word::<JobState>(STATES))]
        state: Option<JobState>,
        /// Only about the object with this id
        #[arg(long, value_name = "ID", value_parser = id)]
        subject: Option<Uuid>,
        #[command(flatten)]
        order: Order<TimedKey>,
        #[command(flatten)]
        length: Length,
    },
    /// Look at a job
    Show(Id),
    /// Wait until a job has ended, and see how far it is
    Wait(Id),
    /// Have a job wait
    Pause(Id),
    /// Have a paused job go on
    Resume(Id),
    /// End a job early
    Cancel(Id),
    /// Change a job's rate limit
    Limit {
        #[command(flatten)]
        job: Id,
        /// Per second, or `none`
        #[arg(value_name = "SIZE|none", value_parser = limit)]
        rate: Limit,
    },
}

#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Id {
    /// The job's id
    #[arg(value_name = "JOB", value_parser = id)]
    id: Uuid,
}

impl Verb {
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Failure> {
        match self {
            Self::List {
                kind,
                state,
                subject,
                order,
                length,
            } => {
                let filter = JobFilter {
                    kind,
                    state,
                    subject,
                    sort: order.sort,
                };
                list(cx, Call::<ListJobs>::at(&[]).query(filter), &length).await
            }
            Self::Show(Id { id }) => show::<GetJob>(cx, &[id], id).await,
            Self::Wait(Id { id }) => ended_well(cx, wait(cx, id).await?),
            Self::Pause(Id { id }) => show::<PauseJob>(cx, &[id], id).await,
            Self::Resume(Id { id }) => show::<ResumeJob>(cx, &[id], id).await,
            Self::Cancel(Id { id }) => show::<CancelJob>(cx, &[id], id).await,
            Self::Limit {
                job: Id { id },
                rate: Limit(limit),
            } => {
                let change = JobChange {
                    rate_limit_bytes_per_s: Some(limit),
                };
                let answer = edit::<GetJob, ChangeJob>(&cx.client, &[id], change).await?;
                cx.out.object(&answer.text, &id.to_string())
            }
        }
    }
}

impl Row for Job {
    const HEADERS: &'static [&'static str] = &[
        "ID",
        "KIND",
        "STATE",
        "DONE",
        "TOTAL",
        "RATE",
        "LEFT",
        "WAITS FOR",
        "SUBJECT",
    ];

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn cells(&self, _: &Names) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.kind.as_str().to_owned(),
            self.state.as_str().to_owned(),
            format::size(self.bytes_done),
            format::or_nothing(self.bytes_total.map(format::size)),
            format::or_nothing(
                self.rate_bytes_per_s
                    .map(|rate| format!("{}/s", format::size(rate))),
            ),
            format::or_nothing(self.eta_s.map(|eta| format::seconds(eta.0))),
            format::or_nothing(self.waiting_for.as_ref()),
            format!("{} {}", self.subject.kind, self.subject.id),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_that_are_offered_are_those_of_the_contract() {
        assert_eq!(KINDS, JobKind::ALL.map(JobKind::as_str));
        assert_eq!(STATES, JobState::ALL.map(JobState::as_str));
    }
}
