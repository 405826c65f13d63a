//! Storage devices: the trait that everything below RAID implements, and its contract.
//!
//! An operation is *submitted* and answered either at once ([`Started::Done`]) or later through a slot of the
//! submitting thread's table ([`slots`]). Nothing is allocated or boxed per operation. A device is shared between
//! data threads, but every operation is submitted, completed and awaited on one thread.
//!
//! Contract, which the simulated device enforces and every other one keeps:
//! - Operations in flight together may take effect in any order; each 512-byte sector of a write is atomic, more is
//!   not. Callers exclude overlapping writes themselves.
//! - A completed write is read back by later reads, but survives a loss of power only after a [`Request::Flush`] that
//!   was submitted after the write completed and has completed successfully, or when the write itself asked for `fua`.
//! - After a failed write its sectors hold old or new content, each. After a failed flush everything written since the
//!   last successful one may be lost, whatever later flushes say (R5).
//! - `Request::Read` fills the whole buffer or fails.
//! - Opening is exclusive, and waits for or is refused while anything of an earlier opening is in flight, also where
//!   nobody waits for it any more: a write that timed out never lands on top of one of the next opening. For files and
//!   block devices the kernel keeps lock and opening as long as it works on a request; for a remote export that is the
//!   server's part.

pub mod block;
mod errors;
pub mod file;
pub mod handle;
mod inline;
mod local;
#[cfg(test)]
pub(crate) mod memory;
mod operation;
pub mod remote;
pub mod ring;
pub mod signature;
pub mod slots;
pub mod superblock;

pub use errors::ErrorCounts;
pub use handle::DeviceHandle;
pub use local::{CachePolicy, LocalDevice, OpenError, OpenOptions};
pub use slots::{Io, SlotId};

use crate::io::{BufSlice, IoBuf};
use crate::types::ByteRange;

/// What a device can do; fixed while it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Usable bytes from address 0, a multiple of `block`.
    pub capacity: u64,
    /// Offsets, lengths and (for direct devices) memory are multiples of this: 512 or 4096.
    pub block: u32,
    /// [`Request::Zero`] costs far less than writing as many zeros.
    pub zeroes_fast: bool,
    /// Content is lost with the power unless flushed. `false` only where the device is known to keep it.
    pub volatile_cache: bool,
}

/// One operation. Buffers travel with it and come back in the [`Completion`].
#[derive(Debug)]
pub enum Request {
    /// Fills `buf` from `at`.
    Read { at: u64, buf: IoBuf },
    /// Writes `data` at `at`; with `fua` it is durable when it completes.
    Write { at: u64, data: BufSlice, fua: bool },
    /// Makes everything that completed before it durable.
    Flush,
    /// Afterwards the range reads zeros; with `unmap` its space may be given back.
    Zero { range: ByteRange, unmap: bool },
}

impl Request {
    /// The buffer of a read that is not carried out.
    fn into_buf(self) -> Option<IoBuf> {
        match self {
            Self::Read { buf, .. } => Some(buf),
            Self::Write { .. } | Self::Flush | Self::Zero { .. } => None,
        }
    }
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The medium could not be read there; other places may be fine.
    #[error("medium error")]
    Medium,
    /// The device answered with this operating-system error.
    #[error("I/O error (errno {0})")]
    Os(i32),
    #[error("short transfer")]
    Short,
    #[error("no answer within the time limit")]
    Timeout,
    #[error("no space left on the device's backing store")]
    NoSpace,
    #[error("the device is gone: {0}")]
    Gone(String),
    #[error("the device was taken out of service: {0}")]
    Latched(String),
}

/// The end of one operation.
#[derive(Debug)]
pub struct Completion {
    pub result: Result<(), DeviceError>,
    /// The buffer of a read, filled where `result` is `Ok`.
    pub buf: Option<IoBuf>,
}

/// What became of a submission.
#[derive(Debug)]
pub enum Started {
    /// Completed inline; no slot was used.
    Done(Completion),
    /// Will complete this slot of the submitting thread's table, exactly once.
    Pending(SlotId),
}

/// A storage device.
pub trait Device: Send + Sync + 'static {
    fn info(&self) -> DeviceInfo;

    /// Bytes that it has now, where that can become less while it is open: somebody may cut a file off. What is missing
    /// then reads as zeros as soon as something is written behind it.
    fn length(&self) -> Option<u64> {
        None
    }

    /// Starts `request`. Must be called on a data thread. Ranges were checked by the caller against
    /// [`DeviceInfo`]; one that does not fit fails with [`DeviceError::Os`] (EINVAL), never panics.
    fn submit(&self, request: Request) -> Started;
}

/// Submits `request` and returns its future. The operation runs whether or not the future is polled; dropping the
/// future leaves the buffers with the slot until the device is done with them.
pub fn start(device: &dyn Device, request: Request) -> Io {
    Io::new(device.submit(request))
}
