//! Why a host's request failed. Every host protocol maps these once to its own codes.

use crate::types::ByteRange;

/// The outcome of a failed host request. Nothing else of the request happened unless a variant says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    #[error("range {range} lies beyond the capacity of {capacity} bytes")]
    OutOfBounds { range: ByteRange, capacity: u64 },
    #[error("range {range} is not a multiple of the block size of {block} bytes")]
    Misaligned { range: ByteRange, block: u32 },
    #[error("nothing is mapped at {range}")]
    Unmapped { range: ByteRange },
    #[error("writing is not allowed here")]
    ReadOnly,
    /// The RAID group cannot serve: too many members are missing or it waits for members (R6).
    #[error("the RAID group cannot serve: {why}")]
    GroupUnavailable { why: &'static str },
    /// A device failed and redundancy could not help. After a write the blocks hold old or new content (R4).
    #[error("a storage device failed: {0}")]
    Device(String),
    #[error("no space left")]
    NoSpace,
    /// A fast zero would have needed real writes (R18); nothing was changed.
    #[error("cannot be zeroed faster than by writing")]
    NotFast,
    #[error("the appliance is stopping")]
    Stopping,
}
