//! What the fuzz targets share: disks in memory, and changes to what stands on them that get past the checksums.
//!
//! Invariant: every record on a disk begins a page with its magic, so that [`Disk::records`] finds all of them
//! whatever their kind; a target asserts that those are there which it means to change.

pub mod bench;
pub mod disk;
pub mod edit;

pub use disk::Disk;
pub use edit::{Edit, Raw};
