//! Events, their receivers, the audit log.

use ashlar_server::catalog::audit::{self, AuditFilter, AuditOutcome, NewAuditEntry};
use ashlar_server::catalog::events::{self, EventFilter, NewEvent};
use ashlar_server::catalog::webhook_deliveries::{self, Attempt, DeliverySort, DeliveryState};
use ashlar_server::catalog::webhooks::{self, NewWebhook, WebhookEdit};
use ashlar_server::catalog::{CatalogError, Part};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cluster::{Database, in_an_hour, within};

fn event<'a>(kind: &'a str, data: &'a Value) -> NewEvent<'a> {
    NewEvent {
        kind,
        subject_kind: "volume",
        subject_id: Some(Uuid::from_u128(7)),
        data,
        engine: None,
    }
}

#[tokio::test]
async fn numbers_have_no_gaps_and_are_in_the_order_of_commits() {
    let database = Database::migrated().await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let pool = database.pool.clone();
        writers.spawn(async move {
            for round in 0..25 {
                let mut tx = pool.begin().await.unwrap();
                let data = json!({"writer": writer, "round": round});
                let number = events::append(&mut tx, &event("tried", &data)).await.unwrap();
                if (writer + round) % 3 == 0 {
                    tx.rollback().await.unwrap();
                } else {
                    tx.commit().await.unwrap();
                    // Whoever looks now sees all before it.
                    let mut conn = pool.acquire().await.unwrap();
                    let seen = events::after(&mut conn, 0, &EventFilter::default(), 1000)
                        .await
                        .unwrap();
                    let upto = seen.iter().filter(|seen| seen.number <= number).count();
                    assert_eq!(i64::try_from(upto).unwrap(), number);
                }
            }
        });
    }
    within(writers.join_all()).await;
    let mut conn = database.pool.acquire().await.unwrap();
    let all = events::after(&mut conn, 0, &EventFilter::default(), 1000)
        .await
        .unwrap();
    let numbers: Vec<i64> = all.iter().map(|event| event.number).collect();
    assert_eq!(
        numbers,
        (1..=events::newest(&mut conn).await.unwrap()).collect::<Vec<_>>()
    );
    assert!(all.is_sorted_by_key(|event| event.at));
}

#[tokio::test]
async fn events_are_filtered_and_an_engine_event_is_relayed_once() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    let data = json!({});
    events::append(conn, &event("volume.created", &data))
        .await
        .unwrap();
    let relayed = NewEvent {
        engine: Some((3, 9)),
        ..event("volume.degraded", &data)
    };
    assert_eq!(events::append(conn, &relayed).await.unwrap(), 2);
    let again = events::append(conn, &relayed).await;
    assert!(matches!(again, Err(CatalogError::Constraint { name }) if name == "events_engine_event"));
    assert_eq!(
        events::newest(conn).await.unwrap(),
        2,
        "the refused one took no number"
    );
    assert_eq!(events::newest_of_engine(conn).await.unwrap(), Some((3, 9)));
    let filter = EventFilter {
        kinds: vec!["volume.degraded".into()],
        subjects: vec![Uuid::from_u128(7)],
        ..EventFilter::default()
    };
    let found = events::after(conn, 0, &filter, 10).await.unwrap();
    assert_eq!(found.iter().map(|event| event.number).collect::<Vec<_>>(), [2]);
    assert_eq!(events::prune(conn, in_an_hour()).await.unwrap(), 2);
    assert_eq!(events::oldest(conn).await.unwrap(), None);
    assert_eq!(events::append(conn, &event("more", &data)).await.unwrap(), 3);
}

#[tokio::test]
async fn a_webhook_is_told_once_of_what_it_wants_since_it_was_made() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    let (id, data) = (Uuid::new_v4(), json!({}));
    events::append(conn, &event("before", &data)).await.unwrap();
    let kinds = ["wanted".to_owned()];
    let new = NewWebhook {
        id,
        name: "receiver",
        url: "https://receiver.example/",
        kinds: &kinds,
        subjects: &[],
        secret: "one",
        enabled: true,
    };
    assert_eq!(webhooks::insert(conn, &new).await.unwrap().next_event, 2);
    events::append(conn, &event("wanted", &data)).await.unwrap();
    events::append(conn, &event("other", &data)).await.unwrap();
    assert_eq!(webhook_deliveries::queue_events(conn).await.unwrap(), 1);
    assert_eq!(webhook_deliveries::queue_events(conn).await.unwrap(), 0);
    let due = webhook_deliveries::due(conn, &[], 10).await.unwrap();
    assert_eq!(due.iter().map(|delivery| delivery.event).collect::<Vec<_>>(), [2]);

    let disabled = WebhookEdit {
        enabled: Some(false),
        ..WebhookEdit::default()
    };
    webhooks::update(conn, id, &disabled).await.unwrap().unwrap();
    assert!(webhook_deliveries::due(conn, &[], 10).await.unwrap().is_empty());
    events::append(conn, &event("wanted", &data)).await.unwrap();
    assert_eq!(webhook_deliveries::queue_events(conn).await.unwrap(), 0);
}

