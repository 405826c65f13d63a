-- Mirrors of what the engine keeps on the devices, for listing and searching. The engine is right wherever they differ.
-- `presence`: `present`, made through this catalog or known to it; `adopted`, found in the engine and unknown before;
-- `missing`, known here and no longer in the engine. Numbers and names belong to those that are not missing.

create table devices (
    id uuid primary key,
    number integer not null check (number >= 0),
    name text check (length(name) between 1 and 255),
    kind text not null check (kind in ('file', 'block', 'nbd')),
    location text not null check (location <> ''),
    -- Bytes.
    capacity bigint not null check (capacity > 0),
    presence text not null check (presence in ('present', 'adopted', 'missing')),
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create unique index devices_number on devices (number) where presence <> 'missing';
create unique index devices_name on devices (name) where presence <> 'missing';
create index devices_by_number on devices (number, id);
create index devices_by_name on devices (coalesce(name, ''), id);
create index devices_by_created_at on devices (created_at, id);

create table raid_groups (
    id uuid primary key,
    number integer not null check (number >= 0),
    name text check (length(name) between 1 and 255),
    level smallint not null check (level in (0, 1, 5, 6)),
    -- Bytes that follow each other on one member; none where nothing is striped.
    stripe_unit bigint check (stripe_unit > 0),
    -- Bytes of a logical device.
    slice_length bigint not null check (slice_length > 0),
    -- Bytes.
    capacity bigint not null check (capacity >= 0),
    presence text not null check (presence in ('present', 'adopted', 'missing')),
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create unique index raid_groups_number on raid_groups (number) where presence <> 'missing';
create unique index raid_groups_name on raid_groups (name) where presence <> 'missing';
create index raid_groups_by_number on raid_groups (number, id);
create index raid_groups_by_name on raid_groups (coalesce(name, ''), id);
create index raid_groups_by_created_at on raid_groups (created_at, id);

create table volumes (
    id uuid primary key,
    number integer not null check (number >= 0),
    name text not null check (length(name) between 1 and 255),
    emulation text not null check (emulation in (
        'open-512', 'open-4096',
        '3380-A', '3380-D', '3380-E', '3380-J', '3380-K',
        '3390-1', '3390-2', '3390-3', '3390-9', '3390-27', '3390-54')),
    -- Bytes.
    capacity bigint not null check (capacity > 0),
    -- Whether some of its addresses lie nowhere yet.
    partial boolean not null,
    presence text not null check (presence in ('present', 'adopted', 'missing')),
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create unique index volumes_number on volumes (number) where presence <> 'missing';
create unique index volumes_name on volumes (name) where presence <> 'missing';
create index volumes_by_number on volumes (number, id);
create index volumes_by_name on volumes (name, id);
create index volumes_by_capacity on volumes (capacity, id);
create index volumes_by_created_at on volumes (created_at, id);

create table exports (
    id uuid primary key,
    name text not null check (length(name) between 1 and 255),
    volume uuid not null references volumes (id) on delete cascade,
    read_only boolean not null,
    -- Addresses and ranges that are let in; none named: all.
    clients text[] not null check (array_position(clients, null) is null),
    protection text not null check (protection in ('plain', 'tls', 'tls_client_certificate')),
    -- One client at a time.
    exclusive boolean not null,
    -- Microseconds that its connections poll before they sleep; none: as the appliance is set.
    polling_us bigint check (polling_us >= 0),
    enabled boolean not null,
    presence text not null check (presence in ('present', 'adopted', 'missing')),
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create unique index exports_name on exports (name) where presence <> 'missing';
create index exports_by_name on exports (name, id);
create index exports_by_created_at on exports (created_at, id);
create index exports_by_volume on exports (volume);
