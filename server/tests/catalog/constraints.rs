//! States that cannot be are refused by the tables themselves.

use crate::cluster::Database;

const ID: &str = "gen_random_uuid()";
const HASH: &str = "sha256(gen_random_uuid()::text::bytea)";

async fn assert_refused(database: &Database, cases: &[(&str, String)]) {
    for (constraint, sql) in cases {
        assert_eq!(&database.refusal(sql).await, constraint, "{sql}");
    }
}

#[tokio::test]
async fn an_operation_has_just_what_its_state_has() {
    let database = Database::migrated().await;
    let operation = |columns: &str, values: &str| {
        format!(
            "insert into operations (id, kind, intent, actor, object_kind, object_id, {columns}) \
             values ({ID}, 'create_volume', '{{}}', '{{}}', 'volume', {ID}, {values})"
        )
    };
    let cases = [
        (
            "operations_state_check",
            operation("state, finished_at", "'odd', now()"),
        ),
        (
            "operations_finished",
            operation("state, finished_at", "'running', now()"),
        ),
        ("operations_finished", operation("state, result", "'done', '{}'")),
        (
            "operations_result",
            operation("state, finished_at", "'done', now()"),
        ),
        (
            "operations_problem",
            operation("state, finished_at", "'failed', now()"),
        ),
        (
            "operations_result",
            operation("state, finished_at, result", "'abandoned', now(), '{}'"),
        ),
    ];
    assert_refused(&database, &cases).await;
    database
        .run(&operation("state, finished_at, result", "'done', now(), '{}'"))
        .await;
}

#[tokio::test]
async fn a_job_has_the_times_and_outcomes_of_its_state() {
    let database = Database::migrated().await;
    let job = |columns: &str, values: &str| {
        format!(
            "insert into jobs (id, kind, subject_kind, subject_id, params, {columns}) \
             values ({ID}, 'format', 'volume', {ID}, '{{}}', {values})"
        )
    };
    let cases = [
        ("jobs_state_check", job("state", "'odd'")),
        ("jobs_started", job("state", "'running'")),
        ("jobs_started", job("state, started_at", "'queued', now()")),
        ("jobs_finished", job("state, started_at", "'succeeded', now()")),
        ("jobs_finished", job("state, finished_at", "'paused', now()")),
        ("jobs_failure", job("state, finished_at", "'failed', now()")),
        (
            "jobs_result",
            job("state, finished_at, result", "'cancelled', now(), '{}'"),
        ),
        ("jobs_progress", job("bytes_done, bytes_total", "5, 4")),
        ("jobs_waiting", job("waiting_for", "'a device'")),
        (
            "jobs_waiting_state",
            job(
                "state, finished_at, waiting_for, waiting_since",
                "'cancelled', now(), 'a device', now()",
            ),
        ),
    ];
    assert_refused(&database, &cases).await;
}

#[tokio::test]
async fn words_that_a_column_does_not_have_are_refused() {
    let database = Database::migrated().await;
    let device = |kind: &str, presence: &str| {
        format!(
            "insert into devices (id, number, kind, location, capacity, presence) \
             values ({ID}, 0, '{kind}', '/x', 1, '{presence}')"
        )
    };
    let cases = [
        ("devices_kind_check", device("tape", "present")),
        ("devices_presence_check", device("file", "gone")),
        (
            "raid_groups_level_check",
            format!(
                "insert into raid_groups (id, number, level, slice_length, capacity, presence) \
                 values ({ID}, 0, 7, 1, 1, 'present')"
            ),
        ),
        (
            "volumes_emulation_check",
            format!(
                "insert into volumes (id, number, name, emulation, capacity, partial, presence) \
                 values ({ID}, 0, 'a', '3330-1', 1, false, 'present')"
            ),
        ),
        (
            "users_role_check",
            format!(
                "insert into users (id, name, password_hash, role, enabled) values ({ID}, 'a', '$argon2id$', 'root', true)"
            ),
        ),
        (
            "users_password_hash_check",
            format!(
                "insert into users (id, name, password_hash, role, enabled) values ({ID}, 'a', 'plain', 'admin', true)"
            ),
        ),
        (
            "audit_log_problem",
            "insert into audit_log (actor_kind, actor_name, request_id, operation, outcome) \
             values ('user', 'a', 'r', 'o', 'refused')"
                .into(),
        ),
        (
            "exports_volume_fkey",
            format!(
                "insert into exports (id, name, volume, read_only, clients, protection, exclusive, enabled, presence) \
                 values ({ID}, 'a', {ID}, false, '{{}}', 'plain', false, true, 'present')"
            ),
        ),
    ];
    assert_refused(&database, &cases).await;
}

