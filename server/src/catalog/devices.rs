//! Mirror of the storage devices.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::CatalogError;
use super::mirror::{Presence, mirror_functions};
use super::page::{After, Listing, Page, Part, SortBy, time_text};
use super::text::text_enum;

text_enum! {
    /// What a storage device is to the appliance.
    DeviceKind {
        File = "file",
        Block = "block",
        /// A remote export.
        Nbd = "nbd",
    }
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Device {
    pub id: Uuid,
    pub number: i32,
    pub name: Option<String>,
    pub kind: DeviceKind,
    /// Path, or URI of a remote export.
    pub location: String,
    /// Bytes.
    pub capacity: i64,
    pub presence: Presence,
    pub version: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// What the engine says of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFacts {
    pub id: Uuid,
    pub number: i32,
    pub name: Option<String>,
    pub kind: DeviceKind,
    pub location: String,
    pub capacity: i64,
}

/// Which are wanted; `None` is all.
#[derive(Debug, Clone, Default)]
pub struct DeviceFilter {
    pub number: Option<i32>,
    pub name: Option<String>,
    pub kind: Option<DeviceKind>,
    pub presence: Option<Presence>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceSort {
    Number,
    Name,
    Capacity,
    CreatedAt,
}

impl SortBy for DeviceSort {
    type Row = Device;

    fn sql(self) -> (&'static str, &'static str) {
        match self {
            Self::Number => ("number", "integer"),
            Self::Name => ("coalesce(name, '')", "text"),
            Self::Capacity => ("capacity", "bigint"),
            Self::CreatedAt => ("created_at", "timestamptz"),
        }
    }

    fn place_of(self, row: &Device) -> After {
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
    "devices",
    Device,
    "id, number, name, kind as \"kind: DeviceKind\", location, capacity, presence as \"presence: Presence\", \
     version, created_at, updated_at"
);

/// Has those whose number or name is another now give the old one up: two may have exchanged theirs. What is to be written
/// in several calls of [`upsert`] is made way for all before the first.
pub async fn make_way(conn: &mut PgConnection, rows: &[DeviceFacts]) -> Result<(), CatalogError> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let numbers: Vec<i32> = rows.iter().map(|row| row.number).collect();
    let names: Vec<Option<&str>> = rows.iter().map(|row| row.name.as_deref()).collect();
    sqlx::query!(
        "update devices set presence = 'missing' from unnest($1::uuid[], $2::integer[], $3::text[]) as given \
         (id, number, name) where devices.id = given.id and (devices.number, devices.name) is distinct from \
         (given.number, given.name)",
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
    rows: &[DeviceFacts],
    new_as: Presence,
) -> Result<(), CatalogError> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let numbers: Vec<i32> = rows.iter().map(|row| row.number).collect();
    let names: Vec<Option<&str>> = rows.iter().map(|row| row.name.as_deref()).collect();
    let kinds: Vec<&str> = rows.iter().map(|row| row.kind.as_str()).collect();
    let locations: Vec<&str> = rows.iter().map(|row| row.location.as_str()).collect();
    let capacities: Vec<i64> = rows.iter().map(|row| row.capacity).collect();
    make_way(conn, rows).await?;
    sqlx::query!(
        "insert into devices (id, number, name, kind, location, capacity, presence) \
         select given.*, $7 \
         from unnest($1::uuid[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::bigint[]) as \
           given (id, number, name, kind, location, capacity) \
         on conflict (id) do update set \
           number = excluded.number, name = excluded.name, kind = excluded.kind, location = \
             excluded.location, capacity = excluded.capacity, \
           presence = case devices.presence when 'missing' then 'present' else devices.presence end, \
           version = devices.version + 1, updated_at = now() \
         where devices.presence = 'missing' \
           or (devices.number, devices.name, devices.kind, devices.location, devices.capacity) \
           is distinct from (excluded.number, excluded.name, excluded.kind, excluded.location, \
             excluded.capacity)",
        &ids,
        &numbers,
        &names as &[Option<&str>],
        &kinds as &[&str],
        &locations as &[&str],
        &capacities,
        new_as.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn page(
    conn: &mut PgConnection,
    filter: &DeviceFilter,
    part: &Part<DeviceSort>,
) -> Result<Page<Device>, CatalogError> {
    Listing::of("devices")
        .with("number", filter.number)
        .with("name", filter.name.as_deref())
        .with("kind", filter.kind)
        .with("presence", filter.presence)
        .part(conn, part)
        .await
}
