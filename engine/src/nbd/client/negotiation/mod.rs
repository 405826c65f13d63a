//! The client's view of the handshake: bytes from the server in; bytes to send, and at last the export, out.
//!
//! Options are asked one after another, each answered before the next: TLS where wanted, extended headers or else
//! structured replies, the `base:allocation` context where wanted, and the export itself. What the server does not
//! know is done without, but for TLS, which is never given up.
//!
//! Invariants: nothing of the export is asked in plain text where TLS is wanted, and nothing that came before TLS is
//! believed after it; how the stream is cut into pieces changes nothing.

#[cfg(test)]
mod tests;

use super::numbers::{be16, be32, be64};
use crate::nbd::wire;

const GREETING_LEN: usize = 18;
/// Magic, option, kind and length of an option reply.
const REPLY_HEAD_LEN: usize = 20;
/// Payload of one option reply; what the protocol defines stays far below.
const MAX_REPLY: u32 = 64 << 10;
/// Second magic number of servers from before the newstyle handshake.
const OLD_STYLE_MAGIC: u64 = 0x0000_4202_8186_1253;
const MAX_MINIMUM_BLOCK: u32 = 64 << 10;

/// How requests and replies are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    Simple,
    Structured,
    /// 64-bit lengths in requests and replies.
    Extended,
}

/// What the client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// At most [`wire::MAX_STRING`] bytes.
    pub export: String,
    pub tls: bool,
    /// The best framing to ask for.
    pub dialect: Dialect,
    /// Asks for the `base:allocation` context.
    pub allocation: bool,
}

/// Block sizes that requests have to keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSizes {
    /// Offsets and lengths are multiples of this power of two, 1 to 65,536.
    pub minimum: u32,
    pub preferred: u32,
    /// Largest payload of a read or write; a multiple of `minimum`, at most [`wire::MAX_PAYLOAD`].
    pub maximum: u32,
}

/// What a client may assume where the server says nothing.
const DEFAULT_BLOCK: BlockSizes = BlockSizes {
    minimum: 512,
    preferred: 4096,
    maximum: wire::MAX_PAYLOAD,
};

/// The export as the server presents it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportInfo {
    /// Bytes.
    pub size: u64,
    /// `wire::TX_*`; 0 where the server does not mark them as valid.
    pub flags: u16,
    pub block: BlockSizes,
    pub dialect: Dialect,
    /// Number of the `base:allocation` context.
    pub context: Option<u32>,
}

impl ExportInfo {
    /// Whether the server advertised all of these `wire::TX_*` flags.
    pub fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }
}

/// What the caller has to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    Send(Vec<u8>),
    /// Do the TLS handshake, then call [`Negotiation::tls_started`].
    StartTls,
    /// Transmission begins.
    Ready(ExportInfo),
}

/// Why a client and a server did not come together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    #[error("this is not an NBD server")]
    NotNbd,
    #[error("the server speaks only the old handshake without named exports")]
    OldStyle,
    #[error("the server requires TLS: use a URI that begins with nbds")]
    TlsRequired,
    #[error("the server refuses TLS: {0}")]
    TlsRefused(String),
    #[error("the server has no export {export:?}: {reason}")]
    UnknownExport { export: String, reason: String },
    #[error("the server refuses the export: {reason} (reply {kind:#x})")]
    Refused { kind: u32, reason: String },
    #[error("the server is shutting down: {0}")]
    ShuttingDown(String),
    #[error("the server sent an option reply of {len} bytes; {MAX_REPLY} are allowed")]
    Oversized { len: u32 },
    #[error("the server broke the protocol: {0}")]
    Garbage(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting,
    /// Waits for replies to this option.
    Option(u32),
    Tls,
    Ready,
}

/// One handshake, from the server's first byte.
#[derive(Debug)]
pub struct Negotiation {
    wanted: Wanted,
    state: State,
    held: Vec<u8>,
    need: usize,
    dialect: Dialect,
    context: Option<u32>,
    size_and_flags: Option<(u64, u16)>,
    block: BlockSizes,
}

