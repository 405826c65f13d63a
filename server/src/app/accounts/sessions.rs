//! Sessions: an access token for a quarter of an hour, and a refresh token that gives the next ones.
//!
//! Invariants: a session is good as long as one of its refresh tokens is, and its access tokens no longer than that. A
//! refresh token is good once; one that comes again was stolen, from the user or by them, and ends the session. Why one
//! is not good is not told.

use ashlar_openapi::accounts::{Me, Refresh, Session};
use ashlar_openapi::audit::ActorKind;
use ashlar_openapi::operations::{GetMe, RefreshSession, RotateKeys, SignOut};
use ashlar_openapi::{Natural, Problem, ProblemType, Timestamp};
use serde_json::json;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::users::view;
use super::{check_length, note};
use crate::app::change::{Audited, Begun, Change};
use crate::app::{Answer, App, Caller, catalog_problem, internal, reading};
use crate::auth::actor::not_signed_in;
use crate::auth::sessions::ACCESS_S;
use crate::auth::{Actor, secrets};
use crate::catalog::CatalogError;
use crate::catalog::refresh_tokens::{self, NewRefreshToken, Rotation};
use crate::catalog::users::{self as rows, User};

/// Begins every refresh token.
const PREFIX: &str = "ashlar-refresh_";
/// How long one is good.
const REFRESH: Duration = Duration::days(30);
/// Longest refresh token that is looked at, in bytes.
const LONGEST: usize = 256;

/// A refresh token in the making.
pub(super) struct Fresh {
    id: Uuid,
    secret: String,
    hash: [u8; 32],
    expires_at: OffsetDateTime,
}

impl Fresh {
    pub(super) fn new() -> Result<Self, Problem> {
        let secret = secrets::new(PREFIX).map_err(|error| {
            tracing::error!(%error, "no session can begin");
            internal()
        })?;
        Ok(Self {
            id: Uuid::new_v4(),
            hash: secrets::kept(&secret),
            secret,
            expires_at: OffsetDateTime::now_utc() + REFRESH,
        })
    }

    pub(super) fn row(&self) -> NewRefreshToken<'_> {
        NewRefreshToken {
            id: self.id,
            hash: &self.hash,
            expires_at: self.expires_at,
        }
    }
}

impl App {
    /// What a session's user is told.
    pub(super) fn session(&self, user: &User, session: Uuid, fresh: Fresh) -> Result<Session, Problem> {
        let access_token = self.sessions.issue(user.id, session).map_err(|error| {
            tracing::error!(%error, "no access token can be made");
            internal()
        })?;
        Ok(Session {
            access_token,
            expires_in_s: Natural(ACCESS_S),
            refresh_token: fresh.secret,
            refresh_expires_at: Timestamp(fresh.expires_at),
            user: view(user),
        })
    }

    /// Trades a refresh token for the next one, and an access token.
    ///
    /// # Errors
    /// Where it is not good.
    pub async fn refresh(&self, caller: &Caller, given: Refresh) -> Result<Answer, Problem> {
        check_length(&given.refresh_token, LONGEST, "/refresh_token")?;
        let (hash, fresh) = (secrets::kept(&given.refresh_token), Fresh::new()?);
        let rotated = self.catalog.guard(async {
            let mut transaction = self.catalog.begin().await?;
            let user = rows::lock_by_refresh_token(&mut transaction, &hash).await?;
            let rotation = refresh_tokens::rotate(&mut transaction, &hash, &fresh.row()).await?;
            Ok::<_, CatalogError>((transaction, user, rotation))
        });
        let (transaction, user, rotation) = rotated.await.map_err(|error| catalog_problem(&error))?;
        let committed = self
            .catalog
            .guard(async { Ok::<_, CatalogError>(transaction.commit().await?) });
        committed.await.map_err(|error| catalog_problem(&error))?;
        match (user, rotation) {
            (Some(user), Rotation::Rotated { family, .. }) if user.enabled => {
                let body = self.session(&user, family, fresh)?;
                Ok(Answer::of::<RefreshSession>(&body))
            }
            (
                Some(user),
                Rotation::Reused {
                    family, ended: true, ..
                },
            ) => {
                tracing::warn!(
                    user = user.name,
                    "a refresh token was used twice: its session was ended"
                );
                self.note_reuse(caller, &user, family).await?;
                Err(not_good())
            }
            _ => Err(not_good()),
        }
    }

