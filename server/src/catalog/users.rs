//! Accounts.

use std::time::Duration;

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
    /// An access token of another generation is void.
    pub credential_generation: i64,
    /// In a row.
    pub failed_sign_ins: i32,
    pub locked_until: Option<OffsetDateTime>,
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
    pub name: Option<&'a str>,
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
            $before + " id, name, password_hash, role as \"role: Role\", enabled, credential_generation, \
             failed_sign_ins, locked_until, version, created_at, updated_at " + $after
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

/// Raises the version, and the generation where another password, role or being enabled makes access tokens void.
/// `None` where there is no such user.
///
/// # Errors
/// [`CatalogError::Constraint`] `users_name` where another has the name.
pub async fn update(
    conn: &mut PgConnection,
    id: Uuid,
    edit: &UserEdit<'_>,
) -> Result<Option<User>, CatalogError> {
    let row = users!(
        "update users set name = coalesce($2, name), password_hash = coalesce($3, password_hash), \
           role = coalesce($4, role), enabled = coalesce($5, enabled), version = version + 1, updated_at = now(), \
           credential_generation = credential_generation + case \
             when (coalesce($3, password_hash), coalesce($4, role), coalesce($5, enabled)) \
               is distinct from (password_hash, role, enabled) then 1 else 0 end \
         where id = $1 returning",
        "",
        id,
        edit.name,
        edit.password_hash,
        edit.role.map(Role::as_str),
        edit.enabled,
    );
    Ok(row.fetch_optional(conn).await?)
}

/// Makes every access token of the user void. Returns whether there is such a user.
pub async fn raise_generation(conn: &mut PgConnection, id: Uuid) -> Result<bool, CatalogError> {
    let raised = sqlx::query!(
        "update users set credential_generation = credential_generation + 1, version = version + 1, \
           updated_at = now() where id = $1",
        id,
    )
    .execute(conn)
    .await?;
    Ok(raised.rows_affected() > 0)
}

/// The admins that can sign in, locked until the transaction ends: so that the last one is not taken away by two at
/// once.
pub async fn lock_enabled_admins(conn: &mut PgConnection) -> Result<Vec<Uuid>, CatalogError> {
    let ids =
        sqlx::query_scalar!("select id from users where role = 'admin' and enabled order by id for update");
    Ok(ids.fetch_all(conn).await?)
}

/// Counts a failed sign-in; from `lock_after` in a row on, each locks the account for a while. Returns the count, or
/// `None` where there is no such user.
pub async fn note_failed_sign_in(
    conn: &mut PgConnection,
    id: Uuid,
    lock_after: i32,
    lock_for: Duration,
) -> Result<Option<i32>, CatalogError> {
    let count = sqlx::query_scalar!(
        "update users set failed_sign_ins = least(failed_sign_ins, 1000000) + 1, \
           locked_until = case when failed_sign_ins + 1 >= $2 then now() + make_interval(secs => $3) \
             else locked_until end \
         where id = $1 returning failed_sign_ins",
        id,
        lock_after,
        lock_for.as_secs_f64(),
    );
    Ok(count.fetch_optional(conn).await?)
}

/// Forgets the failures.
pub async fn note_sign_in(conn: &mut PgConnection, id: Uuid) -> Result<(), CatalogError> {
    sqlx::query!(
        "update users set failed_sign_ins = 0, locked_until = null \
         where id = $1 and (failed_sign_ins > 0 or locked_until is not null)",
        id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// With its tokens. Returns whether there was one.
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
