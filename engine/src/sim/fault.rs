//! What can be wrong with a simulated device.
//!
//! Invariant: a device is *intact* only where it holds and answers what it was told: no fault is on, no sector is
//! unreadable, and none holds what the device made up. Writing a sector mends it.

use std::collections::BTreeSet;

use super::SECTOR;
use crate::types::ByteRange;

/// A fault that can be switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Every operation fails from now on.
    Death,
    /// Nothing is answered from now on.
    Stall,
    /// Writes and zeros find no space.
    Full,
    /// The next so many writes fail, having landed in part.
    WriteErrors(u32),
    /// The next flush fails, and loses some of what it was to save.
    FlushError,
    /// So many written sectors cannot be read.
    BadSectors(u32),
    /// The next write to a checked range is acknowledged and forgotten.
    LostWrite,
    /// The next write to a checked range lands elsewhere in it.
    MisdirectedWrite,
    /// One bit of a checked range flips.
    BitFlip,
}

/// The faults of one device.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub dead: bool,
    pub stalled: bool,
    pub full: bool,
    pub write_errors: u32,
    pub flush_errors: u32,
    pub lost_writes: u32,
    pub misdirected_writes: u32,
    /// It has answered with an error that the program may not have acted on yet: what it failed to write it lacks.
    pub suspect: bool,
    /// Sectors that cannot be read.
    pub bad: BTreeSet<u64>,
    /// Sectors whose content the device made up.
    pub scars: BTreeSet<u64>,
}

impl Faults {
    pub(super) fn intact(&self) -> bool {
        let silent = self.lost_writes + self.misdirected_writes;
        !self.failing() && silent == 0 && self.bad.is_empty() && self.scars.is_empty()
    }

    pub(super) fn failing(&self) -> bool {
        let counted = self.write_errors + self.flush_errors;
        self.dead || self.stalled || self.full || self.suspect || counted > 0
    }

    /// Ends what is not written on the medium.
    pub(super) fn heal(&mut self) {
        let bad = std::mem::take(&mut self.bad);
        let scars = std::mem::take(&mut self.scars);
        *self = Self {
            bad,
            scars,
            suspect: self.suspect,
            ..Self::default()
        };
    }

    pub(super) fn unreadable(&self, range: ByteRange) -> bool {
        self.bad.range(range.units(SECTOR)).next().is_some()
    }

    pub(super) fn scar(&mut self, range: ByteRange) {
        self.scars.extend(range.units(SECTOR));
    }

    /// The range was written.
    pub(super) fn mend(&mut self, range: ByteRange) {
        for sectors in [&mut self.bad, &mut self.scars] {
            if !sectors.is_empty() {
                sectors.retain(|sector| !range.units(SECTOR).contains(sector));
            }
        }
    }

    /// Uses up one of a counted fault.
    pub(super) fn spend(count: &mut u32) -> bool {
        let left = count.checked_sub(1);
        *count = left.unwrap_or(0);
        left.is_some()
    }
}
