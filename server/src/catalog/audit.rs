//! Who changed or tried to change what, from where, and what it was before and after.

use std::net::IpAddr;

use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::text::text_enum;
use super::{CatalogError, PRUNE_LIMIT};

text_enum! {
    AuditOutcome {
        Succeeded = "succeeded",
        Refused = "refused",
    }
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    pub id: i64,
    pub at: OffsetDateTime,
    pub actor_kind: String,
    pub actor_id: Option<Uuid>,
    pub actor_name: String,
    /// None on the maintenance socket.
    pub address: Option<String>,
    pub request_id: String,
    pub operation: String,
    pub object_kind: Option<String>,
    pub object_id: Option<Uuid>,
    pub object_name: Option<String>,
    pub before: Option<Value>,
    pub after: Option<Value>,
    pub outcome: AuditOutcome,
    /// Type of the problem document, where it was refused.
    pub problem: Option<String>,
}

/// An entry in the making. That there is a problem says that it was refused.
#[derive(Debug, Clone)]
pub struct NewAuditEntry<'a> {
    pub actor_kind: &'a str,
    pub actor_id: Option<Uuid>,
    pub actor_name: &'a str,
    pub address: Option<IpAddr>,
    pub request_id: &'a str,
    pub operation: &'a str,
    pub object_kind: Option<&'a str>,
    pub object_id: Option<Uuid>,
    pub object_name: Option<&'a str>,
    pub before: Option<&'a Value>,
    pub after: Option<&'a Value>,
    pub problem: Option<&'a str>,
}

/// Which are wanted; `None` is all.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    pub actor_id: Option<Uuid>,
    pub actor_name: Option<String>,
    pub operation: Option<String>,
    pub object_kind: Option<String>,
    pub object_id: Option<Uuid>,
    pub outcome: Option<AuditOutcome>,
    /// From then on.
    pub since: Option<OffsetDateTime>,
    /// Before then.
    pub until: Option<OffsetDateTime>,
}

pub async fn append(conn: &mut PgConnection, entry: &NewAuditEntry<'_>) -> Result<i64, CatalogError> {
    let outcome = match entry.problem {
        None => AuditOutcome::Succeeded,
        Some(_) => AuditOutcome::Refused,
    };
    let id = sqlx::query_scalar!(
        "insert into audit_log (actor_kind, actor_id, actor_name, address, request_id, operation, object_kind, \
           object_id, object_name, before, after, outcome, problem) \
         values ($1, $2, $3, $4::text::inet, $5, $6, $7, $8, $9, $10, $11, $12, $13) returning id",
        entry.actor_kind,
        entry.actor_id,
        entry.actor_name,
        entry.address.map(|address| address.to_string()),
        entry.request_id,
        entry.operation,
        entry.object_kind,
        entry.object_id,
        entry.object_name,
        entry.before,
        entry.after,
        outcome.as_str(),
        entry.problem,
    );
    Ok(id.fetch_one(conn).await?)
}

/// Newest first, those older than the entry `before`; and whether more follow.
pub async fn page(
    conn: &mut PgConnection,
    filter: &AuditFilter,
    before: Option<i64>,
    limit: u32,
) -> Result<(Vec<AuditEntry>, bool), CatalogError> {
    let rows = sqlx::query_as!(
        AuditEntry,
        r#"select id, at, actor_kind, actor_id, actor_name, host(address) as address, request_id, operation,
             object_kind, object_id, object_name, before, after, outcome as "outcome: AuditOutcome", problem
           from audit_log
           where ($1::bigint is null or id < $1)
             and ($2::uuid is null or actor_id = $2)
             and ($3::text is null or actor_name = $3)
             and ($4::text is null or operation = $4)
             and ($5::text is null or object_kind = $5)
             and ($6::uuid is null or object_id = $6)
             and ($7::text is null or outcome = $7)
             and ($8::timestamptz is null or at >= $8)
             and ($9::timestamptz is null or at < $9)
           order by id desc limit $10"#,
        before,
        filter.actor_id,
        filter.actor_name,
        filter.operation,
        filter.object_kind,
        filter.object_id,
        filter.outcome.map(AuditOutcome::as_str),
        filter.since,
        filter.until,
        i64::from(limit).saturating_add(1),
    );
    let mut rows = rows.fetch_all(conn).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    Ok((rows, more))
}

/// Removes some of the older ones. Returns how many, see [`super::PRUNE_BATCH`].
pub async fn prune(conn: &mut PgConnection, before: OffsetDateTime) -> Result<u64, CatalogError> {
    let pruned = sqlx::query!(
        "delete from audit_log where id in (select id from audit_log where at < $1 order by at limit $2)",
        before,
        PRUNE_LIMIT,
    )
    .execute(conn)
    .await?;
    Ok(pruned.rows_affected())
}