#[tokio::test]
async fn numbers_and_names_belong_to_one_object_that_is_not_missing() {
    let database = Database::migrated().await;
    let volume = |number: u32, name: &str, presence: &str| {
        format!(
            "insert into volumes (id, number, name, emulation, capacity, partial, presence) \
             values ({ID}, {number}, '{name}', 'open-512', 1, false, '{presence}')"
        )
    };
    database.run(&volume(0, "a", "present")).await;
    database.run(&volume(0, "a", "missing")).await;
    database.run(&volume(0, "a", "missing")).await;
    let cases = [
        ("volumes_number", volume(0, "b", "adopted")),
        ("volumes_name", volume(1, "a", "present")),
    ];
    assert_refused(&database, &cases).await;
}

#[tokio::test]
async fn names_and_tokens_of_accounts_cannot_contradict_themselves() {
    let database = Database::migrated().await;
    let user = |name: &str| {
        format!(
            "insert into users (id, name, password_hash, role, enabled) \
             values ('00000000-0000-0000-0000-000000000001', '{name}', '$argon2id$', 'admin', true)"
        )
    };
    database.run(&user("Anna")).await;
    let token = |family: &str, columns: &str, values: &str| {
        format!(
            "insert into refresh_tokens (id, user_id, hash, family, expires_at{columns}) \
             values ({ID}, '00000000-0000-0000-0000-000000000001', {HASH}, '{family}', now() + interval '1 hour'{values})"
        )
    };
    let family = "00000000-0000-0000-0000-000000000002";
    database.run(&token(family, "", "")).await;
    let cases = [
        ("users_name", user("aNNa").replace("000000000001", "000000000009")),
        ("refresh_tokens_family_good", token(family, "", "")),
        (
            "refresh_tokens_replaced_is_revoked",
            token(
                "00000000-0000-0000-0000-000000000004",
                ", replaced_by",
                ", (select id from refresh_tokens)",
            ),
        ),
    ];
    assert_refused(&database, &cases).await;
}

#[tokio::test]
async fn deliveries_and_single_rows_cannot_contradict_themselves() {
    let database = Database::migrated().await;
    let webhook = "00000000-0000-0000-0000-000000000003";
    database
        .run(&format!(
            "insert into webhooks (id, name, url, kinds, subjects, secret, enabled, next_event) \
             values ('{webhook}', 'w', 'https://x', '{{}}', '{{}}', 's', true, 1)"
        ))
        .await;
    database
        .run("insert into events (number, kind, subject_kind, at, data) values (1, 'k', 's', now(), '{}')")
        .await;
    let delivery = |columns: &str, values: &str| {
        format!(
            "insert into webhook_deliveries (id, webhook, event, {columns}) values ({ID}, '{webhook}', 1, {values})"
        )
    };
    let cases = [
        ("webhook_deliveries_due", delivery("next_attempt_at", "null")),
        (
            "webhook_deliveries_finished",
            delivery(
                "state, next_attempt_at, attempts, last_attempt_at",
                "'delivered', null, 1, now()",
            ),
        ),
        (
            "webhook_deliveries_tried",
            delivery("state, next_attempt_at, finished_at", "'failed', null, now()"),
        ),
        (
            "webhooks_name",
            "insert into webhooks (id, name, url, kinds, subjects, secret, enabled, next_event) \
             select gen_random_uuid(), name, url, kinds, subjects, secret, enabled, next_event from webhooks"
                .into(),
        ),
        (
            "event_counter_engine",
            "update event_counter set engine_epoch = 1".into(),
        ),
        (
            "webhooks_previous_secret",
            "update webhooks set previous_secret = 'old'".into(),
        ),
        (
            "idempotency_keys_answer",
            format!(
                "insert into idempotency_keys (principal, key, fingerprint, body) values ('p', 'k', {HASH}, '{{}}')"
            ),
        ),
        (
            "catalog_identity_only_row_check",
            format!("insert into catalog_identity values (false, {ID}, 0, {ID})"),
        ),
        (
            "event_counter_pkey",
            "insert into event_counter (last) values (5)".into(),
        ),
    ];
    assert_refused(&database, &cases).await;
}
