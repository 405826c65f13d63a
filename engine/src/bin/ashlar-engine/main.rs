//! `ashlar-engine`: tries the engine without a server around it. Makes devices, a group and a volume in a folder, and
//! serves it over NBD.

mod create;
mod folder;
mod serve;
mod show;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The storage engine by itself: make an appliance in a folder and serve it over NBD.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make devices, one RAID group and one volume.
    Create(create::Create),
    /// Serve every volume over NBD under its name, until told to stop.
    Serve(serve::Serve),
    /// Tell what a device is, whose and how old, changing nothing.
    Examine(show::Examine),
    /// Tell the state of an appliance that is not being served, as JSON.
    Status(show::Status),
}

/// Why a verb failed, as people read it.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let done = match Arguments::parse().verb {
        Verb::Create(create) => create.run(),
        Verb::Serve(serve) => serve.run(),
        Verb::Examine(examine) => examine.run(),
        Verb::Status(status) => status.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ashlar-engine: {failure}");
            ExitCode::FAILURE
        }
    }
}
