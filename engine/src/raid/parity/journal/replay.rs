//! The decision at a start: which updates are written to their places again.
//!
//! *What identifies a commit.* Incarnation and sequence. Sequences rise over openings, from the greatest that was seen; one
//! that was not seen (torn, or on a member that was away) may be given again, but in another incarnation.
//!
//! *Which anchor counts.* The one with the highest first commit, of whichever member. Whoever wrote it knew that
//! everything below is in place and flushed on every member in sync. Would each member's own anchor decide, a crash between
//! the anchors of one freeing would leave an older update with all its parts and a newer one of the same row without, and
//! writing the older one alone would undo half of the newer. All that is not below that anchor is still whole on every
//! member, as a ring's bytes are used again only after all anchors are durable. An opening's anchors come after all of
//! the older ones' commits are in place, and are above them, so the same rule chooses the incarnation: frames of another
//! are in place or were decided against. No commit of an opening is begun before all its anchors are durable.
//!
//! *When an update counts.* When every member that is in sync and there, and is named, has its part. A commit is begun
//! only when the one before is durable, so only the last may lack parts; where an earlier one does, or a member was not
//! even in the incarnation that has commits, that member lost what it had confirmed, and is to be dropped. What a member
//! lost is not told from what was cut off where it is only of the last commit.
//!
//! *What the caller owes.* Members that are away are durably out of sync **before** a place is touched; nobody is served
//! before the new anchors are durable. Otherwise a member that comes back after a crash in between, without its part or
//! with it, would turn the same decision round when places were touched already.

use std::collections::BTreeMap;

use super::frame::StoredPart;
use super::scan::Scanned;
use super::units::{CommitSequence, MemberSet};

/// An update to write to its places again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Again {
    pub(crate) commit: CommitSequence,
    /// By member; what stands in the ring of each.
    pub(crate) parts: Vec<(usize, StoredPart)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    /// In the order in which they are written. A later one may overwrite what an earlier one wrote.
    pub(crate) again: Vec<Again>,
    /// The greatest sequence seen, in anchors too: the new opening's anchors have to be above all older ones.
    pub(crate) last: CommitSequence,
}

/// Why nothing can be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Undecided {
    #[error("no member in sync is there")]
    NoMember,
    /// These lost what they had confirmed. They have to be dropped, durably, and it can be asked again without them.
    #[error("members lost parts of the journal")]
    Lost(MemberSet),
    /// Two openings took the same place in the order, so one of them did not know all members in sync.
    #[error("the members' anchors contradict each other")]
    Contradiction,
}

#[derive(Default)]
struct Gathered {
    participants: MemberSet,
    has: MemberSet,
    parts: Vec<(usize, StoredPart)>,
}

/// Decides over what stands on each member, by number: `None` where it is away or not in sync.
pub(crate) fn decide(members: Vec<Option<Scanned>>) -> Result<Decision, Undecided> {
    let there: MemberSet = (0..members.len())
        .filter(|&member| members[member].is_some())
        .collect();
    let anchors = members.iter().flatten().map(|scanned| scanned.anchor);
    let counts = anchors
        .clone()
        .max_by_key(|anchor| anchor.first)
        .ok_or(Undecided::NoMember)?;
    if anchors
        .clone()
        .any(|other| other.first == counts.first && other.incarnation != counts.incarnation)
    {
        return Err(Undecided::Contradiction);
    }
    let seen = members.iter().flatten().flat_map(|scanned| &scanned.frames);
    let last = seen.map(|frame| frame.head.commit).fold(counts.first, Ord::max);

    let cut_short = (0..members.len())
        .filter(|&member| {
            members[member]
                .as_ref()
                .is_some_and(|scanned| scanned.is_cut_short)
        })
        .collect();
    let mut elsewhere = MemberSet::default();
    let mut updates: BTreeMap<(CommitSequence, u32), Gathered> = BTreeMap::new();
    for (member, scanned) in members.into_iter().enumerate() {
        let Some(scanned) = scanned else { continue };
        if scanned.anchor.incarnation != counts.incarnation {
            elsewhere = elsewhere.with(member);
            continue;
        }
        for frame in scanned.frames {
            if frame.head.commit < counts.first {
                continue;
            }
            for part in frame.parts {
                let update = updates.entry((frame.head.commit, part.update)).or_default();
                update.participants = update.participants.or(part.participants);
                update.has = update.has.with(member);
                update.parts.push((member, part));
            }
        }
    }
    if !updates.is_empty() && !elsewhere.is_empty() {
        return Err(Undecided::Lost(elsewhere));
    }
    let again = complete(updates, there, cut_short)?;
    Ok(Decision { again, last })
}

