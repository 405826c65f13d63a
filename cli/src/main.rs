//! The program `ashlar`: serves an appliance, and manages one from the command line.
//!
//! - [`serve`]: the appliance
//! - [`nouns`]: one module per kind of object, with its verbs
//! - [`connect`], [`profiles`]: which appliance, and how one is let in
//! - [`values`], [`find`]: what people write · [`output`], [`format`], [`list`], [`progress`]: what they see
//! - [`edit`]: changes of what was read · [`failure`]: problems and exit codes

mod connect;
mod edit;
mod failure;
mod find;
mod format;
mod generate;
mod json;
mod list;
mod nouns;
mod output;
mod profiles;
mod progress;
mod secret;
mod serve;
mod values;

use std::process::ExitCode;

use ashlar_openapi::client::Client;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::connect::Target;
use self::failure::{EXIT_CODES, Failure};
use self::nouns::{
    account, appliance, audit, device, event, export, job, logical_device, raid_group, support_bundle, token,
    user, volume, webhook,
};
use self::output::Output;

/// Serves a block-storage appliance, and manages one
///
/// Objects are named by id, number or name. Sizes are written like 10GiB, 1.5TiB or 4096, ranges like 1GiB+64MiB, or
/// 100/0-120/14 in cylinders and heads.
#[derive(Debug, Parser)]
#[command(name = "ashlar", version, after_help = EXIT_CODES, subcommand_required = true, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    style: Style,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Output")]
struct Style {
    /// Print the API's JSON
    #[arg(long, global = true, conflicts_with = "quiet")]
    json: bool,
    /// Print ids only
    #[arg(long, short, global = true)]
    quiet: bool,
}

impl Style {
    fn output(self) -> Output {
        match self {
            Self { json: true, .. } => Output::Json,
            Self { quiet: true, .. } => Output::Ids,
            _ => Output::People,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an appliance
    Serve(serve::Serve),
    /// The appliance itself
    #[command(subcommand)]
    Appliance(appliance::Verb),
    /// The appliance's records of its objects
    #[command(subcommand)]
    Catalog(appliance::CatalogVerb),
    /// Storage devices: disks, files, remote exports
    #[command(subcommand)]
    Device(device::Verb),
    /// Devices that together carry one RAID level
    #[command(subcommand)]
    RaidGroup(raid_group::Verb),
    /// Fixed-length slices of RAID groups
    #[command(subcommand)]
    LogicalDevice(logical_device::Verb),
    /// What hosts see, laid over RAID groups range by range
    #[command(subcommand)]
    Volume(volume::Verb),
    /// Volumes as hosts attach them
    #[command(subcommand)]
    Export(export::Verb),
    /// Work that takes long
    #[command(subcommand)]
    Job(job::Verb),
    /// What happened
    #[command(subcommand)]
    Event(event::Verb),
    /// Events sent somewhere
    #[command(subcommand)]
    Webhook(webhook::Verb),
    /// Accounts of people
    #[command(subcommand)]
    User(user::Verb),
    /// Credentials of automation
    #[command(subcommand)]
    Token(token::Verb),
    /// Who changed what
    #[command(subcommand)]
    Audit(audit::Verb),
    /// What to send when asking for help
    #[command(subcommand)]
    SupportBundle(support_bundle::Verb),
    /// Sign in, and remember the appliance
    Login(account::Login),
    /// Sign out
    Logout(account::Logout),
    /// See who one is there
    Whoami,
    /// Print what makes a shell complete commands
    Completions(generate::Completions),
    /// Write the manual pages
    #[command(hide = true)]
    Man(generate::Man),
}

/// What the verbs of objects work with.
pub(crate) struct Context {
    pub(crate) client: Client,
    /// The appliance sees the files that are seen here.
    pub(crate) local: bool,
    pub(crate) out: Output,
}

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match run(cli, &matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code())
        }
    }
}

fn run(cli: Cli, matches: &ArgMatches) -> Result<(), Failure> {
    match cli.command {
        Command::Serve(serve) => serve.run(cli.target.data),
        Command::Completions(completions) => completions.print(),
        Command::Man(man) => man.write(),
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let done = runtime.block_on(manage(command, &cli.target, cli.style.output(), matches));
            // A question that nobody answered any more must not hold the program.
            runtime.shutdown_background();
            done
        }
    }
}

async fn manage(command: Command, target: &Target, out: Output, matches: &ArgMatches) -> Result<(), Failure> {
    match command {
        Command::Login(login) => return login.run(target, out).await,
        Command::Logout(logout) => return logout.run(target, matches).await,
        _ => {}
    }
    let (client, local) = target.client(matches)?;
    let cx = &Context { client, local, out };
    match command {
        Command::Appliance(verb) => verb.run(cx).await,
        Command::Catalog(verb) => verb.run(cx).await,
        Command::Device(verb) => verb.run(cx).await,
        Command::RaidGroup(verb) => verb.run(cx).await,
        Command::LogicalDevice(verb) => verb.run(cx).await,
        Command::Volume(verb) => verb.run(cx).await,
        Command::Export(verb) => verb.run(cx).await,
        Command::Job(verb) => verb.run(cx).await,
        Command::Event(verb) => verb.run(cx).await,
        Command::Webhook(verb) => verb.run(cx).await,
        Command::User(verb) => verb.run(cx).await,
        Command::Token(verb) => verb.run(cx).await,
        Command::Audit(verb) => verb.run(cx).await,
        Command::SupportBundle(verb) => verb.run(cx).await,
        Command::Whoami => account::whoami(cx).await,
        // Handled before there was a client.
        Command::Serve(_)
        | Command::Login(_)
        | Command::Logout(_)
        | Command::Completions(_)
        | Command::Man(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_no_contradictions() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_tells_every_exit_code() {
        let help = Cli::command().render_long_help().to_string();
        for code in ["  0 ", "  1 ", "  2 ", "  3 ", "  4 ", "  5 ", "  6 ", "  130 "] {
            assert!(help.contains(code), "{code}");
        }
    }

    #[test]
    fn no_argument_of_a_verb_is_taken_for_one_that_all_have() {
        fn check(command: &clap::Command, taken: &[&clap::Id]) {
            for below in command.get_subcommands() {
                let own = below
                    .get_arguments()
                    .find(|argument| taken.contains(&argument.get_id()));
                assert!(own.is_none(), "{} {own:?}", below.get_name());
                check(below, taken);
            }
        }
        let command = Cli::command();
        let everywhere: Vec<_> = command
            .get_arguments()
            .filter(|argument| argument.is_global_set())
            .collect();
        check(
            &command,
            &everywhere
                .iter()
                .map(|argument| argument.get_id())
                .collect::<Vec<_>>(),
        );
    }

    #[test]
    fn every_option_and_verb_says_what_it_is_for() {
        fn check(command: &clap::Command, path: &str) {
            assert!(command.get_about().is_some(), "{path}");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path} {}", argument.get_id());
            }
            for below in command.get_subcommands() {
                check(below, &format!("{path} {}", below.get_name()));
            }
        }
        check(&Cli::command(), "ashlar");
    }
}
