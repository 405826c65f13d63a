//! Operations, idempotency keys, jobs.

use ashlar_server::catalog::idempotency::{self, Claim};
use ashlar_server::catalog::jobs::{self, JobFilter, JobSort, JobState, NewJob, Transition};
use ashlar_server::catalog::operations::{self, NewOperation, OperationState};
use ashlar_server::catalog::{CatalogError, Part};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::cluster::{Database, hash, in_an_hour, within};

async fn begin(conn: &mut PgConnection, intent: &Value) -> Uuid {
    let id = Uuid::new_v4();
    let new = NewOperation {
        id,
        kind: "create_volume",
        intent,
        actor: &json!({"name": "anna"}),
        object_kind: "volume",
        object_id: Uuid::new_v4(),
    };
    operations::begin(conn, &new).await.unwrap();
    id
}

#[tokio::test]
async fn an_operation_ends_once() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    let intent = json!({"name": "vol0"});
    let (done, failed, lost) = (
        begin(conn, &intent).await,
        begin(conn, &intent).await,
        begin(conn, &intent).await,
    );
    let unfinished = operations::unfinished(conn).await.unwrap();
    assert_eq!(
        unfinished.iter().map(|row| row.id).collect::<Vec<_>>(),
        [done, failed, lost]
    );
    assert!(operations::finish_done(conn, done, &Value::Null).await.unwrap());
    assert!(!operations::finish_failed(conn, done, &json!({})).await.unwrap());
    assert!(
        operations::finish_failed(conn, failed, &json!({"type": "no-space"}))
            .await
            .unwrap()
    );
    assert_eq!(operations::abandon_all(conn).await.unwrap(), [lost]);
    assert!(!operations::finish_done(conn, lost, &json!({})).await.unwrap());
    let row = operations::get(conn, done).await.unwrap().unwrap();
    assert_eq!(
        (row.state, row.result, row.intent),
        (OperationState::Done, Some(Value::Null), intent)
    );
    assert_eq!(operations::prune(conn, in_an_hour()).await.unwrap(), 3);
}

#[tokio::test]
async fn of_many_that_claim_a_key_at_once_one_has_it_and_the_others_its_answer() {
    let database = Database::migrated().await;
    let mut claims = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let pool = database.pool.clone();
        claims.spawn(async move {
            let mut tx = pool.begin().await.unwrap();
            let claim = idempotency::claim(&mut tx, "anna", "key", &hash(1), None)
                .await
                .unwrap();
            if claim == Claim::New {
                let body = json!({"id": 1});
                idempotency::store_answer(&mut tx, "anna", "key", 201, Some(&body), None)
                    .await
                    .unwrap();
            }
            tx.commit().await.unwrap();
            claim
        });
    }
    let claims = within(claims.join_all()).await;
    assert_eq!(claims.iter().filter(|claim| **claim == Claim::New).count(), 1);
    for claim in claims {
        if let Claim::Known(row) = claim {
            assert_eq!((row.status, row.body), (Some(201), Some(json!({"id": 1}))));
        }
    }
}

#[tokio::test]
async fn a_key_is_free_again_after_a_failed_try_and_after_a_day() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    let claim = async |conn: &mut PgConnection, fingerprint, operation| {
        idempotency::claim(conn, "anna", "key", &hash(fingerprint), operation)
            .await
            .unwrap()
    };
    assert_eq!(claim(conn, 1, None).await, Claim::New);
    assert!(matches!(claim(conn, 2, None).await, Claim::Known(row) if row.fingerprint == hash(1)));
    idempotency::release(conn, "anna", "key").await.unwrap();
    let operation = begin(conn, &json!({})).await;
    assert_eq!(claim(conn, 2, Some(operation)).await, Claim::New);
    idempotency::store_answer_of_operation(conn, operation, 201, None, None)
        .await
        .unwrap();
    let released = idempotency::release(conn, "anna", "key").await;
    assert!(
        matches!(released, Err(CatalogError::NotFound)),
        "it has an answer"
    );
    database
        .run("update idempotency_keys set created_at = created_at - interval '25 hours'")
        .await;
    assert_eq!(idempotency::find(conn, "anna", "key").await.unwrap(), None);
    assert_eq!(claim(conn, 3, None).await, Claim::New);
    let row = idempotency::find(conn, "anna", "key").await.unwrap().unwrap();
    assert_eq!((row.status, row.operation), (None, None));
    assert_eq!(idempotency::prune(conn).await.unwrap(), 0);
}

