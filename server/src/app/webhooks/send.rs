//! One attempt of a delivery: a POST, an answer in the 2xx range, and nothing else.
//!
//! Invariants: no redirect is followed and no proxy used; the address is checked after the name was resolved, and is the
//! one that the connection goes to; an attempt takes ten seconds at most.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ashlar_openapi::events::Event;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, redirect};
use time::OffsetDateTime;
use url::Url;
use uuid::Uuid;

use super::check::{address, is_allowed};
use super::sign::signatures;
use crate::catalog::webhooks::Webhook;

/// For one attempt, from the name's resolution to the end of the answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read, so that its connection can be used again.
const MOST_ANSWER: usize = 4 << 10;

/// Why an attempt did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("the receiver answered {0}")]
    Status(u16),
    #[error("nothing is sent to link-local, unspecified or group addresses")]
    Address,
    #[error("the URL cannot be used")]
    Url,
    #[error("the receiver did not answer within {} seconds", LIMIT.as_secs())]
    Late,
    /// Says what kind of failure; not the URL, which may hold a secret.
    #[error("{0}")]
    Transport(String),
}

impl SendError {
    /// The receiver's HTTP status.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(*status),
            _ => None,
        }
    }
}

/// Resolves to addresses that requests may go to.
struct Allowed;

impl Resolve for Allowed {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|address| is_allowed(address.ip())).collect();
            if allowed.is_empty() {
                return Err(Box::new(SendError::Address) as Box<dyn std::error::Error + Send + Sync>);
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

static CLIENT: LazyLock<Result<Client, String>> = LazyLock::new(|| {
    // More than once is the same as once.
    let _installed_already = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .user_agent(concat!("ashlar/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .no_proxy()
        .timeout(LIMIT)
        .pool_max_idle_per_host(1)
        .dns_resolver(Arc::new(Allowed))
        .build();
    client.map_err(|error| why(&error))
});

/// Sends an event. Returns the receiver's status.
///
/// # Errors
/// Where that is not in the 2xx range, or there is none.
pub async fn send(webhook: &Webhook, delivery: Uuid, event: &Event) -> Result<u16, SendError> {
    let client = CLIENT.as_ref().map_err(|why| SendError::Transport(why.clone()))?;
    let url = Url::parse(&webhook.url).map_err(|_| SendError::Url)?;
    if address(&url).is_some_and(|address| !is_allowed(address)) {
        return Err(SendError::Address);
    }
    let body = serde_json::to_vec(event).expect("types of the contract always serialise");
    let now = OffsetDateTime::now_utc();
    let former = webhook.previous_secret.as_deref();
    let former = former.filter(|_| webhook.previous_secret_until.is_some_and(|until| now < until));
    let secrets = [webhook.secret.as_str()].into_iter().chain(former);
    let signature = signatures(secrets, now.unix_timestamp(), &body);
    let request = client
        .post(url)
        .header(CONTENT_TYPE, "application/json")
        .header("Ashlar-Event", &event.kind)
        .header("Ashlar-Delivery", delivery.to_string())
        .header("Ashlar-Timestamp", now.unix_timestamp().to_string())
        .header("Ashlar-Signature", signature)
        .body(body);
    let mut response = request.send().await.map_err(|error| of_transport(&error))?;
    let mut read = 0;
    while read < MOST_ANSWER
        && let Ok(Some(chunk)) = response.chunk().await
    {
        read += chunk.len();
    }
    match response.status() {
        status if status.is_success() => Ok(status.as_u16()),
        status => Err(SendError::Status(status.as_u16())),
    }
}

fn of_transport(error: &reqwest::Error) -> SendError {
    if error.is_timeout() {
        return SendError::Late;
    }
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(SendError::Address) = cause.downcast_ref() {
            return SendError::Address;
        }
        source = cause.source();
    }
    SendError::Transport(why(error))
}

/// The innermost cause, which says what happened, without the URL.
fn why(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    let mut text = "the request failed".to_owned();
    while let Some(cause) = inner.source() {
        text = cause.to_string();
        inner = cause;
    }
    text
}
