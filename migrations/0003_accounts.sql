-- Who may do what, and how they show who they are. Tokens are kept as SHA-256 digests only.

create table users (
    id uuid primary key,
    name text not null check (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    -- argon2id, in its own text form.
    password_hash text not null check (password_hash like '$argon2id$%'),
    role text not null check (role in ('admin', 'operator', 'backup', 'viewer')),
    enabled boolean not null,
    last_sign_in_at timestamptz,
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
-- `Anna` and `anna` are one.
create unique index users_name on users (lower(name));
create index users_by_name on users (name, id);
create index users_by_created_at on users (created_at, id);

-- Each is used once: using it gives its replacement. All that descend from one sign-in are a family: a session, which is
-- good while one of them is.
create table refresh_tokens (
    id uuid primary key,
    user_id uuid not null references users (id) on delete cascade,
    hash bytea not null check (octet_length(hash) = 32),
    family uuid not null,
    expires_at timestamptz not null check (expires_at > created_at),
    revoked_at timestamptz,
    -- What it was exchanged for.
    replaced_by uuid references refresh_tokens (id) on delete set null,
    created_at timestamptz not null default now(),
    constraint refresh_tokens_replaced_is_revoked check (replaced_by is null or revoked_at is not null)
);
create unique index refresh_tokens_hash on refresh_tokens (hash);
create unique index refresh_tokens_replaced_by on refresh_tokens (replaced_by);
-- One of a family is good at a time.
create unique index refresh_tokens_family_good on refresh_tokens (family) where revoked_at is null;
create index refresh_tokens_by_user on refresh_tokens (user_id);
create index refresh_tokens_by_expires_at on refresh_tokens (expires_at);

create table api_tokens (
    id uuid primary key,
    user_id uuid not null references users (id) on delete cascade,
    name text not null check (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    hash bytea not null check (octet_length(hash) = 32),
    scopes text[] not null check (cardinality(scopes) > 0 and array_position(scopes, null) is null),
    expires_at timestamptz check (expires_at > created_at),
    -- To the minute.
    last_used_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz not null default now()
);
create unique index api_tokens_hash on api_tokens (hash);
create unique index api_tokens_name on api_tokens (user_id, name) where revoked_at is null;
create index api_tokens_by_name on api_tokens (name, id);
create index api_tokens_by_created_at on api_tokens (created_at, id);

-- What limits guessing from one place.
create table sign_in_failures (
    id bigint primary key generated always as identity,
    -- A network, where it is IPv6.
    address inet not null,
    at timestamptz not null default now()
);
create index sign_in_failures_by_address on sign_in_failures (address, at);
create index sign_in_failures_by_at on sign_in_failures (at);

-- What limits guessing of one name: failures in a row. The name as it was tried, in lower case: there may be no such
-- user, and nobody can tell.
create table sign_in_streaks (
    user_name text primary key,
    failures integer not null check (failures > 0),
    locked_until timestamptz,
    at timestamptz not null default now()
);
create index sign_in_streaks_by_at on sign_in_streaks (at);
