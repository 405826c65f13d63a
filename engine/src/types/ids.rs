//! Numbers that people see, identities that never repeat, and the one source of randomness.
//!
//! Invariant: nothing in the engine draws randomness but through an [`IdSource`], so that one seed decides a whole
//! simulated run.

use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u32);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(/// A storage device's number in this appliance, from 0.
    DeviceNumber);
number!(/// A RAID group's number in this appliance, from 0.
    GroupNumber);
number!(/// A logical device's number in this appliance, from 0; groups own contiguous numbers.
    LogicalDeviceNumber);
number!(/// A volume's number in this appliance, from 0.
    VolumeNumber);

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub Uuid);

        impl $name {
            pub fn random(ids: &IdSource) -> Self {
                Self(ids.uuid())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

identity!(/// This appliance, for its whole life.
    ApplianceId);
identity!(/// One storage device.
    DeviceId);
identity!(/// One RAID group.
    GroupId);
identity!(/// One volume.
    VolumeId);
identity!(/// One export.
    ExportId);
identity!(/// One change that somebody asked for: a retry carries the same one (R10).
    OperationId);
identity!(/// One metadata commit; its parent's id makes the line of descent (R6).
    CommitId);
identity!(/// One metadata log: a snapshot and the commits behind it on one device.
    LogId);

/// The only source of ids and randomness in the engine. Clones share one stream.
#[derive(Debug, Clone)]
pub struct IdSource(Arc<Mutex<StdRng>>);

impl IdSource {
    /// Seeded by the operating system: what an appliance uses.
    pub fn from_system() -> Self {
        Self(Arc::new(Mutex::new(rand::make_rng())))
    }

    /// The same seed gives the same stream.
    pub fn from_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// A random (version 4) UUID.
    pub fn uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.lock().fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// A number below `bound`.
    pub fn below(&self, bound: u64) -> u64 {
        self.lock().random_range(0..bound)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, StdRng> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
