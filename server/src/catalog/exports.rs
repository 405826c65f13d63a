//! Mirror of the exports.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::CatalogError;
use super::mirror::{Presence, mirror_functions};
use super::page::{After, Listing, Page, Part, SortBy, time_text};
use super::text::text_enum;

text_enum! {
    /// How well connections are protected, at least.
    ExportProtection {
        Plain = "plain",
        Tls = "tls",
        TlsClientCertificate = "tls_client_certificate",
    }
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Export {
    pub id: Uuid,
    pub name: String,
    pub volume: Uuid,
    pub read_only: bool,
    /// Addresses and ranges that are let in; none named: all.
    pub clients: Vec<String>,
    pub protection: ExportProtection,
    /// One client at a time.
    pub exclusive: bool,
    /// Microseconds; none: as the appliance is set.
    pub polling_us: Option<i64>,
    pub enabled: bool,
    pub presence: Presence,
    pub version: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// What the engine says of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportFacts {
    pub id: Uuid,
    pub name: String,
    pub volume: Uuid,
    pub read_only: bool,
    pub clients: Vec<String>,
    pub protection: ExportProtection,
    pub exclusive: bool,
    pub polling_us: Option<i64>,
    pub enabled: bool,
}

/// Which are wanted; `None` is all.
#[derive(Debug, Clone, Default)]
pub struct ExportFilter {
    pub name: Option<String>,
    pub volume: Option<Uuid>,
    pub read_only: Option<bool>,
    pub enabled: Option<bool>,
    pub presence: Option<Presence>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportSort {
    Name,
    CreatedAt,
}

impl SortBy for ExportSort {
    type Row = Export;

    fn sql(self) -> (&'static str, &'static str) {
        match self {
            Self::Name => ("name", "text"),
            Self::CreatedAt => ("created_at", "timestamptz"),
        }
    }

    fn place_of(self, row: &Export) -> After {
        let value = match self {
            Self::Name => row.name.clone(),
            Self::CreatedAt => time_text(row.created_at),
        };
        After { value, id: row.id }
    }
}

mirror_functions!(
    "exports",
    Export,
    "id, name, volume, read_only, clients, protection as \"protection: ExportProtection\", exclusive, \
     polling_us, enabled, presence as \"presence: Presence\", version, created_at, updated_at"
);

/// Has those whose name is another now give the old one up: two may have exchanged theirs. What is to be written
/// in several calls of [`upsert`] is made way for all before the first.
pub async fn make_way(conn: &mut PgConnection, rows: &[ExportFacts]) -> Result<(), CatalogError> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    sqlx::query!(
        "update exports set presence = 'missing' from unnest($1::uuid[], $2::text[]) as given (id, name) \
         where exports.id = given.id and exports.name <> given.name",
        &ids,
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
    rows: &[ExportFacts],
    new_as: Presence,
) -> Result<(), CatalogError> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    let volumes: Vec<Uuid> = rows.iter().map(|row| row.volume).collect();
    let read_onlys: Vec<bool> = rows.iter().map(|row| row.read_only).collect();
    let clients: Vec<String> = rows.iter().map(|row| row.clients.join("\n")).collect();
    let protections: Vec<&str> = rows.iter().map(|row| row.protection.as_str()).collect();
    let exclusives: Vec<bool> = rows.iter().map(|row| row.exclusive).collect();
    let pollings: Vec<Option<i64>> = rows.iter().map(|row| row.polling_us).collect();
    let enableds: Vec<bool> = rows.iter().map(|row| row.enabled).collect();
    make_way(conn, rows).await?;
    sqlx::query!(
        "insert into exports (id, name, volume, read_only, clients, protection, exclusive, polling_us, \
           enabled, presence) \
         select given.id, given.name, given.volume, given.read_only, string_to_array(given.clients, \
           E'\\n'), given.protection, given.exclusive, given.polling_us, given.enabled, $10 \
         from unnest($1::uuid[], $2::text[], $3::uuid[], $4::boolean[], $5::text[], $6::text[], \
           $7::boolean[], $8::bigint[], $9::boolean[]) as given (id, name, volume, read_only, clients, \
           protection, exclusive, polling_us, enabled) \
         on conflict (id) do update set \
           name = excluded.name, volume = excluded.volume, read_only = excluded.read_only, clients = \
             excluded.clients, protection = excluded.protection, exclusive = excluded.exclusive, polling_us \
             = excluded.polling_us, enabled = excluded.enabled, \
           presence = case exports.presence when 'missing' then 'present' else exports.presence end, \
           version = exports.version + 1, updated_at = now() \
         where exports.presence = 'missing' \
           or (exports.name, exports.volume, exports.read_only, exports.clients, exports.protection, \
             exports.exclusive, exports.polling_us, exports.enabled) \
           is distinct from (excluded.name, excluded.volume, excluded.read_only, excluded.clients, \
             excluded.protection, excluded.exclusive, excluded.polling_us, excluded.enabled)",
        &ids,
        &names as &[&str],
        &volumes,
        &read_onlys,
        &clients,
        &protections as &[&str],
        &exclusives,
        &pollings as &[Option<i64>],
        &enableds,
        new_as.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn page(
    conn: &mut PgConnection,
    filter: &ExportFilter,
    part: &Part<ExportSort>,
) -> Result<Page<Export>, CatalogError> {
    Listing::of("exports")
        .with("name", filter.name.as_deref())
        .with("volume", filter.volume)
        .with("read_only", filter.read_only)
        .with("enabled", filter.enabled)
        .with("presence", filter.presence)
        .part(conn, part)
        .await
}
