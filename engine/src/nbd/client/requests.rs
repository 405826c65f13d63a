//! What a client asks of a server, and its bytes.

use super::Dialect;
use super::replies::Expected;
use crate::io::{BufSlice, IoBuf};
use crate::nbd::wire;
use crate::types::ByteRange;

/// One request. Ranges lie within the export and respect its block sizes; the caller has seen to it.
#[derive(Debug)]
pub enum Command {
    /// Fills `buf` from `at`.
    Read {
        at: u64,
        buf: IoBuf,
    },
    Write {
        at: u64,
        data: BufSlice,
        fua: bool,
    },
    Flush,
    /// Afterwards the range reads zeros. Without `unmap` its space stays allocated.
    Zero {
        range: ByteRange,
        unmap: bool,
    },
    /// The range's content is of no more interest; what it reads afterwards is the server's choice.
    Trim {
        range: ByteRange,
    },
    /// Which parts of the range are holes or zeros; needs the `base:allocation` context.
    BlockStatus {
        range: ByteRange,
    },
}

/// A request's header as it goes to the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    bytes: [u8; wire::EXTENDED_REQUEST_LEN],
    len: usize,
}

impl Header {
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// # Panics
    /// Where `len` needs more than 32 bits and the dialect has no room for them: the caller cuts requests.
    fn new(dialect: Dialect, flags: u16, kind: u16, cookie: u64, range: ByteRange) -> Self {
        let mut bytes = [0; wire::EXTENDED_REQUEST_LEN];
        let extended = dialect == Dialect::Extended;
        let magic = if extended {
            wire::EXTENDED_REQUEST_MAGIC
        } else {
            wire::REQUEST_MAGIC
        };
        bytes[..4].copy_from_slice(&magic.to_be_bytes());
        bytes[4..6].copy_from_slice(&flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&kind.to_be_bytes());
        bytes[8..16].copy_from_slice(&cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&range.start().to_be_bytes());
        let len = if extended {
            bytes[24..].copy_from_slice(&range.len().to_be_bytes());
            wire::EXTENDED_REQUEST_LEN
        } else {
            let short = u32::try_from(range.len()).expect("requests are cut to 32 bits of length");
            bytes[24..28].copy_from_slice(&short.to_be_bytes());
            wire::REQUEST_LEN
        };
        Self { bytes, len }
    }

    /// Says goodbye. The server answers nothing; no request may be in flight.
    pub fn disconnect(dialect: Dialect) -> Self {
        Self::new(dialect, 0, wire::CMD_DISC, 0, ByteRange::between(0, 0))
    }
}

impl Command {
    /// Takes the request apart: its header under `cookie`, and its payload where it has one.
    pub fn encode(&self, dialect: Dialect, cookie: u64) -> (Header, Option<BufSlice>) {
        let range = self.range();
        let (flags, kind, payload) = match self {
            Self::Read { .. } => (0, wire::CMD_READ, None),
            Self::Write { data, fua, .. } => {
                let fua = if *fua { wire::CMD_FLAG_FUA } else { 0 };
                let payload = if dialect == Dialect::Extended {
                    wire::CMD_FLAG_PAYLOAD_LEN
                } else {
                    0
                };
                (fua | payload, wire::CMD_WRITE, Some(data.clone()))
            }
            Self::Flush => (0, wire::CMD_FLUSH, None),
            Self::Zero { unmap, .. } => {
                let flags = if *unmap { 0 } else { wire::CMD_FLAG_NO_HOLE };
                (flags, wire::CMD_WRITE_ZEROES, None)
            }
            Self::Trim { .. } => (0, wire::CMD_TRIM, None),
            Self::BlockStatus { .. } => (0, wire::CMD_BLOCK_STATUS, None),
        };
        (Header::new(dialect, flags, kind, cookie, range), payload)
    }

    /// What the server has to answer.
    pub fn expected(self) -> Expected {
        match self {
            Self::Read { at, buf } => Expected::Read { at, buf },
            Self::BlockStatus { range } => Expected::Status { range },
            other => Expected::Nothing {
                at: other.range().start(),
            },
        }
    }

    fn range(&self) -> ByteRange {
        let sized = |at: u64, len: usize| {
            ByteRange::new(at, len as u64).expect("the caller keeps requests within the export")
        };
        match self {
            Self::Read { at, buf } => sized(*at, buf.len()),
            Self::Write { at, data, .. } => sized(*at, data.len()),
            Self::Flush => ByteRange::between(0, 0),
            Self::Zero { range, .. } | Self::Trim { range } | Self::BlockStatus { range } => *range,
        }
    }
}