impl Negotiation {
    pub fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            state: State::Greeting,
            held: Vec::new(),
            need: GREETING_LEN,
            dialect: Dialect::Simple,
            context: None,
            size_and_flags: None,
            block: DEFAULT_BLOCK,
        }
    }

    /// Takes the next bytes of the stream and adds what follows from them to `events`.
    pub fn receive(&mut self, mut bytes: &[u8], events: &mut Vec<Event>) -> Result<(), NegotiationError> {
        while !bytes.is_empty() {
            if matches!(self.state, State::Tls | State::Ready) {
                return Err(NegotiationError::Garbage("bytes that nothing asked for"));
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.need - self.held.len()));
            self.held.extend_from_slice(now);
            bytes = later;
            if self.held.len() == self.need {
                self.gathered(events)?;
            }
        }
        Ok(())
    }

    /// Goes on after the TLS handshake that [`Event::StartTls`] asked for.
    pub fn tls_started(&mut self, events: &mut Vec<Event>) {
        self.ask_framing(events);
    }

    fn gathered(&mut self, events: &mut Vec<Event>) -> Result<(), NegotiationError> {
        let option = match self.state {
            State::Option(option) => option,
            _ => {
                let greeting = self.take_held();
                return self.greeting(&greeting, events);
            }
        };
        if self.held.len() == REPLY_HEAD_LEN {
            let len = reply_len(&self.held, option)?;
            if len != 0 {
                self.need = REPLY_HEAD_LEN + len;
                return Ok(());
            }
        }
        let reply = self.take_held();
        let (kind, payload) = (be32(&reply, 12), &reply[REPLY_HEAD_LEN..]);
        if kind & wire::REP_FLAG_ERROR != 0 {
            return self.refused(option, kind, &String::from_utf8_lossy(payload), events);
        }
        match (option, kind) {
            (wire::OPT_SET_META_CONTEXT, wire::REP_META_CONTEXT) => self.meta_context(payload),
            (wire::OPT_GO, wire::REP_INFO) => self.info(payload),
            (_, wire::REP_ACK) if payload.is_empty() => self.acknowledged(option, events),
            _ => Err(NegotiationError::Garbage("an option reply of the wrong kind")),
        }
    }

    fn take_held(&mut self) -> Vec<u8> {
        self.need = REPLY_HEAD_LEN;
        std::mem::take(&mut self.held)
    }

    fn greeting(&mut self, greeting: &[u8], events: &mut Vec<Event>) -> Result<(), NegotiationError> {
        match (be64(greeting, 0), be64(greeting, 8)) {
            (wire::NBD_MAGIC, wire::OPTION_MAGIC) => {}
            (wire::NBD_MAGIC, OLD_STYLE_MAGIC) => return Err(NegotiationError::OldStyle),
            _ => return Err(NegotiationError::NotNbd),
        }
        let offered = be16(greeting, 16);
        if offered & wire::FLAG_FIXED_NEWSTYLE == 0 {
            return Err(NegotiationError::OldStyle);
        }
        let flags = offered & (wire::FLAG_FIXED_NEWSTYLE | wire::FLAG_NO_ZEROES);
        events.push(Event::Send(u32::from(flags).to_be_bytes().into()));
        if self.wanted.tls {
            self.ask(wire::OPT_STARTTLS, &[], events);
        } else {
            self.ask_framing(events);
        }
        Ok(())
    }

    fn acknowledged(&mut self, option: u32, events: &mut Vec<Event>) -> Result<(), NegotiationError> {
        match option {
            wire::OPT_STARTTLS => {
                self.state = State::Tls;
                events.push(Event::StartTls);
            }
            wire::OPT_EXTENDED_HEADERS => {
                self.dialect = Dialect::Extended;
                self.ask_context(events);
            }
            wire::OPT_STRUCTURED_REPLY => {
                self.dialect = Dialect::Structured;
                self.ask_context(events);
            }
            wire::OPT_SET_META_CONTEXT => self.ask_export(events),
            _ => {
                let (size, flags) = self
                    .size_and_flags
                    .ok_or(NegotiationError::Garbage("the export's size is missing"))?;
                let flags = if flags & wire::TX_HAS_FLAGS == 0 { 0 } else { flags };
                self.state = State::Ready;
                let (block, dialect, context) = (self.block, self.dialect, self.context);
                events.push(Event::Ready(ExportInfo {
                    size,
                    flags,
                    block,
                    dialect,
                    context,
                }));
            }
        }
        Ok(())
    }

    fn refused(
        &mut self,
        option: u32,
        kind: u32,
        reason: &str,
        events: &mut Vec<Event>,
    ) -> Result<(), NegotiationError> {
        match (option, kind) {
            (wire::OPT_STARTTLS, _) => return Err(NegotiationError::TlsRefused(reason.into())),
            (_, wire::REP_ERR_TLS_REQD) => return Err(NegotiationError::TlsRequired),
            (_, wire::REP_ERR_SHUTDOWN) => return Err(NegotiationError::ShuttingDown(reason.into())),
            (wire::OPT_EXTENDED_HEADERS, _) => self.ask(wire::OPT_STRUCTURED_REPLY, &[], events),
            (wire::OPT_STRUCTURED_REPLY | wire::OPT_SET_META_CONTEXT, _) => {
                self.context = None;
                self.ask_export(events);
            }
            (_, wire::REP_ERR_UNKNOWN) => {
                let export = self.wanted.export.clone();
                return Err(NegotiationError::UnknownExport {
                    export,
                    reason: reason.into(),
                });
            }
            _ => {
                return Err(NegotiationError::Refused {
                    kind,
                    reason: reason.into(),
                });
            }
        }
        Ok(())
    }

    fn meta_context(&mut self, payload: &[u8]) -> Result<(), NegotiationError> {
        if payload.len() < 4 || &payload[4..] != wire::BASE_ALLOCATION.as_bytes() {
            return Err(NegotiationError::Garbage("a context that was not asked for"));
        }
        self.context = Some(be32(payload, 0));
        Ok(())
    }

    fn info(&mut self, payload: &[u8]) -> Result<(), NegotiationError> {
        if payload.len() < 2 {
            return Err(NegotiationError::Garbage("information that is cut off"));
        }
        match (be16(payload, 0), payload.len()) {
            (wire::INFO_EXPORT, 12) => self.size_and_flags = Some((be64(payload, 2), be16(payload, 10))),
            (wire::INFO_BLOCK_SIZE, 14) => {
                self.block = block_sizes(be32(payload, 2), be32(payload, 6), be32(payload, 10))?;
            }
            (wire::INFO_EXPORT | wire::INFO_BLOCK_SIZE, _) => {
                return Err(NegotiationError::Garbage("information of the wrong length"));
            }
            // Names, descriptions and what later versions of the protocol add.
            _ => {}
        }
        Ok(())
    }

    fn ask_framing(&mut self, events: &mut Vec<Event>) {
        match self.wanted.dialect {
            Dialect::Extended => self.ask(wire::OPT_EXTENDED_HEADERS, &[], events),
            Dialect::Structured => self.ask(wire::OPT_STRUCTURED_REPLY, &[], events),
            Dialect::Simple => self.ask_export(events),
        }
    }

    fn ask_context(&mut self, events: &mut Vec<Event>) {
        if !self.wanted.allocation {
            return self.ask_export(events);
        }
        let mut data = self.counted_export();
        data.extend_from_slice(&1u32.to_be_bytes());
        data.extend_from_slice(&counted(wire::BASE_ALLOCATION));
        self.ask(wire::OPT_SET_META_CONTEXT, &data, events);
    }

    fn ask_export(&mut self, events: &mut Vec<Event>) {
        let mut data = self.counted_export();
        data.extend_from_slice(&1u16.to_be_bytes());
        data.extend_from_slice(&wire::INFO_BLOCK_SIZE.to_be_bytes());
        self.ask(wire::OPT_GO, &data, events);
    }

    fn counted_export(&self) -> Vec<u8> {
        counted(&self.wanted.export)
    }

    fn ask(&mut self, option: u32, data: &[u8], events: &mut Vec<Event>) {
        let len = u32::try_from(data.len()).expect("names are short");
        let mut bytes = wire::OPTION_MAGIC.to_be_bytes().to_vec();
        bytes.extend_from_slice(&option.to_be_bytes());
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(data);
        self.state = State::Option(option);
        events.push(Event::Send(bytes));
    }
}

