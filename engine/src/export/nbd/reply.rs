//! Replies as a queue of slices: answers in, lists of slices to send out.
//!
//! Headers of a batch lie side by side in one small buffer and payloads are never copied, so that one gathered send
//! carries many replies.
//!
//! Invariant: the slices of [`Replies::gather`], as far as [`Replies::sent`] moves on, are exactly the bytes of the
//! replies in the order they were pushed.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::IoSlice;

use smallvec::SmallVec;

use super::Mode;
use super::block_status::Extent;
use crate::io::{BufSlice, Segment, Segments};
use crate::nbd::wire;

/// Most slices in one list.
const MAX_SLICES: usize = 256;
/// Sent headers are thrown away when they are this many bytes.
const HEADERS_KEPT: usize = 16 << 10;
/// Longest error text in a reply.
const MAX_TEXT: usize = 256;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The outcome of a request.
#[derive(Debug)]
pub enum Answer {
    Done,
    Data {
        segments: Segments,
        dont_fragment: bool,
    },
    /// For each context its number and extents.
    Status(SmallVec<[(u32, Vec<Extent>); 1]>),
    Failed {
        errno: u32,
        why: String,
    },
}

/// What goes back to the client.
#[derive(Debug)]
pub struct Reply {
    pub cookie: u64,
    /// The request's.
    pub offset: u64,
    pub answer: Answer,
}

/// Where a slice's bytes are.
#[derive(Debug)]
enum Piece {
    /// So many of the next bytes in `headers`.
    Headers(usize),
    Payload(BufSlice),
    Zeros(usize),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Headers(len) | Self::Zeros(len) => *len,
            Self::Payload(slice) => slice.len(),
        }
    }
}

/// What one connection still has to send.
#[derive(Debug)]
pub struct Replies {
    mode: Mode,
    headers: Vec<u8>,
    headers_sent: usize,
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that were sent.
    first_sent: usize,
    len: usize,
}

impl Replies {
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            headers: Vec::new(),
            headers_sent: 0,
            pieces: VecDeque::new(),
            first_sent: 0,
            len: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes to send.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Slices to send.
    pub fn slices(&self) -> usize {
        self.pieces.len()
    }

    pub fn push(&mut self, reply: Reply) {
        let Reply {
            cookie,
            offset,
            answer,
        } = reply;
        match answer {
            Answer::Done if self.mode == Mode::Extended => {
                self.chunk(cookie, offset, wire::REPLY_NONE, true, 0);
            }
            Answer::Done => self.simple(cookie, 0),
            Answer::Data { segments, .. } if self.mode == Mode::Simple => {
                self.simple(cookie, 0);
                self.segments(segments);
            }
            Answer::Data {
                segments,
                dont_fragment,
            } => self.read_chunks(cookie, offset, segments, dont_fragment),
            Answer::Status(contexts) => self.status_chunks(cookie, offset, &contexts),
            Answer::Failed { errno, .. } if self.mode == Mode::Simple => self.simple(cookie, errno),
            Answer::Failed { errno, why } => self.error_chunk(cookie, offset, errno, &why),
        }
    }

    fn simple(&mut self, cookie: u64, errno: u32) {
        let mut header = [0; wire::SIMPLE_REPLY_LEN];
        header[..4].copy_from_slice(&wire::SIMPLE_REPLY_MAGIC.to_be_bytes());
        header[4..8].copy_from_slice(&errno.to_be_bytes());
        header[8..].copy_from_slice(&cookie.to_be_bytes());
        self.header(&header);
    }

    /// The header of a chunk with `len` bytes of payload.
    fn chunk(&mut self, cookie: u64, offset: u64, kind: u16, last: bool, len: usize) {
        let flags = if last { wire::REPLY_FLAG_DONE } else { 0 };
        let extended = self.mode == Mode::Extended;
        let magic = if extended {
            wire::EXTENDED_REPLY_MAGIC
        } else {
            wire::STRUCTURED_REPLY_MAGIC
        };
        let mut header = [0; wire::EXTENDED_REPLY_LEN];
        header[..4].copy_from_slice(&magic.to_be_bytes());
        header[4..6].copy_from_slice(&flags.to_be_bytes());
        header[6..8].copy_from_slice(&kind.to_be_bytes());
        header[8..16].copy_from_slice(&cookie.to_be_bytes());
        if extended {
            header[16..24].copy_from_slice(&offset.to_be_bytes());
            header[24..].copy_from_slice(&(len as u64).to_be_bytes());
            self.header(&header);
        } else {
            let len = u32::try_from(len).expect("a chunk is hardly longer than the largest payload");
            header[16..wire::STRUCTURED_REPLY_LEN].copy_from_slice(&len.to_be_bytes());
            self.header(&header[..wire::STRUCTURED_REPLY_LEN]);
        }
    }

