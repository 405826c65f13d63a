//! Relaying the engine's events.

use ashlar_engine::event::{EventKind, Events, KEPT};
use ashlar_engine::raid::GroupState;
use ashlar_engine::types::{DeviceId, GroupId, VolumeId};
use ashlar_server::background::engine_events::relay;
use uuid::Uuid;

use crate::life::Life;

const APPLIANCE: Uuid = Uuid::from_u128(1);

async fn relay_all(life: &Life, events: &Events) {
    while relay(&life.app.catalog, APPLIANCE, events, &mut 0).await.unwrap() {}
}

fn emit(events: &Events, count: usize) {
    for number in 0..count {
        events.emit(EventKind::VolumeServing {
            volume: VolumeId(Uuid::from_u128(number as u128)),
        });
    }
}

#[tokio::test]
async fn each_event_of_the_engine_is_told_once_whatever_goes_away_in_between() {
    let life = Life::idle().await;
    let events = Events::new(7);
    emit(&events, 450);
    assert!(
        relay(&life.app.catalog, APPLIANCE, &events, &mut 0)
            .await
            .unwrap(),
        "there is more"
    );
    // The events that were relayed are forgotten; their place is not.
    life.database.run("delete from events").await;
    relay_all(&life, &events).await;
    relay_all(&life, &events).await;
    emit(&events, 1);
    relay_all(&life, &events).await;
    let told = life.events().await;
    let numbers: Vec<i64> = told.iter().map(|event| event.engine_number.unwrap()).collect();
    assert_eq!(numbers, (201..=451).collect::<Vec<_>>());
    assert!(told.iter().all(|event| event.engine_epoch == Some(7)));
    // The next start of the engine counts anew.
    let next = Events::new(8);
    emit(&next, 2);
    relay_all(&life, &next).await;
    let told = life.events().await;
    let newest: Vec<_> = told[251..]
        .iter()
        .map(|event| (event.engine_epoch, event.engine_number))
        .collect();
    assert_eq!(newest, [(Some(8), Some(1)), (Some(8), Some(2))]);
}

#[tokio::test]
async fn events_of_a_start_that_could_not_be_counted_are_told_and_the_place_of_others_stays() {
    let life = Life::idle().await;
    let events = Events::new(1);
    emit(&events, 5);
    relay_all(&life, &events).await;
    // Their numbers are those of events that were relayed.
    let (uncounted, mut told) = (Events::uncounted(1), 0);
    for count in [250, 1] {
        emit(&uncounted, count);
        while relay(&life.app.catalog, APPLIANCE, &uncounted, &mut told)
            .await
            .unwrap()
        {}
    }
    emit(&events, 1);
    relay_all(&life, &events).await;
    let found = life.events().await;
    assert_eq!(found.len(), 5 + 251 + 1);
    let is_placed = |event: &&ashlar_server::catalog::events::Event| event.engine_epoch.is_some();
    assert_eq!(found.iter().filter(is_placed).count(), 6);
    assert_eq!(found.last().unwrap().engine_number, Some(6));
}

#[tokio::test]
async fn what_the_engine_forgot_before_it_was_relayed_is_said_to_be_lost() {
    let life = Life::idle().await;
    let events = Events::new(1);
    emit(&events, 5);
    relay_all(&life, &events).await;
    emit(&events, KEPT + 10);
    relay_all(&life, &events).await;
    relay_all(&life, &events).await;
    let told = life.events().await;
    assert_eq!(told.len(), 5 + 1 + KEPT);
    assert_eq!(told[5].kind, "engine.events_lost");
    assert_eq!(told[5].data, serde_json::json!({"epoch": 1, "from": 6, "to": 15}));
    assert_eq!(
        (told[5].engine_number, told[6].engine_number),
        (Some(15), Some(16))
    );
}

#[tokio::test]
async fn every_kind_says_what_it_is_about() {
    let life = Life::idle().await;
    let events = Events::new(1);
    let id = Uuid::from_u128(9);
    for kind in [
        EventKind::DeviceFailed {
            device: DeviceId(id),
            why: "it broke".into(),
        },
        EventKind::DeviceReturned { device: DeviceId(id) },
        EventKind::GroupStateChanged {
            group: GroupId(id),
            from: Some(GroupState::Optimal),
            to: GroupState::Degraded,
        },
        EventKind::GroupWaiting {
            group: GroupId(id),
            why: "members",
        },
        EventKind::VolumeServing { volume: VolumeId(id) },
        EventKind::VolumeNotServing { volume: VolumeId(id) },
    ] {
        events.emit(kind);
    }
    relay_all(&life, &events).await;
    let told: Vec<_> = life
        .events()
        .await
        .into_iter()
        .map(|event| {
            assert_eq!(event.subject_id, Some(id));
            (event.kind, event.subject_kind, event.data.to_string())
        })
        .collect();
    let wanted = [
        ("device.failed", "device", r#"{"why":"it broke"}"#),
        ("device.returned", "device", "{}"),
        (
            "raid_group.state_changed",
            "raid_group",
            r#"{"from":"optimal","to":"degraded"}"#,
        ),
        ("raid_group.waiting", "raid_group", r#"{"why":"members"}"#),
        ("volume.serving", "volume", "{}"),
        ("volume.not_serving", "volume", "{}"),
    ];
    assert_eq!(
        told,
        wanted.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()))
    );
}