/// The updates that lack nothing. Of who is `cut_short` a part of the newest commit may be durable and unreadable: then
/// its places may have been written.
fn complete(
    updates: BTreeMap<(CommitSequence, u32), Gathered>,
    there: MemberSet,
    cut_short: MemberSet,
) -> Result<Vec<Again>, Undecided> {
    let newest = updates.keys().next_back().map(|&(commit, _)| commit);
    let mut lost = MemberSet::default();
    let mut again = Vec::with_capacity(updates.len());
    for ((commit, _), update) in updates {
        let lacking = update.participants.and(there).without(update.has);
        if lacking.is_empty() {
            again.push(Again {
                commit,
                parts: update.parts,
            });
        } else if Some(commit) != newest {
            lost = lost.or(lacking);
        } else {
            lost = lost.or(lacking.and(cut_short));
        }
    }
    if lost.is_empty() {
        Ok(again)
    } else {
        Err(Undecided::Lost(lost))
    }
}

#[cfg(test)]
mod tests {
    use super::super::anchor::Anchor;
    use super::super::frame::{self, FrameHead, Part};
    use super::super::units::{Area, BLOCK, Incarnation, RING_START, RingLen, RingOffset};
    use super::*;
    use crate::types::{ByteRange, GroupId, IdSource};

    /// A member's journal: its anchor's incarnation and first commit, and its frames, each a commit and the participants
    /// of its updates.
    fn member(number: usize, anchor: (u64, u64), frames: &[(u64, &[u64])]) -> Option<Scanned> {
        let area = Area {
            group: GroupId::random(&IdSource::from_seed(7)),
            member: number,
            ring: RingLen::in_area(RING_START + 8 * BLOCK as u64).unwrap(),
            data: ByteRange::between(0, 1 << 20),
        };
        let anchor = Anchor {
            sequence: 1,
            incarnation: Incarnation(anchor.0),
            first: CommitSequence(anchor.1),
            offset: RingOffset(0),
        };
        let frames = frames.iter().map(|&(commit, updates)| {
            let head = FrameHead {
                incarnation: anchor.incarnation,
                commit: CommitSequence(commit),
                previous: CommitSequence(0),
                place: RingOffset(0),
            };
            let part = |(update, &participants): (u32, &u64)| Part {
                update,
                at: 0,
                participants: MemberSet(participants),
                data: &[0; 512],
            };
            let ours = (0..)
                .zip(updates)
                .filter(|&(_, &participants)| participants >> number & 1 == 1);
            let parts: Vec<_> = ours.map(part).collect();
            let bytes = frame::encode(&area, &head, &parts);
            frame::decode(&area, head.place, bytes.as_slice()).unwrap()
        });
        let frames = frames.collect();
        Some(Scanned {
            anchor,
            frames,
            is_cut_short: false,
        })
    }

    /// Commit and members of each update that is written again.
    fn again(members: Vec<Option<Scanned>>) -> Result<Vec<(u64, Vec<usize>)>, Undecided> {
        let decision = decide(members)?;
        let written = decision.again.into_iter().map(|again| {
            let members = again.parts.iter().map(|&(member, _)| member).collect();
            (again.commit.0, members)
        });
        Ok(written.collect())
    }

    const ANCHOR: (u64, u64) = (1, 5);

