//! The durable truth on the devices: a checksummed log of commits with snapshots, kept on three to five *holders*
//! (fewer where there are fewer devices). Formats: `docs/formats/devices.md`. Why a log and no key-value store:
//! `docs/decisions/0002-metadata-is-a-log.md`.
//!
//! The store knows nothing of what it keeps: a [`State`] applies records and can be written out as records.
//!
//! Invariants:
//! - A commit is durable on at least half of the holders that its parent named, before anything relies on it; a start
//!   without the user's word needs more than half (R6). So what a start sees is never older than what was relied on.
//! - Every commit carries a random id and its parent's; a copy whose tip is not in the newest one's line of descent is
//!   *diverged*, is reported and never merged.

mod area;
pub mod elect;
mod frame;
pub mod store;

pub use elect::{Elected, HolderCopy};
pub use store::{Store, StoreError};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a store keeps.
pub trait State: Default + Send + 'static {
    type Record: Serialize + DeserializeOwned + Send;

    /// Brings the state forward. Records come from a log that was checked, in the order in which they were committed.
    fn apply(&mut self, record: Self::Record);

    /// Records that bring an empty state here.
    fn snapshot(&self) -> Box<dyn Iterator<Item = Self::Record> + '_>;
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;
