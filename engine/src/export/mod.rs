//! What every host protocol attaches to, and the protocols themselves.
//!
//! A protocol knows a [`Target`] (a volume, in the appliance) and an [`Export`]: the target under a name, with who may
//! attach and how. It bounds and parses; everything else happens below.

pub mod access;
pub mod nbd;
pub mod registry;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::io::target::{StatusRun, Target, TargetInfo, ZeroOptions};
use crate::statistics::Counters;
pub use access::Access;
pub use registry::Registry;

/// Longest name of an export, in bytes.
pub const MAX_NAME: usize = 4096;

/// Whether a connection that is out of work polls before it sleeps. The order of the variants is part of the format of
/// the metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Polling {
    Never,
    /// For a moment, as long as the client sends its next request right after each reply.
    #[default]
    WhenQuick,
    /// So long each time, also while a device is waited for. Costs CPU.
    For(Duration),
}

/// A target under a name, with who may attach and how.
#[derive(Debug)]
pub struct Export<T> {
    /// At most [`MAX_NAME`] bytes.
    pub name: String,
    pub target: Arc<T>,
    pub access: Access,
    /// A new attachment ends the old one, after its running requests.
    pub exclusive: bool,
    pub polling: Polling,
    /// What was asked of it, over all its connections.
    pub counters: Arc<Counters>,
}

impl<T> Export<T> {
    /// An export that anybody may attach to, read and write, together.
    pub fn new(name: impl Into<String>, target: Arc<T>) -> Self {
        Self {
            name: name.into(),
            target,
            access: Access::default(),
            exclusive: false,
            polling: Polling::default(),
            counters: Arc::default(),
        }
    }
}