    fn read_chunks(&mut self, cookie: u64, offset: u64, mut segments: Segments, dont_fragment: bool) {
        segments.retain(|segment| !segment.is_empty());
        if dont_fragment && segments.len() > 1 {
            let len: usize = segments.iter().map(segment_len).sum();
            self.chunk(cookie, offset, wire::REPLY_OFFSET_DATA, true, 8 + len);
            self.header(&offset.to_be_bytes());
            self.segments(segments);
            return;
        }
        let (mut at, mut left) = (offset, segments.len());
        for segment in segments {
            left -= 1;
            let len = segment_len(&segment);
            match segment {
                Segment::Data(slice) => {
                    self.chunk(cookie, offset, wire::REPLY_OFFSET_DATA, left == 0, 8 + len);
                    self.header(&at.to_be_bytes());
                    self.piece(Piece::Payload(slice));
                }
                Segment::Zero(_) => {
                    self.chunk(cookie, offset, wire::REPLY_OFFSET_HOLE, left == 0, 12);
                    self.header(&at.to_be_bytes());
                    let len = u32::try_from(len).expect("a read is at most 32 MiB");
                    self.header(&len.to_be_bytes());
                }
            }
            at += len as u64;
        }
    }

    fn status_chunks(&mut self, cookie: u64, offset: u64, contexts: &[(u32, Vec<Extent>)]) {
        let mut left = contexts.len();
        for (context, extents) in contexts {
            left -= 1;
            if self.mode == Mode::Extended {
                let kind = wire::REPLY_BLOCK_STATUS_EXT;
                self.chunk(cookie, offset, kind, left == 0, 8 + extents.len() * 16);
                self.header(&context.to_be_bytes());
                let count = u32::try_from(extents.len()).expect("a reply has a few thousand extents at most");
                self.header(&count.to_be_bytes());
                for extent in extents {
                    self.header(&extent.len.to_be_bytes());
                    self.header(&u64::from(extent.flags).to_be_bytes());
                }
            } else {
                self.chunk(
                    cookie,
                    offset,
                    wire::REPLY_BLOCK_STATUS,
                    left == 0,
                    4 + extents.len() * 8,
                );
                self.header(&context.to_be_bytes());
                for extent in extents {
                    let len = u32::try_from(extent.len).expect("a compact request asks for less than 4 GiB");
                    self.header(&len.to_be_bytes());
                    self.header(&extent.flags.to_be_bytes());
                }
            }
        }
    }

    fn error_chunk(&mut self, cookie: u64, offset: u64, errno: u32, why: &str) {
        let text = &why[..why.floor_char_boundary(MAX_TEXT)];
        let len = u16::try_from(text.len()).expect("cut above");
        self.chunk(cookie, offset, wire::REPLY_ERROR, true, 6 + text.len());
        self.header(&errno.to_be_bytes());
        self.header(&len.to_be_bytes());
        self.header(text.as_bytes());
    }

    fn segments(&mut self, segments: Segments) {
        for segment in segments {
            let len = segment_len(&segment);
            self.piece(match segment {
                Segment::Data(slice) => Piece::Payload(slice),
                Segment::Zero(_) => Piece::Zeros(len),
            });
        }
    }

    fn header(&mut self, bytes: &[u8]) {
        self.headers.extend_from_slice(bytes);
        self.len += bytes.len();
        match self.pieces.back_mut() {
            Some(Piece::Headers(len)) => *len += bytes.len(),
            _ => self.pieces.push_back(Piece::Headers(bytes.len())),
        }
    }

    fn piece(&mut self, piece: Piece) {
        if piece.len() > 0 {
            self.len += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// The next bytes to send, as slices.
    pub fn gather(&self) -> SmallVec<[IoSlice<'_>; MAX_SLICES]> {
        let mut slices = SmallVec::new();
        let mut headers = &self.headers[self.headers_sent..];
        let mut sent = self.first_sent;
        for piece in &self.pieces {
            if slices.len() == MAX_SLICES {
                break;
            }
            match piece {
                Piece::Headers(len) => {
                    let (here, rest) = headers.split_at(len - sent);
                    slices.push(IoSlice::new(here));
                    headers = rest;
                }
                Piece::Payload(slice) => slices.push(IoSlice::new(&slice.as_slice()[sent..])),
                Piece::Zeros(len) => {
                    let mut left = len - sent;
                    while left > 0 && slices.len() < MAX_SLICES {
                        let here = left.min(ZEROS.len());
                        slices.push(IoSlice::new(&ZEROS[..here]));
                        left -= here;
                    }
                    if left > 0 {
                        break;
                    }
                }
            }
            sent = 0;
        }
        slices
    }

    /// The first `count` bytes were sent.
    pub fn sent(&mut self, count: usize) {
        self.len -= count;
        let mut left = count;
        while left > 0 {
            let piece = self.pieces.front().expect("no more is sent than there was");
            let here = left.min(piece.len() - self.first_sent);
            left -= here;
            self.first_sent += here;
            if matches!(piece, Piece::Headers(_)) {
                self.headers_sent += here;
            }
            if self.first_sent == piece.len() {
                self.pieces.pop_front();
                self.first_sent = 0;
            }
        }
        if self.is_empty() {
            self.headers.clear();
            self.headers_sent = 0;
        } else if self.headers_sent >= HEADERS_KEPT {
            self.headers.drain(..self.headers_sent);
            self.headers_sent = 0;
        }
    }
}

fn segment_len(segment: &Segment) -> usize {
    usize::try_from(segment.len()).expect("a read is at most 32 MiB")
}
