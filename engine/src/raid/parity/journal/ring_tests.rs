//! What a ring hands out, frees and holds.

use super::frame::Part;
use super::ring::{Begun, NotBegun, Ring};
use super::units::{BLOCK, CommitSequence, Incarnation, MemberSet, RING_START, RingLen, RingOffset};
use crate::types::ByteRange;
use proptest::prelude::*;

const RING_BLOCKS: u64 = 10;
const NOTHING: &[u8] = &[0; 4 * BLOCK];

fn ring() -> Ring {
    let len = RingLen::in_area(RING_START + RING_BLOCKS * BLOCK as u64).unwrap();
    let mut ring = Ring::open(
        len,
        Incarnation(1),
        CommitSequence(0),
        (0..3).map(|member| (member, 0)),
    );
    let opening = ring.freeing(CommitSequence(0));
    ring.freed(&opening);
    ring
}

/// A part whose frame has `blocks` blocks.
fn part(at: u64, blocks: usize) -> Part<'static> {
    let data = &NOTHING[..(blocks - 1) * BLOCK + 512];
    let participants = MemberSet(0b111);
    Part {
        update: 0,
        at,
        participants,
        data,
    }
}

fn commit(ring: &mut Ring, member: usize, blocks: usize) -> Result<Begun, NotBegun> {
    let begun = ring.begin(1, &[(member, &[part(0, blocks)])])?;
    ring.durable(begun.commit);
    ring.in_place(begun.commit);
    Ok(begun)
}

fn free_all(ring: &mut Ring) {
    if let Some(point) = ring.freeable() {
        let freeing = ring.freeing(point);
        ring.freed(&freeing);
    }
}

#[test]
fn commits_are_freed_up_to_the_first_that_is_not_in_place() {
    let mut ring = ring();
    let commits: Vec<_> = (0..3)
        .map(|_| {
            let begun = ring.begin(2, &[(0, &[part(0, 1)])]).unwrap();
            ring.durable(begun.commit);
            begun.commit
        })
        .collect();
    ring.in_place(commits[0]);
    ring.in_place(commits[1]);
    ring.in_place(commits[1]);
    assert_eq!(ring.freeable(), None);
    ring.in_place(commits[0]);
    assert_eq!(ring.freeable(), Some(commits[1]));
    assert!(!ring.is_freed(commits[1]));
    let freeing = ring.freeing(commits[1]);
    assert!(
        freeing
            .anchors
            .iter()
            .all(|(_, anchor)| anchor.first == commits[2])
    );
    ring.freed(&freeing);
    assert!(ring.is_freed(commits[1]) && !ring.is_freed(ring.latest()));
}

#[test]
fn a_commit_begins_only_when_the_one_before_is_durable() {
    let mut ring = ring();
    let first = ring.begin(1, &[(0, &[part(0, 1)])]).unwrap();
    assert_eq!(ring.begin(1, &[(1, &[part(0, 1)])]), Err(NotBegun::Running));
    ring.durable(first.commit);
    assert!(ring.begin(1, &[(1, &[part(0, 1)])]).is_ok());
}

#[test]
fn a_frame_that_does_not_fit_before_the_end_starts_at_the_first_byte() {
    let mut ring = ring();
    for _ in 0..2 {
        commit(&mut ring, 0, 4).unwrap();
    }
    assert_eq!(commit(&mut ring, 0, 4), Err(NotBegun::Full));
    assert!(ring.is_half_full());
    free_all(&mut ring);
    assert!(!ring.is_half_full());
    let begun = commit(&mut ring, 0, 4).unwrap();
    assert_eq!(begun.heads[0].place, RingOffset(0));
    assert_eq!(begun.heads[0].previous, CommitSequence(2));
}

