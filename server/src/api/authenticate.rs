//! Who asks: by the maintenance socket's peer, a session's access token or an API token.
//!
//! Invariant: two queries at most, so that it costs every request little.

use std::sync::Arc;

use ashlar_openapi::audit::ActorKind;
use ashlar_openapi::{Operation, Problem, ProblemType, Roles};
use axum::http::{HeaderMap, HeaderValue, header};

use super::anonymous;
use crate::app::accounts::role;
use crate::app::accounts::tokens::PREFIX;
use crate::app::{App, reading};
use crate::auth::actor::not_signed_in;
use crate::auth::{Actor, secrets};
use crate::catalog::{api_tokens, users};
use crate::listen::Origin;

/// What a request shows of who asks: kept where an answer takes so long that it has to be looked at again.
#[derive(Clone)]
pub struct Shown {
    origin: Option<Origin>,
    authorization: Option<HeaderValue>,
}

impl Shown {
    pub fn of(origin: Option<Origin>, headers: &HeaderMap) -> Self {
        Self {
            origin,
            authorization: headers.get(header::AUTHORIZATION).cloned(),
        }
    }
}

/// Who asks for the operation. Where it needs nobody, a credential is not looked at.
///
/// # Errors
/// Where a credential is given that is not good.
pub async fn actor<O: Operation>(app: &Arc<App>, shown: &Shown) -> Result<Actor, Problem> {
    let is_network = !matches!(shown.origin, Some(Origin::Maintenance { .. }));
    if O::ROLES == Roles::Public && is_network {
        return Ok(anonymous(shown.origin));
    }
    anybody(app, shown).await
}

/// Whether who asked for the operation would still be let in. While the catalog is away nobody is sent off.
pub async fn still_may<O: Operation>(app: &Arc<App>, shown: &Shown) -> bool {
    let actor = actor::<O>(app, shown).await;
    match actor.and_then(|actor| actor.may(O::ROLES, O::SCOPE)) {
        Ok(()) => true,
        Err(refused) => refused.kind == ProblemType::CatalogUnavailable,
    }
}

/// Who asks for anything.
///
/// # Errors
/// Where a credential is given that is not good.
pub async fn anybody(app: &Arc<App>, shown: &Shown) -> Result<Actor, Problem> {
    let nobody = anonymous(shown.origin);
    if let Some(Origin::Maintenance { uid }) = shown.origin {
        return Ok(maintenance(uid).unwrap_or(nobody));
    }
    let Some(given) = &shown.authorization else {
        return Ok(nobody);
    };
    let given = given.to_str().unwrap_or_default();
    let credential = given
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, credential)) = credential else {
        return Err(not_signed_in("the credential is of another kind than Bearer"));
    };
    let credential = credential.trim();
    if credential.starts_with(PREFIX) {
        by_token(app, credential, nobody).await
    } else {
        by_session(app, credential, nobody).await
    }
}

/// Root and the service's own user are let in at the maintenance socket.
fn maintenance(uid: u32) -> Option<Actor> {
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return None;
    }
    let known = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid))
        .ok()
        .flatten();
    Some(Actor::maintenance(
        known.map_or_else(|| uid.to_string(), |user| user.name),
    ))
}

async fn by_token(app: &Arc<App>, credential: &str, nobody: Actor) -> Result<Actor, Problem> {
    let hash = secrets::kept(credential);
    let found = reading(&app.catalog, async |connection| {
        let found = api_tokens::holder(connection, &hash).await?;
        if let Some(unnoted) = found.as_ref().filter(|holder| !holder.use_is_noted) {
            api_tokens::note_use(connection, unnoted.token).await?;
        }
        Ok(found)
    })
    .await?;
    let holder = found.ok_or_else(|| not_signed_in("the token is unknown, revoked or expired"))?;
    let scopes = holder.scopes.iter().filter_map(|scope| scope.parse().ok());
    Ok(Actor {
        kind: ActorKind::Token,
        user: Some(holder.user_id),
        credential: Some(holder.token),
        name: holder.user_name,
        role: Some(role(holder.role)),
        scopes: Some(scopes.collect()),
        ..nobody
    })
}

async fn by_session(app: &Arc<App>, credential: &str, nobody: Actor) -> Result<Actor, Problem> {
    let claims = app.sessions.check(credential)?;
    let user = reading(&app.catalog, async |connection| {
        users::by_session(connection, claims.sub, claims.session).await
    })
    .await?;
    let user = user.ok_or_else(|| not_signed_in("the session was ended"))?;
    Ok(Actor {
        kind: ActorKind::User,
        user: Some(user.id),
        credential: Some(claims.session),
        name: user.name,
        role: Some(role(user.role)),
        scopes: None,
        ..nobody
    })
}
