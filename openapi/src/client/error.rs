//! Why there is no answer.

use std::error::Error;
use std::io;

use crate::problem::Problem;

/// Longest piece of a foreign answer that is kept.
const LONGEST_TEXT: usize = 400;

/// Why a call has no answer. Places are URLs or paths of sockets.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The appliance says why not.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// Nothing was sent.
    #[error("cannot reach {place}: {reason}")]
    Connect { place: String, reason: String },
    /// The request was sent; whether it was carried out is not known.
    #[error("the connection to {place} was lost: {reason}")]
    Lost { place: String, reason: String },
    /// The server is not the one that is trusted, or does not speak TLS.
    #[error("no trusted connection to {place}: {reason}")]
    Tls { place: String, reason: String },
    #[error("{place} gave an answer that this program does not understand (status {status}): {text}")]
    NotOurs {
        place: String,
        status: u16,
        text: String,
    },
    /// The session cannot be read or kept.
    #[error("the session cannot be used: {0}")]
    Session(#[source] io::Error),
    /// URL, certificate or fingerprint are none.
    #[error("{0}")]
    Setting(String),
}

impl ClientError {
    pub(super) fn of(place: &str, error: &reqwest::Error) -> Self {
        let place = place.to_owned();
        if let Some(reason) = tls_reason(error) {
            return Self::Tls { place, reason };
        }
        let (connect, timeout) = (error.is_connect(), error.is_timeout());
        let reason = if timeout && !connect {
            "no answer in time".to_owned()
        } else {
            innermost(error)
        };
        if connect {
            Self::Connect { place, reason }
        } else {
            Self::Lost { place, reason }
        }
    }

    /// What a status that is no success means: a problem document, or something that no appliance says.
    pub(super) fn refusal(place: &str, status: u16, text: &str) -> Self {
        match serde_json::from_str(text) {
            Ok(problem) => Self::Problem(Box::new(problem)),
            Err(_) => Self::not_ours(place, status, text),
        }
    }

    pub(super) fn not_ours(place: &str, status: u16, text: &str) -> Self {
        let text = if text.is_empty() {
            "no content".to_owned()
        } else {
            text.chars().take(LONGEST_TEXT).collect()
        };
        Self::NotOurs {
            place: place.to_owned(),
            status,
            text,
        }
    }

    /// The problem, where the appliance gave one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            _ => None,
        }
    }

    /// Whether the same request may get another answer in a while.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Lost { .. } => true,
            Self::Problem(problem) => problem.status == 503,
            Self::NotOurs { status, .. } => matches!(status, 502..=504),
            Self::Tls { .. } | Self::Session(_) | Self::Setting(_) => false,
        }
    }
}

/// What an error came from. An error of input or output hides what it was made of behind that one's own source.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    held.map(|held| held as &(dyn Error + 'static))
        .or_else(|| error.source())
}

fn innermost(error: &reqwest::Error) -> String {
    let mut found: &(dyn Error + 'static) = error;
    while let Some(next) = cause(found) {
        found = next;
    }
    found.to_string()
}

/// What TLS says, if it was TLS that failed.
fn tls_reason(error: &reqwest::Error) -> Option<String> {
    let mut next = cause(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found.to_string());
        }
        next = cause(error);
    }
    None
}
