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
//! even in the incarnation that has commits, that member lost what it had confirmed, and is to be dropped.
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
    let again = complete(updates, there)?;
    Ok(Decision { again, last })
}

/// The updates that lack nothing.
fn complete(
    updates: BTreeMap<(CommitSequence, u32), Gathered>,
    there: MemberSet,
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
        }
    }
    if lost.is_empty() {
        Ok(again)
    } else {
        Err(Undecided::Lost(lost))
    }
}
