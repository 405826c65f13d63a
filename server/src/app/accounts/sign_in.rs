//! Signing in by name and password, and changing one's own password.
//!
//! Invariants: whatever is wrong, the answer and the time that it takes are the same: no such name, another password, a
//! disabled user. Each failure is in the audit log as nobody's, under the name that was tried; attempts that the limits
//! keep back are not, for they would fill it: the failure that brought the limit says so.

use ashlar_openapi::accounts::{PasswordChange, Session, SignIn};
use ashlar_openapi::audit::ActorKind;
use ashlar_openapi::operations::{ChangePassword, SignInWithPassword};
use ashlar_openapi::{Name, Problem, ProblemType};
use serde_json::json;
use uuid::Uuid;

use super::limits::{Attempt, bounded};
use super::sessions::Fresh;
use super::{LONGEST_PASSWORD, check_length, fits, hash, invalid, note, own};
use crate::app::change::{Audited, Begun, Change, entry};
use crate::app::{Answer, App, Caller, catalog_problem, internal, reading};
use crate::auth::Actor;
use crate::auth::actor::not_signed_in;
use crate::auth::passwords::check_strength;
use crate::catalog::users::{self as rows, User, UserEdit};
use crate::catalog::{CatalogError, audit, refresh_tokens};

impl App {
    /// Begins a session.
    ///
    /// # Errors
    /// Where name and password are none of an enabled user, or there were too many attempts.
    pub async fn sign_in(&self, caller: &Caller, given: SignIn) -> Result<Answer, Problem> {
        check_length(&given.password, LONGEST_PASSWORD, "/password")?;
        let attempt = Attempt::begin(self, &given.name, caller.actor.address).await?;
        let user = match given.name.parse::<Name>() {
            Ok(name) => {
                reading(&self.catalog, async |connection| {
                    rows::by_name(connection, name.as_str()).await
                })
                .await?
            }
            Err(_) => None,
        };
        let kept = user.as_ref().map(|user| user.password_hash.clone());
        let right = fits(given.password, kept).await?;
        if let Some(user) = user.filter(|user| right && user.enabled)
            && let Some(answer) = self.begin_session(caller, &attempt, &user).await?
        {
            return Ok(answer);
        }
        let tried = Caller {
            actor: Actor {
                name: bounded(&given.name),
                ..Actor::anonymous(caller.actor.address)
            },
            ..caller.clone()
        };
        self.note_failure(&attempt, Some(&tried)).await?;
        Err(Problem::new(
            ProblemType::SignInFailed,
            "there is no enabled user with this name and password",
            "check both; an admin can set another password",
        ))
    }

    /// `None` where the user was changed meanwhile.
    async fn begin_session(
        &self,
        caller: &Caller,
        attempt: &Attempt,
        user: &User,
    ) -> Result<Option<Answer>, Problem> {
        let session = Uuid::new_v4();
        let caller = Caller {
            actor: Actor {
                kind: ActorKind::User,
                user: Some(user.id),
                credential: Some(session),
                name: user.name.clone(),
                ..caller.actor.clone()
            },
            ..caller.clone()
        };
        let fresh = Fresh::new()?;
        let Begun::New(mut change) = Change::begin(&self.catalog, &caller).await? else {
            return Err(internal());
        };
        let connection = change.connection();
        let begun = async {
            let locked = rows::lock(connection, user.id).await?;
            if locked.is_none_or(|now| !now.enabled || now.password_hash != user.password_hash) {
                return Ok(None);
            }
            attempt.succeeded(connection).await?;
            refresh_tokens::issue(connection, user.id, session, &fresh.row()).await?;
            rows::note_sign_in(connection, user.id).await
        };
        let Some(user) = begun.await.map_err(|error| catalog_problem(&error))? else {
            return Ok(None);
        };
        change.audit(Audited {
            object_kind: "user",
            object: user.id,
            before: None,
            after: Some(json!({"session": session})),
        });
        let body: Session = self.session(&user, session, fresh)?;
        change
            .commit(Answer::of::<SignInWithPassword>(&body))
            .await
            .map(Some)
    }

    /// Counts a failed attempt, and writes it into the audit log as `tried` where that is given.
    async fn note_failure(&self, attempt: &Attempt, tried: Option<&Caller>) -> Result<(), Problem> {
        let noted = self.catalog.guard(async {
            let mut transaction = self.catalog.begin().await?;
            let locked = attempt.failed(&mut transaction).await?;
            if let Some(tried) = tried {
                let after = locked.map(|lasts| json!({"locked_for_s": lasts.as_secs()}));
                let refusal = audit::NewAuditEntry {
                    after: after.as_ref(),
                    problem: Some(ProblemType::SignInFailed.uri()),
                    ..entry(tried)
                };
                audit::append(&mut transaction, &refusal).await?;
            }
            Ok::<_, CatalogError>(transaction.commit().await?)
        });
        noted.await.map_err(|error| catalog_problem(&error))
    }

    /// Changes the caller's own password, and ends their other sessions.
    ///
    /// # Errors
    /// Where the old one is wrong or was tried too often, or the new one is weak.
    pub async fn change_password(&self, caller: &Caller, given: PasswordChange) -> Result<Answer, Problem> {
        let id = own(caller)?;
        check_length(&given.old, LONGEST_PASSWORD, "/old")?;
        check_length(&given.new, LONGEST_PASSWORD, "/new")?;
        check_strength(&given.new, &caller.actor.name, "/new")?;
        let attempt = Attempt::begin(self, &caller.actor.name, caller.actor.address).await?;
        let user = reading(&self.catalog, async |connection| rows::get(connection, id).await).await?;
        let ended = || not_signed_in("the user was changed at this moment");
        let user = user.ok_or_else(ended)?;
        if !fits(given.old, Some(user.password_hash.clone())).await? {
            // The audit log gets the refusal as every other of somebody who is known.
            self.note_failure(&attempt, None).await?;
            return Err(invalid("/old", "the old password is another", "check it"));
        }
        let password_hash = hash(given.new).await?;
        let Begun::New(mut change) = Change::begin(&self.catalog, caller).await? else {
            return Err(internal());
        };
        let connection = change.connection();
        let changed = async {
            let locked = rows::lock(connection, id).await?;
            if locked.is_none_or(|now| now.password_hash != user.password_hash) {
                return Ok(false);
            }
            let edit = UserEdit {
                password_hash: Some(&password_hash),
                ..UserEdit::default()
            };
            rows::update(connection, id, &edit).await?;
            attempt.succeeded(connection).await?;
            refresh_tokens::revoke_of_user(connection, id, caller.actor.credential).await?;
            Ok(true)
        };
        if !changed.await.map_err(|error| catalog_problem(&error))? {
            return Err(ended());
        }
        let facts = json!({"name": user.name, "password_changed": true});
        note(&mut change, "user.changed", "user", id, None, Some(facts));
        change.commit(Answer::nothing::<ChangePassword>()).await
    }
}
