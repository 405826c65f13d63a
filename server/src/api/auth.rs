//! Signing in and out, and one's own account.

use ashlar_openapi::Problem;
use ashlar_openapi::operations::{
    ChangePassword, GetMe, RefreshSession, RotateKeys, SignInWithPassword, SignOut,
};

use super::incoming::Incoming;
use super::{Asked, Routes};
use crate::app::Answer;

pub fn routes(routes: Routes) -> Routes {
    routes
        .on::<SignInWithPassword, _>(sign_in)
        .on::<RefreshSession, _>(refresh)
        .on::<SignOut, _>(sign_out)
        .on::<GetMe, _>(me)
        .on::<ChangePassword, _>(change_password)
        .on::<RotateKeys, _>(rotate_keys)
}

async fn sign_in(asked: Asked, incoming: Incoming<SignInWithPassword>) -> Result<Answer, Problem> {
    asked.app.sign_in(&asked.caller, incoming.body).await
}

async fn refresh(asked: Asked, incoming: Incoming<RefreshSession>) -> Result<Answer, Problem> {
    asked.app.refresh(&asked.caller, incoming.body).await
}

async fn sign_out(asked: Asked, incoming: Incoming<SignOut>) -> Result<Answer, Problem> {
    asked.app.sign_out(&asked.caller, incoming.body).await
}

async fn me(asked: Asked, _: Incoming<GetMe>) -> Result<Answer, Problem> {
    asked.app.me(&asked.caller).await
}

async fn change_password(asked: Asked, incoming: Incoming<ChangePassword>) -> Result<Answer, Problem> {
    asked.app.change_password(&asked.caller, incoming.body).await
}

async fn rotate_keys(asked: Asked, _: Incoming<RotateKeys>) -> Result<Answer, Problem> {
    asked.app.rotate_keys(&asked.caller).await
}
