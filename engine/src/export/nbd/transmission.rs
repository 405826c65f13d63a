//! Requests out of the byte stream, as a state machine: bytes in, owned requests out.
//!
//! The caller reads from its socket straight into [`RequestReader::space`] and tells how much came; that space is a
//! large receive buffer, so that one receive brings many requests, or the rest of a large write's own buffer, so that
//! it is not copied.
//!
//! Invariants: a request that cannot be served becomes [`Command::Refused`] with the whole of its payload consumed, so
//! that the connection lives on; only a stream that cannot be followed is an error. Memory held is the receive buffer
//! and one write's payload.

#[cfg(test)]
mod tests;

use super::Mode;
use super::fields::Fields;
use crate::export::ZeroOptions;
use crate::io::{BufSlice, IoBuf};
use crate::nbd::wire;
use crate::types::ByteRange;

/// Size of the receive buffer.
pub const RECEIVE_BUFFER: usize = 256 << 10;
/// Longest payload that is consumed to keep the connection alive though its request is refused.
pub const MAX_DRAINED: u64 = 64 << 20;
/// A write's payload that misses at least this much is received straight into its own buffer.
const DIRECT_RECEIVE: usize = 32 << 10;

/// What a client asks for.
#[derive(Debug)]
pub enum Command {
    Read {
        range: ByteRange,
        dont_fragment: bool,
    },
    Write {
        at: u64,
        data: BufSlice,
        fua: bool,
    },
    /// TRIM and WRITE_ZEROES.
    Zero {
        range: ByteRange,
        options: ZeroOptions,
    },
    Flush,
    BlockStatus {
        range: ByteRange,
        one: bool,
    },
    /// Gets no reply, and nothing comes after it.
    Disconnect,
    /// To be answered with this error number.
    Refused {
        errno: u32,
        why: &'static str,
    },
}

/// One request.
#[derive(Debug)]
pub struct Request {
    /// The client's name for the request.
    pub cookie: u64,
    /// As the client gave it, also where it makes no sense.
    pub offset: u64,
    pub command: Command,
}

impl Request {
    /// Payload bytes that the request, or its reply, keeps in memory.
    pub fn payload(&self) -> u64 {
        match &self.command {
            Command::Read { range, .. } => range.len(),
            Command::Write { data, .. } => data.len() as u64,
            _ => 0,
        }
    }
}

/// The stream cannot be followed any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransmissionError {
    #[error("a request begins with {0:#x}")]
    Magic(u32),
    #[error("a request's payload of {0} bytes is too long to skip")]
    TooLong(u64),
}

struct Header {
    flags: u16,
    kind: u16,
    cookie: u64,
    offset: u64,
    len: u64,
}

