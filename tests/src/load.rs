//! Writers on several connections that are cut off by a crash, and the check of what is there afterwards.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::ledger::{BLOCK, Ledger, content};
use crate::nbd::{Client, Endpoint};

/// Blocks lie so far apart that they meet many logical devices and intent regions. The block after each is never
/// written and must stay zeros.
const STRIDE: u64 = 96 << 10;
const CONNECTIONS: usize = 8;
/// Writes of a connection between two flushes.
const WRITES_PER_FLUSH: u64 = 16;

/// A ledger for as many blocks as fit into `size` bytes.
pub fn ledger(size: u64) -> Ledger {
    Ledger::new(usize::try_from(size / STRIDE).expect("test volumes are small"))
}

/// Writes and flushes on [`CONNECTIONS`] connections at once, calls `crash` after the given number of flushes, while
/// all are writing, and returns when every connection has noticed.
///
/// # Panics
/// Where a connection fails before the crash or does not fail after it.
pub fn write_until(endpoint: &Endpoint, ledger: &mut Ledger, flushes: usize, crash: impl FnOnce()) {
    let (shared, crashed) = (Mutex::new(ledger), AtomicBool::new(false));
    let (flushed, flushes_seen) = channel();
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let (shared, crashed, flushed) = (&shared, &crashed, flushed.clone());
            scope.spawn(move || {
                // Another order of blocks each time that another moment is chosen.
                let seed = (flushes * CONNECTIONS + connection) as u64;
                let end = write_on(endpoint, shared, connection, seed, &flushed);
                let error = end.expect_err("a writer goes on until its connection fails");
                assert!(
                    crashed.load(Ordering::SeqCst),
                    "connection {connection} failed before the crash: {error}"
                );
            });
        }
        drop(flushed);
        for _ in 0..flushes {
            flushes_seen
                .recv_timeout(Duration::from_secs(60))
                .expect("writers go on until the crash");
        }
        crashed.store(true, Ordering::SeqCst);
        crash();
    });
}

/// Writes blocks of this connection's share, and flushes what all connections have written by then.
fn write_on(
    endpoint: &Endpoint,
    ledger: &Mutex<&mut Ledger>,
    connection: usize,
    seed: u64,
    flushed: &Sender<()>,
) -> std::io::Result<()> {
    let mut client = Client::attach(endpoint, "vol0")?;
    let share = lock(ledger).blocks() / CONNECTIONS;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64 ^ seed.wrapping_mul(0xd134_2543_de82_ef95);
    loop {
        for _ in 0..WRITES_PER_FLUSH {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let pick = usize::try_from(random % share as u64).expect("less than a count of blocks");
            let block = pick * CONNECTIONS + connection;
            let sequence = lock(ledger).submit(block);
            client.write(address(block), &content(block, sequence))?;
            lock(ledger).acknowledge(block, sequence);
        }
        let acknowledged = lock(ledger).acknowledged();
        client.flush()?;
        lock(ledger).flushed(&acknowledged);
        // The crash ends the counting, not the writing.
        let _ = flushed.send(());
    }
}

/// Reads every block twice, over two connections, and checks it against the ledger; blocks that hold some write.
/// What was found counts as flushed afterwards.
///
/// # Panics
/// Where a block holds what it must not, the two reads differ, or a neighbour was written.
pub fn verify(endpoint: &Endpoint, ledger: &mut Ledger) -> usize {
    let attach = || Client::attach(endpoint, "vol0").expect("the volume is served");
    let (mut first, mut second) = (attach(), attach());
    let mut found = Vec::new();
    for block in 0..ledger.blocks() {
        let bytes = first
            .read(address(block), 2 * BLOCK)
            .expect("the block can be read");
        let again = second
            .read(address(block), 2 * BLOCK)
            .expect("the block can be read");
        assert!(bytes == again, "block {block} reads differently the second time");
        let (own, neighbour) = bytes.split_at(BLOCK);
        assert!(
            neighbour.iter().all(|byte| *byte == 0),
            "what follows block {block} was never written"
        );
        found.push(ledger.check(block, own).unwrap_or_else(|wrong| panic!("{wrong}")));
    }
    first.flush().expect("a flush succeeds");
    for (block, sequence) in found.iter().enumerate() {
        ledger.settle(block, *sequence);
    }
    found.iter().filter(|sequence| **sequence > 0).count()
}

/// Writes `blocks` once more, one after the other, without any flush.
///
/// # Panics
/// Where a write fails.
pub fn write_unflushed(endpoint: &Endpoint, ledger: &mut Ledger, blocks: usize) {
    let mut client = Client::attach(endpoint, "vol0").expect("the volume is served");
    for block in 0..blocks {
        let sequence = ledger.submit(block);
        client
            .write(address(block), &content(block, sequence))
            .expect("a write succeeds");
        ledger.acknowledge(block, sequence);
    }
}

/// Writes every block once and flushes.
///
/// # Panics
/// Where a write fails.
pub fn write_all_and_flush(endpoint: &Endpoint, ledger: &mut Ledger) {
    let blocks = ledger.blocks();
    write_unflushed(endpoint, ledger, blocks);
    let acknowledged = ledger.acknowledged();
    // On another connection than the writes: a flush covers all of them.
    let mut client = Client::attach(endpoint, "vol0").expect("the volume is served");
    client.flush().expect("a flush succeeds");
    ledger.flushed(&acknowledged);
}

fn address(block: usize) -> u64 {
    block as u64 * STRIDE
}

fn lock<'a, 'b>(ledger: &'a Mutex<&'b mut Ledger>) -> MutexGuard<'a, &'b mut Ledger> {
    ledger.lock().expect("nobody panics while holding the ledger")
}
