//! What serves hosts: the trait that every host protocol attaches to and that a volume implements.

use std::future::Future;

use super::{BufSlice, IoError, Segments};
use crate::types::ByteRange;

/// What a host may know about a target before it attaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetInfo {
    /// Bytes; may grow while attached.
    pub capacity: u64,
    /// Addresses and lengths of requests are multiples of this: 512 or 4096.
    pub block: u32,
    /// Requests of this size and alignment are served best.
    pub preferred: u32,
}

/// How zeros are to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ZeroOptions {
    /// The space may be given back (TRIM, or WRITE_ZEROES without NO_HOLE).
    pub unmap: bool,
    /// Refuse with [`IoError::NotFast`] rather than write zeros one by one.
    pub fast_only: bool,
    /// Durable when answered.
    pub fua: bool,
}

/// A run of bytes that are alike for `base:allocation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRun {
    pub len: u64,
    /// Nothing is stored there.
    pub hole: bool,
    /// Reads as zeros.
    pub zero: bool,
}

/// A linear address space that serves hosts: what `volume` offers to every protocol.
///
/// The target checks bounds, alignment and access itself and answers with [`IoError`]. Futures must be run to their
/// end; a protocol whose client is gone still completes what it began. A write is acknowledged when its future
/// resolves; see the promises under "Exports over NBD" in the product's description for what that means.
pub trait Target: 'static {
    fn info(&self) -> TargetInfo;
    fn read(&self, range: ByteRange) -> impl Future<Output = Result<Segments, IoError>>;
    fn write(&self, at: u64, data: BufSlice, fua: bool) -> impl Future<Output = Result<(), IoError>>;
    fn zero(&self, range: ByteRange, options: ZeroOptions) -> impl Future<Output = Result<(), IoError>>;
    fn flush(&self) -> impl Future<Output = Result<(), IoError>>;
    /// How often what was acknowledged and not flushed may have been lost while hosts stayed attached. Who was attached
    /// before is told with its next flush: that alone must not succeed as if nothing had been.
    fn losses(&self) -> u64 {
        0
    }
    /// Runs from the start of `range` on, joined where alike, at most `limit` of them; they may end before `range`
    /// does, and never reach beyond it.
    fn block_status(&self, range: ByteRange, limit: usize) -> Result<Vec<StatusRun>, IoError>;
}
