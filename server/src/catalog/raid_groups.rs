//! Mirror of the RAID groups.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::CatalogError;
use super::mirror::{Presence, mirror_functions};
use super::page::{After, Listing, Page, Part, SortBy, time_text};

/// A row.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct RaidGroup {
    pub id: Uuid,
    pub number: i32,
    pub name: Option<String>,
    pub level: i16,
    /// Bytes; none where nothing is striped.
    pub stripe_unit: Option<i64>,
    /// Bytes of a logical device.
    pub slice_length: i64,
    /// Bytes.
    pub capacity: i64,
    pub presence: Presence,
    pub version: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// What the engine says of a RAID group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaidGroupFacts {
    pub id: Uuid,
    pub number: i32,
    pub name: Option<String>,
    pub level: i16,
    pub stripe_unit: Option<i64>,
    pub slice_length: i64,
    pub capacity: i64,
}

/// Which are wanted; `None` is all.
#[derive(Debug, Clone, Default)]
pub struct RaidGroupFilter {
    pub number: Option<i32>,
    pub name: Option<String>,
    pub level: Option<i16>,
    pub presence: Option<Presence>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RaidGroupSort {
    Number,
    Name,
    Capacity,
    CreatedAt,
}

impl SortBy for RaidGroupSort {
    type Row = RaidGroup;

    fn sql(self) -> (&'static str, &'static str) {
        match self {
            Self::Number => ("number", "integer"),
            Self::Name => ("coalesce(name, '')", "text"),
            Self::Capacity => ("capacity", "bigint"),
            Self::CreatedAt => ("created_at", "timestamptz"),
        }
    }

    fn place_of(self, row: &RaidGroup) -> After {
        let value = match self {
            Self::Number => row.number.to_string(),
            Self::Name => row.name.clone().unwrap_or_default(),
            Self::Capacity => row.capacity.to_string(),
            Self::CreatedAt => time_text(row.created_at),
        };
        After { value, id: row.id }
    }
}

mirror_functions!(
    "raid_groups",
    RaidGroup,
    "id, number, name, level, stripe_unit, slice_length, capacity, presence as \"presence: Presence\", \
     version, created_at, updated_at"
);

/// Has those whose number or name is another now give the old one up: two may have exchanged theirs. What is to be written
/// in several calls of [`upsert`] is made way for all before the first.
pub async fn make_way(conn: &mut PgConnection, rows: &[RaidGroupFacts]) -> Result<(), CatalogError> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let numbers: Vec<i32> = rows.iter().map(|row| row.number).collect();
    let names: Vec<Option<&str>> = rows.iter().map(|row| row.name.as_deref()).collect();
    sqlx::query!(
        "update raid_groups set presence = 'missing' from unnest($1::uuid[], $2::integer[], $3::text[]) as \
         given (id, number, name) where raid_groups.id = given.id and (raid_groups.number, raid_groups.name) \
         is distinct from (given.number, given.name)",
        &ids,
        &numbers,
        &names as &[Option<&str>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Brings rows to what the engine says of them; those that are the same stay untouched. A new one gets the presence
/// `new_as`; one that was missing, or whose number or name changed, is known from then on. What has gone is to be marked
/// missing before: numbers and names may have gone over to others.
pub async fn upsert(
    conn: &mut PgConnection,
    rows: &[RaidGroupFacts],
    new_as: Presence,
) -> Result<(), CatalogError> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let numbers: Vec<i32> = rows.iter().map(|row| row.number).collect();
    let names: Vec<Option<&str>> = rows.iter().map(|row| row.name.as_deref()).collect();
    let levels: Vec<i16> = rows.iter().map(|row| row.level).collect();
    let stripe_units: Vec<Option<i64>> = rows.iter().map(|row| row.stripe_unit).collect();
    let slice_lengths: Vec<i64> = rows.iter().map(|row| row.slice_length).collect();
    let capacities: Vec<i64> = rows.iter().map(|row| row.capacity).collect();
    make_way(conn, rows).await?;
    sqlx::query!(
        "insert into raid_groups (id, number, name, level, stripe_unit, slice_length, capacity, presence) \
         select given.*, $8 \
         from unnest($1::uuid[], $2::integer[], $3::text[], $4::smallint[], $5::bigint[], $6::bigint[], \
           $7::bigint[]) as given (id, number, name, level, stripe_unit, slice_length, capacity) \
         on conflict (id) do update set \
           number = excluded.number, name = excluded.name, level = excluded.level, stripe_unit = \
             excluded.stripe_unit, slice_length = excluded.slice_length, capacity = excluded.capacity, \
           presence = case raid_groups.presence when 'missing' then 'present' else raid_groups.presence \
             end, \
           version = raid_groups.version + 1, updated_at = now() \
         where raid_groups.presence = 'missing' \
           or (raid_groups.number, raid_groups.name, raid_groups.level, raid_groups.stripe_unit, \
             raid_groups.slice_length, raid_groups.capacity) \
           is distinct from (excluded.number, excluded.name, excluded.level, excluded.stripe_unit, \
             excluded.slice_length, excluded.capacity)",
        &ids,
        &numbers,
        &names as &[Option<&str>],
        &levels,
        &stripe_units as &[Option<i64>],
        &slice_lengths,
        &capacities,
        new_as.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn page(
    conn: &mut PgConnection,
    filter: &RaidGroupFilter,
    part: &Part<RaidGroupSort>,
) -> Result<Page<RaidGroup>, CatalogError> {
    Listing::of("raid_groups")
        .with("number", filter.number)
        .with("name", filter.name.as_deref())
        .with("level", filter.level)
        .with("presence", filter.presence)
        .part(conn, part)
        .await
}
