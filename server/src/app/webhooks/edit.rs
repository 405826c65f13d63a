//! Making, editing and deleting webhooks, their secrets, and sending once more.

use ashlar_openapi::operations::{
    ChangeWebhook, CreateWebhook, DeleteWebhook, ResendDelivery, RotateWebhookSecret,
};
use ashlar_openapi::webhooks::{NewWebhook, WebhookChange, WebhookMade};
use ashlar_openapi::{Operation, Problem, ProblemType};
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{check, delivery_view, tag, view};
use crate::app::change::{Audited, Begun, Change, NewEvent};
use crate::app::support_bundle::redact;
use crate::app::{Answer, App, Caller, catalog_problem, check_match, internal, no_such};
use crate::auth::secrets;
use crate::catalog::webhooks::{self, Webhook, WebhookEdit};
use crate::catalog::{CatalogError, webhook_deliveries};

/// Tells scanners and people what it is.
const PREFIX: &str = "ashlar_webhook_";
/// How long a former secret signs, too.
const FORMER: time::Duration = time::Duration::hours(24);

/// Continues with what is begun, or returns the first answer.
macro_rules! begin {
    ($app:expr, $caller:expr) => {
        match Change::begin(&$app.catalog, $caller).await? {
            Begun::New(change) => change,
            Begun::Answered(answer) => return Ok(answer),
        }
    };
}

impl App {
    /// Makes a webhook. The same request again finds the one it made, as long as nobody has changed it.
    ///
    /// # Errors
    /// Where URL or kinds cannot be, or the name or id is another one's.
    pub async fn create_webhook(&self, caller: &Caller, mut new: NewWebhook) -> Result<Answer, Problem> {
        new.url = check::url(&new.url)?;
        check::kinds(&new.kinds)?;
        let mut change = begin!(self, caller);
        let id = new.id.unwrap_or_else(Uuid::new_v4);
        if let Some(there) = self.locked(&mut change, id).await? {
            return change.commit(made_before(&there, &new)?).await;
        }
        let secret = new_secret()?;
        let row = webhooks::NewWebhook {
            id,
            name: new.name.as_str(),
            url: &new.url,
            kinds: &new.kinds,
            subjects: &[],
            secret: &secret,
            enabled: new.enabled,
        };
        let inserted = self
            .catalog
            .guard(webhooks::insert(change.connection(), &row))
            .await;
        let row = inserted.map_err(|error| refusal(&error, new.name.as_str()))?;
        note(&mut change, "webhook.created", id, None, Some(told(&row)));
        let answer = made::<CreateWebhook>(&row)?.located(format_args!("/webhooks/{id}"));
        change.commit(answer).await
    }

    /// Edits a webhook.
    ///
    /// # Errors
    /// As [`Self::create_webhook`]; also where it is another state than `if_match`.
    pub async fn change_webhook(
        &self,
        caller: &Caller,
        id: Uuid,
        mut wanted: WebhookChange,
        if_match: Option<&str>,
    ) -> Result<Answer, Problem> {
        wanted.url = wanted.url.as_deref().map(check::url).transpose()?;
        wanted.kinds.as_deref().map_or(Ok(()), check::kinds)?;
        let mut change = begin!(self, caller);
        let before = self
            .locked(&mut change, id)
            .await?
            .ok_or_else(|| no_such("webhook", id))?;
        check_match(if_match, &tag(&before))?;
        let row = if wanted == WebhookChange::default() {
            before
        } else {
            let name = wanted.name.as_ref().map(|name| name.as_str());
            let edit = WebhookEdit {
                name,
                url: wanted.url.as_deref(),
                kinds: wanted.kinds.as_deref(),
                subjects: None,
                enabled: wanted.enabled,
            };
            let edited = self
                .catalog
                .guard(webhooks::update(change.connection(), id, &edit))
                .await;
            let edited = edited.map_err(|error| refusal(&error, name.unwrap_or_default()))?;
            let row = edited.ok_or_else(|| no_such("webhook", id))?;
            note(
                &mut change,
                "webhook.changed",
                id,
                Some(told(&before)),
                Some(told(&row)),
            );
            row
        };
        let body = view(&row).ok_or_else(internal)?;
        change
            .commit(Answer::of::<ChangeWebhook>(&body).tagged(tag(&row)))
            .await
    }

