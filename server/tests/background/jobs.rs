//! Jobs: verbs, waiting, and what becomes of them at a restart.

use std::sync::Arc;
use std::time::Duration;

use ashlar_openapi::devices::Identify;
use ashlar_openapi::jobs::{Job as View, JobChange, JobKind, JobState as ViewState};
use ashlar_openapi::operations::{
    CancelJob, ChangeJob, CreateSupportBundle, IdentifyDevice, PauseJob, ResumeJob,
};
use ashlar_openapi::{Bytes, Natural, Problem, ProblemType};
use ashlar_server::app::jobs::verbs::Verb;
use ashlar_server::app::jobs::{NewJob, make};
use ashlar_server::app::{Answer, App};
use ashlar_server::catalog::jobs::{Job, JobState};
use uuid::Uuid;

use crate::cluster::within;
use crate::life::{Life, body, until};

fn seconds(seconds: u32) -> Identify {
    Identify {
        seconds: Some(Natural(seconds)),
    }
}

async fn identify(life: &Life, for_seconds: u32) -> View {
    let caller = Life::caller::<IdentifyDevice>();
    let answer = life
        .app
        .identify(&caller, life.place(), seconds(for_seconds), None)
        .await
        .unwrap();
    assert_eq!(answer.status, 202);
    body(&answer)
}

async fn verb(app: &App, id: Uuid, verb: Verb) -> Result<Answer, Problem> {
    let caller = match verb {
        Verb::Pause => Life::caller::<PauseJob>(),
        Verb::Resume => Life::caller::<ResumeJob>(),
        _ => Life::caller::<CancelJob>(),
    };
    app.job_verb(&caller, id, verb, None, None).await
}

