//! What all mirrors of the engine's objects have in common.

use sqlx::PgConnection;

use super::CatalogError;
use super::text::text_enum;

text_enum! {
    /// How an object of the catalog stands to the engine's.
    Presence {
        /// Made through this catalog, or known to it.
        Present = "present",
        /// Found in the engine, and unknown here before.
        Adopted = "adopted",
        /// Known here, and no longer in the engine.
        Missing = "missing",
    }
}

/// Has everybody else who writes into the mirrors wait until the transaction ends.
///
/// # Errors
/// As the catalog's.
pub async fn lock(conn: &mut PgConnection) -> Result<(), CatalogError> {
    sqlx::query!("lock table devices, raid_groups, volumes, exports in share row exclusive mode")
        .execute(conn)
        .await?;
    Ok(())
}

/// The functions of a mirror that differ in the table only. `$columns` are those of `$row`, as `query_as!` wants them.
macro_rules! mirror_functions {
    ($table:literal, $row:ident, $columns:literal) => {
        /// Also where it is missing.
        pub async fn get(
            conn: &mut sqlx::PgConnection,
            id: uuid::Uuid,
        ) -> Result<Option<$row>, CatalogError> {
            let row = sqlx::query_as!(
                $row,
                "select " + $columns + " from " + $table + " where id = $1",
                id
            );
            Ok(row.fetch_optional(conn).await?)
        }

        /// As [`get`], and nobody else changes it until the transaction ends.
        pub async fn lock(
            conn: &mut sqlx::PgConnection,
            id: uuid::Uuid,
        ) -> Result<Option<$row>, CatalogError> {
            let row = sqlx::query_as!(
                $row,
                "select " + $columns + " from " + $table + " where id = $1 for update",
                id
            );
            Ok(row.fetch_optional(conn).await?)
        }

        /// Every id, also of what is missing.
        pub async fn known(
            conn: &mut sqlx::PgConnection,
        ) -> Result<Vec<(uuid::Uuid, $crate::catalog::mirror::Presence)>, CatalogError> {
            let rows = sqlx::query!("select id, presence as \"presence: Presence\" from " + $table)
                .fetch_all(conn)
                .await?;
            Ok(rows.into_iter().map(|row| (row.id, row.presence)).collect())
        }

        /// Returns how many were otherwise before.
        pub async fn set_presence(
            conn: &mut sqlx::PgConnection,
            ids: &[uuid::Uuid],
            presence: $crate::catalog::mirror::Presence,
        ) -> Result<u64, CatalogError> {
            let changed = sqlx::query!(
                "update "
                    + $table
                    + " set presence = $2, version = version + 1, updated_at = now() \
                 where id = any($1) and presence <> $2",
                ids,
                presence.as_str(),
            )
            .execute(conn)
            .await?;
            Ok(changed.rows_affected())
        }

        /// Returns whether there was one.
        pub async fn delete(conn: &mut sqlx::PgConnection, id: uuid::Uuid) -> Result<bool, CatalogError> {
            let deleted = sqlx::query!("delete from " + $table + " where id = $1", id)
                .execute(conn)
                .await?;
            Ok(deleted.rows_affected() > 0)
        }
    };
}

pub(super) use mirror_functions;