#[test]
fn a_refused_commit_changes_nothing() {
    let mut ring = ring();
    let parts = [part(0, 4), part(0, 4)];
    assert_eq!(
        ring.begin(1, &[(0, &parts[..1]), (1, &parts)]),
        Err(NotBegun::TooLong)
    );
    assert_eq!(
        ring.begin(1, &[(0, &parts[..1]), (7, &parts[..1])]),
        Err(NotBegun::NoRing(7))
    );
    assert_eq!(ring.latest(), CommitSequence(0));
    assert_eq!(ring.holds(ByteRange::between(0, 1 << 20)), None);
    assert_eq!(commit(&mut ring, 0, 1).unwrap().heads[0].place, RingOffset(0));
}

#[test]
fn addresses_are_held_until_the_last_commit_with_a_part_there_is_freed() {
    let mut ring = ring();
    let first = commit(&mut ring, 0, 1).unwrap().commit;
    let begun = ring.begin(1, &[(2, &[part(8192, 1)])]).unwrap();
    ring.durable(begun.commit);
    assert_eq!(ring.holds(ByteRange::between(0, 512)), Some(first));
    assert_eq!(ring.holds(ByteRange::between(0, 8704)), Some(begun.commit));
    assert_eq!(ring.holds(ByteRange::between(512, 8192)), None);
    free_all(&mut ring);
    assert_eq!(ring.holds(ByteRange::between(0, 8192)), None);
    assert_eq!(ring.holds(ByteRange::between(8192, 8193)), Some(begun.commit));
}

#[test]
fn a_freeing_that_was_not_carried_through_takes_the_same_slot_again() {
    let mut ring = ring();
    let first = commit(&mut ring, 0, 1).unwrap().commit;
    let cut_off = ring.freeing(first);
    let second = commit(&mut ring, 0, 1).unwrap().commit;
    let again = ring.freeing(second);
    for ((_, old), (_, new)) in cut_off.anchors.iter().zip(&again.anchors) {
        assert_eq!(old.place(), new.place());
    }
}

#[test]
fn a_member_that_left_and_joins_begins_anew() {
    let mut ring = ring();
    let begun = ring.begin(1, &[(0, &[part(0, 3)]), (1, &[part(0, 3)])]).unwrap();
    ring.durable(begun.commit);
    let before = ring.freeing(CommitSequence(0));
    ring.leave(1);
    assert_eq!(ring.begin(1, &[(1, &[part(0, 1)])]), Err(NotBegun::NoRing(1)));
    let anchor = ring.join(1, 40);
    assert_eq!((anchor.sequence, anchor.first), (41, begun.commit.next()));
    ring.freed(&before);
    let joined = commit(&mut ring, 1, 2).unwrap();
    assert_eq!(joined.heads[0].place, anchor.offset);
    assert_eq!(joined.heads[0].previous, CommitSequence(0));
    ring.in_place(begun.commit);
    let freeing = ring.freeing(begun.commit);
    let (_, next) = freeing.anchors[1];
    assert_eq!(
        (next.sequence, next.first, next.offset),
        (42, joined.commit, RingOffset(0))
    );
}

proptest! {
    #[test]
    fn live_frames_never_overlap_and_an_empty_ring_takes_any_frame(
        steps in proptest::collection::vec((0usize..3, 1usize..5, any::<bool>()), 1..60),
    ) {
        let mut ring = ring();
        let mut live: Vec<(usize, ByteRange)> = Vec::new();
        for (member, blocks, free) in steps {
            if free {
                free_all(&mut ring);
                live.clear();
            }
            match commit(&mut ring, member, blocks) {
                Ok(begun) => {
                    let range = ByteRange::new(begun.heads[0].place.0, (blocks * BLOCK) as u64).unwrap();
                    prop_assert!(range.end() <= RING_BLOCKS * BLOCK as u64);
                    prop_assert!(live.iter().all(|&(other, taken)| other != member || !taken.overlaps(range)));
                    live.push((member, range));
                }
                Err(refused) => {
                    prop_assert_eq!(refused, NotBegun::Full);
                    prop_assert!(live.iter().any(|&(other, _)| other == member));
                }
            }
        }
    }
}
