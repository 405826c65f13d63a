//! What the tests of the NBD server share.

pub(crate) mod memory_target;
pub(crate) mod raw_client;
