//! Which event is to be told to which webhook, and how that went.
//!
//! Invariants: an event is queued for a webhook once; sending it again is the same delivery. A webhook's deliveries are
//! sent one after the other, in the order of events.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::page::{After, Listing, Page, Part, SortBy, time_text};
use super::text::text_enum;
use super::{CatalogError, PRUNE_LIMIT};

text_enum! {
    DeliveryState {
        Pending = "pending",
        Delivered = "delivered",
        /// Given up.
        Failed = "failed",
    }
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct WebhookDelivery {
    pub id: Uuid,
    pub webhook: Uuid,
    /// Number.
    pub event: i64,
    pub state: DeliveryState,
    pub attempts: i32,
    /// While it is pending.
    pub next_attempt_at: Option<OffsetDateTime>,
    /// HTTP status of the last attempt.
    pub last_status: Option<i32>,
    /// Why the last attempt did not succeed.
    pub last_error: Option<String>,
    pub last_attempt_at: Option<OffsetDateTime>,
    pub created_at: OffsetDateTime,
    pub finished_at: Option<OffsetDateTime>,
}

/// How an attempt went.
#[derive(Debug, Clone, Copy)]
pub enum Attempt<'a> {
    Delivered {
        status: u16,
    },
    /// To be tried again then.
    Again {
        status: Option<u16>,
        error: &'a str,
        at: OffsetDateTime,
    },
    GivenUp {
        status: Option<u16>,
        error: &'a str,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliverySort {
    CreatedAt,
}

impl SortBy for DeliverySort {
    type Row = WebhookDelivery;

    fn sql(self) -> (&'static str, &'static str) {
        match self {
            Self::CreatedAt => ("created_at", "timestamptz"),
        }
    }

    fn place_of(self, row: &WebhookDelivery) -> After {
        let value = match self {
            Self::CreatedAt => time_text(row.created_at),
        };
        After { value, id: row.id }
    }
}

macro_rules! deliveries {
    ($before:literal, $after:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            WebhookDelivery,
            $before + " id, webhook, event, state as \"state: DeliveryState\", attempts, next_attempt_at, last_status, \
             last_error, last_attempt_at, created_at, finished_at " + $after
            $(, $argument)*
        )
    };
}

/// Queues what happened since the last call for every webhook that wants it; one that is disabled misses it. Returns
/// how many were queued.
pub async fn queue_events(conn: &mut PgConnection) -> Result<u64, CatalogError> {
    // Numbers are in the order of commits: all up to this one can be seen.
    let newest = super::events::newest(conn).await?;
    let behind = sqlx::query!(
        "select id from webhooks where next_event <= $1 order by id for update",
        newest
    )
    .fetch_all(&mut *conn)
    .await?;
    if behind.is_empty() {
        return Ok(0);
    }
    let queued = sqlx::query!(
        "insert into webhook_deliveries (id, webhook, event) \
         select gen_random_uuid(), webhooks.id, events.number \
         from webhooks join events on events.number >= webhooks.next_event and events.number <= $1 \
         where webhooks.enabled \
           and (cardinality(kinds) = 0 or exists (select from unnest(kinds) as wanted \
             where events.kind = wanted or (right(wanted, 1) = '.' and starts_with(events.kind, wanted)))) \
           and (cardinality(subjects) = 0 or events.subject_id = any(subjects))",
        newest,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "update webhooks set next_event = $1::bigint + 1 where next_event <= $1",
        newest
    )
    .execute(conn)
    .await?;
    Ok(queued.rows_affected())
}

/// Of each webhook that is enabled and not `busy`, the delivery that is next: the one of the oldest pending event; only
/// those whose time has come, the longest waiting first.
pub async fn due(
    conn: &mut PgConnection,
    busy: &[Uuid],
    limit: u32,
) -> Result<Vec<WebhookDelivery>, CatalogError> {
    let rows = deliveries!(
        "select",
        "from (select first.* from webhooks cross join lateral \
           (select * from webhook_deliveries where webhook = webhooks.id and state = 'pending' \
            order by event limit 1) as first \
           where enabled and webhooks.id <> all($1)) as first \
         where next_attempt_at <= now() order by next_attempt_at, id limit $2",
        busy,
        i64::from(limit)
    );
    Ok(rows.fetch_all(conn).await?)
}

/// Returns whether it was pending.
pub async fn note_attempt(
    conn: &mut PgConnection,
    id: Uuid,
    attempt: Attempt<'_>,
) -> Result<bool, CatalogError> {
    let (state, status, error, again) = match attempt {
        Attempt::Delivered { status } => (DeliveryState::Delivered, Some(status), None, None),
        Attempt::Again { status, error, at } => (DeliveryState::Pending, status, Some(error), Some(at)),
        Attempt::GivenUp { status, error } => (DeliveryState::Failed, status, Some(error), None),
    };
    let noted = sqlx::query!(
        "update webhook_deliveries set state = $2, attempts = attempts + 1, last_attempt_at = now(), \
           last_status = $3, last_error = $4, next_attempt_at = $5, \
           finished_at = case when $2 <> 'pending' then now() end \
         where id = $1 and state = 'pending'",
        id,
        state.as_str(),
        status.map(i32::from),
        error,
        again,
    )
    .execute(conn)
    .await?;
    Ok(noted.rows_affected() > 0)
}

/// Has it sent again, at once. `None` where there is no such delivery of that webhook.
pub async fn resend(
    conn: &mut PgConnection,
    webhook: Uuid,
    id: Uuid,
) -> Result<Option<WebhookDelivery>, CatalogError> {
    let row = deliveries!(
        "update webhook_deliveries set state = 'pending', next_attempt_at = now(), finished_at = null \
         where id = $1 and webhook = $2 returning",
        "",
        id,
        webhook
    );
    Ok(row.fetch_optional(conn).await?)
}

pub async fn get(conn: &mut PgConnection, id: Uuid) -> Result<Option<WebhookDelivery>, CatalogError> {
    let row = deliveries!("select", "from webhook_deliveries where id = $1", id);
    Ok(row.fetch_optional(conn).await?)
}

/// Of one webhook; of one state, where given.
pub async fn page(
    conn: &mut PgConnection,
    webhook: Uuid,
    state: Option<DeliveryState>,
    part: &Part<DeliverySort>,
) -> Result<Page<WebhookDelivery>, CatalogError> {
    Listing::of("webhook_deliveries")
        .with("webhook", Some(webhook))
        .with("state", state)
        .part(conn, part)
        .await
}

/// Removes some of those that finished before. Returns how many, see [`super::PRUNE_BATCH`].
pub async fn prune(conn: &mut PgConnection, before: OffsetDateTime) -> Result<u64, CatalogError> {
    let pruned = sqlx::query!(
        "delete from webhook_deliveries where id in \
         (select id from webhook_deliveries where finished_at < $1 order by finished_at limit $2)",
        before,
        PRUNE_LIMIT,
    )
    .execute(conn)
    .await?;
    Ok(pruned.rows_affected())
}
