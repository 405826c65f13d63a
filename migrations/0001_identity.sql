-- Whose catalog this is, and which start of the engine last used it. One row; none in a catalog that is still empty.
create table catalog_identity (
    only_row boolean primary key default true check (only_row),
    appliance uuid not null,
    -- The engine counts its starts on the devices. An older number here than there: a dump was restored.
    epoch bigint not null check (epoch >= 0),
    -- Random for each life of the process: tells its own row from a restored one.
    incarnation uuid not null,
    updated_at timestamptz not null default now()
);
