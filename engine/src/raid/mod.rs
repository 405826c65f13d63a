//! RAID groups: devices that carry one level together and offer one linear address space.
//!
//! `layout` is pure arithmetic; `regions` knows which space was ever written and which may differ between copies;
//! `region_log` is how that knowledge stands on the members; `record` is the membership that start-up relies on (R6).
//! `group` serves reads and writes over them, `sync` makes copies equal again, `scrub` looks whether they are. `parity` is
//! what only parity levels need, `checks` the checksums of what members hold.
//!
//! Shape: a group address belongs to one *column*; a column's members are copies of each other (one at level 0, all at
//! level 1). Level 10 is several columns of several copies; parity levels add members that belong to no column.

mod bits;
mod checks;
pub mod commit;
mod copies;
pub mod copy_pace;
pub mod first_use;
pub mod group;
pub mod layout;
pub mod membership;
pub mod parity;
pub mod record;
pub mod region_log;
pub mod regions;
pub mod scrub;
pub mod sync;
pub mod write;
pub mod zero;

#[cfg(test)]
mod corruption_tests;
#[cfg(test)]
mod tests;

pub use copy_pace::CopyLimit;
pub use group::{Group, GroupState};
pub use layout::{Layout, Level};
pub use record::{GroupRecord, MemberRecord, MemberStatus};
pub use regions::CopyProgress;
pub use scrub::{ScrubFindings, ScrubMode, ScrubPlace, ScrubRun, ScrubStep};
