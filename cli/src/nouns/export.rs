//! `ashlar export`

use ashlar_openapi::Name;
use ashlar_openapi::client::Call;
use ashlar_openapi::devices::Presence;
use ashlar_openapi::exports::{Export, ExportChange, ExportFilter, NewExport, Polling, Protection, Protocol};
use ashlar_openapi::operations::{ChangeExport, CreateExport, DeleteExport, GetExport, ListExports};
use ashlar_openapi::sort::NamedKey;
use clap::{Args, Subcommand};

use super::device::PRESENCES;
use super::volume::Volumes;
use super::{Gone, One, end, show, switch};
use crate::Context;
use crate::edit::edit;
use crate::failure::Failure;
use crate::find::{Handle, Noun, find, find_some};
use crate::format;
use crate::list::{Length, Names, Order, Reference, Row, list};
use crate::values::word;

const PROTECTIONS: &[&str] = &["plain", "tls", "tls_client_certificate"];
const POLLINGS: &[&str] = &["never", "when_quick"];

/// A volume to be exported.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The volume: its id, number or name
    volume: String,
    /// What hosts ask for [default: the volume's name]
    #[arg(long)]
    name: Option<Name>,
    /// Refuse writes
    #[arg(long)]
    read_only: bool,
    /// Address that may attach, as 192.0.2.7 or 192.0.2.0/24; may be repeated [default: all]
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    client: Vec<String>,
    /// How well a connection must be protected
    #[arg(long, default_value = "plain", value_parser = word::<Protection>(PROTECTIONS))]
    protection: Protection,
    /// A new attachment ends the old one
    #[arg(long)]
    exclusive: bool,
    /// Whether a connection that is out of work polls before it sleeps
    #[arg(long, default_value = "when_quick", value_parser = word::<Polling>(POLLINGS))]
    polling: Polling,
    /// Do not offer it yet
    #[arg(long)]
    disabled: bool,
}

/// An edit; connections are ended, after what they have begun.
#[derive(Debug, Args)]
pub(crate) struct Set {
    #[command(flatten)]
    one: One,
    /// What hosts ask for
    #[arg(long)]
    name: Option<Name>,
    /// Refuse writes
    #[arg(long, conflicts_with = "read_write")]
    read_only: bool,
    /// Take writes
    #[arg(long)]
    read_write: bool,
    /// Address that may attach, in the place of those before; may be repeated
    #[arg(
        long,
        value_name = "ADDRESS",
        value_delimiter = ',',
        conflicts_with = "any_client"
    )]
    client: Vec<String>,
    /// Every address may attach
    #[arg(long)]
    any_client: bool,
    /// How well a connection must be protected
    #[arg(long, value_parser = word::<Protection>(PROTECTIONS))]
    protection: Option<Protection>,
    /// A new attachment ends the old one
    #[arg(long, conflicts_with = "shared")]
    exclusive: bool,
    /// Attachments stand side by side
    #[arg(long)]
    shared: bool,
    /// Whether a connection that is out of work polls before it sleeps
    #[arg(long, value_parser = word::<Polling>(POLLINGS))]
    polling: Option<Polling>,
    /// Offer it
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Do not offer it
    #[arg(long)]
    disable: bool,
}

