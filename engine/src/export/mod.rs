//! What every host protocol attaches to, and the protocols themselves.
//!
//! A protocol knows a [`Target`] (a volume, in the appliance) and an `Export`: the target under a name, with who may
//! attach and how. It bounds and parses; everything else happens below.

pub mod nbd;

pub use crate::io::target::{StatusRun, Target, TargetInfo, ZeroOptions};
