//! Failed sign-ins, by where they came from and by the name that was tried, also of users that do not exist: what limits
//! guessing. How much is too much, [`crate::app::accounts`] says.

use std::net::IpAddr;
use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{CatalogError, PRUNE_LIMIT};

/// Notes a failure from there.
pub async fn note_address(conn: &mut PgConnection, address: IpAddr) -> Result<(), CatalogError> {
    sqlx::query!(
        "insert into sign_in_failures (address) values ($1::text::inet)",
        address.to_string()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How long, in seconds, there are `most` failures from there or more within `window`; `None` where there are fewer.
pub async fn address_waits(
    conn: &mut PgConnection,
    address: IpAddr,
    most: u32,
    window: Duration,
) -> Result<Option<u32>, CatalogError> {
    let wait = sqlx::query_scalar!(
        r#"select extract(epoch from at + make_interval(secs => $2) - now())::float8 as "wait!"
           from sign_in_failures where address = $1::text::inet and at > now() - make_interval(secs => $2)
           order by at desc offset $3 limit 1"#,
        address.to_string(),
        window.as_secs_f64(),
        i64::from(most).saturating_sub(1),
    );
    Ok(wait.fetch_optional(conn).await?.map(whole_seconds))
}

/// Notes a failure with that name, and returns how many there were in a row. A row ends after a day without.
pub async fn note_name(conn: &mut PgConnection, name: &str) -> Result<i32, CatalogError> {
    let failures = sqlx::query_scalar!(
        "insert into sign_in_streaks as streak (user_name, failures) values ($1, 1) \
         on conflict (user_name) do update set at = now(), failures = case \
           when streak.at < now() - interval '1 day' then 1 else least(streak.failures, 1000000) + 1 end \
         returning failures",
        name,
    );
    Ok(failures.fetch_one(conn).await?)
}

/// Keeps everybody from trying that name for a while.
pub async fn lock_name(conn: &mut PgConnection, name: &str, lasts: Duration) -> Result<(), CatalogError> {
    sqlx::query!(
        "update sign_in_streaks set locked_until = now() + make_interval(secs => $2) where user_name = $1",
        name,
        lasts.as_secs_f64(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How long, in seconds, nobody may try that name; `None` where it is free.
pub async fn name_waits(conn: &mut PgConnection, name: &str) -> Result<Option<u32>, CatalogError> {
    let wait = sqlx::query_scalar!(
        r#"select extract(epoch from locked_until - now())::float8 as "wait!" from sign_in_streaks
           where user_name = $1 and locked_until > now()"#,
        name,
    );
    Ok(wait.fetch_optional(conn).await?.map(whole_seconds))
}

/// Forgets the failures with that name.
pub async fn forget_name(conn: &mut PgConnection, name: &str) -> Result<(), CatalogError> {
    sqlx::query!("delete from sign_in_streaks where user_name = $1", name)
        .execute(conn)
        .await?;
    Ok(())
}

/// Rounded up, so that who waits so long has waited long enough.
fn whole_seconds(seconds: f64) -> u32 {
    let rounded = seconds.ceil().clamp(1.0, 86_400.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is whole, and within a day"
    )]
    let whole = rounded as u32;
    whole
}

/// Removes some of the older ones. Returns how many, see [`super::PRUNE_BATCH`].
pub async fn prune(conn: &mut PgConnection, before: OffsetDateTime) -> Result<u64, CatalogError> {
    let failures = sqlx::query!(
        "delete from sign_in_failures where id in \
         (select id from sign_in_failures where at < $1 order by at limit $2)",
        before,
        PRUNE_LIMIT,
    )
    .execute(&mut *conn)
    .await?;
    let streaks = sqlx::query!(
        "delete from sign_in_streaks where user_name in \
         (select user_name from sign_in_streaks where at < $1 order by at limit $2)",
        before,
        PRUNE_LIMIT,
    )
    .execute(conn)
    .await?;
    Ok(failures.rows_affected() + streaks.rows_affected())
}
