//! Logical devices: fixed-length slices of RAID groups, the unit in which space is given out.
//!
//! All here is arithmetic and bookkeeping: no I/O, no waiting. Whoever takes slices makes their space *never written*
//! again before a map shows it (R12), and formats what comes with `needs_format`.
//!
//! - [`slices`]: slice lengths and runs of slices
//! - [`numbering`]: logical device number ↔ group and slice
//! - `run_map`: a value per slice, kept as runs
//! - [`allocator`]: which slices of one group are free, whose the others are, what they are formatted for
//! - [`allocators`]: the same over all groups, all or nothing

pub mod allocator;
pub mod allocators;
pub mod numbering;
mod run_map;
pub mod slices;

pub use allocator::{Allocator, SliceState, Taken};
pub use allocators::{Allocators, AllocatorsError, Shortage, SliceRequest};
pub use numbering::Numbering;
pub use slices::{SliceLength, Slices};
