//! What a request is answered with: kept as it is given, so that a repeated request gets the same.

use ashlar_openapi::Operation;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// An answer that is no problem.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    pub status: u16,
    /// Names the state of the object that it shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Path of what was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Box<RawValue>>,
}

impl Answer {
    /// The usual answer of an operation.
    pub fn of<O: Operation>(body: &O::Answer) -> Self {
        Self {
            status: O::STATUS,
            etag: None,
            location: None,
            body: Some(raw(body)),
        }
    }

    /// The usual answer of an operation that says nothing.
    pub fn nothing<O: Operation>() -> Self {
        Self {
            status: O::STATUS,
            etag: None,
            location: None,
            body: None,
        }
    }

    #[must_use]
    pub fn tagged(mut self, etag: String) -> Self {
        self.etag = Some(etag);
        self
    }

    /// Names where the object stands, below the API's base.
    #[must_use]
    pub fn located(mut self, path: impl std::fmt::Display) -> Self {
        self.location = Some(format!("{}{path}", ashlar_openapi::document::BASE));
        self
    }

    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }
}

/// A value as JSON text.
pub fn raw<T: Serialize>(value: &T) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("types of the contract always serialise")
}
