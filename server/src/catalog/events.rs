//! The outbox: what happened, numbered without gaps in the order of commits.

use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{CatalogError, PRUNE_LIMIT};

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub number: i64,
    pub kind: String,
    pub subject_kind: String,
    /// None: the appliance as a whole.
    pub subject_id: Option<Uuid>,
    pub at: OffsetDateTime,
    pub data: Value,
    pub engine_epoch: Option<i64>,
    pub engine_number: Option<i64>,
}

#[derive(Debug, Clone)]
pub struct NewEvent<'a> {
    pub kind: &'a str,
    pub subject_kind: &'a str,
    pub subject_id: Option<Uuid>,
    pub data: &'a Value,
    /// Epoch and number that the engine gave it, where it comes from there.
    pub engine: Option<(i64, i64)>,
}

/// Which are wanted. Empty lists: all.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Or beginnings of kinds that end in a dot.
    pub kinds: Vec<String>,
    pub subject_kinds: Vec<String>,
    pub subjects: Vec<Uuid>,
}

/// Appends an event and returns its number. The counter stays locked until the transaction ends: this comes last.
///
/// # Errors
/// [`CatalogError::Constraint`] `events_engine_event` where this event of the engine is there.
pub async fn append(conn: &mut PgConnection, event: &NewEvent<'_>) -> Result<i64, CatalogError> {
    let (epoch, number) = event.engine.unzip();
    let number = sqlx::query_scalar!(
        "with counter as (update event_counter set last = last + 1, \
           engine_epoch = coalesce($5, engine_epoch), engine_number = coalesce($6, engine_number) returning last) \
         insert into events (number, kind, subject_kind, subject_id, at, data, engine_epoch, engine_number) \
         select last, $1, $2, $3, clock_timestamp(), $4, $5, $6 from counter \
         returning number",
        event.kind,
        event.subject_kind,
        event.subject_id,
        event.data,
        epoch,
        number,
    );
    Ok(number.fetch_one(conn).await?)
}

/// Those after that number, oldest first.
pub async fn after(
    conn: &mut PgConnection,
    number: i64,
    filter: &EventFilter,
    limit: u32,
) -> Result<Vec<Event>, CatalogError> {
    let rows = sqlx::query_as!(
        Event,
        "select number, kind, subject_kind, subject_id, at, data, engine_epoch, engine_number from events \
         where number > $1 \
           and (cardinality($2::text[]) = 0 or exists (select from unnest($2) as wanted \
             where kind = wanted or (right(wanted, 1) = '.' and starts_with(kind, wanted)))) \
           and (cardinality($3::text[]) = 0 or subject_kind = any($3)) \
           and (cardinality($4::uuid[]) = 0 or subject_id = any($4)) \
         order by number limit $5",
        number,
        &filter.kinds,
        &filter.subject_kinds,
        &filter.subjects,
        i64::from(limit),
    );
    Ok(rows.fetch_all(conn).await?)
}

pub async fn get(conn: &mut PgConnection, number: i64) -> Result<Option<Event>, CatalogError> {
    let row = sqlx::query_as!(
        Event,
        "select number, kind, subject_kind, subject_id, at, data, engine_epoch, engine_number from events \
         where number = $1",
        number,
    );
    Ok(row.fetch_optional(conn).await?)
}

/// Number of the last event, 0 where there never was one.
pub async fn newest(conn: &mut PgConnection) -> Result<i64, CatalogError> {
    let last = sqlx::query_scalar!("select last from event_counter");
    Ok(last.fetch_one(conn).await?)
}

/// Number of the oldest event that is still there.
pub async fn oldest(conn: &mut PgConnection) -> Result<Option<i64>, CatalogError> {
    let first = sqlx::query_scalar!("select min(number) from events");
    Ok(first.fetch_one(conn).await?)
}

/// Epoch and number of the last event of the engine that was relayed.
pub async fn newest_of_engine(conn: &mut PgConnection) -> Result<Option<(i64, i64)>, CatalogError> {
    let row = sqlx::query!("select engine_epoch, engine_number from event_counter")
        .fetch_one(conn)
        .await?;
    Ok(row.engine_epoch.zip(row.engine_number))
}

/// Removes some of the older ones, oldest first. Returns how many, see [`super::PRUNE_BATCH`].
pub async fn prune(conn: &mut PgConnection, before: OffsetDateTime) -> Result<u64, CatalogError> {
    let pruned = sqlx::query!(
        "delete from events where number in (select number from events where at < $1 order by number limit $2)",
        before,
        PRUNE_LIMIT,
    )
    .execute(conn)
    .await?;
    Ok(pruned.rows_affected())
}
