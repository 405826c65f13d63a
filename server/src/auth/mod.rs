//! Who asks, and how that is known.
//!
//! - [`passwords`]: argon2id, a bounded number at a time
//! - [`secrets`]: random tokens, of which only digests are kept
//! - [`sessions`]: short-lived signed tokens, and the keys that sign them
//! - [`service_key`]: what only this service can compute
//! - [`actor`]: who was let in, and what they may do
//!
//! Invariant: no credential is kept or logged in a form that could be used.

pub mod actor;
pub mod hmac;
pub mod passwords;
pub mod secrets;
pub mod service_key;
pub mod sessions;

pub use actor::Actor;
