//! The write journal of parity groups (decision 0010): what closes the hole that a crash leaves in the middle of an update.
//! Nothing here does I/O.
//!
//! `units` has its numbers; `anchor` and `frame` are how it stands on a member; `ring` is what an opened group knows of its
//! journal; `scan` reads one member's ring at a start, and `replay` decides what is written again.

pub(in crate::raid) mod anchor;
mod bytes;
pub(in crate::raid) mod frame;
mod held;
pub(in crate::raid) mod replay;
pub(in crate::raid) mod ring;
pub(in crate::raid) mod scan;
pub(in crate::raid) mod units;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod ring_tests;
