//! Formatting, by a real engine.

use ashlar_openapi::jobs::JobKind;
use ashlar_openapi::operations::{CreateRaidGroup, FormatRaidGroup, PauseJob};
use ashlar_openapi::raid_groups::{Formatting, NewRaidGroup, RaidLevel};
use ashlar_server::app::intent::Intent;
use ashlar_server::app::jobs::verbs::Verb;
use ashlar_server::catalog::jobs::JobState;
use uuid::Uuid;

use crate::life::{Life, body};

const SIZE: u64 = 256 << 20;

async fn group(life: &Life) -> Uuid {
    let id = Uuid::new_v4();
    let new = NewRaidGroup {
        id: Some(id),
        name: None,
        level: RaidLevel::Raid0,
        members: vec![life.device(SIZE).await],
        stripe_unit_bytes: None,
        slice_length_bytes: None,
        checksums: None,
    };
    life.change::<CreateRaidGroup>(Intent::CreateRaidGroup { id, new })
        .await;
    id
}

async fn format(life: &Life, group: Uuid, dry_run: bool) -> (u16, Formatting) {
    let caller = Life::caller::<FormatRaidGroup>();
    let answer = life
        .app
        .format_group(&caller, group, dry_run, None)
        .await
        .unwrap();
    (answer.status, body(&answer))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_be_formatted_and_makes_no_job() {
    let life = Life::busy().await;
    let group = group(&life).await;
    let (status, told) = format(&life, group, true).await;
    let free = life.status(group).await;
    let bytes = u64::from(free.free_slices) * free.record.slice;
    assert_eq!((status, told.job, told.bytes.0), (200, None, bytes));
    assert!(
        life.events()
            .await
            .iter()
            .all(|event| event.kind != "job.created")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn formatting_is_one_job_that_goes_on_after_a_pause_and_ends_at_the_groups_end() {
    let mut life = Life::idle().await;
    let group = group(&life).await;
    let (status, first) = format(&life, group, false).await;
    let (_, again) = format(&life, group, false).await;
    let job = first.job.unwrap();
    assert_eq!((status, job.kind, job.subject.id), (202, JobKind::Format, group));
    assert_eq!(again.job.unwrap().id, job.id, "one job for one group");
    let (app, caller) = (std::sync::Arc::clone(&life.app), Life::caller::<PauseJob>());
    let verb = async |verb| app.job_verb(&caller, job.id, verb, None, None).await.unwrap();
    verb(Verb::Pause).await;
    life.start();
    verb(Verb::Resume).await;
    let ended = life.job(job.id, |job| job.finished_at.is_some()).await;
    assert_eq!(ended.state, JobState::Succeeded, "{ended:?}");
    assert_eq!(Some(ended.bytes_done), ended.bytes_total);
    let later = format(&life, group, false).await.1.job.unwrap();
    assert_ne!(later.id, job.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn formatting_that_is_held_up_can_be_cancelled() {
    let mut life = Life::idle().await;
    let group = group(&life).await;
    let job = format(&life, group, false).await.1.job.unwrap();
    let caller = Life::caller::<PauseJob>();
    let app = std::sync::Arc::clone(&life.app);
    let verb = async |verb, limit| app.job_verb(&caller, job.id, verb, limit, None).await.unwrap();
    // One piece, and then for years none.
    verb(Verb::Limit, Some(1)).await;
    life.start();
    life.job(job.id, |job| job.bytes_done > 0).await;
    verb(Verb::Cancel, None).await;
    let ended = life.job(job.id, |job| job.finished_at.is_some()).await;
    assert_eq!(ended.state, JobState::Cancelled);
    assert!(ended.bytes_done < ended.bytes_total.unwrap());
}
