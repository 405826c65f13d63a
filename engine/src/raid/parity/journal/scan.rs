//! Reads the frames of one member's ring, from its anchor on, without I/O of its own: it says what it wants, and is fed.
//!
//! A frame counts when it is of the anchor's incarnation, not below the anchor's first commit, and names the frame read
//! before it as its previous one; the first names one below the anchor's first. A frame that did not fit behind another
//! stands at the ring's first byte: so where none follows, the one at the first byte is tried.
//!
//! Invariants: nothing stale is taken, as every commit has its sequence for itself in an incarnation, and a frame names
//! its place. No frame is skipped: behind a damaged one nothing counts. At most one frame is asked for at a time.

use super::anchor::Anchor;
use super::frame::{self, Frame};
use super::units::{Area, BLOCK, RingOffset};

/// What one member's ring holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scanned {
    pub(crate) anchor: Anchor,
    /// In the order of their commits.
    pub(crate) frames: Vec<Frame>,
}

/// Bytes of the ring that the scan goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) at: RingOffset,
    pub(crate) len: usize,
}

#[derive(Debug)]
pub(crate) struct Scanner {
    area: Area,
    scanned: Scanned,
    /// Where the next frame stands, unless it had no room there.
    next: RingOffset,
    /// Bytes of the frames that were found: more than the ring has were never there at once.
    taken: u64,
    wanted: Option<Wanted>,
}

impl Scanner {
    pub(crate) fn new(area: Area, anchor: Anchor) -> Self {
        let mut scanner = Self {
            area,
            scanned: Scanned {
                anchor,
                frames: Vec::new(),
            },
            next: anchor.offset,
            taken: 0,
            wanted: None,
        };
        scanner.try_at(anchor.offset);
        scanner
    }

    /// What to read and [`feed`](Self::feed) next; `None` at the end.
    pub(crate) fn wants(&self) -> Option<Wanted> {
        self.wanted
    }

    /// Takes the bytes that were wanted.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let Some(wanted) = self.wanted else { return };
        if bytes.len() == wanted.len
            && let Some(frame) = frame::decode(&self.area, wanted.at, bytes)
        {
            self.take(wanted.at, frame);
        } else if wanted.len == BLOCK
            && let Some(len) = frame::announced_len(&self.area, wanted.at, bytes)
            && len > BLOCK as u64
        {
            let len = usize::try_from(len).expect("a frame is at most some MiB");
            self.wanted = Some(Wanted { at: wanted.at, len });
        } else {
            self.none_at(wanted.at);
        }
    }

    pub(crate) fn finish(self) -> Scanned {
        self.scanned
    }

    fn try_at(&mut self, at: RingOffset) {
        self.wanted = Some(Wanted { at, len: BLOCK });
    }

    fn take(&mut self, at: RingOffset, frame: Frame) {
        let anchor = &self.scanned.anchor;
        let follows = match self.scanned.frames.last() {
            Some(last) => frame.head.previous == last.head.commit,
            None => frame.head.previous < anchor.first,
        };
        let had_no_room = at == self.next || self.next.0 + frame.len > self.area.ring.bytes();
        let counts = frame.head.incarnation == anchor.incarnation
            && frame.head.commit >= anchor.first
            && follows
            && had_no_room
            && self.taken + frame.len <= self.area.ring.bytes();
        if !counts {
            return self.none_at(at);
        }
        self.taken += frame.len;
        self.next = self.area.ring.behind(at, frame.len);
        self.scanned.frames.push(frame);
        self.try_at(self.next);
    }

    fn none_at(&mut self, at: RingOffset) {
        self.wanted = None;
        if at == self.next && at.0 != 0 {
            self.try_at(RingOffset(0));
        }
    }
}
