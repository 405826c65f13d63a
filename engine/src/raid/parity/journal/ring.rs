//! What the journal of an opened group knows of itself: where the next frames go, and which commits may be freed.
//!
//! Life of a commit: `begin` gives its frames their places; they are written and all members concerned flushed (who fails
//! is durably out of sync); `durable`; its places are written, in any order, `in_place` once for each update. Freeing:
//! `freeable`; then all members flush; `freeing` gives the anchors; they are written and flushed; `freed`.
//!
//! Invariants: a frame never wraps: without room before the ring's end it starts at the first byte. Bytes are used again
//! only after `freed`. One commit is begun at a time, and one that was begun is never given up: parts of it may be
//! durable, and would count at a start once the member that lacks its part is out of sync. Who cannot finish one stops
//! the group. A member's frames begin with the opening or when it joins; what stood in its ring before counts no more.

use std::collections::{BTreeMap, VecDeque};

use super::anchor::Anchor;
use super::frame::{FrameHead, Part, frame_len};
use super::held::Held;
use super::units::{CommitSequence, Incarnation, RingLen, RingOffset};
use crate::types::ByteRange;

#[derive(Debug)]
struct MemberRing {
    /// Where the next frame goes, if it has room there.
    head: RingOffset,
    /// Bytes from the last freed frame's end to `head`, with what was left out at the ring's end.
    used: u64,
    /// End of the last freed frame.
    tail: RingOffset,
    /// Commit of the last frame, 0 before the first.
    previous: CommitSequence,
    /// First commit that this ring may hold.
    since: CommitSequence,
    /// Sequence of its newest durable anchor.
    anchor: u64,
}

#[derive(Debug)]
struct Span {
    member: usize,
    /// Bytes that the frame took, with what was left out before it.
    used: u64,
    end: RingOffset,
}

#[derive(Debug)]
struct Live {
    commit: CommitSequence,
    not_in_place: u32,
    spans: Vec<Span>,
}

/// Why a commit was not begun. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotBegun {
    /// Something has to be freed first.
    #[error("no room in a ring")]
    Full,
    #[error("a frame is longer than any may be")]
    TooLong,
    #[error("the commit before is not durable")]
    Running,
    #[error("member {0} has no ring any more")]
    NoRing(usize),
}

/// A commit that was begun: the heads of its frames, in the order in which they were asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) commit: CommitSequence,
    pub(crate) heads: Vec<FrameHead>,
}

/// Anchors that free everything up to and with a point, by member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Freeing {
    pub(crate) point: CommitSequence,
    pub(crate) anchors: Vec<(usize, Anchor)>,
}

#[derive(Debug)]
pub(crate) struct Ring {
    len: RingLen,
    incarnation: Incarnation,
    /// Newest commit that was begun, in this opening or before.
    last: CommitSequence,
    /// Everything up to and with this is freed.
    freed: CommitSequence,
    /// Whether the newest commit is not durable yet.
    running: bool,
    members: BTreeMap<usize, MemberRing>,
    live: VecDeque<Live>,
    held: Held,
}

impl Ring {
    /// A new opening, after everything up to and with `last` is in place and flushed. `members` are those in sync, each
    /// with the sequence of the newest valid anchor on it, 0 where the group is new. Before anything else the anchors of
    /// `freeing(last)` are made durable on all of them.
    pub(crate) fn open(
        len: RingLen,
        incarnation: Incarnation,
        last: CommitSequence,
        members: impl IntoIterator<Item = (usize, u64)>,
    ) -> Self {
        let mut ring = Self {
            len,
            incarnation,
            last,
            freed: last,
            running: false,
            members: BTreeMap::new(),
            live: VecDeque::new(),
            held: Held::default(),
        };
        for (member, anchor) in members {
            ring.members.insert(member, ring.fresh(anchor));
        }
        ring
    }

    fn fresh(&self, anchor: u64) -> MemberRing {
        MemberRing {
            head: RingOffset(0),
            used: 0,
            tail: RingOffset(0),
            previous: CommitSequence(0),
            since: self.last.next(),
            anchor,
        }
    }

