//! Who asks: by the maintenance socket's peer, a session's access token or an API token.

use std::sync::Arc;

use ashlar_openapi::audit::ActorKind;
use ashlar_openapi::{Operation, Problem, Roles};
use axum::http::{HeaderMap, header};
use time::OffsetDateTime;

use super::anonymous;
use crate::app::{App, reading};
use crate::auth::actor::not_signed_in;
use crate::auth::{Actor, secrets};
use crate::catalog::{api_tokens, users};
use crate::listen::Origin;

/// Begins every API token.
pub const TOKEN_PREFIX: &str = "ashlar_";

/// Who asks for the operation. Where it needs nobody, a credential is not looked at.
///
/// # Errors
/// Where a credential is given that is not good.
pub async fn actor<O: Operation>(
    app: &Arc<App>,
    origin: Option<Origin>,
    headers: &HeaderMap,
) -> Result<Actor, Problem> {
    let nobody = anonymous(origin);
    if let Some(Origin::Maintenance { uid }) = origin {
        return Ok(maintenance(uid).unwrap_or(nobody));
    }
    if O::ROLES == Roles::Public {
        return Ok(nobody);
    }
    let Some(given) = headers.get(header::AUTHORIZATION) else {
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
    if credential.starts_with(TOKEN_PREFIX) {
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

async fn by_token(app: &App, credential: &str, nobody: Actor) -> Result<Actor, Problem> {
    let hash = secrets::kept(credential);
    let found = reading(&app.catalog, async |connection| {
        let Some(token) = api_tokens::by_hash(connection, &hash).await? else {
            return Ok(None);
        };
        let user = users::get(connection, token.user_id).await?;
        api_tokens::note_use(connection, token.id).await?;
        Ok(user.map(|user| (token, user)))
    })
    .await?;
    let now = OffsetDateTime::now_utc();
    let good = found.filter(|(token, user)| {
        user.enabled && token.revoked_at.is_none() && token.expires_at.is_none_or(|expires| expires > now)
    });
    let (token, user) = good.ok_or_else(|| not_signed_in("the token is unknown, revoked or expired"))?;
    Ok(Actor {
        kind: ActorKind::Token,
        user: Some(user.id),
        name: user.name,
        role: Some(crate::app::accounts::role(user.role)),
        scopes: Some(
            token
                .scopes
                .iter()
                .filter_map(|scope| scope.parse().ok())
                .collect(),
        ),
        ..nobody
    })
}

async fn by_session(app: &App, credential: &str, nobody: Actor) -> Result<Actor, Problem> {
    let claims = app.sessions.check(credential)?;
    let user = reading(&app.catalog, async |connection| {
        users::get(connection, claims.sub).await
    })
    .await?;
    let good = user.filter(|user| user.enabled && user.credential_generation == claims.generation);
    let user = good.ok_or_else(|| not_signed_in("the session was ended"))?;
    Ok(Actor {
        kind: ActorKind::User,
        user: Some(user.id),
        name: user.name,
        role: Some(crate::app::accounts::role(user.role)),
        scopes: None,
        ..nobody
    })
}
