//! Scrubs, by a real engine.

use ashlar_engine::io::IoBuf;
use ashlar_engine::raid::ScrubMode as EngineMode;
use ashlar_engine::types::{GroupId, OperationId};
use ashlar_openapi::Bytes;
use ashlar_openapi::jobs::{Job as View, JobKind};
use ashlar_openapi::operations::{CancelJob, CreateRaidGroup, ScrubRaidGroup};
use ashlar_openapi::raid_groups::{NewRaidGroup, RaidLevel};
use ashlar_openapi::scrubs::{Scrub, ScrubMode};
use ashlar_server::app::intent::Intent;
use ashlar_server::app::jobs::verbs::Verb;
use ashlar_server::background::jobs::scrub::make_wanted;
use ashlar_server::catalog::jobs::JobState;
use uuid::Uuid;

use crate::life::{Life, body, until};

const SIZE: u64 = 256 << 20;

async fn mirror(life: &Life) -> Uuid {
    let id = Uuid::new_v4();
    let new = NewRaidGroup {
        id: Some(id),
        name: None,
        level: RaidLevel::Raid1,
        members: vec![life.device(SIZE).await, life.device(SIZE).await],
        stripe_unit_bytes: None,
        slice_length_bytes: None,
        checksums: None,
    };
    life.change::<CreateRaidGroup>(Intent::CreateRaidGroup { id, new })
        .await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_is_a_job_that_ends_with_its_findings_and_is_told_of_by_events() {
    let life = Life::busy().await;
    let id = mirror(&life).await;
    let wanted = Scrub {
        mode: ScrubMode::Check,
        rate_limit_bytes_per_s: Some(Bytes(1 << 30)),
    };
    let answer = life
        .change::<ScrubRaidGroup>(Intent::ScrubRaidGroup { id, wanted })
        .await;
    let job: View = body(&answer);
    assert_eq!(
        (answer.status, job.kind, job.subject.id),
        (202, JobKind::Scrub, id)
    );
    assert_eq!(job.rate_limit_bytes_per_s, Some(Bytes(1 << 30)));
    let ended = life.job(job.id, |job| job.finished_at.is_some()).await;
    assert_eq!(ended.state, JobState::Succeeded, "{ended:?}");
    assert_eq!(ended.result.unwrap()["mismatched_blocks"], 0);
    until(async || {
        let events = life.events().await;
        let of_group = |kind: &str| events.iter().any(|event| event.kind == kind);
        (of_group("raid_group.scrub_started") && of_group("raid_group.scrub_finished")).then_some(())
    })
    .await;
}

/// As one that a schedule has begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_that_nobody_asked_for_gets_one_job_by_which_it_can_be_ended() {
    let mut life = Life::idle().await;
    let id = mirror(&life).await;
    let scrub = OperationId(Uuid::new_v4());
    let begun = life.app.engine.with(async move |appliance| {
        let number = appliance.find_group(GroupId(id)).await.unwrap().record.number;
        let group = appliance.group(number).unwrap();
        let data = IoBuf::zeroed(1 << 20).into_slice();
        group.write(0, data, false).await.unwrap();
        // One chunk, and then for days none.
        let begun = appliance.start_scrub(scrub, GroupId(id), EngineMode::Check, Some(1));
        begun.await.unwrap();
    });
    begun.await.unwrap();
    make_wanted(&life.app, &[]).await.unwrap();
    make_wanted(&life.app, &[]).await.unwrap();
    let events = life.events().await;
    let made: Vec<_> = events
        .iter()
        .filter(|event| event.kind == "job.created")
        .collect();
    assert_eq!(made.len(), 1, "{made:?}");
    let job = made[0].subject_id.unwrap();
    assert_eq!(life.app.job(job).await.unwrap().rate_limit_bytes_per_s, Some(1));
    life.start();
    life.job(job, |job| job.bytes_done > 0).await;
    let caller = Life::caller::<CancelJob>();
    let cancelled = life.app.job_verb(&caller, job, Verb::Cancel, None, None);
    cancelled.await.unwrap();
    let ended = life.job(job, |job| job.finished_at.is_some()).await;
    assert_eq!(ended.state, JobState::Cancelled);
    let scrubs = life.status(id).await.scrub;
    let last = scrubs.last.unwrap();
    assert!(scrubs.running.is_none() && last.cancelled && last.id == scrub);
}
