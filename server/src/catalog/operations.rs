//! Changes that the engine takes part in, written down before the engine hears of them.

use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::text::text_enum;
use super::{CatalogError, PRUNE_LIMIT};

text_enum! {
    OperationState {
        /// The engine may or may not have heard of it.
        Running = "running",
        Done = "done",
        Failed = "failed",
        /// Found in a restored dump: it belongs to another past.
        Abandoned = "abandoned",
    }
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    pub id: Uuid,
    pub kind: String,
    pub intent: Value,
    pub actor: Value,
    pub object_kind: String,
    pub object_id: Uuid,
    pub state: OperationState,
    /// Where it is done.
    pub result: Option<Value>,
    /// Where it failed.
    pub problem: Option<Value>,
    pub created_at: OffsetDateTime,
    pub finished_at: Option<OffsetDateTime>,
}

#[derive(Debug, Clone)]
pub struct NewOperation<'a> {
    pub id: Uuid,
    pub kind: &'a str,
    pub intent: &'a Value,
    pub actor: &'a Value,
    pub object_kind: &'a str,
    pub object_id: Uuid,
}

macro_rules! operations {
    ($before:literal, $after:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Operation,
            $before + " id, kind, intent, actor, object_kind, object_id, state as \"state: OperationState\", result, \
             problem, created_at, finished_at " + $after
            $(, $argument)*
        )
    };
}

/// The newest operation of this kind that makes, or made, this object.
pub async fn creating(
    conn: &mut PgConnection,
    kind: &str,
    object_kind: &str,
    object_id: Uuid,
) -> Result<Option<Operation>, CatalogError> {
    let row = operations!(
        "select",
        "from operations where object_id = $1 and kind = $2 and object_kind = $3 and state in ('running', 'done') \
         order by created_at desc limit 1",
        object_id,
        kind,
        object_kind,
    );
    Ok(row.fetch_optional(conn).await?)
}

/// # Errors
/// [`CatalogError::Constraint`] `operations_pkey` where there is one with this id.
pub async fn begin(conn: &mut PgConnection, new: &NewOperation<'_>) -> Result<(), CatalogError> {
    sqlx::query!(
        "insert into operations (id, kind, intent, actor, object_kind, object_id) values ($1, $2, $3, $4, $5, $6)",
        new.id,
        new.kind,
        new.intent,
        new.actor,
        new.object_kind,
        new.object_id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns whether it was running.
pub async fn finish_done(conn: &mut PgConnection, id: Uuid, result: &Value) -> Result<bool, CatalogError> {
    let finished = sqlx::query!(
        "update operations set state = 'done', result = $2, finished_at = now() where id = $1 and state = 'running'",
        id,
        result,
    )
    .execute(conn)
    .await?;
    Ok(finished.rows_affected() > 0)
}

/// Returns whether it was running.
pub async fn finish_failed(conn: &mut PgConnection, id: Uuid, problem: &Value) -> Result<bool, CatalogError> {
    let finished = sqlx::query!(
        "update operations set state = 'failed', problem = $2, finished_at = now() \
         where id = $1 and state = 'running'",
        id,
        problem,
    )
    .execute(conn)
    .await?;
    Ok(finished.rows_affected() > 0)
}

/// Gives up all that is running, and says which these were.
pub async fn abandon_all(conn: &mut PgConnection) -> Result<Vec<Uuid>, CatalogError> {
    let abandoned = sqlx::query_scalar!(
        "update operations set state = 'abandoned', finished_at = now() where state = 'running' returning id"
    );
    Ok(abandoned.fetch_all(conn).await?)
}

/// What is running, oldest first.
pub async fn unfinished(conn: &mut PgConnection) -> Result<Vec<Operation>, CatalogError> {
    let rows = operations!(
        "select",
        "from operations where state = 'running' order by created_at, id"
    );
    Ok(rows.fetch_all(conn).await?)
}

/// What is running and changes this object, oldest first.
pub async fn unfinished_of(conn: &mut PgConnection, object_id: Uuid) -> Result<Vec<Operation>, CatalogError> {
    let rows = operations!(
        "select",
        "from operations where object_id = $1 and state = 'running' order by created_at, id",
        object_id,
    );
    Ok(rows.fetch_all(conn).await?)
}

pub async fn get(conn: &mut PgConnection, id: Uuid) -> Result<Option<Operation>, CatalogError> {
    let row = operations!("select", "from operations where id = $1", id);
    Ok(row.fetch_optional(conn).await?)
}

/// Removes some of those that finished before. Returns how many, see [`super::PRUNE_BATCH`].
pub async fn prune(conn: &mut PgConnection, before: OffsetDateTime) -> Result<u64, CatalogError> {
    let pruned = sqlx::query!(
        "delete from operations where id in \
         (select id from operations where state <> 'running' and finished_at < $1 order by finished_at limit $2)",
        before,
        PRUNE_LIMIT,
    )
    .execute(conn)
    .await?;
    Ok(pruned.rows_affected())
}
