//! Changes that the engine takes part in: begun in the catalog, carried out, finished in the catalog; after a crash at
//! any step, rolled forward.
//!
//! ```text
//!   begin ──row `running`──► carry out ──engine──► finish ──row `done`, mirror, event, audit──► answer
//!     │                          ▲      └─refused─► row `failed`, key free again
//!     └──the same request────────┴── joins, or gets the first answer
//! ```
//! Invariants: the engine hears of an operation only after its row is durable, always with the same id; an object is
//! changed by one operation at a time, in the order in which they were begun; an operation whose outcome is not known
//! stays `running` until it is, and is tried again; one that the engine cannot have heard of is over.

use std::sync::Arc;

use ashlar_openapi::{Problem, ProblemType};
use serde_json::Value;
use sqlx::PgConnection;
use tokio::sync::Notify;
use uuid::Uuid;

use super::change::{
    Audited, NewEvent, append_events, check_fingerprint, claim, entry, to_value, write_audit,
};
use super::intent::Intent;
use super::show::Show;
use super::touched::{self, Touched};
use super::{Answer, App, Caller, catalog_problem, internal};
use crate::auth::Actor;
use crate::catalog::operations::{self, NewOperation, Operation, OperationState};
use crate::catalog::{CatalogError, audit, devices, exports, idempotency, raid_groups, volumes};
use crate::steps::step;

/// What carrying out an intent came to.
pub struct Done {
    /// Rows of the mirror that are to follow.
    pub touched: Vec<Touched>,
    pub show: Show,
    pub event: Option<NewEvent>,
    pub audited: Audited,
}

/// How an operation begins.
enum Begun {
    /// This one is to be carried out.
    Run(Uuid),
    Answered(Answer),
}

/// Whether the engine may have heard of an operation before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    First,
    Again,
}

/// Has whoever rolls changes forward look, unless it is emptied before: also where the request is dropped.
struct Left<'a>(Option<&'a Notify>);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        if let Some(unfinished) = self.0 {
            unfinished.notify_one();
        }
    }
}

/// Who asked, as it stands in an operation's row.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Asker {
    actor: Actor,
    request_id: String,
    operation: String,
}

impl App {
    /// Carries out what the caller asks for, once. `check` looks at the object before, while nobody else changes it.
    ///
    /// # Errors
    /// Why it was refused, or that its outcome is not known yet: the same request with the same key tells.
    pub async fn change(
        self: &Arc<Self>,
        caller: &Caller,
        intent: Intent,
        check: impl AsyncFnOnce(&Self) -> Result<(), Problem>,
    ) -> Result<Answer, Problem> {
        let (_, object) = intent.object();
        if let Some(known) = self.known(caller, &intent).await? {
            return self.answer_of(known, None).await;
        }
        let _turn = self.locks.lock(object).await;
        // While another one had the object, it may have been the same request.
        if let Some(known) = self.known(caller, &intent).await? {
            return self.answer_of(known, Some(object)).await;
        }
        self.end_earlier(object).await?;
        check(self).await?;
        // What is refused for this must not be done when the devices are there again.
        self.check_changeable().await?;
        let mut left = Left(Some(&self.left_unfinished));
        let begun = self.begin(caller, &intent).await?;
        step("the intent is written");
        let answer = match begun {
            Begun::Answered(answer) => answer,
            Begun::Run(id) => self.carry_out(id, intent, caller.clone(), Attempt::First).await?,
        };
        left.0 = None;
        Ok(answer)
    }

    /// Brings what was begun with the object before to its end, so that it is not done after what comes now; the object
    /// is the caller's.
    async fn end_earlier(&self, object: Uuid) -> Result<(), Problem> {
        let rows = super::reading(&self.catalog, async |connection| {
            operations::unfinished_of(connection, object).await
        })
        .await?;
        for row in rows {
            let id = row.id;
            if let Err(problem) = self.resume(row).await
                && self.operation(id).await?.state == OperationState::Running
            {
                return Err(problem);
            }
        }
        Ok(())
    }