    /// Begins a commit of `updates` updates, at least one, with these frames, one for each member concerned. The heads
    /// say where each is written.
    pub(crate) fn begin(&mut self, updates: u32, frames: &[(usize, &[Part<'_>])]) -> Result<Begun, NotBegun> {
        if self.running {
            return Err(NotBegun::Running);
        }
        let lens: Vec<u64> = frames.iter().map(|(_, parts)| frame_len(parts)).collect();
        for (&(member, _), &len) in frames.iter().zip(&lens) {
            if len > self.len.longest_frame() {
                return Err(NotBegun::TooLong);
            }
            let ring = self.members.get(&member).ok_or(NotBegun::NoRing(member))?;
            if ring.used + ring.needed(self.len, len) > self.len.bytes() {
                return Err(NotBegun::Full);
            }
        }
        let commit = self.last.next();
        let mut heads = Vec::with_capacity(frames.len());
        let mut spans = Vec::with_capacity(frames.len());
        for (&(member, parts), &len) in frames.iter().zip(&lens) {
            let ring = self.members.get_mut(&member).expect("it was there just now");
            let (head, span) = ring.place(self.len, member, commit, self.incarnation, len);
            heads.push(head);
            spans.push(span);
            for part in parts {
                self.held.add(part.range(), commit);
            }
        }
        self.last = commit;
        self.running = true;
        self.live.push_back(Live {
            commit,
            not_in_place: updates,
            spans,
        });
        Ok(Begun { commit, heads })
    }

    /// The newest commit is durable: another may begin, and its places may be written.
    pub(crate) fn durable(&mut self, commit: CommitSequence) {
        debug_assert!(
            self.running && commit == self.last,
            "commits become durable in order"
        );
        self.running = false;
    }

    /// All places of one more update of `commit` were written.
    pub(crate) fn in_place(&mut self, commit: CommitSequence) {
        // Sequences in `live` have no gaps: whatever was begun is there until it is freed.
        let front = self.live.front().map_or(0, |live| live.commit.0);
        let index = commit
            .0
            .checked_sub(front)
            .and_then(|index| usize::try_from(index).ok());
        let live = index.and_then(|index| self.live.get_mut(index));
        debug_assert!(
            live.as_ref().is_some_and(|live| live.not_in_place > 0),
            "commit {commit:?} has no update left to put in place"
        );
        if let Some(live) = live {
            live.not_in_place = live.not_in_place.saturating_sub(1);
        }
    }

    /// The point up to which everything is in place. What was written there has to be flushed on all members after this
    /// was asked, before [`freeing`](Self::freeing).
    pub(crate) fn freeable(&self) -> Option<CommitSequence> {
        let in_place = self.live.iter().take_while(|live| live.not_in_place == 0);
        in_place.last().map(|live| live.commit)
    }

    /// The anchors that free everything up to and with `point`. A member that fails to write or flush its one is
    /// dropped. Nothing is changed yet, so it can be asked again where it was not carried through.
    pub(crate) fn freeing(&self, point: CommitSequence) -> Freeing {
        let mut tails: BTreeMap<usize, RingOffset> = BTreeMap::new();
        for live in self.live.iter().take_while(|live| live.commit <= point) {
            let ours = |span: &&Span| {
                let ring = self.members.get(&span.member);
                ring.is_some_and(|ring| live.commit >= ring.since)
            };
            tails.extend(live.spans.iter().filter(ours).map(|span| (span.member, span.end)));
        }
        let anchors = self.members.iter().map(|(&member, ring)| {
            let anchor = Anchor {
                sequence: ring.anchor + 1,
                incarnation: self.incarnation,
                first: point.next().max(ring.since),
                offset: tails.get(&member).copied().unwrap_or(ring.tail),
            };
            (member, anchor)
        });
        Freeing {
            point,
            anchors: anchors.collect(),
        }
    }

    /// The anchors are durable: what they freed is used again.
    pub(crate) fn freed(&mut self, freeing: &Freeing) {
        for (member, anchor) in &freeing.anchors {
            if let Some(ring) = self.members.get_mut(member) {
                ring.anchor = ring.anchor.max(anchor.sequence);
            }
        }
        while let Some(live) = self.live.pop_front_if(|live| live.commit <= freeing.point) {
            for span in live.spans {
                let ring = self.members.get_mut(&span.member);
                if let Some(ring) = ring.filter(|ring| live.commit >= ring.since) {
                    ring.used -= span.used;
                    ring.tail = span.end;
                }
            }
        }
        self.held.free(freeing.point);
        self.freed = self.freed.max(freeing.point);
    }

    /// Whether it is time to free.
    pub(crate) fn is_half_full(&self) -> bool {
        self.members
            .values()
            .any(|ring| ring.used >= self.len.bytes() / 2)
    }

    /// The point to free before these member addresses may be forgotten: `None` where no commit in the journal has a part
    /// there, on any member.
    pub(crate) fn holds(&self, range: ByteRange) -> Option<CommitSequence> {
        self.held.last_in(range)
    }

    /// The newest commit's point: once it is freed, nothing that was begun before now is in the journal.
    pub(crate) fn latest(&self) -> CommitSequence {
        self.last
    }

    pub(crate) fn is_freed(&self, point: CommitSequence) -> bool {
        point <= self.freed
    }

    /// A member was dropped: nothing is written to its ring any more.
    pub(crate) fn leave(&mut self, member: usize) {
        self.members.remove(&member);
    }

    /// A member gets a ring again, with the anchor to make durable before a frame of it. `anchor` is the sequence of the
    /// newest valid anchor that stands on it, 0 without one. Its parts count when it is in sync; it may become so only
    /// after the point that was [`latest`](Self::latest) at this moment is freed: older commits may name it, and it has
    /// no part in them, and its anchor tells that they are in place.
    pub(crate) fn join(&mut self, member: usize, anchor: u64) -> Anchor {
        let ring = self.fresh(anchor + 1);
        let first = ring.since;
        self.members.insert(member, ring);
        Anchor {
            sequence: anchor + 1,
            incarnation: self.incarnation,
            first,
            offset: RingOffset(0),
        }
    }
}

impl MemberRing {
    /// Bytes that a frame takes, with those left out at the end of the ring where it has no room before it.
    fn needed(&self, ring: RingLen, len: u64) -> u64 {
        if self.head.0 + len <= ring.bytes() {
            len
        } else {
            ring.bytes() - self.head.0 + len
        }
    }

    fn place(
        &mut self,
        ring: RingLen,
        member: usize,
        commit: CommitSequence,
        incarnation: Incarnation,
        len: u64,
    ) -> (FrameHead, Span) {
        let used = self.needed(ring, len);
        let place = if used == len { self.head } else { RingOffset(0) };
        let head = FrameHead {
            incarnation,
            commit,
            previous: self.previous,
            place,
        };
        self.head = ring.behind(place, len);
        self.used += used;
        self.previous = commit;
        let end = self.head;
        (head, Span { member, used, end })
    }
}
