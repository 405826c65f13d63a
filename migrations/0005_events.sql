-- What happened, for those who follow it, and for those who look later.

-- The last number given. Updated in the transaction that writes the event: its row lock lasts until the commit, so that
-- numbers have no gaps and are in the order of commits.
create table event_counter (
    only_row boolean primary key default true check (only_row),
    last bigint not null check (last >= 0),
    -- The last event of the engine that was relayed: it outlives that event's row.
    engine_epoch bigint check (engine_epoch >= 0),
    engine_number bigint check (engine_number >= 0),
    constraint event_counter_engine check ((engine_epoch is null) = (engine_number is null))
);
insert into event_counter (last) values (0);

create table events (
    number bigint primary key check (number > 0),
    kind text not null check (kind <> ''),
    subject_kind text not null check (subject_kind <> ''),
    -- None where it is about the appliance as a whole.
    subject_id uuid,
    at timestamptz not null,
    data jsonb not null,
    -- Where the engine told it: its own numbering, by which it is relayed once.
    engine_epoch bigint check (engine_epoch >= 0),
    engine_number bigint check (engine_number >= 0),
    constraint events_engine check ((engine_epoch is null) = (engine_number is null))
);
create unique index events_engine_event on events (engine_epoch, engine_number);
create index events_by_at on events (at);

create table webhooks (
    id uuid primary key,
    name text not null check (name <> ''),
    url text not null check (url ~ '^https?://.'),
    -- Of events, or their beginnings that end in a dot; none named: all.
    kinds text[] not null check (array_position(kinds, null) is null),
    subjects uuid[] not null check (array_position(subjects, null) is null),
    -- Key of the signature. After a rotation the previous one signs, too, for a while.
    secret text not null check (secret <> ''),
    previous_secret text check (previous_secret <> ''),
    previous_secret_until timestamptz,
    enabled boolean not null,
    -- Number of the first event that it was not matched against yet.
    next_event bigint not null check (next_event > 0),
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint webhooks_previous_secret check ((previous_secret is null) = (previous_secret_until is null))
);
create unique index webhooks_name on webhooks (name);
create index webhooks_by_created_at on webhooks (created_at, id);

create table webhook_deliveries (
    id uuid primary key,
    webhook uuid not null references webhooks (id) on delete cascade,
    event bigint not null references events (number) on delete cascade,
    state text not null default 'pending' check (state in ('pending', 'delivered', 'failed')),
    attempts integer not null default 0 check (attempts >= 0),
    next_attempt_at timestamptz default now(),
    -- Of the last attempt: the receiver's HTTP status, or why there was none.
    last_status integer check (last_status between 100 and 599),
    last_error text,
    last_attempt_at timestamptz,
    created_at timestamptz not null default now(),
    finished_at timestamptz,
    constraint webhook_deliveries_due check ((state = 'pending') = (next_attempt_at is not null)),
    constraint webhook_deliveries_finished check ((state = 'pending') = (finished_at is null)),
    constraint webhook_deliveries_attempted check ((attempts = 0) = (last_attempt_at is null)),
    constraint webhook_deliveries_tried check (state = 'pending' or attempts > 0)
);
create unique index webhook_deliveries_event on webhook_deliveries (webhook, event);
create index webhook_deliveries_pending on webhook_deliveries (webhook, event) where state = 'pending';
create index webhook_deliveries_by_event on webhook_deliveries (event);
create index webhook_deliveries_by_created_at on webhook_deliveries (webhook, created_at, id);
create index webhook_deliveries_by_finished_at on webhook_deliveries (finished_at) where finished_at is not null;

create table audit_log (
    id bigint primary key generated always as identity,
    at timestamptz not null default now(),
    actor_kind text not null check (actor_kind <> ''),
    -- None where nobody was known: a refused sign-in, the maintenance socket.
    actor_id uuid,
    actor_name text not null,
    -- None on the maintenance socket.
    address inet,
    request_id text not null check (request_id <> ''),
    operation text not null check (operation <> ''),
    object_kind text,
    object_id uuid,
    object_name text,
    before jsonb,
    after jsonb,
    outcome text not null check (outcome in ('succeeded', 'refused')),
    -- Type of the problem document.
    problem text,
    constraint audit_log_object check (object_kind is not null or (object_id is null and object_name is null)),
    constraint audit_log_problem check ((outcome = 'refused') = (problem is not null))
);
create index audit_log_by_actor on audit_log (actor_id, id);
create index audit_log_by_object on audit_log (object_id, id);
create index audit_log_by_at on audit_log (at);
