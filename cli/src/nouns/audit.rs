//! `ashlar audit`

use ashlar_openapi::audit::{AuditEntry, AuditFilter, Outcome};
use ashlar_openapi::client::Call;
use ashlar_openapi::operations::ListAuditLog;
use ashlar_openapi::problem::PREFIX;
use clap::Subcommand;
use uuid::Uuid;

use crate::Context;
use crate::failure::Failure;
use crate::find::id;
use crate::format;
use crate::list::{Length, Names, Row, list};
use crate::values::word;

const OUTCOMES: &[&str] = &["succeeded", "refused"];

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the audit log, the newest first
    List {
        /// Only what this user or token did, by name
        #[arg(long, value_name = "NAME")]
        actor: Option<String>,
        /// Only this operation, like createVolume
        #[arg(long)]
        operation: Option<String>,
        /// Only about the object with this id
        #[arg(long, value_name = "ID", value_parser = id)]
        object: Option<Uuid>,
        /// Only what was done, or what was refused
        #[arg(long, value_parser = word::<Outcome>(OUTCOMES))]
        outcome: Option<Outcome>,
        #[command(flatten)]
        length: Length,
    },
}

impl Verb {
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Failure> {
        let Self::List {
            actor,
            operation,
            object,
            outcome,
            length,
        } = self;
        let filter = AuditFilter {
            actor_name: actor,
            operation,
            object_id: object,
            outcome,
        };
        list(cx, Call::<ListAuditLog>::at(&[]).query(filter), &length).await
    }
}

impl Row for AuditEntry {
    const HEADERS: &'static [&'static str] = &[
        "NUMBER",
        "AT",
        "WHO",
        "FROM",
        "OPERATION",
        "OBJECT",
        "OUTCOME",
        "REQUEST",
    ];

    fn key(&self) -> String {
        self.number.0.to_string()
    }

    fn cells(&self, _: &Names) -> Vec<String> {
        let object = self.object_kind.as_ref().map(|kind| match self.object_id {
            Some(id) => format!("{kind} {id}"),
            None => kind.clone(),
        });
        let outcome = match self.problem {
            Some(problem) => problem.uri().trim_start_matches(PREFIX).to_owned(),
            None => format::word(&self.outcome),
        };
        vec![
            self.number.0.to_string(),
            format::moment(self.at),
            self.actor_name.clone(),
            self.address
                .map_or_else(|| self.actor.as_str().to_owned(), |address| address.to_string()),
            self.operation.clone(),
            format::or_nothing(object),
            outcome,
            self.request_id.clone(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_that_is_offered_is_one_of_the_contract() {
        for word in OUTCOMES {
            assert_eq!(
                format::word(&serde_json::from_value::<Outcome>((*word).into()).unwrap()),
                *word
            );
        }
    }
}