impl Set {
    fn change(self) -> (One, ExportChange) {
        let change = ExportChange {
            name: self.name,
            read_only: switch(self.read_only, self.read_write),
            clients: (self.any_client || !self.client.is_empty()).then_some(self.client),
            protection: self.protection,
            exclusive: switch(self.exclusive, self.shared),
            polling: self.polling,
            enabled: switch(self.enable, self.disable),
        };
        (self.one, change)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Export a volume
    Create(Create),
    /// List the exports
    List {
        /// Only of this volume
        #[arg(long)]
        volume: Option<String>,
        /// Only those that catalog and devices agree on, or not
        #[arg(long, value_parser = word::<Presence>(PRESENCES))]
        presence: Option<Presence>,
        #[command(flatten)]
        order: Order<NamedKey>,
        #[command(flatten)]
        length: Length,
    },
    /// Look at an export
    Show(One),
    /// Edit an export; connections are ended, after what they have begun
    Set(Set),
    /// Take an export away; its connections are ended after what they have begun
    Delete(Gone),
}

impl Verb {
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Failure> {
        let one = async |text: &str| find::<Exports>(&cx.client, text).await;
        match self {
            Self::Create(create) => create.run(cx).await,
            Self::List {
                volume,
                presence,
                order,
                length,
            } => {
                let volume = find_some::<Volumes>(&cx.client, volume.as_deref()).await?;
                let filter = ExportFilter {
                    name: None,
                    volume,
                    presence,
                    sort: order.sort,
                };
                list(cx, Call::<ListExports>::at(&[]).query(filter), &length).await
            }
            Self::Show(named) => {
                let id = one(&named.object).await?;
                show::<GetExport>(cx, &[id], id).await
            }
            Self::Set(set) => {
                let (named, change) = set.change();
                let id = one(&named.object).await?;
                let answer = edit::<GetExport, ChangeExport>(&cx.client, &[id], change).await?;
                cx.out.object(&answer.text, &id.to_string())
            }
            Self::Delete(gone) => {
                let id = one(&gone.object).await?;
                gone.confirm("Take away the export")?;
                end::<DeleteExport>(cx, id, "deleted").await
            }
        }
    }
}

impl Create {
    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let new = NewExport {
            id: None,
            name: self.name,
            protocol: Protocol::Nbd,
            volume: find::<Volumes>(&cx.client, &self.volume).await?,
            read_only: self.read_only,
            clients: self.client,
            protection: self.protection,
            exclusive: self.exclusive,
            polling: self.polling,
            enabled: !self.disabled,
        };
        let answer = cx.client.call(Call::<CreateExport>::with(&[], new)).await?;
        cx.out.object(&answer.text, &answer.body.id.to_string())
    }
}

/// Exports, to be found.
struct Exports;

impl Noun for Exports {
    const WHAT: &'static str = "export";
    type Item = Export;
    type List = ListExports;

    fn queries(text: &str) -> Vec<ExportFilter> {
        vec![ExportFilter {
            name: Some(text.to_owned()),
            ..ExportFilter::default()
        }]
    }

    fn handle(item: &Export) -> Handle {
        Handle {
            id: item.id,
            name: Some(item.name.to_string()),
            number: None,
        }
    }
}

impl Row for Export {
    const HEADERS: &'static [&'static str] = &[
        "NAME",
        "VOLUME",
        "OFFERED",
        "ATTACHED",
        "READ-ONLY",
        "PROTECTION",
        "URI",
    ];

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn refers(&self) -> Vec<Reference> {
        vec![Reference::Volume(self.volume)]
    }

    fn cells(&self, names: &Names) -> Vec<String> {
        let offered = match (self.presence, self.enabled) {
            (Presence::Missing, _) => self.presence.as_str().to_owned(),
            (_, false) => "disabled".to_owned(),
            (_, true) => format::yes(self.offered),
        };
        vec![
            self.name.to_string(),
            names.of(Reference::Volume(self.volume)),
            offered,
            self.attached.0.to_string(),
            format::yes(self.read_only),
            self.protection.as_str().to_owned(),
            self.uri.clone(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{Cli, Command};

    fn change(line: &str) -> Result<ExportChange, clap::Error> {
        match Cli::try_parse_from(format!("ashlar export set e {line}").trim().split(' '))?.command {
            Command::Export(Verb::Set(set)) => Ok(set.change().1),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_edit_holds_what_was_said_and_nothing_else() {
        assert_eq!(change("").unwrap(), ExportChange::default());
        let wanted = ExportChange {
            read_only: Some(false),
            clients: Some(vec!["192.0.2.7".to_owned(), "192.0.2.8".to_owned()]),
            enabled: Some(true),
            ..ExportChange::default()
        };
        assert_eq!(
            change("--read-write --client 192.0.2.7,192.0.2.8 --enable").unwrap(),
            wanted
        );
        assert_eq!(change("--any-client").unwrap().clients, Some(Vec::new()));
        for wrong in [
            "--read-only --read-write",
            "--client a --any-client",
            "--enable --disable",
            "--exclusive --shared",
        ] {
            assert!(change(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_word_that_is_offered_is_one_of_the_contract() {
        for word in PROTECTIONS {
            assert_eq!(
                serde_json::from_value::<Protection>((*word).into())
                    .unwrap()
                    .as_str(),
                *word
            );
        }
        for word in POLLINGS {
            assert_eq!(
                serde_json::from_value::<Polling>((*word).into())
                    .unwrap()
                    .as_str(),
                *word
            );
        }
    }
}
