//! The contract of the management API: what is said over HTTP, in Rust types.
//!
//! The server routes by these operations, the command line calls them, and the OpenAPI document is made from them, so
//! that the three cannot differ. Here is no behaviour but parsing: what a value may be whatever the appliance's state.
//!
//! - [`values`]: bytes, names, ranges, pages
//! - [`access`]: roles and scopes
//! - [`problem`]: the closed list of problems
//! - [`operation`], [`operations`]: what can be asked, as types, in one table
//! - [`document`]: the OpenAPI 3.1 document
//! - one module per resource
//! - `client`: calls an appliance (feature `client`)

pub mod access;
pub mod accounts;
pub mod appliance;
pub mod audit;
#[cfg(feature = "client")]
pub mod client;
pub mod devices;
pub mod document;
pub mod events;
pub mod exports;
pub mod jobs;
pub mod logical_devices;
pub mod operation;
pub mod operations;
pub mod problem;
pub mod raid_groups;
pub mod scrubs;
pub mod sort;
pub mod values;
pub mod volumes;
pub mod webhooks;

pub use access::{Role, Roles};
pub use operation::{Description, Method, Nothing, Operation, Trait};
pub use problem::{Correction, Problem, ProblemType};
pub use values::{Bytes, Extent, Name, Natural, Page, Range, Timestamp};
