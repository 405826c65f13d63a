//! What every host protocol attaches to, and the protocols themselves.
//!
//! A protocol knows a [`Target`] (a volume, in the appliance) and an [`Export`]: the target under a name, with who may
//! attach and how. It bounds and parses; everything else happens below.

pub mod access;
pub mod nbd;
pub mod registry;

use std::sync::Arc;
use std::time::Duration;

pub use crate::io::target::{StatusRun, Target, TargetInfo, ZeroOptions};
pub use access::Access;
pub use registry::Registry;

/// Longest name of an export, in bytes.
pub const MAX_NAME: usize = 4096;

/// A target under a name, with who may attach and how.
#[derive(Debug)]
pub struct Export<T> {
    /// At most [`MAX_NAME`] bytes.
    pub name: String,
    pub target: Arc<T>,
    pub access: Access,
    /// A new attachment ends the old one, after its running requests.
    pub exclusive: bool,
    /// How long a connection that was just busy polls before it sleeps; zero for not at all. Costs CPU.
    pub poll: Duration,
}

impl<T> Export<T> {
    /// An export that anybody may attach to, read and write, together.
    pub fn new(name: impl Into<String>, target: Arc<T>) -> Self {
        Self {
            name: name.into(),
            target,
            access: Access::default(),
            exclusive: false,
            poll: Duration::ZERO,
        }
    }
}
