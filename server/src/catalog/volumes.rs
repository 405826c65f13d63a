//! Mirror of the volumes.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::CatalogError;
use super::mirror::{Presence, mirror_functions};
use super::page::{After, Listing, Page, Part, SortBy, time_text};

/// A row.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Volume {
    pub id: Uuid,
    pub number: i32,
    pub name: String,
    pub emulation: String,
    /// Bytes.
    pub capacity: i64,
    /// Some of its addresses lie nowhere yet.
    pub partial: bool,
    pub presence: Presence,
    pub version: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// What the engine says of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFacts {
    pub id: Uuid,
    pub number: i32,
    pub name: String,
    pub emulation: String,
    pub capacity: i64,
    pub partial: bool,
}

/// Which are wanted; `None` is all.
#[derive(Debug, Clone, Default)]
pub struct VolumeFilter {
    pub number: Option<i32>,
    pub name: Option<String>,
    pub emulation: Option<String>,
    pub partial: Option<bool>,
    pub presence: Option<Presence>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeSort {
    Number,
    Name,
    Capacity,
    CreatedAt,
}

impl SortBy for VolumeSort {
    type Row = Volume;

    fn sql(self) -> (&'static str, &'static str) {
        match self {
            Self::Number => ("number", "integer"),
            Self::Name => ("name", "text"),
            Self::Capacity => ("capacity", "bigint"),
            Self::CreatedAt => ("created_at", "timestamptz"),
        }
    }

    fn place_of(self, row: &Volume) -> After {
        let value = match self {
            Self::Number => row.number.to_string(),
            Self::Name => row.name.clone(),
            Self::Capacity => row.capacity.to_string(),
            Self::CreatedAt => time_text(row.created_at),
        };
        After { value, id: row.id }
    }
}

mirror_functions!(
    "volumes",
    Volume,
    "id, number, name, emulation, capacity, partial, presence as \"presence: Presence\", version, created_at, \
     updated_at"
);

/// Has those whose number or name is another now give the old one up: two may have exchanged theirs. What is to be written
/// in several calls of [`upsert`] is made way for all before the first.
pub async fn make_way(conn: &mut PgConnection, rows: &[VolumeFacts]) -> Result<(), CatalogError> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let numbers: Vec<i32> = rows.iter().map(|row| row.number).collect();
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    sqlx::query!(
        "update volumes set presence = 'missing' from unnest($1::uuid[], $2::integer[], $3::text[]) as given \
         (id, number, name) where volumes.id = given.id and (volumes.number, volumes.name) is distinct from \
         (given.number, given.name)",
        &ids,
        &numbers,
        &names as &[&str],
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
    rows: &[VolumeFacts],
    new_as: Presence,
) -> Result<(), CatalogError> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let numbers: Vec<i32> = rows.iter().map(|row| row.number).collect();
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    let emulations: Vec<&str> = rows.iter().map(|row| row.emulation.as_str()).collect();
    let capacities: Vec<i64> = rows.iter().map(|row| row.capacity).collect();
    let partials: Vec<bool> = rows.iter().map(|row| row.partial).collect();
    make_way(conn, rows).await?;
    sqlx::query!(
        "insert into volumes (id, number, name, emulation, capacity, partial, presence) \
         select given.*, $7 \
         from unnest($1::uuid[], $2::integer[], $3::text[], $4::text[], $5::bigint[], $6::boolean[]) as \
           given (id, number, name, emulation, capacity, partial) \
         on conflict (id) do update set \
           number = excluded.number, name = excluded.name, emulation = excluded.emulation, capacity = \
             excluded.capacity, partial = excluded.partial, \
           presence = case volumes.presence when 'missing' then 'present' else volumes.presence end, \
           version = volumes.version + 1, updated_at = now() \
         where volumes.presence = 'missing' \
           or (volumes.number, volumes.name, volumes.emulation, volumes.capacity, volumes.partial) \
           is distinct from (excluded.number, excluded.name, excluded.emulation, excluded.capacity, \
             excluded.partial)",
        &ids,
        &numbers,
        &names as &[&str],
        &emulations as &[&str],
        &capacities,
        &partials,
        new_as.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn page(
    conn: &mut PgConnection,
    filter: &VolumeFilter,
    part: &Part<VolumeSort>,
) -> Result<Page<Volume>, CatalogError> {
    Listing::of("volumes")
        .with("number", filter.number)
        .with("name", filter.name.as_deref())
        .with("emulation", filter.emulation.as_deref())
        .with("partial", filter.partial)
        .with("presence", filter.presence)
        .part(conn, part)
        .await
}