    /// Deletes a webhook; what was to be delivered is not.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn delete_webhook(&self, caller: &Caller, id: Uuid) -> Result<Answer, Problem> {
        let mut change = begin!(self, caller);
        let before = self
            .locked(&mut change, id)
            .await?
            .ok_or_else(|| no_such("webhook", id))?;
        let deleted = self
            .catalog
            .guard(webhooks::delete(change.connection(), id))
            .await;
        deleted.map_err(|error| catalog_problem(&error))?;
        note(&mut change, "webhook.deleted", id, Some(told(&before)), None);
        change.commit(Answer::nothing::<DeleteWebhook>()).await
    }

    /// Gives a webhook another secret.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn rotate_webhook_secret(&self, caller: &Caller, id: Uuid) -> Result<Answer, Problem> {
        let mut change = begin!(self, caller);
        let (secret, until) = (new_secret()?, OffsetDateTime::now_utc() + FORMER);
        let rotated = webhooks::rotate_secret(change.connection(), id, &secret, until);
        let rotated = self.catalog.guard(rotated).await;
        let row = rotated
            .map_err(|error| catalog_problem(&error))?
            .ok_or_else(|| no_such("webhook", id))?;
        note(
            &mut change,
            "webhook.secret_rotated",
            id,
            None,
            Some(json!({"name": row.name})),
        );
        change.commit(made::<RotateWebhookSecret>(&row)?).await
    }

    /// Has an event delivered once more.
    ///
    /// # Errors
    /// Where there is no such delivery of that webhook.
    pub async fn resend_delivery(&self, caller: &Caller, webhook: Uuid, id: Uuid) -> Result<Answer, Problem> {
        let mut change = begin!(self, caller);
        let resent = webhook_deliveries::resend(change.connection(), webhook, id);
        let resent = self
            .catalog
            .guard(resent)
            .await
            .map_err(|error| catalog_problem(&error))?;
        let row = resent.ok_or_else(|| no_such("delivery", id))?;
        change.audit(Audited {
            object_kind: "webhook",
            object: webhook,
            before: None,
            after: Some(json!({"delivery": id, "event": row.event})),
        });
        change
            .commit(Answer::of::<ResendDelivery>(&delivery_view(&row)))
            .await
    }

    async fn locked(&self, change: &mut Change<'_>, id: Uuid) -> Result<Option<Webhook>, Problem> {
        let locked = self.catalog.guard(webhooks::lock(change.connection(), id)).await;
        locked.map_err(|error| catalog_problem(&error))
    }
}

fn new_secret() -> Result<String, Problem> {
    secrets::new(PREFIX).map_err(|error| {
        tracing::error!(%error, "a webhook gets no secret");
        internal()
    })
}

/// The answer that tells the secret.
fn made<O: Operation<Answer = WebhookMade>>(row: &Webhook) -> Result<Answer, Problem> {
    let body = WebhookMade {
        webhook: view(row).ok_or_else(internal)?,
        secret: row.secret.clone(),
    };
    Ok(Answer::of::<O>(&body).tagged(tag(row)))
}

/// The first answer again, where the same was asked for.
fn made_before(there: &Webhook, new: &NewWebhook) -> Result<Answer, Problem> {
    let same = there.version == 1
        && there.name == new.name.as_str()
        && there.url == new.url
        && there.kinds == new.kinds
        && there.enabled == new.enabled;
    if same {
        return Ok(made::<CreateWebhook>(there)?.located(format_args!("/webhooks/{}", there.id)));
    }
    Err(Problem::new(
        ProblemType::IdTaken,
        format!("id {} is another webhook's", there.id),
        "choose another id, or leave it out",
    )
    .at("/id"))
}

fn refusal(error: &CatalogError, name: &str) -> Problem {
    match error {
        CatalogError::Constraint { name: constraint } if constraint == "webhooks_name" => Problem::new(
            ProblemType::NameTaken,
            format!("another webhook is called {name}"),
            "choose another name",
        )
        .at("/name"),
        CatalogError::Constraint { name: constraint } if constraint == "webhooks_pkey" => Problem::new(
            ProblemType::IdTaken,
            "another webhook was made with this id just now",
            "send the request again",
        )
        .at("/id"),
        other => catalog_problem(other),
    }
}

/// What of a webhook stands in the audit log and in events: paths of URLs are often secrets.
fn told(row: &Webhook) -> Value {
    json!({
        "name": row.name,
        "url": redact::url(&row.url),
        "kinds": row.kinds,
        "enabled": row.enabled,
    })
}

fn note(change: &mut Change<'_>, kind: &'static str, id: Uuid, before: Option<Value>, after: Option<Value>) {
    change.event(NewEvent {
        kind,
        subject_kind: "webhook",
        subject: id,
        data: after.clone().unwrap_or_else(|| json!({})),
    });
    change.audit(Audited {
        object_kind: "webhook",
        object: id,
        before,
        after,
    });
}
