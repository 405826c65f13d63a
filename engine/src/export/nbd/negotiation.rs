//! Fixed newstyle negotiation as a state machine: bytes in, option replies out.
//!
//! Invariants: nothing is buffered beyond one option of [`MAX_OPTION`] bytes and what came with it; the whole
//! negotiation takes at most [`MAX_OPTIONS`] options and [`MAX_BYTES`] bytes. Where TLS is required, no option before
//! it tells anything about the exports. What was negotiated or received before TLS has no effect after it.

mod options;
#[cfg(test)]
mod tests;

use super::Mode;
use super::block_status::MetaContexts;
use super::fields::Fields;
use crate::export::access::Refusal;
use crate::nbd::wire;

/// Longest option data that is looked at; longer ones are skipped and refused.
pub const MAX_OPTION: usize = 64 << 10;
/// Most options in one negotiation.
pub const MAX_OPTIONS: u32 = 4096;
/// Most bytes in one negotiation.
pub const MAX_BYTES: usize = 1 << 20;

const OPTION_HEADER_LEN: usize = 16;

/// What a client may know about an export before it attaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportInfo {
    /// Bytes.
    pub capacity: u64,
    /// Smallest block.
    pub block: u32,
    pub preferred: u32,
    pub read_only: bool,
    /// Several connections at a time make sense.
    pub multi_connection: bool,
}

/// The exports as one client sees them.
pub trait Exports {
    /// Names of the exports that the client may attach to.
    fn names(&self) -> Vec<String>;
    /// # Errors
    /// Why the client may not attach.
    fn info(&self, name: &str) -> Result<ExportInfo, Refusal>;
}

/// What a connection has to do with TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsStage {
    /// The server has no certificate.
    Unavailable,
    Offered,
    /// Nothing but STARTTLS is served.
    Required,
    Established,
}

/// What both ends agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    pub export: String,
    pub mode: Mode,
    pub contexts: MetaContexts,
}

/// What to do next. Whatever was written to `out` is to be sent first, but for [`Step::Attach`].
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes are needed.
    Receive,
    /// An option was answered; there may be more.
    Answered,
    /// Start TLS on this stream, then go on with [`Negotiation::secured`].
    StartTls,
    /// Attach to the export, then send `out` and begin transmission.
    Attach(Agreed),
    /// The client said goodbye.
    Close,
}

/// The client breaks the protocol; there is nothing to be said to it any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    #[error("unknown client flags {0:#x}")]
    ClientFlags(u32),
    #[error("an option begins with {0:#x}")]
    Magic(u64),
    #[error("too many options")]
    TooManyOptions,
    #[error("too many bytes")]
    TooManyBytes,
    #[error("NBD_OPT_EXPORT_NAME failed: {0}")]
    ExportName(String),
    #[error("bytes came between STARTTLS and TLS")]
    BeforeTls,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    ClientFlags,
    Options,
    /// So many bytes of an option that was refused are still to come.
    Skipping(usize),
}

/// One connection's negotiation.
#[derive(Debug)]
pub struct Negotiation {
    received: Vec<u8>,
    stage: Stage,
    tls: TlsStage,
    mode: Mode,
    zeroes_after_name: bool,
    /// The export that contexts were chosen for, and the contexts.
    contexts: Option<(String, MetaContexts)>,
    options_left: u32,
    bytes_left: usize,
}

impl Negotiation {
    pub fn new(tls: TlsStage) -> Self {
        Self {
            received: Vec::new(),
            stage: Stage::ClientFlags,
            tls,
            mode: Mode::Simple,
            zeroes_after_name: true,
            contexts: None,
            options_left: MAX_OPTIONS,
            bytes_left: MAX_BYTES,
        }
    }

    /// What the server sends first.
    pub fn greeting() -> [u8; 18] {
        let mut greeting = [0; 18];
        greeting[..8].copy_from_slice(&wire::NBD_MAGIC.to_be_bytes());
        greeting[8..16].copy_from_slice(&wire::OPTION_MAGIC.to_be_bytes());
        greeting[16..].copy_from_slice(&(wire::FLAG_FIXED_NEWSTYLE | wire::FLAG_NO_ZEROES).to_be_bytes());
        greeting
    }

