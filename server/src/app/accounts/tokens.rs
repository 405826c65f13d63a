//! API tokens: named, for automation, made by users for themselves.
//!
//! A token's secret is told once, and again to the same request with the same key. So that nothing stored can be used,
//! the secret is computed from a random seed with the service's key ([`crate::auth::service_key`]); the stored answer
//! holds the seed, for a day, and the token's row a digest of the secret. Neither is of use without the data folder.
//!
//! Invariants: nobody but admins sees others' tokens, and to everybody else there are none. A token makes no token that
//! may do more or lives longer than itself. Scopes that the user's role does not reach are taken and do nothing: the role
//! is looked at with each request, and may become another.

use ashlar_openapi::access::Scope;
use ashlar_openapi::accounts::{NewToken, Token as View, TokenMade};
use ashlar_openapi::operations::{CreateToken, RevokeToken};
use ashlar_openapi::{Problem, ProblemType, Role, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::users::id_taken;
use super::{invalid, note, own};
use crate::app::answer::raw;
use crate::app::change::{Begun, Change};
use crate::app::{Answer, App, Caller, catalog_problem, etag, internal, no_such, reading};
use crate::auth::{Actor, secrets};
use crate::catalog::CatalogError;
use crate::catalog::api_tokens::{self as rows, ApiToken};

/// Begins every token's secret.
pub const PREFIX: &str = "ashlar_";
/// Most scopes of a request.
const MOST_SCOPES: usize = 64;

/// The answer to [`CreateToken`] as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    token: View,
    seed: [u8; 32],
}

/// A token, as the contract has it.
pub fn view(row: &ApiToken) -> View {
    View {
        id: row.id,
        name: row
            .name
            .parse()
            .expect("the catalog takes only names of tokens that are names"),
        user: row.user_id,
        scopes: row.scopes.iter().filter_map(|scope| scope.parse().ok()).collect(),
        expires_at: row.expires_at.map(Timestamp),
        last_used_at: row.last_used_at.map(Timestamp),
        created_at: Timestamp(row.created_at),
    }
}

/// Nothing of a token can be edited.
pub fn tag(row: &ApiToken) -> String {
    etag(1, row.created_at)
}

/// Whether the actor sees everybody's tokens.
pub fn sees_all(actor: &Actor) -> bool {
    let reaches = |scopes: &Vec<Scope>| scopes.contains(&Scope::UsersManage);
    actor.role == Some(Role::Admin) && actor.scopes.as_ref().is_none_or(reaches)
}

/// The token, where the actor sees it: neither others' nor revoked ones.
///
/// # Errors
/// [`ProblemType::NoSuchObject`].
pub fn seen(actor: &Actor, id: Uuid, row: Option<ApiToken>) -> Result<ApiToken, Problem> {
    row.filter(|row| row.revoked_at.is_none())
        .filter(|row| sees_all(actor) || actor.user == Some(row.user_id))
        .ok_or_else(|| no_such("token", id))
}

fn facts(row: &ApiToken) -> Value {
    let expires_at = row.expires_at.map(Timestamp);
    json!({"name": row.name, "user": row.user_id, "scopes": row.scopes, "expires_at": expires_at})
}

impl App {
    /// Makes a token for the caller.
    ///
    /// # Errors
    /// Where it would do what the caller's own credential does not, or its id or name is taken.
    pub async fn create_token(&self, caller: &Caller, new: NewToken) -> Result<Answer, Problem> {
        let user_id = own(caller)?;
        let scopes = check_scopes(&caller.actor, &new.scopes)?;
        let expires_at = new.expires_at.map(|at| at.0);
        self.check_lifetime(caller, expires_at).await?;
        let mut change = match Change::begin(&self.catalog, caller).await? {
            Begun::New(change) => change,
            Begun::Answered(answer) => return self.told(answer),
        };
        let seed = secrets::random().map_err(|error| {
            tracing::error!(%error, "no token can be made");
            internal()
        })?;
        let row = rows::NewApiToken {
            id: new.id.unwrap_or_else(Uuid::new_v4),
            user_id,
            name: new.name.as_str(),
            hash: &secrets::kept(&self.secret_of(&seed)),
            scopes: &scopes,
            expires_at,
        };
        let inserted = rows::insert(change.connection(), &row).await;
        let row = inserted.map_err(|error| taken(&error))?;
        note(
            &mut change,
            "token.created",
            "token",
            row.id,
            None,
            Some(facts(&row)),
        );
        let stored = Stored {
            token: view(&row),
            seed,
        };
        let answer = Answer {
            status: <CreateToken as ashlar_openapi::Operation>::STATUS,
            etag: None,
            location: None,
            body: Some(raw(&stored)),
        };
        let answer = answer.located(format_args!("/tokens/{}", row.id));
        self.told(change.commit(answer).await?)
    }

