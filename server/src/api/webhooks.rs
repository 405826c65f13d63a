//! Webhooks.

use ashlar_openapi::Problem;
use ashlar_openapi::operations::{
    ChangeWebhook, CreateWebhook, DeleteWebhook, GetWebhook, ListDeliveries, ListWebhooks, ProbeWebhook,
    ResendDelivery, RotateWebhookSecret,
};

use super::incoming::Incoming;
use super::{Asked, Routes};
use crate::app::{Answer, internal, webhooks};

pub fn routes(routes: Routes) -> Routes {
    routes
        .on::<ListWebhooks, _>(list)
        .on::<CreateWebhook, _>(create)
        .on::<GetWebhook, _>(get)
        .on::<ChangeWebhook, _>(change)
        .on::<DeleteWebhook, _>(delete)
        .on::<RotateWebhookSecret, _>(rotate)
        .on::<ProbeWebhook, _>(probe)
        .on::<ListDeliveries, _>(deliveries)
        .on::<ResendDelivery, _>(resend)
}

async fn list(asked: Asked, incoming: Incoming<ListWebhooks>) -> Result<Answer, Problem> {
    asked
        .app
        .list_webhooks(incoming.query.sort, &incoming.paging.wanted())
        .await
}

async fn create(asked: Asked, incoming: Incoming<CreateWebhook>) -> Result<Answer, Problem> {
    asked.app.create_webhook(&asked.caller, incoming.body).await
}

async fn get(asked: Asked, incoming: Incoming<GetWebhook>) -> Result<Answer, Problem> {
    let row = asked.app.webhook(incoming.id()).await?;
    let body = webhooks::view(&row).ok_or_else(internal)?;
    Ok(Answer::of::<GetWebhook>(&body).tagged(webhooks::tag(&row)))
}

async fn change(asked: Asked, incoming: Incoming<ChangeWebhook>) -> Result<Answer, Problem> {
    let (id, if_match) = (incoming.id(), incoming.if_match.as_deref());
    asked
        .app
        .change_webhook(&asked.caller, id, incoming.body, if_match)
        .await
}

async fn delete(asked: Asked, incoming: Incoming<DeleteWebhook>) -> Result<Answer, Problem> {
    asked.app.delete_webhook(&asked.caller, incoming.id()).await
}

async fn rotate(asked: Asked, incoming: Incoming<RotateWebhookSecret>) -> Result<Answer, Problem> {
    asked
        .app
        .rotate_webhook_secret(&asked.caller, incoming.id())
        .await
}

async fn probe(asked: Asked, incoming: Incoming<ProbeWebhook>) -> Result<Answer, Problem> {
    let probed = asked.app.probe_webhook(incoming.id()).await?;
    Ok(Answer::of::<ProbeWebhook>(&probed))
}

async fn deliveries(asked: Asked, incoming: Incoming<ListDeliveries>) -> Result<Answer, Problem> {
    let wanted = incoming.paging.wanted();
    asked
        .app
        .list_deliveries(incoming.id(), &incoming.query, &wanted)
        .await
}

async fn resend(asked: Asked, incoming: Incoming<ResendDelivery>) -> Result<Answer, Problem> {
    let (webhook, delivery) = (incoming.ids[0], incoming.ids[1]);
    asked.app.resend_delivery(&asked.caller, webhook, delivery).await
}
