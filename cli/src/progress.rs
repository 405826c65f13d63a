//! Waiting for a job, with its progress shown on a terminal. The job does not depend on who waits for it.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use ashlar_openapi::client::{Answer, Call, Client, Common};
use ashlar_openapi::jobs::{Job, JobState};
use ashlar_openapi::operations::GetJob;
use ashlar_openapi::{Bytes, Operation};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use uuid::Uuid;

use crate::Context;
use crate::failure::Failure;
use crate::format;
use crate::output::{Output, note};

/// How often the progress is looked at where somebody sees it.
const SHOWN: Duration = Duration::from_secs(1);
/// How long one request waits where nobody does.
const UNSEEN: Duration = Duration::from_secs(30);
const BAR: &str = "{prefix} [{bar:32}] {binary_bytes}/{binary_total_bytes} {msg}";
const NO_TOTAL: &str = "{prefix} {msg}";

#[derive(Debug, Clone, Args)]
pub(crate) struct Waiting {
    /// Wait until the job has ended (this is what happens unless --no-wait is given)
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Return at once; the job goes on
    #[arg(long)]
    no_wait: bool,
}

/// Prints the job that was made, or waits for it.
pub(crate) async fn made<O>(cx: &Context, made: Answer<O>, waiting: &Waiting) -> Result<(), Failure>
where
    O: Operation<Answer = Job>,
{
    begun(cx, made.body.id, &made.text, waiting).await
}

/// The same, of an answer that tells of a job among other things.
pub(crate) async fn begun(cx: &Context, id: Uuid, text: &str, waiting: &Waiting) -> Result<(), Failure> {
    if !waiting.no_wait {
        let ended = wait(cx, id).await?;
        return ended_well(cx, ended);
    }
    cx.out.object(text, &id.to_string())?;
    if cx.out == Output::People {
        note(&format!("`ashlar job wait {id}` follows it"));
    }
    Ok(())
}

/// Prints a job that has ended; a failure where it did not succeed.
pub(crate) fn ended_well(cx: &Context, ended: Answer<GetJob>) -> Result<(), Failure> {
    let job = ended.body;
    cx.out.object(&ended.text, &job.id.to_string())?;
    if job.state == JobState::Succeeded {
        Ok(())
    } else {
        Err(Failure::JobEnded(Box::new(job)))
    }
}

/// Waits until the job has ended.
pub(crate) async fn wait(cx: &Context, id: Uuid) -> Result<Answer<GetJob>, Failure> {
    let seen = cx.out == Output::People && io::stderr().is_terminal();
    let bar = ProgressBar::with_draw_target(
        None,
        if seen {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        },
    );
    let outcome = tokio::select! {
        ended = follow(&cx.client, id, &bar, if seen { SHOWN } else { UNSEEN }) => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted(id)),
    };
    bar.finish_and_clear();
    outcome
}

async fn follow(
    client: &Client,
    id: Uuid,
    bar: &ProgressBar,
    each: Duration,
) -> Result<Answer<GetJob>, Failure> {
    let mut wait = None;
    loop {
        let common = Common {
            wait,
            ..Common::default()
        };
        let answer = client.call(Call::<GetJob>::at(&[id]).common(common)).await?;
        if answer.body.state.has_ended() {
            return Ok(answer);
        }
        show(bar, &answer.body);
        wait = Some(each);
    }
}

fn show(bar: &ProgressBar, job: &Job) {
    bar.set_prefix(job.kind.as_str());
    bar.set_length(job.bytes_total.unwrap_or_default().0);
    bar.set_position(job.bytes_done.0);
    bar.set_message(message(job));
    let template = if job.bytes_total.is_some() { BAR } else { NO_TOTAL };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.tick();
}

/// What there is to say of a job beside its bytes.
fn message(job: &Job) -> String {
    let mut parts = Vec::new();
    if job.state != JobState::Running {
        parts.push(job.state.as_str().to_owned());
    }
    parts.extend(
        job.rate_bytes_per_s
            .map(|rate: Bytes| format!("{}/s", format::size(rate))),
    );
    parts.extend(job.eta_s.map(|eta| format!("{} left", format::seconds(eta.0))));
    parts.extend(job.waiting_for.as_ref().map(|what| format!("waits for {what}")));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_tells_how_fast_it_is_and_what_it_waits_for() {
        let text = r#"{"id": "00000000-0000-0000-0000-000000000000", "kind": "raid_group.rebuild", "state": "paused",
            "subject": {"kind": "raid_group", "id": "00000000-0000-0000-0000-000000000000"}, "bytes_done": 1,
            "bytes_total": 2, "rate_bytes_per_s": 1048576, "eta_s": 90, "rate_limit_bytes_per_s": null,
            "waiting_for": "device 3", "waiting_since": null, "failure": null, "result_path": null,
            "created_at": "2026-01-01T00:00:00Z", "started_at": null, "finished_at": null,
            "updated_at": "2026-01-01T00:00:00Z"}"#;
        let mut job: Job = serde_json::from_str(text).unwrap();
        assert_eq!(message(&job), "paused, 1MiB/s, 1m30s left, waits for device 3");
        job.state = JobState::Running;
        (job.rate_bytes_per_s, job.eta_s, job.waiting_for) = (None, None, None);
        assert_eq!(message(&job), "");
        for template in [BAR, NO_TOTAL] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
