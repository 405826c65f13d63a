//! The NBD server: fixed newstyle negotiation, transmission with simple, structured or extended replies, TLS.
//!
//! The protocol's core is made of plain state machines that never touch a socket: [`negotiation`] (bytes in, option
//! replies out), [`transmission`] (bytes in, owned requests out) and [`reply`] (answers in, lists of slices to send
//! out). [`connection`] drives them over any byte stream, [`server`] accepts the streams.
//!
//! Invariants: nothing that a client sends can end more than its own connection; what one connection can make the
//! server hold is bounded; every request that was started runs to its end, whatever becomes of its connection.

pub mod block_status;
mod client_socket;
pub mod connection;
mod fields;
pub mod listener;
pub mod negotiation;
mod pacer;
pub mod reply;
mod request_slots;
mod serve;
pub mod server;
pub mod tls;
pub mod transmission;

use crate::nbd::wire;

/// How requests and replies look on the wire; negotiated once per connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Mode {
    /// Compact requests, simple replies.
    #[default]
    Simple,
    /// Compact requests, structured replies where they carry something.
    Structured,
    /// Extended requests and replies, with 64-bit lengths.
    Extended,
}

impl Mode {
    fn request_len(self) -> usize {
        match self {
            Self::Simple | Self::Structured => wire::REQUEST_LEN,
            Self::Extended => wire::EXTENDED_REQUEST_LEN,
        }
    }
}
