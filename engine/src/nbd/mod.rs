//! The NBD protocol below both its ends: numbers and byte layouts ([`wire`]), and the client.
//!
//! The client lives here and not in `export`, because a remote export is also a *device*, and devices import nothing
//! above them. The server is in `export::nbd`.

pub mod client;
pub mod uri;
pub mod wire;

pub use uri::NbdUri;
