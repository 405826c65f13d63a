//! Accounts: users, their tokens, their sessions, and the log of what they did.
//!
//! - [`users`]: an enabled admin is always left
//! - [`tokens`]: named ones for automation
//! - [`sign_in`], within [`limits`], begins [`sessions`]
//! - [`first_admin`]: who manages an appliance that has no user yet
//! - [`audit_log`]
//!
//! Invariants: passwords are kept as argon2id only, tokens as digests only; neither stands in events, the audit log or
//! stored answers. Who may not sign in is not told why.

pub mod audit_log;
pub mod first_admin;
pub mod limits;
pub mod sessions;
pub mod sign_in;
pub mod tokens;
pub mod users;

use ashlar_openapi::{Problem, ProblemType, Role};
use serde_json::Value;
use uuid::Uuid;

use super::change::{Audited, Change, NewEvent};
use super::{Caller, internal};
use crate::auth::actor::not_signed_in;
use crate::auth::passwords;
use crate::catalog::users as rows;

pub use first_admin::first_admin;

/// Longest password, in bytes.
const LONGEST_PASSWORD: usize = 1024;

/// A user's role.
pub fn role(role: rows::Role) -> Role {
    match role {
        rows::Role::Admin => Role::Admin,
        rows::Role::Operator => Role::Operator,
        rows::Role::Backup => Role::Backup,
        rows::Role::Viewer => Role::Viewer,
    }
}

/// A user's role, as the catalog has it.
pub fn role_row(role: Role) -> rows::Role {
    match role {
        Role::Admin => rows::Role::Admin,
        Role::Operator => rows::Role::Operator,
        Role::Backup => rows::Role::Backup,
        Role::Viewer => rows::Role::Viewer,
    }
}

/// The user who asks: at the maintenance socket there is none.
///
/// # Errors
/// [`ProblemType::NotSignedIn`].
pub fn own(caller: &Caller) -> Result<Uuid, Problem> {
    caller.actor.user.ok_or_else(|| {
        let mut refused = not_signed_in("this is for users, and the maintenance socket lets in without one");
        refused.correction.text =
            "sign in as a user, and send the session's access token over the network".into();
        refused
    })
}

fn invalid(pointer: &str, cause: &str, correction: impl Into<String>) -> Problem {
    Problem::new(ProblemType::InvalidValue, cause, correction).at(pointer)
}

/// Whether a text is not longer, in bytes, than it can be.
fn check_length(text: &str, most: usize, pointer: &str) -> Result<(), Problem> {
    if text.len() <= most {
        return Ok(());
    }
    Err(invalid(
        pointer,
        "the value is too long",
        format!("it has at most {most} bytes"),
    ))
}

/// The hash to keep of a password.
async fn hash(password: String) -> Result<String, Problem> {
    passwords::hash(password).await.map_err(|error| {
        tracing::error!(%error, "a password is not kept");
        internal()
    })
}

/// Whether a password fits what is kept of one.
async fn fits(password: String, kept: Option<String>) -> Result<bool, Problem> {
    passwords::verify(password, kept).await.map_err(|error| {
        tracing::error!(%error, "a password is not compared");
        internal()
    })
}

/// Notes a change of an account for those who follow the events, and for the audit log.
fn note(
    change: &mut Change<'_>,
    kind: &'static str,
    object_kind: &'static str,
    object: Uuid,
    before: Option<Value>,
    after: Option<Value>,
) {
    change.event(NewEvent {
        kind,
        subject_kind: object_kind,
        subject: object,
        data: after.clone().or_else(|| before.clone()).unwrap_or_default(),
    });
    change.audit(Audited {
        object_kind,
        object,
        before,
        after,
    });
}
