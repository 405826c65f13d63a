//! What a scrub is and what it has found: plain data, as the metadata keeps it.

use serde::{Deserialize, Serialize};

use crate::types::{DeviceId, OperationId};

/// Places that are listed; the counts go on.
const LISTED: usize = 32;

/// What a scrub counts in, and mends in.
pub(in crate::raid) const BLOCK: u64 = 4096;

/// What a scrub does with what it finds. The order is part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScrubMode {
    /// Counts it.
    Check,
    /// Mends it as well.
    Repair,
}

/// Where something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubPlace {
    pub device: DeviceId,
    /// Address on the device.
    pub at: u64,
    /// It cannot be read; else its content does not fit the others'.
    pub unreadable: bool,
}

/// What a scrub has found so far. A *block* is the same 4 KiB of all copies, or of all members of a row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubFindings {
    /// Blocks that were looked at.
    pub checked: u64,
    /// Blocks whose copies differ, or whose sums do not fit the data.
    pub mismatched: u64,
    /// Places of 4 KiB on one member that cannot be read.
    pub unreadable: u64,
    /// Mismatched blocks and unreadable places that were mended.
    pub repaired: u64,
    /// Unreadable places that cannot be had from the others.
    pub unrepairable: u64,
    /// Bytes that could not be compared: a member is missing, or copies are still to be made equal there.
    pub left_out: u64,
    /// Bytes of written data that were walked over.
    pub done: u64,
    /// What there was to walk over when it began.
    pub total: u64,
    /// The first places that were found.
    pub places: Vec<ScrubPlace>,
}

impl ScrubFindings {
    pub(in crate::raid) fn list(&mut self, place: ScrubPlace) {
        if self.places.len() < LISTED {
            self.places.push(place);
        }
    }
}

/// A scrub that is not through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubRun {
    /// The operation that asked for it, or an identity of its own.
    pub id: OperationId,
    pub mode: ScrubMode,
    /// Seconds since 1970, where the time was known.
    pub begun_at: Option<u64>,
    /// Bytes per second, as it was begun with.
    pub limit: Option<u64>,
    /// Where it goes on: an address of what is known of the group's space.
    pub at: u64,
    pub findings: ScrubFindings,
}
