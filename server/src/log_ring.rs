//! The newest lines of the log, in memory: what a support bundle brings along wherever the log itself goes.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// How many lines are kept.
pub const KEPT: usize = 2000;
/// Longest line, in bytes.
const LONGEST: usize = 4096;

/// The lines. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct LogRing {
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl LogRing {
    /// The lines, oldest first.
    pub fn lines(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }

    fn push(&self, line: String) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

impl<S: Subscriber> Layer<S> for LogRing {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let at = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let meta = event.metadata();
        let mut line = Line(format!("{at} {} {}:", meta.level(), meta.target()));
        event.record(&mut line);
        let mut text = line.0;
        if text.len() > LONGEST {
            text.truncate(text.floor_char_boundary(LONGEST));
        }
        self.push(text);
    }
}

struct Line(String);

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a text does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    #[test]
    fn the_newest_lines_are_kept_with_their_fields_and_none_is_endless() {
        let ring = LogRing::default();
        let subscriber = tracing_subscriber::registry().with(ring.clone());
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..=KEPT {
                tracing::info!(number, why = "so", "it happened");
            }
            tracing::warn!("{}", "ä".repeat(LONGEST));
        });
        let lines = ring.lines();
        assert_eq!(lines.len(), KEPT);
        assert!(lines[0].ends_with("INFO ashlar_server::log_ring::tests: it happened number=2 why=so"));
        assert!(lines[KEPT - 1].len() <= LONGEST);
    }
}
