//! `ashlar appliance` and `ashlar catalog`

use ashlar_openapi::appliance::{ApplianceChange, Import};
use ashlar_openapi::client::Call;
use ashlar_openapi::operations::{
    ChangeAppliance, GetAppliance, GetOpenApi, ImportAppliance, RebuildCatalog,
};
use ashlar_openapi::{Bytes, Name, Natural};
use clap::{Args, Subcommand};

use super::device::source;
use crate::Context;
use crate::edit::edit;
use crate::failure::Failure;
use crate::values::{Limit, limit, size};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Look at the appliance
    Show,
    /// Edit the appliance's name, number and limits
    Set(Set),
    /// Take over the devices of an appliance that ran elsewhere; only a blank appliance can
    Import {
        /// Where the devices are: paths or URIs
        #[arg(required = true, value_name = "PATH|URI")]
        sources: Vec<String>,
    },
    /// Print the OpenAPI document of the appliance's API
    Openapi,
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    /// What to call it
    #[arg(long)]
    name: Option<Name>,
    /// The controller number
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=i64::from(i32::MAX)))]
    number: Option<u32>,
    /// Smallest capacity of a new volume
    #[arg(long, value_name = "SIZE", value_parser = size)]
    smallest_volume: Option<Bytes>,
    /// One limit for all background work together, per second, or `none`
    #[arg(long, value_name = "SIZE|none", value_parser = limit)]
    rate_limit: Option<Limit>,
}

impl Verb {
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Failure> {
        match self {
            Self::Show => {
                let answer = cx.client.call(Call::<GetAppliance>::at(&[])).await?;
                cx.out.object(&answer.text, &answer.body.id.to_string())
            }
            Self::Set(set) => {
                let change = ApplianceChange {
                    name: set.name,
                    number: set.number.map(Natural),
                    smallest_volume_bytes: set.smallest_volume,
                    rate_limit_bytes_per_s: set.rate_limit.map(|Limit(limit)| limit),
                };
                let answer = edit::<GetAppliance, ChangeAppliance>(&cx.client, &[], change).await?;
                cx.out.object(&answer.text, &answer.body.id.to_string())
            }
            Self::Import { sources } => {
                let sources = sources
                    .iter()
                    .map(|at| source(at, cx.local))
                    .collect::<Result<_, _>>()?;
                let answer = cx
                    .client
                    .call(Call::<ImportAppliance>::with(&[], Import { sources }))
                    .await?;
                cx.out.object(&answer.text, &answer.body.id.to_string())
            }
            Self::Openapi => {
                let mut fetched = cx.client.fetch(Call::<GetOpenApi>::at(&[])).await?;
                let mut out = std::io::stdout();
                while let Some(piece) = fetched.piece().await? {
                    std::io::Write::write_all(&mut out, &piece)?;
                }
                Ok(())
            }
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum CatalogVerb {
    /// Make the catalog's records of objects anew from the devices
    Rebuild,
}

impl CatalogVerb {
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Failure> {
        let Self::Rebuild = self;
        let answer = cx.client.call(Call::<RebuildCatalog>::at(&[])).await?;
        cx.out.object(&answer.text, "")
    }
}