    /// The operation that the same request began before: by its key, or by the id that the client chose for the object.
    /// What made an object that is not there any more is not the same request: the id is free again.
    async fn known(&self, caller: &Caller, intent: &Intent) -> Result<Option<Uuid>, Problem> {
        if caller.key.is_none() && !intent.creates() {
            return Ok(None);
        }
        let (kind, object) = intent.object();
        let found = super::reading(&self.catalog, async |connection| {
            let by_key = match &caller.key {
                Some(key) => idempotency::find(connection, &caller.actor.principal(), &key.key).await?,
                None => None,
            };
            let mut by_object = match intent.creates() {
                true => operations::creating(connection, intent.name(), kind, object).await?,
                false => None,
            };
            if let Some(made) = &by_object
                && made.state == OperationState::Done
                && !is_recorded(connection, kind, object).await?
            {
                by_object = None;
            }
            Ok((by_key, by_object))
        })
        .await?;
        let (by_key, by_object) = found;
        if let (Some(known), Some(key)) = (&by_key, &caller.key) {
            check_fingerprint(known, key)?;
            if known.operation.is_some() {
                return Ok(known.operation);
            }
        }
        let wanted = to_json(intent);
        match by_object {
            Some(operation) if operation.intent == wanted => Ok(Some(operation.id)),
            Some(_) => Err(Problem::new(
                ProblemType::IdTaken,
                format!("id {object} was chosen for another {kind} before"),
                "choose another id, or leave it out",
            )
            .at("/id")),
            None => Ok(None),
        }
    }

    async fn begin(&self, caller: &Caller, intent: &Intent) -> Result<Begun, Problem> {
        let id = Uuid::new_v4();
        let (kind, object) = intent.object();
        let asker = Asker {
            actor: caller.actor.clone(),
            request_id: caller.request_id.clone(),
            operation: caller.operation.to_owned(),
        };
        let (intent_json, actor_json) = (to_json(intent), to_json(&asker));
        let new = NewOperation {
            id,
            kind: intent.name(),
            intent: &intent_json,
            actor: &actor_json,
            object_kind: kind,
            object_id: object,
        };
        let begun = self.catalog.guard(async {
            let mut transaction = self.catalog.begin().await?;
            operations::begin(&mut transaction, &new).await?;
            if let Some(key) = &caller.key
                && let Some(known) = claim(&mut transaction, caller, key, Some(id)).await?
            {
                return Ok(Some(known));
            }
            transaction.commit().await?;
            Ok::<_, CatalogError>(None)
        });
        let known = begun.await.map_err(|error| catalog_problem(&error))?;
        let (Some(known), Some(key)) = (known, &caller.key) else {
            return Ok(Begun::Run(id));
        };
        // Two requests with one key at once: the other one was first.
        check_fingerprint(&known, key)?;
        let first = known.operation.ok_or_else(internal)?;
        self.answer_of(first, Some(object)).await.map(Begun::Answered)
    }

    /// The answer of an operation that was begun: its first one, or what carrying it out now comes to. `held` is the
    /// object that is the caller's already.
    async fn answer_of(&self, id: Uuid, held: Option<Uuid>) -> Result<Answer, Problem> {
        let row = self.operation(id).await?;
        let _turn = match row.state {
            OperationState::Running if held != Some(row.object_id) => {
                Some(self.locks.lock(row.object_id).await)
            }
            _ => None,
        };
        // It may have ended while the object was another's.
        let row = self.operation(id).await?;
        match row.state {
            OperationState::Running => self.resume(row).await,
            OperationState::Done => stored_answer(&row),
            OperationState::Failed => Err(stored_problem(&row)),
            OperationState::Abandoned => Err(internal()),
        }
    }

    async fn operation(&self, id: Uuid) -> Result<Operation, Problem> {
        let row = super::reading(&self.catalog, async |connection| {
            operations::get(connection, id).await
        })
        .await?;
        row.ok_or_else(internal)
    }

    async fn resume(&self, row: Operation) -> Result<Answer, Problem> {
        let parsed = serde_json::from_value::<Intent>(row.intent.clone());
        let asker = serde_json::from_value::<Asker>(row.actor.clone());
        let (Ok(intent), Ok(asker)) = (parsed, asker) else {
            tracing::error!(operation = %row.id, "an operation's row cannot be read");
            return Err(internal());
        };
        let caller = Caller {
            actor: asker.actor,
            request_id: asker.request_id,
            operation: super::operation_id(&asker.operation),
            key: None,
        };
        self.carry_out(row.id, intent, caller, Attempt::Again).await
    }

    /// Brings every unfinished operation to its end. Those whose outcome cannot be known now stay; returns how many.
    ///
    /// # Errors
    /// Where the catalog is away.
    pub async fn roll_forward(&self) -> Result<usize, Problem> {
        let rows = super::reading(&self.catalog, operations::unfinished).await?;
        for row in rows {
            let _turn = self.locks.lock(row.object_id).await;
            // A request may have brought it to its end meanwhile.
            let Ok(row) = self.operation(row.id).await else {
                continue;
            };
            if row.state != OperationState::Running {
                continue;
            }
            let (id, kind) = (row.id, row.kind.clone());
            match self.resume(row).await {
                Ok(_) => tracing::info!(operation = %id, kind, "an unfinished change was brought to its end"),
                Err(problem) => {
                    tracing::info!(operation = %id, kind, %problem, "an unfinished change was not made");
                }
            }
        }
        let left = super::reading(&self.catalog, operations::unfinished).await?;
        Ok(left.len())
    }

