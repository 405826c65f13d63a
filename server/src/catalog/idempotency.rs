//! Requests with an idempotency key: the first answer is given again for 24 hours.
//!
//! ```text
//!   claim ──New──► work ──► store_answer      (or `release`: a failed try does not block the next)
//!     └──Known──► the answer, or the operation that is still to give it
//! ```

use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{CatalogError, PRUNE_LIMIT};

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct IdempotencyKey {
    /// Whose key it is.
    pub principal: String,
    pub key: String,
    /// Keyed digest of operation, path, query and body.
    pub fingerprint: Vec<u8>,
    /// Where the engine takes part.
    pub operation: Option<Uuid>,
    /// HTTP status; none while there is no answer yet.
    pub status: Option<i32>,
    pub body: Option<Value>,
    pub headers: Option<Value>,
    pub created_at: OffsetDateTime,
}

/// What came of a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// The key is ours.
    New,
    /// It was used before, for whatever its fingerprint says.
    Known(Box<IdempotencyKey>),
}

/// Takes the key where nobody has it. Waits for a transaction that is about to; a key older than 24 hours is free.
pub async fn claim(
    conn: &mut PgConnection,
    principal: &str,
    key: &str,
    fingerprint: &[u8; 32],
    operation: Option<Uuid>,
) -> Result<Claim, CatalogError> {
    let claimed = sqlx::query_scalar!(
        "insert into idempotency_keys (principal, key, fingerprint, operation) values ($1, $2, $3, $4) \
         on conflict (principal, key) do update \
         set fingerprint = excluded.fingerprint, operation = excluded.operation, status = null, body = null, \
             headers = null, created_at = now() \
         where idempotency_keys.created_at < now() - interval '24 hours' \
         returning key",
        principal,
        key,
        fingerprint.as_slice(),
        operation,
    )
    .fetch_optional(&mut *conn)
    .await?;
    if claimed.is_some() {
        return Ok(Claim::New);
    }
    let known = find(conn, principal, key).await?;
    // Pruned or released within this moment.
    let gone = || CatalogError::Unavailable("the idempotency key was released just now".into());
    known.map(|row| Claim::Known(Box::new(row))).ok_or_else(gone)
}

pub async fn find(
    conn: &mut PgConnection,
    principal: &str,
    key: &str,
) -> Result<Option<IdempotencyKey>, CatalogError> {
    let row = sqlx::query_as!(
        IdempotencyKey,
        "select principal, key, fingerprint, operation, status, body, headers, created_at from idempotency_keys \
         where principal = $1 and key = $2 and created_at >= now() - interval '24 hours'",
        principal,
        key,
    );
    Ok(row.fetch_optional(conn).await?)
}

/// # Errors
/// [`CatalogError::NotFound`] where the key is not claimed, or has an answer.
pub async fn store_answer(
    conn: &mut PgConnection,
    principal: &str,
    key: &str,
    status: u16,
    body: Option<&Value>,
    headers: Option<&Value>,
) -> Result<(), CatalogError> {
    let stored = sqlx::query!(
        "update idempotency_keys set status = $3, body = $4, headers = $5 \
         where principal = $1 and key = $2 and status is null",
        principal,
        key,
        i32::from(status),
        body,
        headers,
    )
    .execute(conn)
    .await?;
    found(stored.rows_affected())
}

/// Stores the answer under the key of that operation, where it has one: for who rolls it forward and knows no request.
pub async fn store_answer_of_operation(
    conn: &mut PgConnection,
    operation: Uuid,
    status: u16,
    body: Option<&Value>,
    headers: Option<&Value>,
) -> Result<(), CatalogError> {
    sqlx::query!(
        "update idempotency_keys set status = $2, body = $3, headers = $4 where operation = $1 and status is null",
        operation,
        i32::from(status),
        body,
        headers,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Frees the key of an operation that failed.
pub async fn release_of_operation(conn: &mut PgConnection, operation: Uuid) -> Result<(), CatalogError> {
    sqlx::query!(
        "delete from idempotency_keys where operation = $1 and status is null",
        operation
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives a key free that has no answer.
///
/// # Errors
/// [`CatalogError::NotFound`] where there is no such key.
pub async fn release(conn: &mut PgConnection, principal: &str, key: &str) -> Result<(), CatalogError> {
    let released = sqlx::query!(
        "delete from idempotency_keys where principal = $1 and key = $2 and status is null",
        principal,
        key,
    )
    .execute(conn)
    .await?;
    found(released.rows_affected())
}

fn found(rows: u64) -> Result<(), CatalogError> {
    match rows {
        0 => Err(CatalogError::NotFound),
        _ => Ok(()),
    }
}

/// Removes some of those older than 24 hours. Returns how many, see [`super::PRUNE_BATCH`].
pub async fn prune(conn: &mut PgConnection) -> Result<u64, CatalogError> {
    let pruned = sqlx::query!(
        "delete from idempotency_keys where (principal, key) in \
         (select principal, key from idempotency_keys where created_at < now() - interval '24 hours' \
          order by created_at limit $1)",
        PRUNE_LIMIT,
    )
    .execute(conn)
    .await?;
    Ok(pruned.rows_affected())
}
