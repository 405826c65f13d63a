//! What processes use of the processor and of memory, as the kernel counts it.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// One tick of `/proc`: Linux counts a hundred a second everywhere.
const TICK: Duration = Duration::from_millis(10);

/// The numbers of a process' `stat` after its name; none where it is gone.
fn stat(pid: u32) -> Vec<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = text
        .rsplit_once(')')
        .map_or("", |(_, fields)| fields)
        .split_whitespace();
    fields.map(|field| field.parse().unwrap_or(0)).collect()
}

/// Processor time of a process, and of those of its children that ended.
fn of_one(pid: u32) -> Duration {
    let ticks: u64 = stat(pid).iter().skip(11).take(4).sum();
    TICK * u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// The processes that descend from this one.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let mut children: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    let processes = fs::read_dir("/proc").expect("proc is mounted").flatten();
    for process in processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if let Some(parent) = stat(process).get(1) {
            children.entry(*parent).or_default().push(process);
        }
    }
    let (mut found, mut pending) = (Vec::new(), vec![pid]);
    while let Some(parent) = pending.pop() {
        let of = children.remove(&parent.into()).unwrap_or_default();
        found.extend(&of);
        pending.extend(of);
    }
    found
}

/// Processor time, at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    at: Instant,
    pub(crate) server: Duration,
    /// Of all that the server started: its Postgres.
    pub(crate) postgres: Duration,
    /// Of this process, and of the clients that it ran.
    own: Duration,
    /// Of every core.
    machine: Duration,
}

impl Spent {
    /// So far.
    pub(crate) fn by(server: u32) -> Self {
        let text = fs::read_to_string("/proc/stat").expect("proc is mounted");
        let all = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
        let all: Vec<u32> = all.filter_map(|ticks| ticks.parse().ok()).collect();
        // Without the time in which a core was idle or waited for a disk.
        let busy = all
            .iter()
            .enumerate()
            .filter(|(field, _)| ![3, 4].contains(field) && *field < 7);
        Self {
            at: Instant::now(),
            server: of_one(server),
            postgres: descendants(server).into_iter().map(of_one).sum(),
            own: of_one(std::process::id()),
            machine: TICK * busy.map(|(_, ticks)| ticks).sum::<u32>(),
        }
    }

    /// Between the two moments.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            at: self.at,
            server: self.server.saturating_sub(before.server),
            postgres: self.postgres.saturating_sub(before.postgres),
            own: self.own.saturating_sub(before.own),
            machine: self.machine.saturating_sub(before.machine),
        }
    }

    /// What others used meanwhile, in per cent of a core.
    pub(crate) fn foreign(&self, before: &Self) -> f64 {
        let between = self.since(before);
        let ours = between.server + between.postgres + between.own;
        let lasted = self.at.duration_since(before.at).as_secs_f64();
        between.machine.saturating_sub(ours).as_secs_f64() / lasted * 100.0
    }
}

/// What was measured, and what it cost.
pub(crate) struct Measured<T> {
    pub(crate) of: T,
    pub(crate) spent: Spent,
}

/// Measures, and does so again where others used the machine meanwhile: the quietest time counts.
pub(crate) fn quietly<T>(server: u32, mut measure: impl FnMut() -> T) -> Measured<T> {
    let most = crate::number("FOREIGN_MAX", 15) as f64;
    let mut quietest: Option<(f64, Measured<T>)> = None;
    for _ in 0..=crate::number("RETRIES", 3) {
        let before = Spent::by(server);
        let of = measure();
        let after = Spent::by(server);
        let foreign = after.foreign(&before);
        if quietest.as_ref().is_none_or(|(least, _)| foreign < *least) {
            let spent = after.since(&before);
            quietest = Some((foreign, Measured { of, spent }));
        }
        if foreign <= most {
            break;
        }
    }
    let (foreign, measured) = quietest.expect("it was measured once at least");
    if foreign > most {
        eprintln!("others used {foreign:.0} % of a core meanwhile");
    }
    measured
}

/// A line of a process' `status` that gives KiB, in bytes: `VmRSS`, `VmHWM`.
pub(crate) fn memory(pid: u32, line: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let found = text
        .lines()
        .find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let kib = found.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or_else(|| panic!("no {line} in the status of a process")) << 10
}
