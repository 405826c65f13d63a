//! Users and their tokens.

use ashlar_openapi::Problem;
use ashlar_openapi::operations::{
    ChangeUser, CreateToken, CreateUser, DeleteUser, GetToken, GetUser, ListTokens, ListUsers, RevokeToken,
};
use ashlar_openapi::sort::{NamedKey, Sort};

use super::incoming::Incoming;
use super::{Asked, Routes};
use crate::app::accounts::{own, role_row, tokens, users};
use crate::app::{Answer, no_such, order, reading};
use crate::catalog;

pub fn routes(routes: Routes) -> Routes {
    routes
        .on::<ListUsers, _>(list_users)
        .on::<CreateUser, _>(create_user)
        .on::<GetUser, _>(get_user)
        .on::<ChangeUser, _>(change_user)
        .on::<DeleteUser, _>(delete_user)
        .on::<ListTokens, _>(list_tokens)
        .on::<CreateToken, _>(create_token)
        .on::<GetToken, _>(get_token)
        .on::<RevokeToken, _>(revoke_token)
}

async fn list_users(asked: Asked, incoming: Incoming<ListUsers>) -> Result<Answer, Problem> {
    let filter = catalog::users::UserFilter {
        name: incoming.query.name,
        role: incoming.query.role.map(role_row),
        enabled: None,
    };
    let order = incoming.query.sort.unwrap_or(Sort::ascending(NamedKey::Name));
    let part = order::part(&incoming.paging.wanted(), order)?;
    let found = reading(&asked.app.catalog, async |connection| {
        catalog::users::page(connection, &filter, &part).await
    })
    .await?;
    let items = found.rows.iter().map(users::view).collect();
    Ok(Answer::of::<ListUsers>(&order::page(
        items,
        order,
        found.next.as_ref(),
    )))
}

async fn create_user(asked: Asked, incoming: Incoming<CreateUser>) -> Result<Answer, Problem> {
    asked.app.create_user(&asked.caller, incoming.body).await
}

async fn get_user(asked: Asked, incoming: Incoming<GetUser>) -> Result<Answer, Problem> {
    let id = incoming.id();
    let found = reading(&asked.app.catalog, async |connection| {
        catalog::users::get(connection, id).await
    })
    .await?;
    let row = found.ok_or_else(|| no_such("user", id))?;
    Ok(Answer::of::<GetUser>(&users::view(&row)).tagged(users::tag(&row)))
}

async fn change_user(asked: Asked, incoming: Incoming<ChangeUser>) -> Result<Answer, Problem> {
    let (id, if_match) = (incoming.id(), incoming.if_match);
    let change = asked
        .app
        .change_user(&asked.caller, id, if_match.as_deref(), incoming.body);
    change.await
}

async fn delete_user(asked: Asked, incoming: Incoming<DeleteUser>) -> Result<Answer, Problem> {
    let (id, if_match) = (incoming.id(), incoming.if_match);
    asked
        .app
        .delete_user(&asked.caller, id, if_match.as_deref())
        .await
}

async fn list_tokens(asked: Asked, incoming: Incoming<ListTokens>) -> Result<Answer, Problem> {
    let mut user_id = incoming.query.user;
    let order = incoming.query.sort.unwrap_or(Sort::ascending(NamedKey::Name));
    if !tokens::sees_all(&asked.caller.actor) {
        let own = own(&asked.caller)?;
        if user_id.is_some_and(|wanted| wanted != own) {
            return Ok(Answer::of::<ListTokens>(&order::page(Vec::new(), order, None)));
        }
        user_id = Some(own);
    }
    let filter = catalog::api_tokens::ApiTokenFilter {
        user_id,
        name: incoming.query.name,
        revoked: Some(false),
    };
    let part = order::part(&incoming.paging.wanted(), order)?;
    let found = reading(&asked.app.catalog, async |connection| {
        catalog::api_tokens::page(connection, &filter, &part).await
    })
    .await?;
    let items = found.rows.iter().map(tokens::view).collect();
    Ok(Answer::of::<ListTokens>(&order::page(
        items,
        order,
        found.next.as_ref(),
    )))
}

async fn create_token(asked: Asked, incoming: Incoming<CreateToken>) -> Result<Answer, Problem> {
    asked.app.create_token(&asked.caller, incoming.body).await
}

async fn get_token(asked: Asked, incoming: Incoming<GetToken>) -> Result<Answer, Problem> {
    let id = incoming.id();
    let found = reading(&asked.app.catalog, async |connection| {
        catalog::api_tokens::get(connection, id).await
    })
    .await?;
    let row = tokens::seen(&asked.caller.actor, id, found)?;
    Ok(Answer::of::<GetToken>(&tokens::view(&row)).tagged(tokens::tag(&row)))
}

async fn revoke_token(asked: Asked, incoming: Incoming<RevokeToken>) -> Result<Answer, Problem> {
    asked.app.revoke_token(&asked.caller, incoming.id()).await
}
