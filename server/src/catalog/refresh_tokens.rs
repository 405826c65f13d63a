//! Refresh tokens: each is good once and gives its replacement. One that is used twice has been stolen, from the user or
//! by them: all that descend from the same sign-in are void then.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{CatalogError, PRUNE_LIMIT};

#[derive(Debug, Clone)]
pub struct NewRefreshToken<'a> {
    pub id: Uuid,
    /// SHA-256.
    pub hash: &'a [u8; 32],
    pub expires_at: OffsetDateTime,
}

/// What came of using one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    Rotated {
        user_id: Uuid,
        family: Uuid,
    },
    /// It was used or revoked before; its family is void now. The transaction is to be committed.
    Reused {
        user_id: Uuid,
        family: Uuid,
        /// The family was good until now.
        ended: bool,
    },
    Expired,
    Unknown,
}

/// The first one of a sign-in.
pub async fn issue(
    conn: &mut PgConnection,
    user_id: Uuid,
    family: Uuid,
    new: &NewRefreshToken<'_>,
) -> Result<(), CatalogError> {
    sqlx::query!(
        "insert into refresh_tokens (id, user_id, hash, family, expires_at) values ($1, $2, $3, $4, $5)",
        new.id,
        user_id,
        new.hash.as_slice(),
        family,
        new.expires_at,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Exchanges the token with that hash for a new one. Of several at once, one is first. Its user is locked before, see
/// [`revoke_of_user`].
pub async fn rotate(
    conn: &mut PgConnection,
    hash: &[u8; 32],
    new: &NewRefreshToken<'_>,
) -> Result<Rotation, CatalogError> {
    let found = sqlx::query!(
        r#"select id, user_id, family, revoked_at, expires_at <= now() as "expired!" from refresh_tokens
           where hash = $1 for update"#,
        hash.as_slice(),
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(old) = found else {
        return Ok(Rotation::Unknown);
    };
    let (user_id, family) = (old.user_id, old.family);
    if old.revoked_at.is_some() {
        let ended = revoke_family(conn, family).await? > 0;
        return Ok(Rotation::Reused {
            user_id,
            family,
            ended,
        });
    }
    if old.expired {
        return Ok(Rotation::Expired);
    }
    sqlx::query!(
        "update refresh_tokens set revoked_at = now() where id = $1",
        old.id
    )
    .execute(&mut *conn)
    .await?;
    issue(conn, user_id, family, new).await?;
    sqlx::query!(
        "update refresh_tokens set replaced_by = $2 where id = $1",
        old.id,
        new.id
    )
    .execute(conn)
    .await?;
    Ok(Rotation::Rotated { user_id, family })
}

/// Signs out: whatever that token descends from or led to is void. Returns the family,
/// where it was good.
pub async fn revoke(conn: &mut PgConnection, hash: &[u8; 32]) -> Result<Option<Uuid>, CatalogError> {
    let found = sqlx::query!(
        "select family from refresh_tokens where hash = $1 for update",
        hash.as_slice()
    )
    .fetch_optional(&mut *conn)
    .await?;
    match found {
        Some(token) if revoke_family(conn, token.family).await? > 0 => Ok(Some(token.family)),
        _ => Ok(None),
    }
}

/// Returns how many were good.
pub async fn revoke_family(conn: &mut PgConnection, family: Uuid) -> Result<u64, CatalogError> {
    let revoked = sqlx::query!(
        "update refresh_tokens set revoked_at = now() where family = $1 and revoked_at is null",
        family,
    )
    .execute(conn)
    .await?;
    Ok(revoked.rows_affected())
}

/// Ends the user's sessions, but for one. The user is locked before: one that is refreshed at this moment would escape.
/// Returns how many were good.
pub async fn revoke_of_user(
    conn: &mut PgConnection,
    user_id: Uuid,
    but: Option<Uuid>,
) -> Result<u64, CatalogError> {
    let revoked = sqlx::query!(
        "update refresh_tokens set revoked_at = now() \
         where user_id = $1 and revoked_at is null and family is distinct from $2",
        user_id,
        but,
    )
    .execute(conn)
    .await?;
    Ok(revoked.rows_affected())
}

/// Ends everybody's sessions.
pub async fn revoke_all(conn: &mut PgConnection) -> Result<(), CatalogError> {
    sqlx::query!("update refresh_tokens set revoked_at = now() where revoked_at is null")
        .execute(conn)
        .await?;
    Ok(())
}

/// Removes some of those that expired before. Returns how many, see [`super::PRUNE_BATCH`].
pub async fn prune(conn: &mut PgConnection, before: OffsetDateTime) -> Result<u64, CatalogError> {
    let pruned = sqlx::query!(
        "delete from refresh_tokens where id in \
         (select id from refresh_tokens where expires_at < $1 order by expires_at limit $2)",
        before,
        PRUNE_LIMIT,
    )
    .execute(conn)
    .await?;
    Ok(pruned.rows_affected())
}
