//! The storage controller: everything between an export and a device.
//!
//! A host's write passes the modules in this order, and no module imports one before it:
//! `export` → `volume` → hooks (`copy`) → `map` → `logical_device` → `raid` → `device`.
//! `appliance` builds and recovers them in order, and is all that a server sees.
#![forbid(unstable_features)]

pub mod appliance;
pub mod device;
pub mod event;
pub mod export;
pub mod io;
pub mod logical_device;
pub mod map;
pub mod metadata;
pub mod nbd;
pub mod planted;
pub mod raid;
pub mod runtime;
#[cfg(feature = "sim")]
pub mod sim;
pub mod statistics;
pub mod types;
pub mod volume;