    #[test]
    fn an_update_counts_when_every_member_that_is_there_has_its_part() {
        let updates: &[u64] = &[0b011, 0b101];
        let with_all = vec![
            member(0, ANCHOR, &[(5, updates)]),
            member(1, ANCHOR, &[(5, updates)]),
            member(2, ANCHOR, &[(5, updates)]),
        ];
        assert_eq!(
            again(with_all.clone()),
            Ok(vec![(5, vec![0, 1]), (5, vec![0, 2])])
        );
        let mut torn = with_all.clone();
        torn[2] = member(2, ANCHOR, &[]);
        assert_eq!(again(torn), Ok(vec![(5, vec![0, 1])]));
        let mut away = with_all;
        away[2] = None;
        assert_eq!(again(away), Ok(vec![(5, vec![0, 1]), (5, vec![0])]));
    }

    #[test]
    fn what_any_member_knows_to_be_in_place_is_not_written_again() {
        let members = vec![
            member(0, (1, 7), &[(7, &[0b11])]),
            member(1, ANCHOR, &[(5, &[0b110]), (6, &[0b11]), (7, &[0b11])]),
            member(2, ANCHOR, &[(5, &[0b110])]),
        ];
        assert_eq!(again(members), Ok(vec![(7, vec![0, 1])]));
    }

    #[test]
    fn frames_of_an_older_opening_do_not_count_once_one_member_has_the_new_anchor() {
        let members = vec![
            member(0, ANCHOR, &[(5, &[0b11])]),
            member(1, ANCHOR, &[(5, &[0b11])]),
            member(2, (2, 6), &[]),
        ];
        assert_eq!(again(members), Ok(vec![]));
    }

    #[test]
    fn a_part_of_the_last_commit_that_may_stand_where_nothing_can_be_read_is_a_loss() {
        let with_part = member(0, (1, 5), &[(5, &[0b11])]);
        let without = member(1, (1, 5), &[]);
        let cut_off = decide(vec![with_part.clone(), without.clone()]).unwrap();
        assert!(cut_off.again.is_empty());
        let cut_short = without.map(|scanned| Scanned {
            is_cut_short: true,
            ..scanned
        });
        assert_eq!(
            decide(vec![with_part.clone(), cut_short]),
            Err(Undecided::Lost(MemberSet(0b10)))
        );
        assert_eq!(decide(vec![with_part, None]).unwrap().again.len(), 1);
    }

    #[test]
    fn a_part_lacking_before_the_last_commit_is_a_loss_and_without_that_member_it_is_decided() {
        let mut members = vec![
            member(0, ANCHOR, &[(5, &[0b011]), (6, &[0b101])]),
            member(1, ANCHOR, &[]),
            member(2, ANCHOR, &[(6, &[0b101])]),
        ];
        assert_eq!(again(members.clone()), Err(Undecided::Lost(MemberSet(0b010))));
        members[1] = None;
        assert_eq!(again(members), Ok(vec![(5, vec![0]), (6, vec![0, 2])]));
    }

    #[test]
    fn a_member_that_was_not_in_the_opening_which_has_commits_lost_its_anchor() {
        let members = vec![
            member(0, (2, 7), &[(7, &[0b001])]),
            member(1, ANCHOR, &[(5, &[0b010])]),
        ];
        assert_eq!(again(members), Err(Undecided::Lost(MemberSet(0b010))));
    }

    #[test]
    fn the_next_opening_is_above_all_anchors_and_frames() {
        let idle = vec![member(0, ANCHOR, &[]), None, member(2, (1, 4), &[])];
        assert_eq!(decide(idle).unwrap().last, CommitSequence(5));
        let torn = vec![member(0, ANCHOR, &[(8, &[0b11])]), member(1, ANCHOR, &[])];
        assert_eq!(decide(torn).unwrap().last, CommitSequence(8));
    }

    #[test]
    fn nothing_is_decided_without_members_or_between_two_openings_of_one_rank() {
        assert_eq!(decide(vec![None, None]), Err(Undecided::NoMember));
        let members = vec![member(0, (1, 5), &[]), member(1, (2, 5), &[])];
        assert_eq!(decide(members), Err(Undecided::Contradiction));
    }
}