    /// Carries out an operation whose row is durable; the object is the caller's of this.
    async fn carry_out(
        &self,
        id: Uuid,
        intent: Intent,
        caller: Caller,
        attempt: Attempt,
    ) -> Result<Answer, Problem> {
        match intent.carry_out(self, id).await {
            Ok(done) => {
                step("the engine has done it");
                self.finish(id, done, &caller).await
            }
            Err(problem) if is_settled(&problem) || is_unheard(&problem, attempt) => {
                self.fail(id, &problem).await?;
                Err(problem)
            }
            Err(problem) => Err(problem),
        }
    }

    async fn finish(&self, id: Uuid, done: Done, caller: &Caller) -> Result<Answer, Problem> {
        let finished = self.catalog.guard(async {
            let mut transaction = self.catalog.begin().await?;
            for one in &done.touched {
                touched::write(&mut transaction, one).await?;
            }
            let answer = done.show.answer(self, &mut transaction, id).await?;
            write_audit(&mut transaction, caller, std::slice::from_ref(&done.audited)).await?;
            operations::finish_done(&mut transaction, id, &to_value(&answer)).await?;
            append_events(&mut transaction, done.event.as_slice()).await?;
            step("before the outcome is committed");
            transaction.commit().await?;
            Ok::<_, CatalogError>(answer)
        });
        let answer = finished.await.map_err(|error| catalog_problem(&error))?;
        step("the outcome is committed");
        self.catalog.changed();
        Ok(answer)
    }

    async fn fail(&self, id: Uuid, problem: &Problem) -> Result<(), Problem> {
        let value = to_json(problem);
        let failed = self.catalog.guard(async {
            let mut transaction = self.catalog.begin().await?;
            operations::finish_failed(&mut transaction, id, &value).await?;
            idempotency::release_of_operation(&mut transaction, id).await?;
            transaction.commit().await?;
            Ok::<_, CatalogError>(())
        });
        failed.await.map_err(|error| catalog_problem(&error))
    }
}

/// Writes into the audit log that something was refused, and how many refusals before were left out of it.
///
/// # Errors
/// Where the catalog is away.
pub async fn note_refusal(
    catalog: &crate::catalog::Catalog,
    caller: &Caller,
    refused: &Problem,
    left_out: u64,
) -> Result<(), CatalogError> {
    let after = (left_out > 0).then(|| serde_json::json!({"refusals_left_out": left_out}));
    catalog
        .guard(async {
            let mut connection = catalog.acquire().await?;
            let refusal = audit::NewAuditEntry {
                after: after.as_ref(),
                problem: Some(refused.kind.uri()),
                ..entry(caller)
            };
            audit::append(&mut connection, &refusal).await?;
            Ok(())
        })
        .await
}

/// Whether the catalog has a record of the object.
async fn is_recorded(connection: &mut PgConnection, kind: &str, id: Uuid) -> Result<bool, CatalogError> {
    Ok(match kind {
        "device" => devices::get(connection, id).await?.is_some(),
        "raid_group" => raid_groups::get(connection, id).await?.is_some(),
        "volume" => volumes::get(connection, id).await?.is_some(),
        _ => exports::get(connection, id).await?.is_some(),
    })
}

/// Whether a refusal is final: nothing was changed, and nothing of it may still happen.
pub(super) fn is_settled(problem: &Problem) -> bool {
    !matches!(
        problem.kind,
        ProblemType::CatalogUnavailable
            | ProblemType::MetadataNotDurable
            | ProblemType::MetadataUnavailable
            | ProblemType::ApplianceUnavailable
            | ProblemType::Stopping
            | ProblemType::Internal
    )
}

/// Whether the engine has nothing of the operation, as it was away. At a later attempt an earlier one may have reached
/// it.
fn is_unheard(problem: &Problem, attempt: Attempt) -> bool {
    let away = matches!(
        problem.kind,
        ProblemType::MetadataUnavailable | ProblemType::ApplianceUnavailable
    );
    away && attempt == Attempt::First
}

fn stored_answer(row: &Operation) -> Result<Answer, Problem> {
    let answer = row.result.clone().map(serde_json::from_value);
    answer.and_then(Result::ok).ok_or_else(internal)
}

fn stored_problem(row: &Operation) -> Problem {
    let problem = row.problem.clone().map(serde_json::from_value);
    problem.and_then(Result::ok).unwrap_or_else(internal)
}

fn to_json<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("plain data always serialises")
}