/// What the events say of a job.
async fn told(life: &Life, id: Uuid) -> Vec<(String, String)> {
    let events = life.events().await;
    let of_job = events.iter().filter(|event| event.subject_id == Some(id));
    of_job
        .map(|event| {
            (
                event.kind.clone(),
                event.data["state"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
}

fn is_legal(from: &str, to: &str) -> bool {
    matches!(
        (from, to),
        ("queued", "running" | "paused" | "cancelling")
            | ("running", "paused" | "cancelling" | "succeeded" | "failed")
            | ("paused", "queued" | "running" | "cancelling")
            | ("cancelling", "cancelled")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_made_seen_for_a_while_and_whoever_waits_is_told_of_the_end() {
    let life = Life::busy().await;
    let caller = Life::keyed::<IdentifyDevice>("k");
    let device = life.place();
    let wait = Some(Duration::from_secs(60));
    let done = life
        .app
        .identify(&caller, device, seconds(1), wait)
        .await
        .unwrap();
    let job: View = body(&done);
    assert_eq!((done.status, job.state), (200, ViewState::Succeeded));
    assert!(job.bytes_done.0 >= 64 * 4096, "a burst at least: {job:?}");
    assert_eq!(done.location, Some(format!("/api/v1/jobs/{}", job.id)));
    // The same request again begins nothing.
    let again = life
        .app
        .identify(&caller, device, seconds(1), wait)
        .await
        .unwrap();
    assert_eq!(body::<View>(&again).id, job.id);
    let kinds: Vec<String> = told(&life, job.id)
        .await
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(kinds, ["job.created", "job.started", "job.succeeded"]);

    let long = identify(&life, 3600).await;
    let wait = Duration::from_millis(1);
    assert!(
        life.app
            .job_within(long.id, wait)
            .await
            .unwrap()
            .finished_at
            .is_none()
    );
    let app = Arc::clone(&life.app);
    let waiting = tokio::spawn(async move { app.job_within(long.id, Duration::from_secs(100)).await });
    verb(&life.app, long.id, Verb::Cancel).await.unwrap();
    let ended: Job = within(waiting).await.unwrap().unwrap();
    assert_eq!(ended.state, JobState::Cancelled);
    for wrong in [0, 3601] {
        let caller = Life::caller::<IdentifyDevice>();
        let refused = life
            .app
            .identify(&caller, device, seconds(wrong), None)
            .await
            .unwrap_err();
        assert_eq!(refused.pointer.as_deref(), Some("/seconds"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_job_stands_still_and_goes_on_where_it_was() {
    let life = Life::busy().await;
    let id = identify(&life, 3600).await.id;
    life.job(id, |job| job.bytes_done > 0).await;
    let paused = verb(&life.app, id, Verb::Pause).await.unwrap();
    assert_eq!(body::<View>(&paused).state, ViewState::Paused);
    let again = verb(&life.app, id, Verb::Pause).await.unwrap();
    assert_eq!(again.etag, paused.etag, "nothing was changed");

    let change = |limit| JobChange {
        rate_limit_bytes_per_s: Some(limit),
    };
    let caller = Life::caller::<ChangeJob>();
    let limited = life
        .app
        .change_job(&caller, id, change(Some(Bytes(1 << 20))), paused.etag.as_deref())
        .await;
    assert_eq!(
        body::<View>(&limited.unwrap()).rate_limit_bytes_per_s,
        Some(Bytes(1 << 20))
    );
    let stale = life
        .app
        .change_job(&caller, id, change(None), paused.etag.as_deref())
        .await;
    assert_eq!(stale.unwrap_err().kind, ProblemType::Stale);
    let zero = life
        .app
        .change_job(&caller, id, change(Some(Bytes(0))), None)
        .await;
    assert_eq!(zero.unwrap_err().kind, ProblemType::InvalidValue);

    let stood = life.app.job(id).await.unwrap().bytes_done;
    let resumed = verb(&life.app, id, Verb::Resume).await.unwrap();
    assert_eq!(body::<View>(&resumed).state, ViewState::Running);
    life.job(id, |job| job.bytes_done > stood).await;
    until(async || {
        life.app
            .job_view(&life.app.job(id).await.unwrap())
            .rate_bytes_per_s
    })
    .await;
    verb(&life.app, id, Verb::Cancel).await.unwrap();
    life.job(id, |job| job.state == JobState::Cancelled).await;
    for gone in [Verb::Pause, Verb::Resume] {
        let refused = verb(&life.app, id, gone).await.unwrap_err();
        assert_eq!(refused.kind, ProblemType::JobState);
        assert!(!refused.correction.allowed.is_empty());
    }
    assert!(verb(&life.app, id, Verb::Cancel).await.is_ok(), "it is cancelled");
    let kinds: Vec<String> = told(&life, id).await.into_iter().map(|(kind, _)| kind).collect();
    let wanted = [
        "job.created",
        "job.started",
        "job.paused",
        "job.changed",
        "job.resumed",
        "job.cancelling",
        "job.cancelled",
    ];
    assert_eq!(kinds, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn verbs_at_the_same_time_make_legal_moves_only() {
    let life = Life::busy().await;
    for round in 0..4 {
        let id = identify(&life, if round == 0 { 1 } else { 3600 }).await.id;
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..12 {
            let app = Arc::clone(&life.app);
            let what = match caller % 5 {
                0 | 1 => Verb::Pause,
                2 | 3 => Verb::Resume,
                _ => Verb::Cancel,
            };
            callers.spawn(async move { verb(&app, id, what).await.map(drop) });
        }
        for answered in within(callers.join_all()).await {
            if let Err(refused) = answered {
                assert_eq!(refused.kind, ProblemType::JobState);
            }
        }
        life.job(id, |job| job.state == JobState::Cancelled).await;
        let told = told(&life, id).await;
        assert_eq!(told[0].1, "queued");
        for pair in told.windows(2) {
            assert!(is_legal(&pair[0].1, &pair[1].1), "{told:?}");
        }
        assert_eq!(told.last().unwrap().1, "cancelled");
    }
}

/// Makes a job that nobody works on yet.
async fn queued(life: &Life, kind: JobKind) -> Job {
    let new = NewJob {
        kind,
        subject_kind: "raid_group",
        subject: Uuid::new_v4(),
        params: serde_json::json!({"seconds": 3600}),
        bytes_total: None,
        limit: None,
    };
    let mut transaction = life.app.catalog.begin().await.unwrap();
    let job = make(&mut transaction, new, None).await.unwrap();
    transaction.commit().await.unwrap();
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_its_turn_can_be_paused_and_cancelled_and_some_verbs_are_not_for_every_kind() {
    let mut life = Life::idle().await;
    let rebuild = queued(&life, JobKind::Rebuild).await;
    let refused = verb(&life.app, rebuild.id, Verb::Cancel).await.unwrap_err();
    assert_eq!(refused.kind, ProblemType::JobKind);
    assert_eq!(
        refused.correction.allowed,
        [
            "raid_group.format",
            "raid_group.scrub",
            "device.identify",
            "support_bundle"
        ]
    );
    let bundle = queued(&life, JobKind::SupportBundle).await;
    let refused = verb(&life.app, bundle.id, Verb::Pause).await.unwrap_err();
    assert_eq!(refused.kind, ProblemType::JobKind);

    let waiting = queued(&life, JobKind::Identify).await;
    verb(&life.app, waiting.id, Verb::Pause).await.unwrap();
    let resumed = verb(&life.app, waiting.id, Verb::Resume).await.unwrap();
    assert_eq!(
        body::<View>(&resumed).state,
        ViewState::Queued,
        "it was never started"
    );
    verb(&life.app, waiting.id, Verb::Cancel).await.unwrap();
    life.start();
    life.job(waiting.id, |job| job.state == JobState::Cancelled).await;
    let waits = life.job(rebuild.id, |job| job.waiting_for.is_some()).await;
    assert_eq!(
        waits.state,
        JobState::Running,
        "there is no appliance yet: {waits:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_ends_what_was_for_the_moment_and_goes_on_with_the_rest() {
    let life = Life::busy().await;
    let seen = identify(&life, 3600).await.id;
    life.job(seen, |job| job.bytes_done > 0).await;
    let mut life = life.next().await;
    assert_eq!(
        life.app.job(seen).await.unwrap().state,
        JobState::Running,
        "it was cut off"
    );
    // One that was begun, and of which nothing was done.
    let caller = Life::caller::<CreateSupportBundle>();
    let bundle: View = body(&life.app.create_support_bundle(&caller, None).await.unwrap());
    life.database
        .run("update jobs set state = 'running', started_at = now() where kind = 'support_bundle'")
        .await;
    life.start();
    let ended = life.job(seen, |job| job.finished_at.is_some()).await;
    assert_eq!(ended.state, JobState::Cancelled);
    let events = life.events().await;
    let last = events
        .iter()
        .rfind(|event| event.subject_id == Some(seen))
        .unwrap();
    assert_eq!(last.kind, "job.cancelled");
    assert!(last.data["note"].as_str().unwrap().contains("restarted"));
    let made = life.job(bundle.id, |job| job.finished_at.is_some()).await;
    assert_eq!(made.state, JobState::Succeeded);
}
