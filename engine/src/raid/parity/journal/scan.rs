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
    /// Whether a place could not be read that another frame may stand at.
    pub(crate) is_cut_short: bool,
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
                is_cut_short: false,
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

    /// The bytes that were wanted cannot be read.
    pub(crate) fn cannot_be_read(&mut self) {
        let Some(wanted) = self.wanted else { return };
        self.scanned.is_cut_short = true;
        self.none_at(wanted.at);
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

#[cfg(test)]
mod tests {
    use super::super::frame::{FrameHead, Part};
    use super::super::ring::Ring;
    use super::super::units::{CommitSequence, Incarnation, MemberSet, RING_START, RingLen};
    use super::*;
    use crate::types::{ByteRange, GroupId, IdSource};
    use proptest::prelude::*;

    const BLOCKS: usize = 8;

    fn area() -> Area {
        Area {
            group: GroupId::random(&IdSource::from_seed(7)),
            member: 0,
            ring: RingLen::in_area(RING_START + (BLOCKS * BLOCK) as u64).unwrap(),
            data: ByteRange::between(0, 1 << 20),
        }
    }

    fn scan(anchor: Anchor, bytes: &[u8]) -> Vec<Frame> {
        let mut scanner = Scanner::new(area(), anchor);
        let mut asked = 0;
        while let Some(Wanted { at, len }) = scanner.wants() {
            let at = usize::try_from(at.0).unwrap();
            scanner.feed(&bytes[at..at + len]);
            asked += 1;
            assert!(asked < 100, "a scan ends");
        }
        scanner.finish().frames
    }

    fn write(bytes: &mut [u8], head: &FrameHead, blocks: usize) {
        let part = Part {
            update: 0,
            at: 0,
            participants: MemberSet(1),
            data: &[7; 4 * BLOCK][..(blocks - 1) * BLOCK + 512],
        };
        let at = usize::try_from(head.place.0).unwrap();
        bytes[at..at + blocks * BLOCK].copy_from_slice(frame::encode(&area(), head, &[part]).as_slice());
    }

    fn head(commit: u64, previous: u64, block: usize) -> FrameHead {
        FrameHead {
            incarnation: Incarnation(1),
            commit: CommitSequence(commit),
            previous: CommitSequence(previous),
            place: RingOffset((block * BLOCK) as u64),
        }
    }

    fn anchor(first: u64, block: usize) -> Anchor {
        Anchor {
            sequence: 1,
            incarnation: Incarnation(1),
            first: CommitSequence(first),
            offset: RingOffset((block * BLOCK) as u64),
        }
    }

    fn commits(frames: &[Frame]) -> Vec<u64> {
        frames.iter().map(|frame| frame.head.commit.0).collect()
    }

    #[test]
    fn frames_are_followed_over_the_rings_end_and_behind_a_gap_there() {
        let mut bytes = vec![0; BLOCKS * BLOCK];
        write(&mut bytes, &head(5, 4, 5), 2);
        write(&mut bytes, &head(6, 5, 0), 3);
        assert_eq!(commits(&scan(anchor(5, 5), &bytes)), [5, 6]);
        write(&mut bytes, &head(6, 5, 7), 1);
        write(&mut bytes, &head(8, 6, 0), 3);
        assert_eq!(commits(&scan(anchor(5, 5), &bytes)), [5, 6, 8]);
    }

    #[test]
    fn what_does_not_follow_is_not_taken() {
        let mut bytes = vec![0; BLOCKS * BLOCK];
        write(&mut bytes, &head(5, 4, 0), 1);
        let other = Incarnation(2);
        let wrong = [
            (
                "another incarnation",
                FrameHead {
                    incarnation: other,
                    ..head(6, 5, 1)
                },
            ),
            ("one between is missing", head(7, 6, 1)),
            ("older", head(4, 3, 1)),
        ];
        for (why, head) in wrong {
            write(&mut bytes, &head, 1);
            assert_eq!(commits(&scan(anchor(5, 0), &bytes)), [5], "{why}");
        }
        write(&mut bytes, &head(6, 5, 1), 1);
        assert_eq!(commits(&scan(anchor(5, 0), &bytes)), [5, 6]);
        assert_eq!(
            commits(&scan(anchor(6, 0), &bytes)),
            [] as [u64; 0],
            "below the anchor's first"
        );
        assert_eq!(
            commits(&scan(anchor(5, 1), &bytes)),
            [] as [u64; 0],
            "one before it counts and is missing"
        );
    }

    #[test]
    fn a_frame_at_the_first_byte_that_had_room_where_it_should_stand_is_not_taken() {
        let mut bytes = vec![0; BLOCKS * BLOCK];
        write(&mut bytes, &head(5, 4, 3), 2);
        write(&mut bytes, &head(6, 5, 0), 3);
        assert_eq!(commits(&scan(anchor(5, 3), &bytes)), [5]);
    }

    #[test]
    fn nothing_counts_behind_a_damaged_frame() {
        let mut bytes = vec![0; BLOCKS * BLOCK];
        for number in 0..4 {
            write(&mut bytes, &head(5 + number as u64, 4 + number as u64, number), 1);
        }
        bytes[2 * BLOCK + 600] ^= 1;
        assert_eq!(commits(&scan(anchor(5, 0), &bytes)), [5, 6]);
    }

    proptest! {
        #[test]
        fn a_scan_finds_exactly_what_was_not_freed(
            steps in proptest::collection::vec((1usize..5, 0u8..4), 1..80),
        ) {
            let mut bytes = vec![0; BLOCKS * BLOCK];
            let mut ring = Ring::open(area().ring, Incarnation(1), CommitSequence(0), [(0, 0)]);
            let opening = ring.freeing(CommitSequence(0));
            ring.freed(&opening);
            let mut anchor = opening.anchors[0].1;
            let mut live = Vec::new();
            for (blocks, what) in steps {
                let part = Part {
                    update: 0,
                    at: 0,
                    participants: MemberSet(1),
                    data: &[7; 4 * BLOCK][..(blocks - 1) * BLOCK + 512],
                };
                if let Ok(begun) = ring.begin(1, &[(0, &[part])]) {
                    write(&mut bytes, &begun.heads[0], blocks);
                    ring.durable(begun.commit);
                    ring.in_place(begun.commit);
                    live.push(begun.commit.0);
                }
                if what == 0 && !live.is_empty() {
                    let point = live[live.len() / 2];
                    let freeing = ring.freeing(CommitSequence(point));
                    ring.freed(&freeing);
                    anchor = freeing.anchors[0].1;
                    live.retain(|&commit| commit > point);
                }
                prop_assert_eq!(&commits(&scan(anchor, &bytes)), &live);
            }
        }

        #[test]
        fn any_bytes_are_borne_and_nothing_is_asked_for_beyond_the_ring(
            noise in proptest::collection::vec((0usize..BLOCKS * BLOCK, any::<u8>()), 0..20), block in 0..BLOCKS,
        ) {
            let mut bytes = vec![0; BLOCKS * BLOCK];
            for number in 0..4 {
                write(&mut bytes, &head(5 + number as u64, 4 + number as u64, 2 * number), 2);
            }
            for (at, byte) in noise {
                bytes[at] = byte;
            }
            scan(anchor(5, block), &bytes);
        }
    }
}
