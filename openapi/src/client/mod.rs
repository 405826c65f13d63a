//! Calls an appliance: over HTTPS, or at its maintenance socket.
//!
//! A thin layer over the contract: what can be asked is an [`Operation`], and nothing is written here per operation.
//! - Requests that change something carry a key, made up where none is given, and are repeated under it when their
//!   connection is lost or the appliance is busy: they are carried out once all the same. What has no key and is no
//!   reading is repeated only where nothing was sent.
//! - A session is renewed by itself ([`session`]); [`Trust`] says which servers are talked to.
//! - No redirect is followed: credentials go where they were meant to go.

mod call;
mod error;
mod events;
mod pages;
mod place;
mod request;
pub mod session;
mod sse;
#[cfg(test)]
mod tests;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use reqwest::{StatusCode, Url};
use tokio::time::sleep;

pub use call::{Answer, Call, Common};
pub use error::ClientError;
pub use place::{Place, shown_fingerprint};
pub use rustls::pki_types::CertificateDer;
pub use session::{Credential, LockedSession, SessionStore, Tokens};
pub use trust::{Fingerprint, NotAFingerprint, Trust};

use self::request::Request;
use self::session::Access;
use crate::operation::Operation;

/// Longest pause that the appliance can ask for before a repeated request.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often a request is repeated, and after which pauses: each is twice as long as the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeats {
    pub most: u32,
    /// The first one.
    pub pause: Duration,
}

impl Default for Repeats {
    fn default() -> Self {
        Self {
            most: 3,
            pause: Duration::from_millis(200),
        }
    }
}

/// Calls one appliance. Copies share connections and session.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    repeats: Repeats,
}

struct Inner {
    http: reqwest::Client,
    base: Url,
    place: String,
    access: Access,
}

impl Client {
    /// A client of the appliance at `place`. Nothing is sent yet.
    pub fn new(place: &Place, credential: Credential) -> Result<Self, ClientError> {
        let inner = Inner {
            http: place.http()?,
            base: place.base()?,
            place: place.describe(),
            access: Access::new(credential),
        };
        Ok(Self {
            inner: Arc::new(inner),
            repeats: Repeats::default(),
        })
    }

    /// The same client with other repeats.
    #[must_use]
    pub fn repeating(mut self, repeats: Repeats) -> Self {
        self.repeats = repeats;
        self
    }

    /// Where the appliance is, for messages.
    pub fn place(&self) -> &str {
        &self.inner.place
    }

    fn repeats(&self) -> Repeats {
        self.repeats
    }

    /// Asks, and repeats where that is safe.
    pub async fn call<O: Operation>(&self, call: Call<O>) -> Result<Answer<O>, ClientError> {
        let request = Request::new(self, call)?;
        let mut tries = 0;
        loop {
            let outcome = match self.send(&request).await {
                Ok(response) => Answer::read(response, self.place()).await,
                Err(error) => Err(error),
            };
            let again = outcome.as_ref().err().filter(|_| tries < self.repeats.most);
            let Some(pause) = again.and_then(|error| self.pause(&request, error, tries)) else {
                return outcome;
            };
            sleep(pause).await;
            tries += 1;
        }
    }

    /// Asks for something that is not JSON.
    pub async fn fetch<O: Operation>(&self, call: Call<O>) -> Result<Fetched, ClientError> {
        let mut request = Request::new(self, call)?;
        request.accept_anything();
        let response = self.send(&request).await?;
        Ok(Fetched {
            response,
            place: self.place().to_owned(),
        })
    }

    /// How long to pause before a request that failed is sent once more; `None`: not at all.
    fn pause(&self, request: &Request, error: &ClientError, tries: u32) -> Option<Duration> {
        let problem = error.problem();
        let unsent = matches!(error, ClientError::Connect { .. });
        if !(unsent || request.repeatable && error.passes()) {
            return None;
        }
        let asked = problem.and_then(|problem| problem.correction.retry_after_s);
        let asked = Duration::from_secs(asked.unwrap_or(0).into()).min(LONGEST_PAUSE);
        Some(asked.max(self.repeats.pause * 2u32.saturating_pow(tries)))
    }

    /// Sends once; once more with a new bearer where the session's was not accepted.
    async fn send(&self, request: &Request) -> Result<reqwest::Response, ClientError> {
        let access = &self.inner.access;
        if request.public {
            return self.answered(self.attempt(request, None).await?).await;
        }
        let bearer = access.bearer(self, None).await?;
        let response = self.attempt(request, bearer.as_deref()).await?;
        if response.status() == StatusCode::UNAUTHORIZED && access.renews() {
            let bearer = access.bearer(self, bearer.as_deref()).await?;
            return self
                .answered(self.attempt(request, bearer.as_deref()).await?)
                .await;
        }
        self.answered(response).await
    }

    async fn attempt(
        &self,
        request: &Request,
        bearer: Option<&str>,
    ) -> Result<reqwest::Response, ClientError> {
        let sent = request.build(&self.inner.http, bearer).send().await;
        sent.map_err(|error| ClientError::of(self.place(), &error))
    }

    async fn answered(&self, response: reqwest::Response) -> Result<reqwest::Response, ClientError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response
            .text()
            .await
            .map_err(|error| ClientError::of(self.place(), &error))?;
        Err(ClientError::refusal(self.place(), status.as_u16(), &text))
    }
}

/// Content that is not JSON, piece by piece.
pub struct Fetched {
    response: reqwest::Response,
    place: String,
}

impl Fetched {
    /// The next piece; `None` at the end.
    pub async fn piece(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let piece = self
            .response
            .chunk()
            .await
            .map_err(|error| ClientError::of(&self.place, &error))?;
        Ok(piece.map(Into::into))
    }
}
