//! `ashlar webhook`

use ashlar_openapi::Name;
use ashlar_openapi::client::Call;
use ashlar_openapi::operations::{
    ChangeWebhook, CreateWebhook, DeleteWebhook, GetWebhook, ListDeliveries, ListWebhooks, ProbeWebhook,
    ResendDelivery, RotateWebhookSecret,
};
use ashlar_openapi::sort::{NamedKey, TimedKey};
use ashlar_openapi::webhooks::{
    Delivery, DeliveryFilter, DeliveryState, NewWebhook, Webhook, WebhookChange, WebhookFilter,
};
use clap::{Args, Subcommand};
use uuid::Uuid;

use super::{Gone, One, end, show, switch};
use crate::Context;
use crate::edit::edit;
use crate::failure::Failure;
use crate::find::{Handle, Noun, find, id};
use crate::format;
use crate::list::{Length, Names, Order, Row, list};
use crate::values::word;

const STATES: &[&str] = &["pending", "delivered", "failed"];

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Have events sent somewhere; the secret that signs them is told once
    Create {
        /// What to call it
        name: Name,
        /// Where to send them: http:// or https://
        #[arg(value_name = "URL")]
        to: String,
        /// Only events of this kind, or of those that begin so: `volume.`; may be repeated [default: all]
        #[arg(long, value_delimiter = ',')]
        kind: Vec<String>,
        /// Do not send anything yet
        #[arg(long)]
        disabled: bool,
    },
    /// List the webhooks
    List {
        #[command(flatten)]
        order: Order<NamedKey>,
        #[command(flatten)]
        length: Length,
    },
    /// Look at a webhook
    Show(One),
    /// Edit a webhook
    Set(Set),
    /// Delete a webhook
    Delete(Gone),
    /// Give a webhook another secret, which is told once; both sign for a day
    RotateSecret(One),
    /// Send a test event now, and tell how it went
    Probe(One),
    /// List a webhook's deliveries, the newest first
    Deliveries {
        #[command(flatten)]
        one: One,
        /// Only in this state
        #[arg(long, value_parser = word::<DeliveryState>(STATES))]
        state: Option<DeliveryState>,
        #[command(flatten)]
        order: Order<TimedKey>,
        #[command(flatten)]
        length: Length,
    },
    /// Deliver an event once more
    Resend {
        #[command(flatten)]
        one: One,
        /// The delivery's id
        #[arg(value_parser = id)]
        delivery: Uuid,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    #[command(flatten)]
    one: One,
    /// What to call it
    #[arg(long)]
    name: Option<Name>,
    /// Where to send them
    #[arg(long = "to", value_name = "URL")]
    to: Option<String>,
    /// Only events of this kind, in the place of those before; may be repeated
    #[arg(long, value_delimiter = ',', conflicts_with = "any_kind")]
    kind: Vec<String>,
    /// Events of every kind
    #[arg(long)]
    any_kind: bool,
    /// Send
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Do not send
    #[arg(long)]
    disable: bool,
}

impl Verb {
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Failure> {
        let one = async |text: &str| find::<Webhooks>(&cx.client, text).await;
        match self {
            Self::Create {
                name,
                to,
                kind,
                disabled,
            } => {
                let new = NewWebhook {
                    id: None,
                    name,
                    url: to,
                    kinds: kind,
                    enabled: !disabled,
                };
                let answer = cx.client.call(Call::<CreateWebhook>::with(&[], new)).await?;
                cx.out
                    .made(&answer.text, "webhook", &answer.body.webhook.id.to_string())
            }
            Self::List { order, length } => {
                let filter = WebhookFilter { sort: order.sort };
                list(cx, Call::<ListWebhooks>::at(&[]).query(filter), &length).await
            }
            Self::Show(named) => {
                let id = one(&named.object).await?;
                show::<GetWebhook>(cx, &[id], id).await
            }
            Self::Set(set) => {
                let id = one(&set.one.object).await?;
                let answer = edit::<GetWebhook, ChangeWebhook>(&cx.client, &[id], set.change()).await?;
                cx.out.object(&answer.text, &id.to_string())
            }
            Self::Delete(gone) => {
                let id = one(&gone.object).await?;
                gone.confirm("Delete the webhook")?;
                end::<DeleteWebhook>(cx, id, "deleted").await
            }
            Self::RotateSecret(named) => {
                let id = one(&named.object).await?;
                let answer = cx.client.call(Call::<RotateWebhookSecret>::at(&[id])).await?;
                cx.out.made(&answer.text, "webhook", &id.to_string())
            }
            Self::Probe(named) => {
                let id = one(&named.object).await?;
                show::<ProbeWebhook>(cx, &[id], id).await
            }
            Self::Deliveries {
                one: named,
                state,
                order,
                length,
            } => {
                let id = one(&named.object).await?;
                list(
                    cx,
                    Call::<ListDeliveries>::at(&[id]).query(DeliveryFilter {
                        state,
                        sort: order.sort,
                    }),
                    &length,
                )
                .await
            }
            Self::Resend { one: named, delivery } => {
                let id = one(&named.object).await?;
                show::<ResendDelivery>(cx, &[id, delivery], delivery).await
            }
        }
    }
}

impl Set {
    fn change(self) -> WebhookChange {
        WebhookChange {
            name: self.name,
            url: self.to,
            kinds: (self.any_kind || !self.kind.is_empty()).then_some(self.kind),
            enabled: switch(self.enable, self.disable),
        }
    }
}

/// Webhooks, to be found.
struct Webhooks;

impl Noun for Webhooks {
    const WHAT: &'static str = "webhook";
    type Item = Webhook;
    type List = ListWebhooks;

    /// They are few, and the list has no filter.
    fn queries(_: &str) -> Vec<WebhookFilter> {
        vec![WebhookFilter::default()]
    }

    fn handle(item: &Webhook) -> Handle {
        Handle {
            id: item.id,
            name: Some(item.name.to_string()),
            number: None,
        }
    }
}

impl Row for Webhook {
    const HEADERS: &'static [&'static str] = &["NAME", "ENABLED", "KINDS", "LAST EVENT", "URL"];

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn cells(&self, _: &Names) -> Vec<String> {
        vec![
            self.name.to_string(),
            format::yes(self.enabled),
            if self.kinds.is_empty() {
                "all".to_owned()
            } else {
                self.kinds.join(",")
            },
            self.last_event.0.to_string(),
            self.url.clone(),
        ]
    }
}

impl Row for Delivery {
    const HEADERS: &'static [&'static str] = &["ID", "EVENT", "STATE", "ATTEMPTS", "NEXT", "STATUS", "ERROR"];

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn cells(&self, _: &Names) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.event.0.to_string(),
            format::word(&self.state),
            self.attempts.0.to_string(),
            format::or_nothing(self.next_attempt_at.map(format::moment)),
            format::or_nothing(self.last_status),
            format::or_nothing(self.last_error.as_ref()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_that_is_offered_is_one_of_the_contract() {
        for word in STATES {
            assert_eq!(
                format::word(&serde_json::from_value::<DeliveryState>((*word).into()).unwrap()),
                *word
            );
        }
    }
}
