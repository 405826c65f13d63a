//! Puts the control plane behind the data plane where both want the processor: hosts feel every microsecond, and whoever
//! manages the appliance does not.
//!
//! Invariant: data threads never stand back. Niceness is a thread's own, and given on to what the thread starts.

/// Between the one extreme, where hosts wait for the API, and the other, where a busy appliance cannot be managed: a
/// ninth of a data thread's weight.
const NICENESS: i32 = 10;

/// Has this thread, and what it starts from now on, stand back.
pub fn stand_back() {
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::warn!(%error, "a thread of the control plane does not stand back");
    }
}