/// A string after its length.
fn counted(text: &str) -> Vec<u8> {
    let len = u32::try_from(text.len()).expect("names are short");
    let mut bytes = len.to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// The payload's length of the option reply that begins with `head`.
fn reply_len(head: &[u8], option: u32) -> Result<usize, NegotiationError> {
    if be64(head, 0) != wire::OPTION_REPLY_MAGIC {
        return Err(NegotiationError::Garbage(
            "an option reply without its magic number",
        ));
    }
    if be32(head, 8) != option {
        return Err(NegotiationError::Garbage("a reply to another option"));
    }
    let len = be32(head, 16);
    usize::try_from(len)
        .ok()
        .filter(|_| len <= MAX_REPLY)
        .ok_or(NegotiationError::Oversized { len })
}

fn block_sizes(minimum: u32, preferred: u32, maximum: u32) -> Result<BlockSizes, NegotiationError> {
    if !minimum.is_power_of_two() || minimum > MAX_MINIMUM_BLOCK || maximum < minimum {
        return Err(NegotiationError::Garbage(
            "block sizes that no request can keep to",
        ));
    }
    let maximum = maximum.min(wire::MAX_PAYLOAD);
    Ok(BlockSizes {
        minimum,
        preferred,
        maximum: maximum - maximum % minimum,
    })
}
