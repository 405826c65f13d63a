//! The client's view of the transmission phase: bytes from the server in, finished requests out.
//!
//! Invariants: a reply is taken only for a request in flight, and only in the dialect that was negotiated; a read
//! succeeds only where every byte of it came exactly once; how the stream is cut into pieces changes nothing.
//! After an error nothing that follows in the stream has a meaning: the connection is to be closed.

mod coverage;
mod payload;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Dialect;
use super::numbers::{be16, be32, be64};
use crate::io::IoBuf;
use crate::nbd::wire;
use crate::types::ByteRange;
use coverage::Coverage;

/// What a request in flight waits for.
#[derive(Debug)]
pub enum Expected {
    /// Success or an error, nothing more.
    Nothing { at: u64 },
    /// Data for the whole of `buf`.
    Read { at: u64, buf: IoBuf },
    /// Extents of `base:allocation` from the start of `range`.
    Status { range: ByteRange },
}

/// The server's answer to a request that succeeded.
#[derive(Debug)]
pub enum Reply {
    Done,
    Read(IoBuf),
    /// Extents from the start of the range on; they may end before it does, never after.
    Status(Vec<Extent>),
}

/// A run of bytes that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub len: u64,
    pub hole: bool,
    pub zero: bool,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The server's answer; the connection lives on.
    #[error("the server answered errno {errno}: {message}")]
    Refused { errno: u32, message: String },
    /// The connection ended before the answer came. The request took effect, or did not, or will.
    #[error("the connection is gone: {0}")]
    Gone(Arc<str>),
}

pub type Outcome = Result<Reply, RequestError>;

/// How a server broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    #[error("a reply begins with {0:#010x}, which is not the magic number of the negotiated kind")]
    Magic(u32),
    #[error("a reply to a request that is not in flight (cookie {0})")]
    UnknownCookie(u64),
    #[error("a read was answered by a simple reply where structured ones were negotiated")]
    SimpleRead,
    #[error("a reply names offset {named}, its request has {asked}")]
    Offset { named: u64, asked: u64 },
    #[error("a chunk of kind {0} does not answer such a request")]
    ChunkKind(u16),
    #[error("a chunk of kind {kind} has {len} bytes of payload")]
    ChunkLength { kind: u16, len: u64 },
    #[error("a chunk has data outside its request, or data that came before, or too small a part of it")]
    Placement,
    #[error("a request was reported done before its data was complete")]
    Missing,
    #[error("the payload of an error is malformed")]
    ErrorPayload,
    #[error("block status is malformed: {0}")]
    Status(&'static str),
}

/// A request that is no longer in flight.
#[derive(Debug)]
pub struct Finished<T> {
    pub token: T,
    pub outcome: Outcome,
}

#[derive(Debug)]
enum Body {
    Nothing,
    Read {
        buf: IoBuf,
        came: Coverage,
    },
    Status {
        asked: u64,
        extents: Option<Vec<Extent>>,
    },
}

#[derive(Debug)]
struct InFlight<T> {
    at: u64,
    body: Body,
    /// The first error among the reply's chunks.
    refused: Option<RequestError>,
    token: T,
}

#[derive(Debug, Clone, Copy)]
struct Chunk {
    cookie: u64,
    kind: u16,
    done: bool,
    /// Bytes of payload, as the server says.
    len: u64,
}

#[derive(Debug, Clone, Copy)]
enum Gather {
    Header,
    /// The eight bytes before a chunk's data.
    DataOffset(Chunk),
    Payload(Chunk),
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Collects `need` bytes in `held`.
    Gather { what: Gather, need: usize },
    /// Copies the next `left` bytes to a read's buffer at `to`.
    Data {
        cookie: u64,
        to: usize,
        left: usize,
        done: bool,
    },
}

/// The parser of replies, with the table of requests in flight; `T` is whatever names a request to the caller.
#[derive(Debug)]
pub struct Replies<T> {
    dialect: Dialect,
    /// Number of the `base:allocation` context, where it was negotiated.
    context: Option<u32>,
    in_flight: BTreeMap<u64, InFlight<T>>,
    held: Vec<u8>,
    state: State,
}

impl<T> Replies<T> {
    pub fn new(dialect: Dialect, context: Option<u32>) -> Self {
        let state = State::Gather {
            what: Gather::Header,
            need: header_len(dialect),
        };
        Self {
            dialect,
            context,
            in_flight: BTreeMap::new(),
            held: Vec::new(),
            state,
        }
    }

    /// Enters a request in flight.
    ///
    /// # Panics
    /// Where `cookie` is in use: the caller counts them.
    pub fn expect(&mut self, cookie: u64, expected: Expected, token: T) {
        let (at, body) = match expected {
            Expected::Nothing { at } => (at, Body::Nothing),
            Expected::Read { at, buf } => (
                at,
                Body::Read {
                    buf,
                    came: Coverage::default(),
                },
            ),
            Expected::Status { range } => (
                range.start(),
                Body::Status {
                    asked: range.len(),
                    extents: None,
                },
            ),
        };
        let before = self.in_flight.insert(
            cookie,
            InFlight {
                at,
                body,
                refused: None,
                token,
            },
        );
        assert!(before.is_none(), "cookie {cookie} is in use");
    }