fn job(subject: u128, params: &Value) -> NewJob<'_> {
    NewJob {
        id: Uuid::new_v4(),
        kind: "format",
        subject_kind: "raid-group",
        subject_id: Uuid::from_u128(subject),
        params,
        bytes_total: Some(100),
        rate_limit_bytes_per_s: None,
        operation: None,
    }
}

#[tokio::test]
async fn asking_twice_for_the_same_work_gives_the_job_that_there_is() {
    let database = Database::migrated().await;
    let params = json!({});
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (pool, params) = (database.pool.clone(), params.clone());
        asked.spawn(async move {
            let mut tx = pool.begin().await.unwrap();
            let (row, new) = jobs::insert_or_unfinished(&mut tx, &job(1, &params))
                .await
                .unwrap();
            tx.commit().await.unwrap();
            (row.id, new)
        });
    }
    let answers = within(asked.join_all()).await;
    assert!(answers.iter().all(|(id, _)| *id == answers[0].0));
    assert_eq!(answers.iter().filter(|(_, new)| *new).count(), 1);

    let conn = &mut *database.pool.acquire().await.unwrap();
    let queued = [JobState::Queued];
    let ended = jobs::transition(conn, answers[0].0, &queued, Transition::EndCancelled)
        .await
        .unwrap();
    assert_eq!(ended.unwrap().state, JobState::Cancelled);
    assert!(
        jobs::insert_or_unfinished(conn, &job(1, &params))
            .await
            .unwrap()
            .1
    );
}

#[tokio::test]
async fn a_job_goes_only_from_the_states_that_are_named() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    let params = json!({});
    let (made, _) = jobs::insert_or_unfinished(conn, &job(1, &params)).await.unwrap();
    assert_eq!(jobs::claim(conn, &["other".into()]).await.unwrap(), None);
    let running = jobs::claim(conn, &["format".into()]).await.unwrap().unwrap();
    assert_eq!(
        (running.id, running.state, running.version),
        (made.id, JobState::Running, 2)
    );
    assert!(
        jobs::progress(conn, made.id, 10, Some(100), Some("a device"))
            .await
            .unwrap()
    );
    let waiting = jobs::get(conn, made.id).await.unwrap().unwrap();
    assert_eq!(waiting.version, 2, "progress is no edit");
    jobs::progress(conn, made.id, 11, Some(100), Some("a device"))
        .await
        .unwrap();
    let still = jobs::get(conn, made.id).await.unwrap().unwrap();
    assert_eq!(still.waiting_since, waiting.waiting_since);

    let requeued = jobs::transition(conn, made.id, &[JobState::Running], Transition::Queue)
        .await
        .unwrap();
    assert_eq!(requeued.unwrap().started_at, None);
    let failure = json!({"why": "a device failed"});
    let fail = Transition::Fail(&failure);
    let refused = jobs::transition(conn, made.id, &[JobState::Running], fail)
        .await
        .unwrap();
    assert_eq!(refused, None);
    let unfinished = [JobState::Queued, JobState::Running];
    let failed = jobs::transition(conn, made.id, &unfinished, fail)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((failed.state, failed.failure), (JobState::Failed, Some(failure)));
    assert!(!jobs::progress(conn, made.id, 12, None, None).await.unwrap());
    assert_eq!(jobs::set_rate_limit(conn, made.id, Some(1)).await.unwrap(), None);
    assert!(jobs::unfinished(conn).await.unwrap().is_empty());
}

#[tokio::test]
async fn jobs_are_listed_filtered_and_pruned() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    let params = json!({});
    for subject in 0..3 {
        jobs::insert_or_unfinished(conn, &job(subject, &params))
            .await
            .unwrap();
    }
    let first = jobs::claim(conn, &["format".into()]).await.unwrap().unwrap();
    let limited = jobs::set_rate_limit(conn, first.id, Some(1000))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(limited.rate_limit_bytes_per_s, Some(1000));
    let done = Transition::Succeed(None);
    jobs::transition(conn, first.id, &[JobState::Running], done)
        .await
        .unwrap()
        .unwrap();
    let queued = JobFilter {
        state: Some(JobState::Queued),
        ..JobFilter::default()
    };
    let part = Part {
        sort: JobSort::CreatedAt,
        descending: true,
        after: None,
        limit: 10,
    };
    let page = jobs::page(conn, &queued, &part).await.unwrap();
    let subjects: Vec<u128> = page.rows.iter().map(|row| row.subject_id.as_u128()).collect();
    assert_eq!(subjects, [2, 1]);
    assert_eq!(jobs::prune(conn, in_an_hour()).await.unwrap(), 1);
}
