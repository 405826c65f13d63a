//! Rebuilds, by a real engine.

use ashlar_openapi::jobs::{Job as View, JobKind};
use ashlar_openapi::operations::{CreateRaidGroup, FailDevice, ReplaceMember, ReturnDevice};
use ashlar_openapi::raid_groups::{NewRaidGroup, RaidLevel};
use ashlar_server::app::intent::Intent;
use ashlar_server::catalog::jobs::JobState;
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
