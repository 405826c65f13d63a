//! Events as they come: read from the catalog once, and given to everybody who listens.
//!
//! Invariants: frames are told in the order of their numbers. A listener that is too slow loses frames, is told so, and
//! reads what it lacks from the catalog: nobody holds up another one.

use std::sync::Arc;

use ashlar_openapi::events::{Event, EventFilter};
use tokio::sync::broadcast;
use uuid::Uuid;

use super::kinds::{self, matches};

/// Frames that a listener may be behind before it has to read the catalog.
pub const KEPT: usize = 1024;

/// An event as it is sent: its text is made once for all.
#[derive(Debug)]
pub struct Frame {
    pub number: u64,
    kind: String,
    subject: Option<Uuid>,
    /// As a server-sent event.
    pub text: axum::body::Bytes,
}

impl Frame {
    pub fn of(event: &Event) -> Self {
        let number = event.number.0;
        Self {
            number,
            text: sse(number, event).into(),
            kind: event.kind.clone(),
            subject: event.subject.as_ref().map(|subject| subject.id),
        }
    }

    /// Whether somebody may have lost what let them in.
    pub fn concerns_accounts(&self) -> bool {
        kinds::concerns_accounts(&self.kind)
    }

    /// Whether the filter lets it through.
    pub fn passes(&self, filter: &EventFilter) -> bool {
        filter
            .kind
            .as_deref()
            .is_none_or(|wanted| matches(&self.kind, wanted))
            && filter.subject.is_none_or(|wanted| self.subject == Some(wanted))
    }
}

/// An event as a server-sent event; `id` is where a listener that comes back goes on.
pub fn sse(id: u64, event: &Event) -> String {
    let data = serde_json::to_string(event).expect("types of the contract always serialise");
    format!("id: {id}\nevent: {}\ndata: {data}\n\n", event.kind)
}

/// What listeners are told.
#[derive(Debug, Clone)]
pub enum Told {
    /// Events are told from now on: those before are in the catalog.
    Begun,
    Event(Arc<Frame>),
    /// The catalog was replaced by an older one, whose last event is this: numbers are given again.
    WentBack(u64),
}

/// Where listeners come to.
#[derive(Debug)]
pub struct Feed {
    frames: broadcast::Sender<Told>,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            frames: broadcast::Sender::new(KEPT),
        }
    }
}

impl Feed {
    pub fn subscribe(&self) -> broadcast::Receiver<Told> {
        self.frames.subscribe()
    }

    pub fn listeners(&self) -> usize {
        self.frames.receiver_count()
    }

    pub fn tell(&self, told: Told) {
        // Nobody listens: then nobody misses it.
        let _ = self.frames.send(told);
    }
}