    /// The answer as it is given, of the one that is stored.
    fn told(&self, stored: Answer) -> Result<Answer, Problem> {
        let body = stored
            .body
            .as_ref()
            .map(|body| serde_json::from_str::<Stored>(body.get()));
        let Some(Ok(Stored { token, seed })) = body else {
            return Err(internal());
        };
        let secret = self.secret_of(&seed);
        Ok(Answer {
            body: Some(raw(&TokenMade { token, secret })),
            ..stored
        })
    }

    fn secret_of(&self, seed: &[u8; 32]) -> String {
        let secret = self.service_key.digest("secret of an API token", &[seed]);
        format!("{PREFIX}{}", secrets::hex(&secret))
    }

    /// Whether the caller may make a token that lives so long.
    async fn check_lifetime(&self, caller: &Caller, wanted: Option<OffsetDateTime>) -> Result<(), Problem> {
        if wanted.is_some_and(|at| at <= OffsetDateTime::now_utc()) {
            let cause = "the token would have expired already";
            return Err(invalid(
                "/expires_at",
                cause,
                "give a later time, or leave it out",
            ));
        }
        let (Some(_), Some(id)) = (&caller.actor.scopes, caller.actor.credential) else {
            return Ok(());
        };
        let maker = reading(&self.catalog, async |connection| rows::get(connection, id).await).await?;
        let Some(ends) = maker.and_then(|maker| maker.expires_at) else {
            return Ok(());
        };
        if wanted.is_some_and(|at| at <= ends) {
            return Ok(());
        }
        let cause = "the token would outlive the one that it is made with";
        Err(invalid(
            "/expires_at",
            cause,
            format!("it ends at {ends} at the latest"),
        ))
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// Where there is none that the caller sees.
    pub async fn revoke_token(&self, caller: &Caller, id: Uuid) -> Result<Answer, Problem> {
        let mut change = match Change::begin(&self.catalog, caller).await? {
            Begun::New(change) => change,
            Begun::Answered(answer) => return Ok(answer),
        };
        let found = rows::get(change.connection(), id).await;
        seen(&caller.actor, id, found.map_err(|error| catalog_problem(&error))?)?;
        let revoked = rows::revoke(change.connection(), id).await;
        let row = revoked.map_err(|error| catalog_problem(&error))?;
        let row = row.ok_or_else(|| no_such("token", id))?;
        note(&mut change, "token.revoked", "token", id, Some(facts(&row)), None);
        change.commit(Answer::nothing::<RevokeToken>()).await
    }
}

/// The scopes as they are kept: each once, none that the actor's own token lacks.
fn check_scopes(actor: &Actor, wanted: &[Scope]) -> Result<Vec<String>, Problem> {
    if !(1..=MOST_SCOPES).contains(&wanted.len()) {
        let correction = format!("name 1 to {MOST_SCOPES} of them");
        let refused = invalid("/scopes", "the token has no scope, or too many", correction);
        return Err(refused.allowing(Scope::ALL.iter().map(|scope| scope.as_str())));
    }
    if let Some(own) = &actor.scopes
        && let Some(lacking) = wanted.iter().find(|scope| !own.contains(scope))
    {
        return Err(Problem::new(
            ProblemType::ScopeForbidden,
            format!("the token that asks does not have scope {lacking} itself"),
            "ask with one that has it, or signed in with the password",
        )
        .at("/scopes")
        .allowing(own.iter().map(|scope| scope.as_str())));
    }
    let mut scopes = wanted.to_vec();
    scopes.sort_unstable();
    scopes.dedup();
    Ok(scopes.iter().map(ToString::to_string).collect())
}

fn taken(error: &CatalogError) -> Problem {
    match error {
        CatalogError::Constraint { name } if name == "api_tokens_name" => Problem::new(
            ProblemType::NameTaken,
            "another of the user's tokens has this name",
            "choose another name, or revoke that token",
        )
        .at("/name"),
        CatalogError::Constraint { name } if name == "api_tokens_pkey" => id_taken("token"),
        other => catalog_problem(other),
    }
}