    /// Tells everybody who follows that a session was ended for its token's sake.
    async fn note_reuse(&self, caller: &Caller, user: &User, session: Uuid) -> Result<(), Problem> {
        let Begun::New(mut change) = Change::begin(&self.catalog, caller).await? else {
            return Err(internal());
        };
        let facts =
            json!({"name": user.name, "session": session, "because": "a refresh token was used twice"});
        note(
            &mut change,
            "user.session_ended",
            "user",
            user.id,
            None,
            Some(facts),
        );
        change.commit(Answer::nothing::<SignOut>()).await?;
        Ok(())
    }

    /// Ends the session of a refresh token. That there is none is no error: it has ended.
    ///
    /// # Errors
    /// Where the catalog is away.
    pub async fn sign_out(&self, caller: &Caller, given: Refresh) -> Result<Answer, Problem> {
        check_length(&given.refresh_token, LONGEST, "/refresh_token")?;
        let hash = secrets::kept(&given.refresh_token);
        let owner = reading(&self.catalog, async |connection| {
            rows::by_refresh_token(connection, &hash).await
        })
        .await?;
        let Some(user) = owner else {
            return Ok(Answer::nothing::<SignOut>());
        };
        let caller = Caller {
            actor: Actor {
                kind: ActorKind::User,
                user: Some(user.id),
                name: user.name,
                ..caller.actor.clone()
            },
            ..caller.clone()
        };
        let Begun::New(mut change) = Change::begin(&self.catalog, &caller).await? else {
            return Err(internal());
        };
        let ended = refresh_tokens::revoke(change.connection(), &hash).await;
        if let Some(session) = ended.map_err(|error| catalog_problem(&error))? {
            change.audit(Audited {
                object_kind: "user",
                object: user.id,
                before: Some(json!({"session": session})),
                after: None,
            });
        }
        change.commit(Answer::nothing::<SignOut>()).await
    }

    /// Who the caller is.
    ///
    /// # Errors
    /// Where the catalog is away.
    pub async fn me(&self, caller: &Caller) -> Result<Answer, Problem> {
        let actor = &caller.actor;
        let user = match actor.user {
            Some(id) => reading(&self.catalog, async |connection| rows::get(connection, id).await).await?,
            None => None,
        };
        let body = Me {
            user: user.as_ref().map(view),
            name: actor.name.clone(),
            role: actor
                .role
                .ok_or_else(|| not_signed_in("the request carries no credential"))?,
            scopes: actor.scopes.clone().unwrap_or_default(),
        };
        Ok(Answer::of::<GetMe>(&body))
    }

    /// Signs sessions with a new key from now on.
    ///
    /// # Errors
    /// Where the key cannot be made durable, or the catalog is away.
    pub async fn rotate_keys(&self, caller: &Caller) -> Result<Answer, Problem> {
        let Begun::New(mut change) = Change::begin(&self.catalog, caller).await? else {
            return Err(internal());
        };
        self.sessions.rotate().map_err(|error| {
            tracing::error!(%error, "the keys are not rotated");
            internal()
        })?;
        let appliance = self.engine.id().0;
        note(
            &mut change,
            "appliance.keys_rotated",
            "appliance",
            appliance,
            None,
            Some(json!({})),
        );
        change.commit(Answer::nothing::<RotateKeys>()).await
    }
}

fn not_good() -> Problem {
    Problem::new(
        ProblemType::RefreshTokenInvalid,
        "the refresh token is unknown, used, revoked or expired",
        "sign in again",
    )
}
