//! Runs the simulation: one process per seed, which this program starts from itself.
//!
//! `--seed N` replays one seed here, with `--trace` line by line. Without it the tests below run; `SEEDS` and `START`
//! in the environment say how many seeds and from which on. `PLANT` plants a bug (`ashlar_engine::planted`).

mod mirror;
mod sweep;

use ashlar_engine::planted::Planted;
use ashlar_engine::sim::appliance_world::ApplianceWorld;
use ashlar_engine::sim::run::{Absences, Options, Summary, run};
use ashlar_engine::sim::world::World;
use clap::{Parser, ValueEnum};

/// The programs that can be simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Program {
    Appliance,
    /// A plain mirror that writes through: what shows that the simulation itself is right.
    Mirror,
}

impl Program {
    fn run(self, options: Options) -> Summary {
        match self {
            Self::Appliance => run::<ApplianceWorld>(options),
            Self::Mirror => run::<mirror::Mirror>(options),
        }
    }

    fn planted(self) -> &'static [Planted] {
        match self {
            Self::Appliance => ApplianceWorld::PLANTED,
            Self::Mirror => mirror::Mirror::PLANTED,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Appliance => "appliance",
            Self::Mirror => "mirror",
        }
    }
}

#[derive(Debug, Parser)]
#[command(about = "Runs the deterministic simulation")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "flags of the test harness' command line"
)]
struct Arguments {
    /// Run this seed in this process.
    #[arg(long)]
    seed: Option<u64>,
    #[arg(long, value_enum, default_value = "appliance")]
    program: Program,
    /// Print every event of the run.
    #[arg(long)]
    trace: bool,
    /// Of a mirror of `COPIES` disks, have members missing in order number `ORDER`.
    #[arg(long, value_name = "COPIES:ORDER", value_parser = absences)]
    absences: Option<Absences>,
    /// Name the tests instead of running them.
    #[arg(long)]
    list: bool,
    /// There are no ignored tests.
    #[arg(long)]
    ignored: bool,
    /// Run only the test of exactly the name given.
    #[arg(long)]
    exact: bool,
    /// Accepted for the test runners' sake, as is `--format`.
    #[arg(long)]
    nocapture: bool,
    #[arg(long, default_value = "terse")]
    format: String,
    /// Run the tests whose names contain this.
    filter: Option<String>,
}

fn absences(text: &str) -> Result<Absences, String> {
    let (copies, order) = text.split_once(':').ok_or("COPIES:ORDER is wanted")?;
    let number = |text: &str| text.parse::<u32>().map_err(|error| error.to_string());
    let absences = Absences {
        copies: number(copies)?,
        order: number(order)?,
    };
    let known = (1..=4).contains(&absences.copies) && absences.order < Absences::orders(absences.copies);
    if known {
        Ok(absences)
    } else {
        Err("there is no such order".into())
    }
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        let options = Options {
            seed,
            trace: arguments.trace,
            absences: arguments.absences,
        };
        return run_here(arguments.program, options);
    }
    let wanted = |name: &str| match &arguments.filter {
        Some(filter) if arguments.exact => name == filter,
        Some(filter) => name.contains(filter.as_str()),
        None => true,
    };
    let tests = sweep::TESTS
        .iter()
        .filter(|(name, _)| wanted(name) && !arguments.ignored);
    if arguments.list {
        tests.for_each(|(name, _)| println!("{name}: test"));
        return std::process::ExitCode::SUCCESS;
    }
    sweep::run_all(tests)
}

/// One seed in this process. A panic anywhere in it is a failure, and the end.
fn run_here(program: Program, options: Options) -> std::process::ExitCode {
    let seed = options.seed;
    if let Ok(name) = std::env::var("PLANT")
        && Planted::named(&name).is_none()
    {
        eprintln!("there is no bug {name} to plant: {:?}", Planted::ALL);
        return std::process::ExitCode::FAILURE;
    }
    println!("seed {seed}");
    std::panic::set_hook(Box::new(move |panic| {
        println!("{panic}\nseed {seed} FAILED");
        std::process::exit(sweep::FOUND);
    }));
    let Summary {
        trace_hash,
        trace_lines,
        lives,
    } = program.run(options);
    println!("seed {seed} passed: {lives} lives, {trace_lines} events, trace {trace_hash:016x}");
    std::process::ExitCode::SUCCESS
}