    /// Requests in flight.
    pub fn len(&self) -> usize {
        self.in_flight.len()
    }

    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Gives up every request in flight, oldest first.
    pub fn abandon(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.in_flight)
            .into_values()
            .map(|request| request.token)
    }

    /// Takes the next bytes of the stream and adds what they finish to `finished`, in the stream's order.
    pub fn receive(&mut self, mut bytes: &[u8], finished: &mut Vec<Finished<T>>) -> Result<(), ReplyError> {
        while !bytes.is_empty() {
            match self.state {
                State::Gather { what, need } => {
                    let (now, later) = bytes.split_at(bytes.len().min(need - self.held.len()));
                    self.held.extend_from_slice(now);
                    bytes = later;
                    if self.held.len() == need {
                        self.state = self.gathered(what, finished)?;
                    }
                }
                State::Data {
                    cookie,
                    to,
                    left,
                    done,
                } => {
                    let (now, later) = bytes.split_at(bytes.len().min(left));
                    self.copy(cookie, to, now);
                    bytes = later;
                    self.state = State::Data {
                        cookie,
                        to: to + now.len(),
                        left: left - now.len(),
                        done,
                    };
                    if now.len() == left {
                        self.state = self.after_chunk(cookie, done, finished)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Acts on what was collected and returns what comes next in the stream.
    fn gathered(&mut self, what: Gather, finished: &mut Vec<Finished<T>>) -> Result<State, ReplyError> {
        if matches!(what, Gather::Header) && self.header_goes_on() {
            return Ok(State::Gather {
                what,
                need: wire::STRUCTURED_REPLY_LEN,
            });
        }
        let mut held = std::mem::take(&mut self.held);
        let next = match what {
            Gather::Header => self.header(&held, finished),
            Gather::DataOffset(chunk) => self.begin_data(chunk, be64(&held, 0)),
            Gather::Payload(chunk) => self.payload(chunk, &held, finished),
        };
        held.clear();
        held.shrink_to(wire::MAX_STRING);
        self.held = held;
        next
    }

    /// Whether the header that was collected so far is that of a structured chunk, which is the longer one.
    fn header_goes_on(&self) -> bool {
        self.dialect == Dialect::Structured
            && self.held.len() < wire::STRUCTURED_REPLY_LEN
            && be32(&self.held, 0) == wire::STRUCTURED_REPLY_MAGIC
    }

    fn header(&mut self, head: &[u8], finished: &mut Vec<Finished<T>>) -> Result<State, ReplyError> {
        let dialect = self.dialect;
        let chunk = |len| Chunk {
            done: be16(head, 4) & wire::REPLY_FLAG_DONE != 0,
            kind: be16(head, 6),
            cookie: be64(head, 8),
            len,
        };
        match (be32(head, 0), dialect) {
            (wire::SIMPLE_REPLY_MAGIC, Dialect::Simple | Dialect::Structured) => self.simple(head, finished),
            (wire::STRUCTURED_REPLY_MAGIC, Dialect::Structured) => {
                self.begin_chunk(chunk(be32(head, 16).into()), finished)
            }
            (wire::EXTENDED_REPLY_MAGIC, Dialect::Extended) => {
                let chunk = chunk(be64(head, 24));
                let (named, asked) = (be64(head, 16), self.request(chunk.cookie)?.at);
                if named != asked {
                    return Err(ReplyError::Offset { named, asked });
                }
                self.begin_chunk(chunk, finished)
            }
            (magic, _) => Err(ReplyError::Magic(magic)),
        }
    }

    fn simple(&mut self, head: &[u8], finished: &mut Vec<Finished<T>>) -> Result<State, ReplyError> {
        let (errno, cookie) = (be32(head, 4), be64(head, 8));
        let dialect = self.dialect;
        let request = self.request(cookie)?;
        if errno != 0 {
            request.refused = Some(RequestError::Refused {
                errno,
                message: String::new(),
            });
            return self.after_chunk(cookie, true, finished);
        }
        let Body::Read { buf, came } = &mut request.body else {
            return self.after_chunk(cookie, true, finished);
        };
        if dialect == Dialect::Structured {
            return Err(ReplyError::SimpleRead);
        }
        let left = buf.len();
        if left == 0 {
            return self.after_chunk(cookie, true, finished);
        }
        came.add(0..left);
        Ok(State::Data {
            cookie,
            to: 0,
            left,
            done: true,
        })
    }

    fn begin_chunk(&mut self, chunk: Chunk, finished: &mut Vec<Finished<T>>) -> Result<State, ReplyError> {
        let dialect = self.dialect;
        let request = self.request(chunk.cookie)?;
        let len = payload::checked_len(&chunk, &request.body, dialect)?;
        match chunk.kind {
            wire::REPLY_NONE => self.after_chunk(chunk.cookie, true, finished),
            wire::REPLY_OFFSET_DATA => Ok(State::Gather {
                what: Gather::DataOffset(chunk),
                need: 8,
            }),
            _ => Ok(State::Gather {
                what: Gather::Payload(chunk),
                need: len,
            }),
        }
    }

    fn begin_data(&mut self, chunk: Chunk, offset: u64) -> Result<State, ReplyError> {
        let part = self.request(chunk.cookie)?.take_part(offset, chunk.len - 8)?;
        Ok(State::Data {
            cookie: chunk.cookie,
            to: part.start,
            left: part.len(),
            done: chunk.done,
        })
    }

    fn payload(
        &mut self,
        chunk: Chunk,
        payload: &[u8],
        finished: &mut Vec<Finished<T>>,
    ) -> Result<State, ReplyError> {
        let context = self.context;
        let request = self.request(chunk.cookie)?;
        if payload::is_error(chunk.kind) {
            let error = payload::error(chunk.kind, payload)?;
            request.refused.get_or_insert(error);
        } else if chunk.kind == wire::REPLY_OFFSET_HOLE {
            let part = request.take_part(be64(payload, 0), be32(payload, 8).into())?;
            if let Body::Read { buf, .. } = &mut request.body {
                buf.as_mut_slice()[part].fill(0);
            }
        } else if let Body::Status { asked, extents } = &mut request.body {
            let told = payload::extents(chunk.kind, payload, context, *asked)?;
            if extents.replace(told).is_some() {
                return Err(ReplyError::Status("it came twice"));
            }
        }
        self.after_chunk(chunk.cookie, chunk.done, finished)
    }

    /// Ends the request where its last chunk is through.
    fn after_chunk(
        &mut self,
        cookie: u64,
        done: bool,
        finished: &mut Vec<Finished<T>>,
    ) -> Result<State, ReplyError> {
        if done {
            self.request(cookie)?.check_complete()?;
            let request = self
                .in_flight
                .remove(&cookie)
                .ok_or(ReplyError::UnknownCookie(cookie))?;
            finished.push(request.finish());
        }
        Ok(State::Gather {
            what: Gather::Header,
            need: header_len(self.dialect),
        })
    }

    fn copy(&mut self, cookie: u64, to: usize, bytes: &[u8]) {
        let request = self
            .in_flight
            .get_mut(&cookie)
            .expect("a request leaves after its last chunk only");
        let Body::Read { buf, .. } = &mut request.body else {
            unreachable!("only reads have chunks of data");
        };
        buf.as_mut_slice()[to..to + bytes.len()].copy_from_slice(bytes);
    }

    fn request(&mut self, cookie: u64) -> Result<&mut InFlight<T>, ReplyError> {
        self.in_flight
            .get_mut(&cookie)
            .ok_or(ReplyError::UnknownCookie(cookie))
    }
}

impl<T> InFlight<T> {
    /// The place of `len` bytes from `offset` of the export in a read's buffer, which must not have come before.
    fn take_part(&mut self, offset: u64, len: u64) -> Result<std::ops::Range<usize>, ReplyError> {
        let Body::Read { buf, came } = &mut self.body else {
            return Err(ReplyError::Placement);
        };
        let asked = ByteRange::new(self.at, buf.len() as u64).ok_or(ReplyError::Placement)?;
        let part = ByteRange::new(offset, len).filter(|part| asked.covers(*part) && !part.is_empty());
        let start = part
            .and_then(|part| usize::try_from(part.start() - self.at).ok())
            .ok_or(ReplyError::Placement)?;
        let len = usize::try_from(len).map_err(|_| ReplyError::Placement)?;
        if came.add(start..start + len) {
            Ok(start..start + len)
        } else {
            Err(ReplyError::Placement)
        }
    }

    fn check_complete(&self) -> Result<(), ReplyError> {
        let complete = match &self.body {
            _ if self.refused.is_some() => true,
            Body::Nothing => true,
            Body::Read { buf, came } => came.is_whole(buf.len()),
            Body::Status { extents, .. } => extents.is_some(),
        };
        if complete {
            Ok(())
        } else {
            Err(ReplyError::Missing)
        }
    }

    fn finish(self) -> Finished<T> {
        let reply = match self.body {
            Body::Nothing => Reply::Done,
            Body::Read { buf, .. } => Reply::Read(buf),
            Body::Status { extents, .. } => Reply::Status(extents.unwrap_or_default()),
        };
        Finished {
            token: self.token,
            outcome: self.refused.map_or(Ok(reply), Err),
        }
    }
}

/// Bytes after which a header is complete, or known to be longer.
fn header_len(dialect: Dialect) -> usize {
    match dialect {
        Dialect::Simple | Dialect::Structured => wire::SIMPLE_REPLY_LEN,
        Dialect::Extended => wire::EXTENDED_REPLY_LEN,
    }
}
