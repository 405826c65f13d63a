//! A request, ready to be sent more than once.

use std::time::Duration;

use reqwest::Url;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, IF_MATCH};
use uuid::Uuid;

use super::Client;
use super::call::Call;
use super::error::ClientError;
use crate::access::Roles;
use crate::operation::{Content as _, Method, Operation, Trait};

/// Longest time for an answer, beside the time that the appliance was asked to wait.
const ANSWER: Duration = Duration::from_secs(60);

pub(super) struct Request {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
    /// `None`: the answer goes on as long as it likes.
    timeout: Option<Duration>,
    /// Shows no credential.
    pub(super) public: bool,
    /// Sent twice, it does nothing more.
    pub(super) repeatable: bool,
}

impl Request {
    pub(super) fn new<O: Operation>(client: &Client, call: Call<O>) -> Result<Self, ClientError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(etag) = call.if_match {
            headers.insert(IF_MATCH, value(&etag)?);
        }
        if O::has(Trait::Idempotent) {
            let key = call.idempotency_key.unwrap_or_else(|| Uuid::new_v4().to_string());
            headers.insert(HeaderName::from_static("idempotency-key"), value(&key)?);
        }
        let body = O::Body::schema_name()
            .map(|_| serde_json::to_vec(&call.body))
            .transpose();
        let body = body.map_err(|error| ClientError::Setting(error.to_string()))?;
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let mut url = client.inner.base.clone();
        url.set_path(&path::<O>(url.path(), &call.path)?);
        let wait = call.common.wait.unwrap_or_default();
        let http = &client.inner.http;
        let query = http
            .get(url)
            .query(&call.query)
            .query(&call.common.parameters::<O>())
            .build();
        let mut url = query
            .map_err(|error| ClientError::Setting(error.to_string()))?
            .url()
            .clone();
        if url.query() == Some("") {
            url.set_query(None);
        }
        Ok(Self {
            method: O::METHOD,
            url,
            headers,
            body,
            timeout: Some(ANSWER + wait),
            public: O::ROLES == Roles::Public,
            repeatable: O::METHOD == Method::Get || O::has(Trait::Idempotent),
        })
    }

    /// Takes whatever type the answer is of, however long it is.
    pub(super) fn accept_anything(&mut self) {
        self.headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        self.timeout = None;
    }

    /// Asks for server-sent events after the one named.
    pub(super) fn stream(&mut self, last: Option<&str>) {
        self.headers
            .insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(last) = last.and_then(|last| HeaderValue::from_str(last).ok()) {
            self.headers
                .insert(HeaderName::from_static("last-event-id"), last);
        }
        self.timeout = None;
    }

    pub(super) fn build(&self, http: &reqwest::Client, bearer: Option<&str>) -> reqwest::RequestBuilder {
        let method = match self.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Patch => reqwest::Method::PATCH,
            Method::Delete => reqwest::Method::DELETE,
        };
        let mut builder = http
            .request(method, self.url.clone())
            .headers(self.headers.clone());
        if let Some(bearer) = bearer {
            builder = builder.bearer_auth(bearer);
        }
        if let Some(body) = &self.body {
            builder = builder.body(body.clone());
        }
        if let Some(timeout) = self.timeout {
            builder = builder.timeout(timeout);
        }
        builder
    }
}

fn value(text: &str) -> Result<HeaderValue, ClientError> {
    HeaderValue::from_str(text)
        .map_err(|_| ClientError::Setting(format!("{text:?} cannot stand in a header")))
}

/// The operation's path with ids in its braces.
fn path<O: Operation>(base: &str, ids: &[Uuid]) -> Result<String, ClientError> {
    let mut left = ids.iter();
    let mut path = base.to_owned();
    for part in O::PATH.split('/').skip(1) {
        path.push('/');
        if part.starts_with('{') {
            let id = left.next().ok_or_else(|| misfit::<O>(ids))?;
            path.push_str(&id.to_string());
        } else {
            path.push_str(part);
        }
    }
    if left.next().is_some() {
        Err(misfit::<O>(ids))
    } else {
        Ok(path)
    }
}

fn misfit<O: Operation>(ids: &[Uuid]) -> ClientError {
    ClientError::Setting(format!("{} does not take {} ids: {}", O::ID, ids.len(), O::PATH))
}
