//! Named tokens of automation, with scopes.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::CatalogError;
use super::page::{After, Listing, Page, Part, SortBy, time_text};
use super::users::Role;

/// A row.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ApiToken {
    pub id: Uuid,
    pub user_id: Uuid,
    pub name: String,
    /// SHA-256.
    pub hash: Vec<u8>,
    pub scopes: Vec<String>,
    pub expires_at: Option<OffsetDateTime>,
    /// To the minute.
    pub last_used_at: Option<OffsetDateTime>,
    pub revoked_at: Option<OffsetDateTime>,
    pub created_at: OffsetDateTime,
}

#[derive(Debug, Clone)]
pub struct NewApiToken<'a> {
    pub id: Uuid,
    pub user_id: Uuid,
    pub name: &'a str,
    pub hash: &'a [u8; 32],
    pub scopes: &'a [String],
    pub expires_at: Option<OffsetDateTime>,
}

/// Which are wanted; `None` is all.
#[derive(Debug, Clone, Default)]
pub struct ApiTokenFilter {
    pub user_id: Option<Uuid>,
    pub name: Option<String>,
    pub revoked: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiTokenSort {
    Name,
    CreatedAt,
}

impl SortBy for ApiTokenSort {
    type Row = ApiToken;

    fn sql(self) -> (&'static str, &'static str) {
        match self {
            Self::Name => ("name", "text"),
            Self::CreatedAt => ("created_at", "timestamptz"),
        }
    }

    fn place_of(self, row: &ApiToken) -> After {
        let value = match self {
            Self::Name => row.name.clone(),
            Self::CreatedAt => time_text(row.created_at),
        };
        After { value, id: row.id }
    }
}

macro_rules! api_tokens {
    ($before:literal, $after:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            ApiToken,
            $before + " id, user_id, name, hash, scopes, expires_at, last_used_at, revoked_at, created_at " + $after
            $(, $argument)*
        )
    };
}

/// # Errors
/// [`CatalogError::Constraint`] `api_tokens_name` where the user has one of that name that is not revoked, and
/// `api_tokens_pkey` where there is one of that id.
pub async fn insert(conn: &mut PgConnection, new: &NewApiToken<'_>) -> Result<ApiToken, CatalogError> {
    let row = api_tokens!(
        "insert into api_tokens (id, user_id, name, hash, scopes, expires_at) values ($1, $2, $3, $4, $5, $6) \
         returning",
        "",
        new.id,
        new.user_id,
        new.name,
        new.hash.as_slice(),
        new.scopes,
        new.expires_at,
    );
    Ok(row.fetch_one(conn).await?)
}

pub async fn get(conn: &mut PgConnection, id: Uuid) -> Result<Option<ApiToken>, CatalogError> {
    let row = api_tokens!("select", "from api_tokens where id = $1", id);
    Ok(row.fetch_optional(conn).await?)
}

/// Who a good token lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub token: Uuid,
    pub scopes: Vec<String>,
    /// A use was noted within the last minute.
    pub use_is_noted: bool,
    pub user_id: Uuid,
    pub user_name: String,
    pub role: Role,
}

/// Whose token has that hash, where it is good: neither revoked nor expired, and its user enabled.
pub async fn holder(conn: &mut PgConnection, hash: &[u8; 32]) -> Result<Option<Holder>, CatalogError> {
    let row = sqlx::query_as!(
        Holder,
        r#"select api_tokens.id as token, scopes, user_id, users.name as user_name, role as "role: Role",
             coalesce(last_used_at > now() - interval '1 minute', false) as "use_is_noted!"
           from api_tokens join users on users.id = user_id
           where hash = $1 and enabled and revoked_at is null and (expires_at is null or expires_at > now())"#,
        hash.as_slice(),
    );
    Ok(row.fetch_optional(conn).await?)
}

/// Notes that it is used now; once a minute.
pub async fn note_use(conn: &mut PgConnection, id: Uuid) -> Result<(), CatalogError> {
    sqlx::query!(
        "update api_tokens set last_used_at = now() \
         where id = $1 and (last_used_at is null or last_used_at < now() - interval '1 minute')",
        id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// `None` where there is no such token, or it was revoked before.
pub async fn revoke(conn: &mut PgConnection, id: Uuid) -> Result<Option<ApiToken>, CatalogError> {
    let row = api_tokens!(
        "update api_tokens set revoked_at = now() where id = $1 and revoked_at is null returning",
        "",
        id
    );
    Ok(row.fetch_optional(conn).await?)
}

pub async fn page(
    conn: &mut PgConnection,
    filter: &ApiTokenFilter,
    part: &Part<ApiTokenSort>,
) -> Result<Page<ApiToken>, CatalogError> {
    Listing::of("api_tokens")
        .with("user_id", filter.user_id)
        .with("name", filter.name.as_deref())
        .with("(revoked_at is not null)", filter.revoked)
        .part(conn, part)
        .await
}
