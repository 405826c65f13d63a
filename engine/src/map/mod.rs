//! From an address of a volume to an address of a RAID group.
//!
//! - [`run`]: a contiguous piece of a volume that lies contiguously in one group
//! - [`volume_map`]: all of a volume's runs, for translation
//! - [`placement`]: from a request for space to the runs and slices that meet it
//!
//! Nothing here does I/O; a map is replaced as a whole and never changed in place.

pub mod placement;
pub mod run;
pub mod volume_map;

pub use placement::{Layout, Placement, PlacementError, PlacementRequest, Planned, plan};
pub use run::Run;
pub use volume_map::{MapError, Piece, Place, VolumeMap};
