//! Receivers of events.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::CatalogError;
use super::page::{After, Listing, Page, Part, SortBy, time_text};

/// A row.
#[derive(Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Webhook {
    pub id: Uuid,
    pub name: String,
    pub url: String,
    /// Of events, or their beginnings that end in a dot; none named: all.
    pub kinds: Vec<String>,
    /// Ids; none named: all.
    pub subjects: Vec<Uuid>,
    /// Key of the signature.
    pub secret: String,
    /// Signs, too, until then.
    pub previous_secret: Option<String>,
    pub previous_secret_until: Option<OffsetDateTime>,
    pub enabled: bool,
    /// Number of the first event that it was not matched against yet.
    pub next_event: i64,
    pub version: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("enabled", &self.enabled)
            .field("next_event", &self.next_event)
            .finish_non_exhaustive()
    }
}

#[derive(Clone)]
pub struct NewWebhook<'a> {
    pub id: Uuid,
    pub name: &'a str,
    pub url: &'a str,
    pub kinds: &'a [String],
    pub subjects: &'a [Uuid],
    pub secret: &'a str,
    pub enabled: bool,
}

/// What is to be otherwise.
#[derive(Debug, Clone, Default)]
pub struct WebhookEdit<'a> {
    pub name: Option<&'a str>,
    pub url: Option<&'a str>,
    pub kinds: Option<&'a [String]>,
    pub subjects: Option<&'a [Uuid]>,
    pub enabled: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookSort {
    Name,
    CreatedAt,
}

impl SortBy for WebhookSort {
    type Row = Webhook;

    fn sql(self) -> (&'static str, &'static str) {
        match self {
            Self::Name => ("name", "text"),
            Self::CreatedAt => ("created_at", "timestamptz"),
        }
    }

    fn place_of(self, row: &Webhook) -> After {
        let value = match self {
            Self::Name => row.name.clone(),
            Self::CreatedAt => time_text(row.created_at),
        };
        After { value, id: row.id }
    }
}

macro_rules! webhooks {
    ($before:literal, $after:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Webhook,
            $before + " id, name, url, kinds, subjects, secret, previous_secret, previous_secret_until, enabled, next_event, \
             version, created_at, updated_at " + $after
            $(, $argument)*
        )
    };
}

/// It is told of what happens from now on.
///
/// # Errors
/// [`CatalogError::Constraint`] `webhooks_name` where another one has the name.
pub async fn insert(conn: &mut PgConnection, new: &NewWebhook<'_>) -> Result<Webhook, CatalogError> {
    let row = webhooks!(
        "insert into webhooks (id, name, url, kinds, subjects, secret, enabled, next_event) \
         select $1, $2, $3, $4, $5, $6, $7, last + 1 from event_counter returning",
        "",
        new.id,
        new.name,
        new.url,
        new.kinds,
        new.subjects,
        new.secret,
        new.enabled,
    );
    Ok(row.fetch_one(conn).await?)
}

pub async fn get(conn: &mut PgConnection, id: Uuid) -> Result<Option<Webhook>, CatalogError> {
    let row = webhooks!("select", "from webhooks where id = $1", id);
    Ok(row.fetch_optional(conn).await?)
}

/// As [`get`], and nobody else changes it until the transaction ends.
pub async fn lock(conn: &mut PgConnection, id: Uuid) -> Result<Option<Webhook>, CatalogError> {
    let row = webhooks!("select", "from webhooks where id = $1 for update", id);
    Ok(row.fetch_optional(conn).await?)
}

/// `None` where there is no such webhook.
pub async fn update(
    conn: &mut PgConnection,
    id: Uuid,
    edit: &WebhookEdit<'_>,
) -> Result<Option<Webhook>, CatalogError> {
    let row = webhooks!(
        "update webhooks set name = coalesce($2, name), url = coalesce($3, url), kinds = coalesce($4, kinds), \
           subjects = coalesce($5, subjects), enabled = coalesce($6, enabled), version = version + 1, \
           updated_at = now() \
         where id = $1 returning",
        "",
        id,
        edit.name,
        edit.url,
        edit.kinds,
        edit.subjects,
        edit.enabled,
    );
    Ok(row.fetch_optional(conn).await?)
}

/// Gives it a new secret; the one before signs, too, until then. `None` where there is no such webhook.
pub async fn rotate_secret(
    conn: &mut PgConnection,
    id: Uuid,
    secret: &str,
    previous_until: OffsetDateTime,
) -> Result<Option<Webhook>, CatalogError> {
    let row = webhooks!(
        "update webhooks set previous_secret = secret, previous_secret_until = $3, secret = $2, \
           version = version + 1, updated_at = now() \
         where id = $1 returning",
        "",
        id,
        secret,
        previous_until,
    );
    Ok(row.fetch_optional(conn).await?)
}

/// With its deliveries. Returns whether there was one.
pub async fn delete(conn: &mut PgConnection, id: Uuid) -> Result<bool, CatalogError> {
    let deleted = sqlx::query!("delete from webhooks where id = $1", id)
        .execute(conn)
        .await?;
    Ok(deleted.rows_affected() > 0)
}

pub async fn page(conn: &mut PgConnection, part: &Part<WebhookSort>) -> Result<Page<Webhook>, CatalogError> {
    Listing::of("webhooks").part(conn, part).await
}

/// Those that are told of events.
pub async fn enabled(conn: &mut PgConnection) -> Result<Vec<Uuid>, CatalogError> {
    let ids = sqlx::query_scalar!("select id from webhooks where enabled");
    Ok(ids.fetch_all(conn).await?)
}
