//! Hosts that work on a volume all the time, and count each error and how long each request took.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::ledger::{BLOCK, content};
use crate::nbd::{Client, Endpoint};

const CONNECTIONS: usize = 4;
/// Blocks of each connection, written and read in turn.
const BLOCKS: usize = 64;
/// What a host of today waits for without complaint.
pub const DEADLINE: Duration = Duration::from_secs(1);
/// How long a round may take until the test gives up.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    rounds: [AtomicU64; CONNECTIONS],
    wrong: Mutex<Vec<String>>,
}

/// Hosts at work.
#[derive(Debug)]
pub struct Hosts {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Hosts {
    /// Attaches to the export and begins.
    pub fn start(endpoint: &Endpoint, export: &str) -> Self {
        let shared = Arc::<Shared>::default();
        let attach = || Client::attach(endpoint, export).expect("the export is offered");
        let begin = |number| {
            let (client, shared) = (attach(), Arc::clone(&shared));
            std::thread::spawn(move || work(client, &shared, number))
        };
        let threads = (0..CONNECTIONS).map(begin).collect();
        Self { shared, threads }
    }

    /// Waits until every host has been served a whole round that began after this call.
    ///
    /// # Panics
    /// Where that takes longer than a minute.
    pub fn are_served(&self) {
        let begun = Instant::now();
        for rounds in &self.shared.rounds {
            let seen = rounds.load(Ordering::SeqCst);
            while rounds.load(Ordering::SeqCst) < seen + 2 {
                assert!(begun.elapsed() < LIMIT, "a host is not served any more");
                std::thread::yield_now();
            }
        }
    }

    /// Ends them.
    ///
    /// # Panics
    /// Where a request failed, took longer than [`DEADLINE`] or found what was not written.
    pub fn were_never_disturbed(self) {
        self.are_served();
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("hosts note what is wrong and do not panic");
        }
        let wrong = self.shared.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

fn work(mut client: Client, shared: &Shared, number: usize) {
    for round in 1.. {
        if let Err(error) = one_round(&mut client, shared, number, round) {
            note(shared, format!("host {number} round {round}: {error}"));
            return;
        }
        shared.rounds[number].fetch_add(1, Ordering::SeqCst);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
    }
}

fn one_round(client: &mut Client, shared: &Shared, number: usize, round: u64) -> std::io::Result<()> {
    let blocks = number * BLOCKS..(number + 1) * BLOCKS;
    for block in blocks.clone() {
        timed(shared, "write", || {
            client.write((block * BLOCK) as u64, &content(block, round))
        })?;
    }
    timed(shared, "flush", || client.flush())?;
    for block in blocks {
        let found = timed(shared, "read", || client.read((block * BLOCK) as u64, BLOCK))?;
        if found != content(block, round) {
            note(
                shared,
                format!("block {block} does not hold what was written in round {round}"),
            );
        }
    }
    Ok(())
}

fn timed<T>(shared: &Shared, what: &str, request: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let answer = request();
    let took = begun.elapsed();
    if took > DEADLINE {
        note(shared, format!("a {what} took {took:?}"));
    }
    answer
}

fn note(shared: &Shared, wrong: String) {
    shared
        .wrong
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(wrong);
}
