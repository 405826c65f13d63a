//! Accounts.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::CatalogError;
use super::page::{After, Listing, Page, Part, SortBy, time_text};
use super::text::text_enum;

text_enum! {
    /// What a user may do.
    Role {
        Admin = "admin",
        /// Everything but accounts.
        Operator = "operator",
        Backup = "backup",
        Viewer = "viewer",
    }
}

/// A row.
#[derive(Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct User {
    pub id: Uuid,
    pub name: String,
    pub password_hash: String,
    pub role: Role,
    pub enabled: bool,
    pub last_sign_in_at: Option<OffsetDateTime>,
    pub version: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("role", &self.role)
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

#[derive(Clone)]
pub struct NewUser<'a> {
    pub id: Uuid,
    pub name: &'a str,
    pub password_hash: &'a str,
    pub role: Role,
    pub enabled: bool,
}

/// What is to be otherwise.
#[derive(Clone, Default)]
pub struct UserEdit<'a> {
    pub password_hash: Option<&'a str>,
    pub role: Option<Role>,
    pub enabled: Option<bool>,
}

/// Which are wanted; `None` is all.
#[derive(Debug, Clone, Default)]
pub struct UserFilter {
    pub name: Option<String>,
    pub role: Option<Role>,
    pub enabled: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserSort {
    Name,
    CreatedAt,
}

impl SortBy for UserSort {
    type Row = User;

    fn sql(self) -> (&'static str, &'static str) {
        match self {
            Self::Name => ("name", "text"),
            Self::CreatedAt => ("created_at", "timestamptz"),
        }
    }

    fn place_of(self, row: &User) -> After {
        let value = match self {
            Self::Name => row.name.clone(),
            Self::CreatedAt => time_text(row.created_at),
        };
        After { value, id: row.id }
    }
}

macro_rules! users {
    ($before:literal, $after:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            User,
            $before + " id, name, password_hash, role as \"role: Role\", enabled, last_sign_in_at, version, \
             created_at, updated_at " + $after
            $(, $argument)*
        )
    };
}

/// # Errors
/// [`CatalogError::Constraint`] `users_name` or `users_pkey` where there is one.
pub async fn insert(conn: &mut PgConnection, new: &NewUser<'_>) -> Result<User, CatalogError> {
    let row = users!(
        "insert into users (id, name, password_hash, role, enabled) values ($1, $2, $3, $4, $5) returning",
        "",
        new.id,
        new.name,
        new.password_hash,
        new.role.as_str(),
        new.enabled,
    );
    Ok(row.fetch_one(conn).await?)
}

pub async fn get(conn: &mut PgConnection, id: Uuid) -> Result<Option<User>, CatalogError> {
    let row = users!("select", "from users where id = $1", id);
    Ok(row.fetch_optional(conn).await?)
}

/// As [`get`], and nobody else changes it until the transaction ends.
pub async fn lock(conn: &mut PgConnection, id: Uuid) -> Result<Option<User>, CatalogError> {
    let row = users!("select", "from users where id = $1 for update", id);
    Ok(row.fetch_optional(conn).await?)
}

/// Whatever the letters' case.
pub async fn by_name(conn: &mut PgConnection, name: &str) -> Result<Option<User>, CatalogError> {
    let row = users!("select", "from users where lower(name) = lower($1)", name);
    Ok(row.fetch_optional(conn).await?)
}

/// The user whose session that is, where it is good: the user enabled, the session neither ended nor expired.
pub async fn by_session(
    conn: &mut PgConnection,
    id: Uuid,
    session: Uuid,
) -> Result<Option<User>, CatalogError> {
    let row = users!(
        "select",
        "from users where id = $1 and enabled and exists \
           (select from refresh_tokens where family = $2 and user_id = $1 and revoked_at is null and expires_at > now())",
        id,
        session,
    );
    Ok(row.fetch_optional(conn).await?)
}

/// The user with the refresh token of that hash, good or not.
pub async fn by_refresh_token(
    conn: &mut PgConnection,
    hash: &[u8; 32],
) -> Result<Option<User>, CatalogError> {
    let row = users!(
        "select",
        "from users where id = (select user_id from refresh_tokens where hash = $1)",
        hash.as_slice(),
    );
    Ok(row.fetch_optional(conn).await?)
}

/// As [`by_refresh_token`]. Nobody else changes the user until the transaction ends.
pub async fn lock_by_refresh_token(
    conn: &mut PgConnection,
    hash: &[u8; 32],
) -> Result<Option<User>, CatalogError> {
    let row = users!(
        "select",
        "from users where id = (select user_id from refresh_tokens where hash = $1) for update",
        hash.as_slice(),
    );
    Ok(row.fetch_optional(conn).await?)
}

/// Raises the version. `None` where there is no such user.
pub async fn update(
    conn: &mut PgConnection,
    id: Uuid,
    edit: &UserEdit<'_>,
) -> Result<Option<User>, CatalogError> {
    let row = users!(
        "update users set password_hash = coalesce($2, password_hash), role = coalesce($3, role), \
           enabled = coalesce($4, enabled), version = version + 1, updated_at = now() \
         where id = $1 returning",
        "",
        id,
        edit.password_hash,
        edit.role.map(Role::as_str),
        edit.enabled,
    );
    Ok(row.fetch_optional(conn).await?)
}

/// Whether there is no user at all.
pub async fn none(conn: &mut PgConnection) -> Result<bool, CatalogError> {
    let none = sqlx::query_scalar!(r#"select not exists (select from users) as "none!""#);
    Ok(none.fetch_one(conn).await?)
}

/// The admins that can sign in, locked until the transaction ends: so that the last one is not taken away by two at
/// once.
pub async fn lock_enabled_admins(conn: &mut PgConnection) -> Result<Vec<Uuid>, CatalogError> {
    let ids =
        sqlx::query_scalar!("select id from users where role = 'admin' and enabled order by id for update");
    Ok(ids.fetch_all(conn).await?)
}

/// Notes a sign-in. It is no edit: the version stays. `None` where there is no such user.
pub async fn note_sign_in(conn: &mut PgConnection, id: Uuid) -> Result<Option<User>, CatalogError> {
    let row = users!(
        "update users set last_sign_in_at = now() where id = $1 returning",
        "",
        id
    );
    Ok(row.fetch_optional(conn).await?)
}

/// With its tokens and sessions. Returns whether there was one.
pub async fn delete(conn: &mut PgConnection, id: Uuid) -> Result<bool, CatalogError> {
    let deleted = sqlx::query!("delete from users where id = $1", id)
        .execute(conn)
        .await?;
    Ok(deleted.rows_affected() > 0)
}

pub async fn page(
    conn: &mut PgConnection,
    filter: &UserFilter,
    part: &Part<UserSort>,
) -> Result<Page<User>, CatalogError> {
    Listing::of("users")
        .with(
            "lower(name)",
            filter.name.as_ref().map(|name| name.to_lowercase()),
        )
        .with("role", filter.role)
        .with("enabled", filter.enabled)
        .part(conn, part)
        .await
}
