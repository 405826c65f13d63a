//! `ashlar event`

use std::pin::pin;

use ashlar_openapi::client::Call;
use ashlar_openapi::events::{Event, EventFilter};
use ashlar_openapi::operations::ListEvents;
use clap::{Args, Subcommand};
use futures_util::TryStreamExt as _;
use uuid::Uuid;

use crate::Context;
use crate::failure::Failure;
use crate::find::id;
use crate::format;
use crate::list::{Length, Names, Row, list};
use crate::output::{Output, line};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print events as they happen, until interrupted
    Follow(Which),
    /// List the events that are kept
    List {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        length: Length,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Only of this kind, or of those that begin so: `volume.`
    #[arg(long)]
    kind: Option<String>,
    /// Only about the object with this id
    #[arg(long, value_name = "ID", value_parser = id)]
    subject: Option<Uuid>,
    /// Only after the event with this number
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
}

impl Verb {
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Failure> {
        match self {
            Self::Follow(which) => {
                let mut events = pin!(cx.client.follow_events(which.filter()));
                while let Some(event) = events.try_next().await? {
                    line(&told(&event, cx.out)?)?;
                }
                Ok(())
            }
            Self::List { which, length } => {
                list(cx, Call::<ListEvents>::at(&[]).query(which.filter()), &length).await
            }
        }
    }
}

impl Which {
    fn filter(self) -> EventFilter {
        EventFilter {
            kind: self.kind,
            subject: self.subject,
            after: self.after,
        }
    }
}

/// One line.
fn told(event: &Event, out: Output) -> Result<String, Failure> {
    match out {
        Output::Json => serde_json::to_string(event).map_err(|error| Failure::Terminal(error.into())),
        Output::Ids => Ok(event.key()),
        Output::People => Ok(event.cells(&Names::default()).join("  ")),
    }
}

impl Row for Event {
    const HEADERS: &'static [&'static str] = &["NUMBER", "AT", "KIND", "SUBJECT", "DATA"];

    fn key(&self) -> String {
        self.number.0.to_string()
    }

    fn cells(&self, _: &Names) -> Vec<String> {
        vec![
            self.number.0.to_string(),
            format::moment(self.at),
            self.kind.clone(),
            format::or_nothing(
                self.subject
                    .as_ref()
                    .map(|subject| format!("{} {}", subject.kind, subject.id)),
            ),
            self.data.to_string(),
        ]
    }
}
