-- What was begun: intents, answers for repeated requests, and long work.

-- A change that the engine takes part in, written down before the engine hears of it. What is `running` at a start is
-- rolled forward; what a restored dump says was running is `abandoned`.
create table operations (
    id uuid primary key,
    kind text not null check (kind <> ''),
    intent jsonb not null,
    actor jsonb not null,
    object_kind text not null check (object_kind <> ''),
    object_id uuid not null,
    state text not null default 'running' check (state in ('running', 'done', 'failed', 'abandoned')),
    result jsonb,
    problem jsonb,
    created_at timestamptz not null default now(),
    finished_at timestamptz,
    constraint operations_finished check ((state = 'running') = (finished_at is null)),
    constraint operations_result check ((state = 'done') = (result is not null)),
    constraint operations_problem check ((state = 'failed') = (problem is not null))
);
create index operations_running on operations (created_at, id) where state = 'running';
create index operations_by_finished_at on operations (finished_at) where state <> 'running';
create index operations_by_object on operations (object_id, created_at);

-- The answer to a request with an idempotency key, for 24 hours.
create table idempotency_keys (
    principal text not null check (principal <> ''),
    key text not null check (length(key) between 1 and 255),
    -- A keyed digest of operation, path, query and body.
    fingerprint bytea not null check (octet_length(fingerprint) = 32),
    operation uuid references operations (id) on delete cascade,
    -- HTTP status; none while there is no answer yet.
    status integer check (status between 200 and 599),
    body jsonb,
    headers jsonb,
    created_at timestamptz not null default now(),
    primary key (principal, key),
    constraint idempotency_keys_answer check (status is not null or (body is null and headers is null))
);
create index idempotency_keys_by_created_at on idempotency_keys (created_at);
create index idempotency_keys_by_operation on idempotency_keys (operation);

create table jobs (
    id uuid primary key,
    kind text not null check (kind <> ''),
    state text not null default 'queued' check (state in (
        'queued', 'running', 'paused', 'cancelling', 'succeeded', 'failed', 'cancelled')),
    subject_kind text not null check (subject_kind <> ''),
    subject_id uuid not null,
    params jsonb not null,
    bytes_done bigint not null default 0 check (bytes_done >= 0),
    bytes_total bigint check (bytes_total >= 0),
    rate_limit_bytes_per_s bigint check (rate_limit_bytes_per_s > 0),
    waiting_for text check (waiting_for <> ''),
    waiting_since timestamptz,
    failure jsonb,
    result jsonb,
    operation uuid references operations (id) on delete set null,
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null default now(),
    started_at timestamptz,
    finished_at timestamptz,
    constraint jobs_progress check (bytes_done <= bytes_total),
    constraint jobs_waiting check ((waiting_for is null) = (waiting_since is null)),
    constraint jobs_waiting_state check (waiting_for is null or finished_at is null),
    constraint jobs_started check (case state
        when 'queued' then started_at is null
        when 'running' then started_at is not null
        when 'succeeded' then started_at is not null
        else true end),
    constraint jobs_finished check ((state in ('succeeded', 'failed', 'cancelled')) = (finished_at is not null)),
    constraint jobs_failure check ((state = 'failed') = (failure is not null)),
    constraint jobs_result check (result is null or state = 'succeeded')
);
-- The same work is not begun twice: whoever asks again is told of the one there is.
create unique index jobs_unfinished on jobs (kind, subject_kind, subject_id)
    where state in ('queued', 'running', 'paused', 'cancelling');
create index jobs_queued on jobs (created_at, id) where state = 'queued';
create index jobs_by_created_at on jobs (created_at, id);
create index jobs_by_subject on jobs (subject_id, created_at);
create index jobs_by_finished_at on jobs (finished_at) where finished_at is not null;
