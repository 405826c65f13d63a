//! Places between two steps of a change, where a crash must lose nothing: tests kill the process at each of them.

/// Says that a step has been made. With `ASHLAR_KILL_AT_STEP=n` in a debug build, the n-th one since the start kills
/// the process.
#[cfg(debug_assertions)]
pub fn step(name: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static LAST: LazyLock<Option<u64>> =
        LazyLock::new(|| std::env::var("ASHLAR_KILL_AT_STEP").ok()?.parse().ok());
    static MADE: AtomicU64 = AtomicU64::new(0);
    let made = MADE.fetch_add(1, Ordering::Relaxed) + 1;
    if *LAST == Some(made) {
        tracing::error!(made, name, "killed at this step");
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(not(debug_assertions))]
pub fn step(_name: &str) {}
