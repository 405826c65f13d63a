//! What is asked, and what came back.

use std::time::Duration;

use reqwest::header::{ETAG, LOCATION};
use uuid::Uuid;

use super::error::ClientError;
use crate::operation::{Nothing, Operation, Trait};

/// What operations take beside path, query and body; each counts only where the operation has the trait.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Common {
    /// Most items of a page.
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Answer when the job has ended, or after this time; whole seconds count.
    pub wait: Option<Duration>,
    /// Answer what would happen, and do nothing.
    pub dry_run: bool,
}

impl Common {
    /// The parameters that `O` takes, as they stand in a query.
    pub(super) fn parameters<O: Operation>(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if O::has(Trait::Paged) {
            found.extend(self.limit.map(|limit| ("limit", limit.to_string())));
            found.extend(self.cursor.clone().map(|cursor| ("cursor", cursor)));
        }
        if O::has(Trait::Waits) {
            found.extend(self.wait.map(|wait| ("wait", format!("{}s", wait.as_secs()))));
        }
        if O::has(Trait::DryRun) && self.dry_run {
            found.push(("dry_run", "true".to_owned()));
        }
        found
    }
}

/// One request.
#[derive(Debug, Clone)]
pub struct Call<O: Operation> {
    /// For the braces of the path, in order.
    pub path: Vec<Uuid>,
    pub query: O::Query,
    pub common: Common,
    /// `etag` of the object as it was read.
    pub if_match: Option<String>,
    /// Made up where it is absent and the operation takes one.
    pub idempotency_key: Option<String>,
    pub body: O::Body,
}

impl<O: Operation> Call<O> {
    /// A request with a body.
    pub fn with(path: &[Uuid], body: O::Body) -> Self {
        Self {
            path: path.to_vec(),
            query: O::Query::default(),
            common: Common::default(),
            if_match: None,
            idempotency_key: None,
            body,
        }
    }

    #[must_use]
    pub fn query(mut self, query: O::Query) -> Self {
        self.query = query;
        self
    }

    #[must_use]
    pub fn common(mut self, common: Common) -> Self {
        self.common = common;
        self
    }

    #[must_use]
    pub fn if_match(mut self, etag: Option<String>) -> Self {
        self.if_match = etag;
        self
    }

    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }
}

impl<O: Operation<Body = Nothing>> Call<O> {
    /// A request without a body.
    pub fn at(path: &[Uuid]) -> Self {
        Self::with(path, Nothing {})
    }
}

/// An answer that is no problem.
#[derive(Debug, Clone)]
pub struct Answer<O: Operation> {
    pub status: u16,
    pub body: O::Answer,
    /// The body as it came.
    pub text: String,
    /// Names this state of the object.
    pub etag: Option<String>,
    /// Path of what was made.
    pub location: Option<String>,
}

impl<O: Operation> Answer<O> {
    pub(super) async fn read(response: reqwest::Response, place: &str) -> Result<Self, ClientError> {
        let header = |name| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let (etag, location) = (header(ETAG), header(LOCATION));
        let status = response.status().as_u16();
        let text = response
            .text()
            .await
            .map_err(|error| ClientError::of(place, &error))?;
        // `Nothing` is what an empty body says.
        let json = if text.is_empty() { "{}" } else { &text };
        match serde_json::from_str(json) {
            Ok(body) => Ok(Self {
                status,
                body,
                text,
                etag,
                location,
            }),
            Err(_) => Err(ClientError::not_ours(place, status, &text)),
        }
    }
}
