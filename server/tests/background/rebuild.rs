//! Rebuilds, by a real engine.

use std::sync::Arc;

use ashlar_engine::raid::GroupState;
use ashlar_openapi::events::EventFilter;
use ashlar_openapi::jobs::{Job as View, JobKind};
use ashlar_openapi::operations::{
    ChangeRaidGroup, CreateRaidGroup, FailDevice, PauseJob, ReplaceMember, ReturnDevice,
};
use ashlar_openapi::raid_groups::{NewRaidGroup, RaidGroup, RaidGroupChange, RaidLevel};
use ashlar_openapi::{Bytes, ProblemType};
use ashlar_server::app::intent::Intent;
use ashlar_server::app::jobs::verbs::Verb;
use ashlar_server::background::jobs::rebuild::make_wanted;
use ashlar_server::catalog::jobs::JobState;
use ashlar_server::engine::copying::Copying;
use uuid::Uuid;

use crate::life::{Life, body, until};

const SIZE: u64 = 256 << 20;

async fn mirror(life: &Life) -> (Uuid, Uuid, Uuid) {
    let (one, other) = (life.device(SIZE).await, life.device(SIZE).await);
    let id = Uuid::new_v4();
    let new = NewRaidGroup {
        id: Some(id),
        name: None,
        level: RaidLevel::Raid1,
        members: vec![one, other],
        stripe_unit_bytes: None,
        slice_length_bytes: None,
        checksums: None,
    };
    life.change::<CreateRaidGroup>(Intent::CreateRaidGroup { id, new })
        .await;
    (id, one, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_member_is_a_job_that_ends_when_the_copies_are_equal() {
    let life = Life::busy().await;
    let (group, _, old) = mirror(&life).await;
    let new = life.device(SIZE).await;
    life.change::<FailDevice>(Intent::FailDevice { id: old }).await;
    let answer = life
        .change::<ReplaceMember>(Intent::ReplaceMember { id: group, old, new })
        .await;
    let job: View = body(&answer);
    assert_eq!(
        (answer.status, job.kind, job.subject.id),
        (202, JobKind::Rebuild, group)
    );
    let ended = life.job(job.id, |job| job.finished_at.is_some()).await;
    assert_eq!(ended.state, JobState::Succeeded, "{ended:?}");
    assert_eq!(Some(ended.bytes_done), ended.bytes_total);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_that_is_asked_for_again_answers_its_job_and_is_refused_once_that_has_ended() {
    let mut life = Life::idle().await;
    let (group, _, old) = mirror(&life).await;
    let new = life.device(SIZE).await;
    let hold = Copying {
        paused: true,
        limit: None,
    };
    life.app.engine.copy(group, hold).await.unwrap();
    let replace = Intent::ReplaceMember { id: group, old, new };
    let first: View = body(&life.change::<ReplaceMember>(replace.clone()).await);
    let membership = life.status(group).await.record.membership;
    let again: View = body(&life.change::<ReplaceMember>(replace.clone()).await);
    assert_eq!(again.id, first.id);
    assert_eq!(
        life.status(group).await.record.membership,
        membership,
        "nothing is started over"
    );
    let events = life.events().await;
    let told = events
        .iter()
        .filter(|event| event.kind == "raid_group.member_replaced");
    assert_eq!(told.count(), 1);

    life.start();
    let ended = life.job(first.id, |job| job.finished_at.is_some()).await;
    assert_eq!(ended.state, JobState::Succeeded);
    let caller = Life::caller::<ReplaceMember>();
    let refused = life
        .app
        .change(&caller, replace, async |_| Ok(()))
        .await
        .unwrap_err();
    assert_eq!(refused.kind, ProblemType::NotAMember);
    assert!(refused.cause.contains(&new.to_string()), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_a_group_is_shown_names_its_state_and_outlives_a_jobs() {
    let life = Life::busy().await;
    let (group, ..) = mirror(&life).await;
    let set = async |limit: Option<u64>| {
        let change = RaidGroupChange {
            rate_limit_bytes_per_s: Some(limit.map(Bytes)),
            ..RaidGroupChange::default()
        };
        let answer = life
            .change::<ChangeRaidGroup>(Intent::ChangeRaidGroup { id: group, change })
            .await;
        let shown: RaidGroup = body(&answer);
        assert_eq!(shown.rate_limit_bytes_per_s, limit.map(Bytes));
        answer.etag.unwrap()
    };
    let (none, some, other) = (
        set(None).await,
        set(Some(1 << 20)).await,
        set(Some(2 << 20)).await,
    );
    assert!(none != some && some != other && none != other);
    let free = Copying {
        paused: false,
        limit: None,
    };
    life.app.engine.copy(group, free).await.unwrap();
    assert_eq!(life.status(group).await.standing_copy_limit, Some(2 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_fails_and_returns_is_told_of_by_the_state_of_its_group() {
    let life = Life::busy().await;
    let (group, _, other) = mirror(&life).await;
    life.change::<FailDevice>(Intent::FailDevice { id: other }).await;
    life.change::<ReturnDevice>(Intent::ReturnDevice { id: other })
        .await;
    // Whether the copying was over before it was seen is chance; the group's state is told in either case.
    until(async || {
        let events = life.events().await;
        let of_group = events.iter().filter(|event| event.subject_id == Some(group));
        let states: Vec<String> = of_group
            .filter(|event| event.kind == "raid_group.state_changed")
            .map(|event| event.data["to"].as_str().unwrap().to_owned())
            .collect();
        (states.last()? == "optimal" && states.contains(&"degraded".to_owned())).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copying_that_nobody_asked_for_is_a_job_that_can_be_paused_and_limited() {
    let mut life = Life::idle().await;
    let (group, _, other) = mirror(&life).await;
    let hold = Copying {
        paused: true,
        limit: None,
    };
    life.app.engine.copy(group, hold).await.unwrap();
    life.change::<FailDevice>(Intent::FailDevice { id: other }).await;
    life.change::<ReturnDevice>(Intent::ReturnDevice { id: other })
        .await;
    assert_eq!(
        life.status(group).await.state,
        Some(GroupState::Rebuilding),
        "it is held up"
    );
    make_wanted(&life.app, &[]).await.unwrap();
    make_wanted(&life.app, &[]).await.unwrap();
    let page = life
        .app
        .list_events(&EventFilter::default(), true, None, 100)
        .await
        .unwrap();
    let made: Vec<_> = page
        .items
        .iter()
        .filter(|event| event.kind == "job.created")
        .collect();
    assert_eq!(made.len(), 1, "one job for one group");
    let id = made[0].subject.as_ref().unwrap().id;
    let (app, caller) = (Arc::clone(&life.app), Life::caller::<PauseJob>());
    let verb = async |verb, limit| app.job_verb(&caller, id, verb, limit, None).await.unwrap();
    verb(Verb::Limit, Some(1 << 30)).await;
    verb(Verb::Pause, None).await;
    life.start();
    until(async || (life.status(group).await.copy_limit == Some(1 << 30)).then_some(())).await;
    let held = life.status(group).await;
    assert_eq!(
        (held.copy_paused, held.state),
        (true, Some(GroupState::Rebuilding))
    );
    verb(Verb::Resume, None).await;
    let ended = life.job(id, |job| job.finished_at.is_some()).await;
    assert_eq!(ended.state, JobState::Succeeded);
    let free =
        until(async || Some(life.status(group).await).filter(|status| status.copy_limit.is_none())).await;
    assert_eq!((free.copy_paused, free.state), (false, Some(GroupState::Optimal)));
}
