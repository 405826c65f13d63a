//! A host that goes on with its own work while others misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::ledger::{BLOCK, content};
use crate::nbd::{Client, Endpoint};

/// Blocks that it owns, from address 0 on.
const BLOCKS: usize = 64;

/// A thread that writes, flushes and reads back its own blocks until it is told to stop.
#[derive(Debug)]
pub struct Bystander {
    stop: Arc<AtomicBool>,
    rounds: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Bystander {
    /// Attaches to `vol0` and begins.
    pub fn start(endpoint: &Endpoint) -> Self {
        let mut client = Client::attach(endpoint, "vol0").expect("the volume is served");
        let stop = Arc::new(AtomicBool::new(false));
        // Of no capacity, so that a round that is received was not finished long ago.
        let (done, rounds) = sync_channel(0);
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for round in 1.. {
                one_round(&mut client, round);
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                // Nobody waits for this round: it goes on with the next.
                let _ = done.try_send(());
            }
        });
        Self { stop, rounds, thread }
    }

    /// Waits until a whole round that began after this call was served.
    ///
    /// # Panics
    /// Where the bystander was disturbed.
    pub fn is_served(&self) {
        for _ in 0..2 {
            self.rounds
                .recv_timeout(Duration::from_secs(60))
                .expect("the bystander is served as if nothing happened");
        }
    }

    /// Ends it.
    ///
    /// # Panics
    /// Where the bystander was disturbed.
    pub fn finish(self) {
        self.is_served();
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the bystander was never disturbed");
    }
}

fn one_round(client: &mut Client, round: u64) {
    for block in 0..BLOCKS {
        client
            .write((block * BLOCK) as u64, &content(block, round))
            .expect("a write succeeds");
    }
    client.flush().expect("a flush succeeds");
    for block in 0..BLOCKS {
        let found = client
            .read((block * BLOCK) as u64, BLOCK)
            .expect("a read succeeds");
        assert!(
            found == content(block, round),
            "block {block} does not hold what was written in round {round}"
        );
    }
}