    /// The negotiation that goes on under TLS; of the one before only its limits stay.
    ///
    /// # Errors
    /// Where the client sent more before TLS: somebody may have put it there.
    pub fn secured(self) -> Result<Self, NegotiationError> {
        if !self.received.is_empty() {
            return Err(NegotiationError::BeforeTls);
        }
        Ok(Self {
            stage: Stage::Options,
            zeroes_after_name: self.zeroes_after_name,
            options_left: self.options_left,
            bytes_left: self.bytes_left,
            ..Self::new(TlsStage::Established)
        })
    }

    /// Takes bytes from the client. To be called after [`Step::Receive`] only, so that what is held stays bounded.
    ///
    /// # Errors
    /// Where the client talks too much.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), NegotiationError> {
        self.bytes_left = self
            .bytes_left
            .checked_sub(bytes.len())
            .ok_or(NegotiationError::TooManyBytes)?;
        self.received.extend_from_slice(bytes);
        Ok(())
    }

    /// Bytes that came after the last option: the start of transmission.
    pub fn into_rest(self) -> Vec<u8> {
        self.received
    }

    /// Handles the next option, if it is there, and appends its replies to `out`.
    ///
    /// # Errors
    /// Where the connection is to be closed.
    pub fn step(&mut self, exports: &impl Exports, out: &mut Vec<u8>) -> Result<Step, NegotiationError> {
        loop {
            match self.stage {
                Stage::ClientFlags => {
                    let Some(flags) = Fields::new(&self.received).u32() else {
                        return Ok(Step::Receive);
                    };
                    self.client_flags(flags)?;
                }
                Stage::Skipping(left) => {
                    let here = left.min(self.received.len());
                    self.received.drain(..here);
                    if here < left {
                        self.stage = Stage::Skipping(left - here);
                        return Ok(Step::Receive);
                    }
                    self.stage = Stage::Options;
                }
                Stage::Options => return self.option(exports, out),
            }
        }
    }

    fn client_flags(&mut self, flags: u32) -> Result<(), NegotiationError> {
        let known = u32::from(wire::FLAG_FIXED_NEWSTYLE | wire::FLAG_NO_ZEROES);
        if flags & !known != 0 {
            return Err(NegotiationError::ClientFlags(flags));
        }
        self.zeroes_after_name = flags & u32::from(wire::FLAG_NO_ZEROES) == 0;
        self.received.drain(..4);
        self.stage = Stage::Options;
        Ok(())
    }

    fn option(&mut self, exports: &impl Exports, out: &mut Vec<u8>) -> Result<Step, NegotiationError> {
        let mut header = Fields::new(&self.received);
        let (Some(magic), Some(option), Some(len)) = (header.u64(), header.u32(), header.u32()) else {
            return Ok(Step::Receive);
        };
        if magic != wire::OPTION_MAGIC {
            return Err(NegotiationError::Magic(magic));
        }
        let len = usize::try_from(len).map_err(|_| NegotiationError::TooManyBytes)?;
        if len > MAX_OPTION {
            return self.skip(option, len, out);
        }
        if self.received.len() < OPTION_HEADER_LEN + len {
            return Ok(Step::Receive);
        }
        self.options_left = self
            .options_left
            .checked_sub(1)
            .ok_or(NegotiationError::TooManyOptions)?;
        let rest = self.received.split_off(OPTION_HEADER_LEN + len);
        let message = std::mem::replace(&mut self.received, rest);
        options::answer(self, exports, option, &message[OPTION_HEADER_LEN..], out)
    }

    fn skip(&mut self, option: u32, len: usize, out: &mut Vec<u8>) -> Result<Step, NegotiationError> {
        if option == wire::OPT_EXPORT_NAME {
            return Err(NegotiationError::ExportName("the name is too long".into()));
        }
        self.received.drain(..OPTION_HEADER_LEN);
        self.stage = Stage::Skipping(len);
        options::refuse(out, option, wire::REP_ERR_TOO_BIG, "the option is too long");
        Ok(Step::Answered)
    }
}
