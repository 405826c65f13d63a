//! The verbs of each kind of object: arguments in, calls of the API, output.

pub(crate) mod account;
pub(crate) mod appliance;
pub(crate) mod audit;
pub(crate) mod device;
pub(crate) mod event;
pub(crate) mod export;
pub(crate) mod job;
pub(crate) mod logical_device;
pub(crate) mod raid_group;
pub(crate) mod support_bundle;
pub(crate) mod token;
pub(crate) mod user;
pub(crate) mod volume;
pub(crate) mod webhook;

use ashlar_openapi::Operation;
use ashlar_openapi::client::Call;
use ashlar_openapi::operation::Nothing;
use clap::Args;
use uuid::Uuid;

use crate::Context;
use crate::failure::Failure;
use crate::secret::confirm;

/// One object.
#[derive(Debug, Clone, Args)]
pub(crate) struct One {
    /// Its id, number or name
    #[arg(value_name = "OBJECT")]
    object: String,
}

/// One object that will not be what it was.
#[derive(Debug, Clone, Args)]
pub(crate) struct Gone {
    /// Its id, number or name
    #[arg(value_name = "OBJECT")]
    object: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

impl Gone {
    /// Asks, on a terminal, whether to do `what` to the object.
    fn confirm(&self, what: &str) -> Result<(), Failure> {
        confirm(&format!("{what} {}?", self.object), self.yes)
    }
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct DryRun {
    /// Say what would happen, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Prints one object as it is.
async fn show<O: Operation<Body = Nothing>>(cx: &Context, path: &[Uuid], id: Uuid) -> Result<(), Failure> {
    let answer = cx.client.call(Call::<O>::at(path)).await?;
    cx.out.object(&answer.text, &id.to_string())
}

/// Calls for an end, and says so.
async fn end<O: Operation<Body = Nothing>>(cx: &Context, id: Uuid, done: &str) -> Result<(), Failure> {
    cx.client.call(Call::<O>::at(&[id])).await?;
    cx.out.done(done)
}

/// The setting of two switches of which one can be given.
fn switch(on: bool, off: bool) -> Option<bool> {
    (on || off).then_some(on)
}
