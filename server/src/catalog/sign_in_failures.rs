//! Failed sign-ins by address and name, also of users that do not exist: what limits guessing.

use std::net::IpAddr;

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{CatalogError, PRUNE_LIMIT};

pub async fn record(conn: &mut PgConnection, address: IpAddr, user_name: &str) -> Result<(), CatalogError> {
    sqlx::query!(
        "insert into sign_in_failures (address, user_name) values ($1::text::inet, $2)",
        address.to_string(),
        user_name,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How many came from there.
pub async fn count(
    conn: &mut PgConnection,
    address: IpAddr,
    since: OffsetDateTime,
) -> Result<i64, CatalogError> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from sign_in_failures where address = $1::text::inet and at >= $2"#,
        address.to_string(),
        since,
    );
    Ok(count.fetch_one(conn).await?)
}

/// Removes some of the older ones. Returns how many, see [`super::PRUNE_BATCH`].
pub async fn prune(conn: &mut PgConnection, before: OffsetDateTime) -> Result<u64, CatalogError> {
    let pruned = sqlx::query!(
        "delete from sign_in_failures where id in \
         (select id from sign_in_failures where at < $1 order by at limit $2)",
        before,
        PRUNE_LIMIT,
    )
    .execute(conn)
    .await?;
    Ok(pruned.rows_affected())
}
