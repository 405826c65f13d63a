//! Reading the audit log.

use ashlar_openapi::audit::{ActorKind, AuditEntry as View, AuditFilter, Outcome};
use ashlar_openapi::operations::ListAuditLog;
use ashlar_openapi::{Bytes, Page, Problem, ProblemType, Timestamp};

use crate::app::{Answer, App, cursor, reading};
use crate::catalog::audit::{self as rows, AuditEntry, AuditOutcome};

impl App {
    /// A page of the log, the newest first.
    ///
    /// # Errors
    /// Where the cursor is none of this list, or the catalog is away.
    pub async fn audit_log(
        &self,
        filter: AuditFilter,
        limit: u32,
        after: Option<&str>,
    ) -> Result<Answer, Problem> {
        let before = after.map(cursor::to_number).transpose()?;
        let before = before.map(|number| i64::try_from(number).unwrap_or(i64::MAX));
        let filter = rows::AuditFilter {
            actor_name: filter.actor_name,
            operation: filter.operation,
            object_id: filter.object_id,
            outcome: filter.outcome.map(|outcome| match outcome {
                Outcome::Succeeded => AuditOutcome::Succeeded,
                Outcome::Refused => AuditOutcome::Refused,
            }),
            ..rows::AuditFilter::default()
        };
        let (found, more) = reading(&self.catalog, async |connection| {
            rows::page(connection, &filter, before, limit).await
        })
        .await?;
        let next = found.last().filter(|_| more).map(|row| number(row.id));
        let body = Page {
            items: found.into_iter().map(view).collect(),
            next_cursor: next.map(cursor::of_number),
        };
        Ok(Answer::of::<ListAuditLog>(&body))
    }
}

/// The catalog counts from 1.
fn number(id: i64) -> u64 {
    u64::try_from(id).unwrap_or(0)
}

fn view(row: AuditEntry) -> View {
    View {
        number: Bytes(number(row.id)),
        at: Timestamp(row.at),
        actor: serde_json::from_value(row.actor_kind.into()).unwrap_or(ActorKind::Anonymous),
        actor_id: row.actor_id,
        actor_name: row.actor_name,
        address: row.address.and_then(|address| address.parse().ok()),
        request_id: row.request_id,
        operation: row.operation,
        object_kind: row.object_kind,
        object_id: row.object_id,
        outcome: match row.outcome {
            AuditOutcome::Succeeded => Outcome::Succeeded,
            AuditOutcome::Refused => Outcome::Refused,
        },
        problem: row.problem.and_then(|uri| {
            let known = ProblemType::ALL.iter().find(|kind| kind.uri() == uri);
            known.copied()
        }),
        before: row.before,
        after: row.after,
    }
}
