//! Whose catalog this is, and which life of the appliance last used it.

use sqlx::PgConnection;
use uuid::Uuid;

use super::CatalogError;

/// What a catalog says it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub appliance: Uuid,
    /// The engine's number of this start.
    pub epoch: i64,
}

/// The row as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub identity: Identity,
    pub incarnation: Uuid,
}

pub(super) async fn read(conn: &mut PgConnection) -> Result<Option<Written>, sqlx::Error> {
    let row = sqlx::query!("select appliance, epoch, incarnation from catalog_identity")
        .fetch_optional(conn)
        .await?;
    Ok(row.map(|row| Written {
        identity: Identity {
            appliance: row.appliance,
            epoch: row.epoch,
        },
        incarnation: row.incarnation,
    }))
}

pub(super) async fn write(conn: &mut PgConnection, written: Written) -> Result<(), CatalogError> {
    let Identity { appliance, epoch } = written.identity;
    sqlx::query!(
        "insert into catalog_identity (appliance, epoch, incarnation) values ($1, $2, $3) \
         on conflict (only_row) do update \
         set appliance = excluded.appliance, epoch = excluded.epoch, incarnation = excluded.incarnation, \
             updated_at = now()",
        appliance,
        epoch,
        written.incarnation,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that the catalog of a blank appliance is the one of this appliance now.
///
/// # Errors
/// [`CatalogError::NotFound`] where the catalog belongs to nobody yet.
pub async fn set(conn: &mut PgConnection, identity: Identity) -> Result<(), CatalogError> {
    let changed = sqlx::query!(
        "update catalog_identity set appliance = $1, epoch = $2, updated_at = now()",
        identity.appliance,
        identity.epoch,
    )
    .execute(conn)
    .await?;
    match changed.rows_affected() {
        0 => Err(CatalogError::NotFound),
        _ => Ok(()),
    }
}

/// Notes that the engine counts another epoch now: it has one only since its first device.
///
/// # Errors
/// [`CatalogError::NotFound`] where the catalog belongs to nobody yet.
pub async fn set_epoch(conn: &mut PgConnection, epoch: i64) -> Result<(), CatalogError> {
    let changed = sqlx::query!(
        "update catalog_identity set epoch = $1, updated_at = now()",
        epoch
    )
    .execute(conn)
    .await?;
    match changed.rows_affected() {
        0 => Err(CatalogError::NotFound),
        _ => Ok(()),
    }
}
