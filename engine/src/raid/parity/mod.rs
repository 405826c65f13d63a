//! Parity levels: groups that keep one or two sums over the data columns of a row.
//!
//! `code` is the arithmetic of the sums. It knows nothing of members, rows on devices, or time.

pub mod code;