type Refused = (u32, &'static str);

const OUT_OF_BOUNDS: &str = "the range ends beyond 64 bits";
const EMPTY: Refused = (wire::EINVAL, "the length is zero");
const UNKNOWN_FLAGS: Refused = (wire::EINVAL, "a flag is not known for this command");

/// What a header announces.
enum Announced {
    Complete(Command),
    Write { len: u32, fua: bool },
}

/// What follows the last header.
enum Body {
    None,
    Write {
        header: Header,
        fua: bool,
        data: IoBuf,
        filled: usize,
    },
    Skipped {
        cookie: u64,
        offset: u64,
        left: u64,
        refused: Refused,
    },
}

/// One connection's incoming side.
pub struct RequestReader {
    mode: Mode,
    buffer: Box<[u8]>,
    /// What was received and not looked at yet.
    unread: std::ops::Range<usize>,
    body: Body,
}

impl RequestReader {
    /// `begun` are bytes that came with the end of the negotiation.
    pub fn new(mode: Mode, begun: &[u8]) -> Self {
        let mut buffer =
            vec![0; RECEIVE_BUFFER.max(begun.len() + wire::EXTENDED_REQUEST_LEN)].into_boxed_slice();
        buffer[..begun.len()].copy_from_slice(begun);
        Self {
            mode,
            buffer,
            unread: 0..begun.len(),
            body: Body::None,
        }
    }

    /// Where the next bytes of the stream go; not empty. To be asked for after [`RequestReader::next`] said `None`.
    pub fn space(&mut self) -> &mut [u8] {
        if self.receives_directly() {
            let Body::Write { data, filled, .. } = &mut self.body else {
                unreachable!("looked at above")
            };
            return &mut data.as_mut_slice()[*filled..];
        }
        self.buffer.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        &mut self.buffer[self.unread.end..]
    }

    /// The first `count` bytes of [`RequestReader::space`] were received.
    pub fn received(&mut self, count: usize) {
        if self.receives_directly() {
            let Body::Write { filled, .. } = &mut self.body else {
                unreachable!("looked at above")
            };
            *filled += count;
        } else {
            self.unread.end += count;
        }
    }

    fn receives_directly(&self) -> bool {
        match &self.body {
            Body::Write { data, filled, .. } => {
                self.unread.is_empty() && data.len() - filled >= DIRECT_RECEIVE
            }
            Body::None | Body::Skipped { .. } => false,
        }
    }

    /// The next request, or `None` where more bytes are needed for it.
    ///
    /// # Errors
    /// Where the connection is to be closed.
    #[expect(
        clippy::should_implement_trait,
        reason = "not an iterator: it goes on after `None`"
    )]
    pub fn next(&mut self) -> Result<Option<Request>, TransmissionError> {
        loop {
            match &mut self.body {
                Body::None => {
                    let Some(header) = self.header()? else {
                        return Ok(None);
                    };
                    if let Some(request) = self.begin(header)? {
                        return Ok(Some(request));
                    }
                }
                Body::Write { data, filled, .. } => {
                    let here = self.unread.len().min(data.len() - *filled);
                    let from = self.unread.start;
                    data.as_mut_slice()[*filled..*filled + here]
                        .copy_from_slice(&self.buffer[from..from + here]);
                    self.unread.start += here;
                    *filled += here;
                    if *filled < data.len() {
                        return Ok(None);
                    }
                    return Ok(self.end_body());
                }
                Body::Skipped { left, .. } => {
                    let here =
                        usize::try_from(*left).map_or(self.unread.len(), |left| left.min(self.unread.len()));
                    self.unread.start += here;
                    *left -= here as u64;
                    if *left > 0 {
                        return Ok(None);
                    }
                    return Ok(self.end_body());
                }
            }
        }
    }

    /// The request whose body is complete now.
    fn end_body(&mut self) -> Option<Request> {
        match std::mem::replace(&mut self.body, Body::None) {
            Body::None => None,
            Body::Write {
                header: Header { cookie, offset, .. },
                fua,
                data,
                ..
            } => {
                let command = Command::Write {
                    at: offset,
                    data: data.into_slice(),
                    fua,
                };
                Some(Request {
                    cookie,
                    offset,
                    command,
                })
            }
            Body::Skipped {
                cookie,
                offset,
                refused: (errno, why),
                ..
            } => Some(Request {
                cookie,
                offset,
                command: Command::Refused { errno, why },
            }),
        }
    }

    fn header(&mut self) -> Result<Option<Header>, TransmissionError> {
        let mut fields = Fields::new(&self.buffer[self.unread.clone()]);
        let expected = match self.mode {
            Mode::Simple | Mode::Structured => wire::REQUEST_MAGIC,
            Mode::Extended => wire::EXTENDED_REQUEST_MAGIC,
        };
        match fields.u32() {
            None => return Ok(None),
            Some(magic) if magic != expected => return Err(TransmissionError::Magic(magic)),
            Some(_) => {}
        }
        let (flags, kind, cookie, offset) = (fields.u16(), fields.u16(), fields.u64(), fields.u64());
        let len = if self.mode == Mode::Extended {
            fields.u64()
        } else {
            fields.u32().map(u64::from)
        };
        let (Some(flags), Some(kind), Some(cookie), Some(offset), Some(len)) =
            (flags, kind, cookie, offset, len)
        else {
            return Ok(None);
        };
        self.unread.start += self.mode.request_len();
        Ok(Some(Header {
            flags,
            kind,
            cookie,
            offset,
            len,
        }))
    }

    /// The request, where its header is all of it; else sets the body.
    fn begin(&mut self, header: Header) -> Result<Option<Request>, TransmissionError> {
        let Header { cookie, offset, .. } = header;
        let refused = match self.announced(&header) {
            Ok(Announced::Complete(command)) => {
                return Ok(Some(Request {
                    cookie,
                    offset,
                    command,
                }));
            }
            Ok(Announced::Write { len, fua }) => {
                self.body = Body::Write {
                    header,
                    fua,
                    data: IoBuf::new(len as usize),
                    filled: 0,
                };
                return Ok(None);
            }
            Err(refused) => refused,
        };
        let left = self.payload_len(&header);
        if left > MAX_DRAINED {
            return Err(TransmissionError::TooLong(left));
        }
        self.body = Body::Skipped {
            cookie,
            offset,
            left,
            refused,
        };
        Ok(None)
    }

    /// A write's payload is taken to follow without its flag too: qemu 10 does not set it.
    fn payload_len(&self, header: &Header) -> u64 {
        let flagged = self.mode == Mode::Extended && header.flags & wire::CMD_FLAG_PAYLOAD_LEN != 0;
        if flagged || header.kind == wire::CMD_WRITE {
            header.len
        } else {
            0
        }
    }

    fn announced(&self, header: &Header) -> Result<Announced, Refused> {
        let known = |flags: u16| {
            if header.flags & !flags == 0 {
                Ok(())
            } else {
                Err(UNKNOWN_FLAGS)
            }
        };
        let fua = header.flags & wire::CMD_FLAG_FUA != 0;
        let command = match header.kind {
            wire::CMD_READ => {
                let fragments = if self.mode == Mode::Simple {
                    0
                } else {
                    wire::CMD_FLAG_DF
                };
                known(wire::CMD_FLAG_FUA | fragments)?;
                let range = header.range(wire::EINVAL)?;
                self.payload_fits(header)?;
                Command::Read {
                    range,
                    dont_fragment: header.flags & wire::CMD_FLAG_DF != 0,
                }
            }
            wire::CMD_WRITE => return self.write(header, fua),
            wire::CMD_DISC => Command::Disconnect,
            wire::CMD_FLUSH => {
                known(wire::CMD_FLAG_FUA)?;
                Command::Flush
            }
            wire::CMD_TRIM => {
                known(wire::CMD_FLAG_FUA)?;
                let options = ZeroOptions {
                    unmap: true,
                    fast_only: false,
                    fua,
                };
                Command::Zero {
                    range: header.range(wire::EINVAL)?,
                    options,
                }
            }
            wire::CMD_WRITE_ZEROES => {
                known(wire::CMD_FLAG_FUA | wire::CMD_FLAG_NO_HOLE | wire::CMD_FLAG_FAST_ZERO)?;
                let unmap = header.flags & wire::CMD_FLAG_NO_HOLE == 0;
                let fast_only = header.flags & wire::CMD_FLAG_FAST_ZERO != 0;
                let options = ZeroOptions {
                    unmap,
                    fast_only,
                    fua,
                };
                Command::Zero {
                    range: header.range(wire::ENOSPC)?,
                    options,
                }
            }
            wire::CMD_BLOCK_STATUS => {
                known(wire::CMD_FLAG_FUA | wire::CMD_FLAG_REQ_ONE)?;
                let one = header.flags & wire::CMD_FLAG_REQ_ONE != 0;
                Command::BlockStatus {
                    range: header.range(wire::EINVAL)?,
                    one,
                }
            }
            _ => return Err((wire::EINVAL, "the command is not known")),
        };
        Ok(Announced::Complete(command))
    }

    fn write(&self, header: &Header, fua: bool) -> Result<Announced, Refused> {
        let payload = if self.mode == Mode::Extended {
            wire::CMD_FLAG_PAYLOAD_LEN
        } else {
            0
        };
        if header.flags & !(wire::CMD_FLAG_FUA | payload) != 0 {
            return Err(UNKNOWN_FLAGS);
        }
        header.range(wire::ENOSPC)?;
        let len = self.payload_fits(header)?;
        Ok(Announced::Write { len, fua })
    }

    fn payload_fits(&self, header: &Header) -> Result<u32, Refused> {
        // The protocol allows EOVERFLOW only where the client may have learned of it.
        let errno = if self.mode == Mode::Extended {
            wire::EOVERFLOW
        } else {
            wire::EINVAL
        };
        u32::try_from(header.len)
            .ok()
            .filter(|&len| len <= wire::MAX_PAYLOAD)
            .ok_or((errno, "the payload is longer than 32 MiB"))
    }
}

impl Header {
    fn range(&self, beyond: u32) -> Result<ByteRange, Refused> {
        if self.len == 0 {
            return Err(EMPTY);
        }
        ByteRange::new(self.offset, self.len).ok_or((beyond, OUT_OF_BOUNDS))
    }
}
