//! What travels down the block path: owned aligned buffers, answers made of segments, errors.

pub mod buffer;
pub mod error;
pub mod range_lock;
pub mod target;

pub use buffer::{BufSlice, IoBuf, SharedBuf};
pub use error::IoError;

use smallvec::SmallVec;

/// One piece of an answer to a read, in address order.
#[derive(Debug, Clone)]
pub enum Segment {
    Data(BufSlice),
    /// So many bytes of zeros that no device was asked for.
    Zero(u64),
}

impl Segment {
    /// Bytes that the segment stands for.
    pub fn len(&self) -> u64 {
        match self {
            Self::Data(slice) => slice.len() as u64,
            Self::Zero(len) => *len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The answer to a read: segments that join to exactly the bytes asked for. One segment in the usual case.
pub type Segments = SmallVec<[Segment; 1]>;

/// Copies the segments into `out`, which must be exactly as long as they are together.
///
/// # Panics
/// Where the lengths differ.
pub fn copy_segments(segments: &[Segment], out: &mut [u8]) {
    let mut rest = out;
    for segment in segments {
        let len = usize::try_from(segment.len()).expect("a segment is no longer than the buffer it goes to");
        let (here, tail) = rest.split_at_mut(len);
        match segment {
            Segment::Data(slice) => here.copy_from_slice(slice.as_slice()),
            Segment::Zero(_) => here.fill(0),
        }
        rest = tail;
    }
    assert!(rest.is_empty(), "segments are shorter than the buffer");
}
