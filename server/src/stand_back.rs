//! Puts the control plane behind the data plane where both want the processor: hosts feel every microsecond, and whoever
//! manages the appliance does not.
//!
//! Invariant: data threads never stand back. Niceness is a thread's own, and given on to what the thread starts.

/// The least weight there is, a seventieth of a data thread's. It is a share all the same: with every core taken by hosts
/// the API still answers hundreds of requests a second (`make bench-appliance`, `hosts`), and at niceness 10 it took a
/// sixth of what hosts do.
const NICENESS: i32 = 19;

/// Has this thread, and what it starts from now on, stand back. One that does already, stays as it is.
pub fn stand_back() {
    // Of the calling thread, not of the process: such are the calls on Linux.
    let set = match rustix::process::getpriority_process(None) {
        Ok(niceness) if niceness >= NICENESS => Ok(()),
        Ok(_) => rustix::process::setpriority_process(None, NICENESS),
        Err(error) => Err(error),
    };
    if let Err(error) = set {
        tracing::warn!(%error, "a thread of the control plane does not stand back");
    }
}
