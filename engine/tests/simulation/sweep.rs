//! Many seeds, each in a process of its own.

use std::collections::VecDeque;
use std::process::{Child, Command, ExitCode, Output, Stdio};

use ashlar_engine::planted::Planted;
use ashlar_engine::sim::run::Absences;

use crate::Program;

/// Exit code of a process whose seed has found a bug.
pub(crate) const FOUND: i32 = 101;
/// Seeds of a sweep unless `SEEDS` says otherwise.
const SEEDS: u64 = 500;
/// Within so many seeds a planted bug must be found.
const SEEDS_FOR_A_BUG: u64 = 300;
/// Seeds that are run twice to compare their traces.
const SEEDS_TWICE: u64 = 20;

/// A test answers how many runs passed, and what failed.
type Test = fn() -> Tally;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("an_appliance_keeps_every_promise", || {
        keeps_every_promise(Program::Appliance)
    }),
    ("members_absent_in_any_order_never_bring_old_data_back", || {
        survives_absences(Program::Appliance)
    }),
    ("planted_bugs_are_found_in_an_appliance", || {
        finds_planted_bugs(Program::Appliance)
    }),
    ("equal_seeds_give_equal_traces", || repeats(Program::Appliance)),
    ("a_mirror_that_writes_through_keeps_every_promise", || {
        keeps_every_promise(Program::Mirror)
    }),
    ("planted_bugs_are_found_in_a_mirror", || {
        finds_planted_bugs(Program::Mirror)
    }),
];

#[derive(Debug, Default)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    fn note(&mut self, passed: bool, what: impl FnOnce() -> String) {
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
            println!("{}", what());
        }
    }
}

/// One process to run.
#[derive(Debug, Clone)]
struct Case {
    program: Program,
    seed: u64,
    plant: Option<Planted>,
    absences: Option<Absences>,
    trace: bool,
}

impl Case {
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--program".into(), self.program.name().into()];
        arguments.extend(["--seed".into(), self.seed.to_string()]);
        if let Some(Absences { copies, order }) = self.absences {
            arguments.extend(["--absences".into(), format!("{copies}:{order}")]);
        }
        if self.trace {
            arguments.push("--trace".into());
        }
        arguments
    }

    fn start(&self) -> Child {
        let itself = std::env::current_exe().expect("a running program has a path");
        let mut command = Command::new(itself);
        command
            .args(self.arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.env_remove("PLANT");
        if let Some(bug) = self.plant {
            command.env("PLANT", format!("{bug:?}"));
        }
        command.spawn().expect("this program can be started again")
    }

    fn report(&self, output: &Output) -> String {
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let plant = self.plant.map_or(String::new(), |bug| format!("PLANT={bug:?} "));
        let itself = std::env::current_exe().expect("a running program has a path");
        format!(
            "{text}{errors}replay: {plant}{} {} --trace\n",
            itself.display(),
            self.arguments().join(" ")
        )
    }
}

/// Runs the cases, as many at once as there are processors, and hands each outcome to `judge` in order until it
/// answers `false`.
fn each(cases: impl Iterator<Item = Case>, mut judge: impl FnMut(&Case, Output) -> bool) {
    let width = std::thread::available_parallelism().map_or(2, usize::from);
    let mut cases = cases.fuse();
    let mut running: VecDeque<(Case, Child)> = VecDeque::new();
    let mut go_on = true;
    loop {
        while go_on && running.len() < width {
            let Some(case) = cases.next() else { break };
            let child = case.start();
            running.push_back((case, child));
        }
        let Some((case, child)) = running.pop_front() else {
            return;
        };
        let output = child.wait_with_output().expect("a child can be waited for");
        go_on = go_on && judge(&case, output);
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number"))
    })
}

fn seeds(program: Program, count: u64) -> impl Iterator<Item = Case> {
    let start = number("START", 1);
    (start..start + count).map(move |seed| Case {
        program,
        seed,
        plant: None,
        absences: None,
        trace: false,
    })
}

fn keeps_every_promise(program: Program) -> Tally {
    let mut tally = Tally::default();
    each(seeds(program, number("SEEDS", SEEDS)), |case, output| {
        tally.note(output.status.success(), || case.report(&output));
        true
    });
    tally
}

/// Every order in which the members of mirrors of two and three are missing over some restarts, each with a seed of
/// its own.
fn survives_absences(program: Program) -> Tally {
    let mut tally = Tally::default();
    let orders = |copies| (0..Absences::orders(copies)).map(move |order| Absences { copies, order });
    let cases = seeds(program, u64::MAX >> 1).zip([2, 3].into_iter().flat_map(orders));
    let cases = cases.map(|(case, absences)| Case {
        absences: Some(absences),
        ..case
    });
    each(cases, |case, output| {
        tally.note(output.status.success(), || case.report(&output));
        true
    });
    tally
}

/// Each seed twice, one after the other: the whole output must be the same.
fn repeats(program: Program) -> Tally {
    let mut tally = Tally::default();
    let traced = seeds(program, SEEDS_TWICE).map(|case| Case { trace: true, ..case });
    let mut first: Option<Output> = None;
    each(traced.flat_map(|case| [case.clone(), case]), |case, output| {
        match first.take() {
            None => first = Some(output),
            Some(before) => {
                let same = before.stdout == output.stdout && before.status == output.status;
                tally.note(same, || format!("two runs differ:\n{}", case.report(&output)));
            }
        }
        true
    });
    tally
}

fn finds_planted_bugs(program: Program) -> Tally {
    let mut tally = Tally::default();
    for &bug in program.planted() {
        let cases = seeds(program, SEEDS_FOR_A_BUG).map(|case| Case {
            plant: Some(bug),
            ..case
        });
        let (mut tried, mut found) = (0, false);
        each(cases, |_, output| {
            tried += 1;
            found = output.status.code() == Some(FOUND);
            !found
        });
        tally.note(found, || format!("{bug:?} was not found in {tried} seeds"));
        if found {
            println!("{bug:?} found by seed number {tried}");
        }
    }
    tally
}

/// Runs the tests. The last line tells how many runs passed and failed.
pub(crate) fn run_all<'a>(tests: impl Iterator<Item = &'a (&'static str, Test)>) -> ExitCode {
    let mut all = Tally::default();
    for (name, test) in tests {
        let Tally { passed, failed } = test();
        println!("{name}: {passed} passed, {failed} failed");
        all = Tally {
            passed: all.passed + passed,
            failed: all.failed + failed,
        };
    }
    println!("{} passed, {} failed", all.passed, all.failed);
    if all.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
