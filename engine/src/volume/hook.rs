//! The only thing that a volume knows of the copy functions: somebody who is shown every write before it goes down.

use crate::types::ByteRange;

/// Watches a volume's writes. Decides synchronously; called on the data path.
pub trait Hook: Send + Sync {
    /// A write (or trim, or zeroing) of `range` was admitted in `epoch` and holds its claim; no data has gone down yet.
    fn before_write(&self, range: ByteRange, epoch: u64);
}
