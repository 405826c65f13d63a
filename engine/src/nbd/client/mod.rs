//! The client's end of NBD.
//!
//! The protocol is in two pure state machines, bytes in and events out: [`negotiation`] until both ends agree on an
//! export, [`replies`] from then on; [`requests`] encodes what is asked. [`connection`] runs them over a socket that
//! [`transport`] opens.
//!
//! Invariants: every length that a server names is checked before anything is allocated or skipped for it; whatever a
//! server does against the protocol ends the connection. A request is sent at most once: when the connection ends,
//! everything unanswered fails, and nothing here ever connects again by itself (R21).

pub mod connection;
pub mod negotiation;
mod numbers;
pub mod replies;
pub mod requests;
pub mod transport;

pub use connection::{Answer, Connection, Driver};
pub use negotiation::{Dialect, ExportInfo, Negotiation, NegotiationError};
pub use replies::{Extent, Outcome, Replies, Reply, ReplyError, RequestError};
pub use requests::Command;
pub use transport::{ClientTls, Identity, OpenError, OpenOptions, TlsError, open};