async fn receiver(conn: &mut sqlx::PgConnection) -> Uuid {
    let webhook = Uuid::new_v4();
    let new = NewWebhook {
        id: webhook,
        name: "receiver",
        url: "https://receiver.example/",
        kinds: &[],
        subjects: &[],
        secret: "one",
        enabled: true,
    };
    webhooks::insert(conn, &new).await.unwrap();
    webhook
}

#[tokio::test]
async fn a_rotated_secret_is_kept_beside_its_follower() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    let webhook = receiver(conn).await;
    let rotated = webhooks::rotate_secret(conn, webhook, "two", in_an_hour())
        .await
        .unwrap();
    let rotated = rotated.unwrap();
    assert_eq!(
        (rotated.secret.as_str(), rotated.previous_secret.as_deref()),
        ("two", Some("one"))
    );
}

#[tokio::test]
async fn a_delivery_is_tried_again_until_it_is_done_or_given_up_and_can_be_sent_again() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    let webhook = receiver(conn).await;
    let data = json!({});
    events::append(conn, &event("wanted", &data)).await.unwrap();
    events::append(conn, &event("wanted", &data)).await.unwrap();
    assert_eq!(webhook_deliveries::queue_events(conn).await.unwrap(), 2);
    let due = webhook_deliveries::due(conn, &[], 10).await.unwrap();
    assert_eq!(due.len(), 1, "the next one only after this one");
    let id = due[0].id;
    assert!(
        webhook_deliveries::due(conn, &[webhook], 10)
            .await
            .unwrap()
            .is_empty()
    );
    let later = Attempt::Again {
        status: Some(503),
        error: "busy",
        at: in_an_hour(),
    };
    assert!(webhook_deliveries::note_attempt(conn, id, later).await.unwrap());
    assert!(webhook_deliveries::due(conn, &[], 10).await.unwrap().is_empty());
    let given_up = Attempt::GivenUp {
        status: None,
        error: "no route",
    };
    assert!(
        webhook_deliveries::note_attempt(conn, id, given_up)
            .await
            .unwrap()
    );
    let failed = webhook_deliveries::get(conn, id).await.unwrap().unwrap();
    assert_eq!((failed.state, failed.attempts), (DeliveryState::Failed, 2));

    webhook_deliveries::resend(conn, webhook, id)
        .await
        .unwrap()
        .unwrap();
    let delivered = Attempt::Delivered { status: 204 };
    assert!(
        webhook_deliveries::note_attempt(conn, id, delivered)
            .await
            .unwrap()
    );
    assert!(
        !webhook_deliveries::note_attempt(conn, id, delivered)
            .await
            .unwrap()
    );
    let part = Part {
        sort: DeliverySort::CreatedAt,
        descending: true,
        after: None,
        limit: 10,
    };
    let state = Some(DeliveryState::Delivered);
    let page = webhook_deliveries::page(conn, webhook, state, &part)
        .await
        .unwrap();
    assert_eq!(page.rows[0].last_status, Some(204));
    assert_eq!(webhook_deliveries::prune(conn, in_an_hour()).await.unwrap(), 1);
    assert!(webhooks::delete(conn, webhook).await.unwrap());
}

#[tokio::test]
async fn the_audit_log_is_read_newest_first_by_pages_and_filters() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    for round in 0..5 {
        let name = format!("vol{round}");
        let after = json!({"name": name});
        let entry = NewAuditEntry {
            actor_kind: "user",
            actor_id: Some(Uuid::from_u128(1)),
            actor_name: "anna",
            address: Some("2001:db8::7".parse().unwrap()),
            request_id: "r",
            operation: "create_volume",
            object_kind: Some("volume"),
            object_id: Some(Uuid::from_u128(round)),
            object_name: Some(&name),
            before: None,
            after: Some(&after),
            problem: (round == 3).then_some("no-space"),
        };
        audit::append(conn, &entry).await.unwrap();
    }
    let all = AuditFilter::default();
    let (first, more) = audit::page(conn, &all, None, 3).await.unwrap();
    assert!(more);
    assert_eq!(first[0].object_name.as_deref(), Some("vol4"));
    assert_eq!(first[0].address.as_deref(), Some("2001:db8::7"));
    let (second, more) = audit::page(conn, &all, Some(first[2].id), 3).await.unwrap();
    assert!(!more);
    assert_eq!(second.len(), 2);
    let refused = AuditFilter {
        outcome: Some(AuditOutcome::Refused),
        ..AuditFilter::default()
    };
    let (refused, _) = audit::page(conn, &refused, None, 3).await.unwrap();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].problem.as_deref(), Some("no-space"));
    assert_eq!(audit::prune(conn, in_an_hour()).await.unwrap(), 5);
}
