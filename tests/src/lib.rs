//! Helpers of the whole-system tests, which drive the real programs with real clients.
//!
//! Every wait has a deadline, every server is ended with its test, and what a server said is printed where the test
//! fails. Where nothing else tells that something happened, a test waits for an event (a line, an exit, an answer),
//! never for time to pass.

pub mod api;
pub mod appliance;
pub mod binaries;
pub mod bystander;
pub mod certificates;
pub mod ground;
pub mod held;
pub mod host;
pub mod ledger;
pub mod load;
pub mod nbd;
pub mod process;
pub mod retry;
pub mod server;
