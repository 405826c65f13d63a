//! A change of the catalog alone: one transaction that holds the change itself, its event, its entry in the audit log and
//! the answer for a repeated request.

use ashlar_openapi::{Problem, ProblemType};
use serde_json::Value;
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::{Answer, Caller, Key, catalog_problem, internal};
use crate::catalog::idempotency::{self, Claim, IdempotencyKey};
use crate::catalog::{Catalog, CatalogError, audit, events};
use crate::steps::step;

/// What happened, for those who follow the events.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub kind: &'static str,
    pub subject_kind: &'static str,
    pub subject: Uuid,
    pub data: Value,
}

/// What was changed, for the audit log.
#[derive(Debug, Clone)]
pub struct Audited {
    pub object_kind: &'static str,
    pub object: Uuid,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// How a change begins.
pub enum Begun<'a> {
    New(Change<'a>),
    /// The same request was answered before.
    Answered(Answer),
}

/// A running change. Dropped, it has not happened.
pub struct Change<'a> {
    transaction: Transaction<'static, Postgres>,
    catalog: &'a Catalog,
    caller: &'a Caller,
    events: Vec<NewEvent>,
    audited: Vec<Audited>,
}

impl<'a> Change<'a> {
    /// Begins the change that the caller asks for, unless it was made.
    ///
    /// # Errors
    /// Where the catalog is away, or the caller's key was used for another request.
    pub async fn begin(catalog: &'a Catalog, caller: &'a Caller) -> Result<Begun<'a>, Problem> {
        let begun = catalog.guard(async {
            let mut transaction = catalog.begin().await?;
            let known = match &caller.key {
                Some(key) => claim(&mut transaction, caller, key, None).await?,
                None => None,
            };
            Ok::<_, CatalogError>((transaction, known))
        });
        let (transaction, known) = begun.await.map_err(|error| catalog_problem(&error))?;
        if let (Some(known), Some(key)) = (known, &caller.key) {
            check_fingerprint(&known, key)?;
            return stored(&known).map(Begun::Answered);
        }
        Ok(Begun::New(Self {
            transaction,
            catalog,
            caller,
            events: Vec::new(),
            audited: Vec::new(),
        }))
    }

    /// The transaction's connection.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    pub fn event(&mut self, event: NewEvent) {
        self.events.push(event);
    }

    pub fn audit(&mut self, audited: Audited) {
        self.audited.push(audited);
    }

    /// Makes the change.
    ///
    /// # Errors
    /// Where the catalog is away; then it may have been made, and the same request with the same key tells.
    pub async fn commit(mut self, answer: Answer) -> Result<Answer, Problem> {
        let catalog = self.catalog;
        let done = catalog.guard(async {
            if let Some(key) = &self.caller.key {
                store(&mut self.transaction, self.caller, key, &answer).await?;
            }
            write_audit(&mut self.transaction, self.caller, &self.audited).await?;
            append_events(&mut self.transaction, &self.events).await?;
            step("before the change is committed");
            Ok::<_, CatalogError>(self.transaction.commit().await?)
        });
        done.await.map_err(|error| catalog_problem(&error))?;
        step("the change is committed");
        catalog.changed();
        Ok(answer)
    }
}

/// Claims the caller's key; answers what is known of it.
pub(super) async fn claim(
    connection: &mut PgConnection,
    caller: &Caller,
    key: &Key,
    operation: Option<Uuid>,
) -> Result<Option<IdempotencyKey>, CatalogError> {
    let principal = caller.actor.principal();
    match idempotency::claim(connection, &principal, &key.key, &key.fingerprint, operation).await? {
        Claim::New => Ok(None),
        Claim::Known(known) => Ok(Some(*known)),
    }
}

/// Whether the key was used for this request.
pub(super) fn check_fingerprint(known: &IdempotencyKey, key: &Key) -> Result<(), Problem> {
    if known.fingerprint == key.fingerprint {
        return Ok(());
    }
    Err(Problem::new(
        ProblemType::IdempotencyKeyReused,
        "the key was used for another request within the last day",
        "use a new key for a new request",
    )
    .at("Idempotency-Key"))
}

fn stored(known: &IdempotencyKey) -> Result<Answer, Problem> {
    let answer = known.body.clone().map(serde_json::from_value);
    match answer {
        Some(Ok(answer)) => Ok(answer),
        _ => Err(internal()),
    }
}

async fn store(
    connection: &mut PgConnection,
    caller: &Caller,
    key: &Key,
    answer: &Answer,
) -> Result<(), CatalogError> {
    let value = to_value(answer);
    let principal = caller.actor.principal();
    idempotency::store_answer(
        connection,
        &principal,
        &key.key,
        answer.status,
        Some(&value),
        None,
    )
    .await
}

/// An answer as it is stored.
pub(super) fn to_value(answer: &Answer) -> Value {
    serde_json::to_value(answer).expect("an answer is plain data, which always serialises")
}

/// Writes entries of the audit log for what the caller did.
pub(super) async fn write_audit(
    connection: &mut PgConnection,
    caller: &Caller,
    audited: &[Audited],
) -> Result<(), CatalogError> {
    for one in audited {
        let entry = audit::NewAuditEntry {
            object_kind: Some(one.object_kind),
            object_id: Some(one.object),
            before: one.before.as_ref(),
            after: one.after.as_ref(),
            ..entry(caller)
        };
        audit::append(connection, &entry).await?;
    }
    Ok(())
}

/// An entry of the audit log that names nothing but the caller.
pub(super) fn entry(caller: &Caller) -> audit::NewAuditEntry<'_> {
    let actor = &caller.actor;
    audit::NewAuditEntry {
        actor_kind: actor.kind.as_str(),
        actor_id: actor.user,
        actor_name: &actor.name,
        address: actor.address,
        request_id: &caller.request_id,
        operation: caller.operation,
        object_kind: None,
        object_id: None,
        object_name: None,
        before: None,
        after: None,
        problem: None,
    }
}

/// Appends events; the last thing in a transaction, because it holds the lock of their numbers.
pub(super) async fn append_events(
    connection: &mut PgConnection,
    events: &[NewEvent],
) -> Result<(), CatalogError> {
    for event in events {
        let new = events::NewEvent {
            kind: event.kind,
            subject_kind: event.subject_kind,
            subject_id: Some(event.subject),
            data: &event.data,
            engine: None,
        };
        events::append(connection, &new).await?;
    }
    Ok(())
}
