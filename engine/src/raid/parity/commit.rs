//! Group commit of the journal: updates of many rows that wait for one become durable together.
//!
//! Invariants: an update's parts are durable on every member that is in sync, before any of its places is written; who
//! has none is durably out of sync by then. An update names all members that it has new content for, also one that went
//! out meanwhile: came it back in sync, by a crash before its going was durable, the update would not count, and no place
//! was written. A commit that was begun is carried through, or the group stops.

use std::sync::{Arc, OnceLock};

use smallvec::SmallVec;

use super::journal::frame::{self, Part};
use super::journal::ring::{Begun, NotBegun};
use super::journal::units::{CommitSequence, MemberSet, RING_START};
use super::update::Written;
use super::{area, journal_range, ring_len};
use crate::device::{Io, Request};
use crate::io::IoError;
use crate::planted::{self, Planted};
use crate::raid::commit::Turn;
use crate::raid::group::Group;
use crate::raid::membership::Members;

/// Bytes that a part takes in a frame beside its content, and a frame beside its parts: no less than it is.
const OVERHEAD: u64 = 512;

/// An update that waits for a commit.
pub(super) struct Waiting {
    parts: SmallVec<[Written; 4]>,
    carried: Arc<OnceLock<CommitSequence>>,
}

impl Waiting {
    fn participants(&self) -> MemberSet {
        let parts = self.parts.iter();
        parts.fold(MemberSet::default(), |set, part| set.with(part.member))
    }
}

/// An update in the journal, whose places are to be written.
pub(super) struct InJournal<'a> {
    group: &'a Group,
    commit: CommitSequence,
    in_place: bool,
}

impl InJournal<'_> {
    /// Its places were written.
    pub(super) fn in_place(mut self) {
        self.in_place = true;
        let parity = self.group.parity();
        let mut ring = parity.ring();
        ring.in_place(self.commit);
        if ring.is_half_full() {
            parity.fills.notify_one();
        }
    }
}

impl Drop for InJournal<'_> {
    fn drop(&mut self) {
        if !self.in_place {
            // It would count at a start, and who writes to its row until then must not.
            self.group.stop("an update was cut off");
        }
        self.group.parity().settled.notify_waiters();
    }
}

/// A commit that is carried: ends its turn. Where it is not carried through, parts of it may be durable, and would count
/// at a start.
struct Carrying<'a> {
    group: &'a Group,
    complete: bool,
}

impl Drop for Carrying<'_> {
    fn drop(&mut self) {
        if !self.complete {
            self.group.stop("its journal cannot be written");
        }
        self.group.parity().turns.end(self.complete);
    }
}

/// Who waits for its update to be carried. Dropped before that, it would be carried all the same, and its places not
/// written.
struct Asking<'a> {
    group: &'a Group,
    is_answered: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.group.stop("an update was cut off");
        }
    }
}

impl Group {
    /// Makes an update durable in the journal.
    pub(super) async fn commit_parts(&self, parts: &[Written]) -> Result<InJournal<'_>, IoError> {
        let parity = self.parity();
        let mut asking = Asking {
            group: self,
            is_answered: false,
        };
        let carried = Arc::new(OnceLock::new());
        parity.waiting().push(Waiting {
            parts: parts.into(),
            carried: Arc::clone(&carried),
        });
        loop {
            let needed = parity.turns.needed();
            if let Some(&commit) = carried.get() {
                asking.is_answered = true;
                let in_place = false;
                return Ok(InJournal {
                    group: self,
                    commit,
                    in_place,
                });
            }
            self.check_running()?;
            // Who is carried must neither wait for, nor do, another commit: that may wait for room until its places are
            // written.
            let is_carried = || carried.get().is_some();
            if let Turn::Mine = parity.turns.wait(needed, is_carried).await {
                let mut carrying = Carrying {
                    group: self,
                    complete: false,
                };
                self.carry().await?;
                carrying.complete = true;
            }
        }
    }

    /// Carries as many of the waiting updates as fit a commit.
    async fn carry(&self) -> Result<(), IoError> {
        let updates = self.take_updates();
        if updates.is_empty() {
            return Ok(());
        }
        self.carry_updates(&updates).await
    }

    fn take_updates(&self) -> Vec<Waiting> {
        let longest = ring_len(&self.layout).longest_frame();
        let mut lens = [OVERHEAD; 64];
        let mut waiting = self.parity().waiting();
        let fitting = waiting.iter().take_while(|update| {
            for part in &update.parts {
                lens[part.member] += part.data.len() as u64 + OVERHEAD;
            }
            update.parts.iter().all(|part| lens[part.member] <= longest)
        });
        // One alone always fits: a ring holds many units.
        let count = fitting.count().max(1).min(waiting.len());
        waiting.drain(..count).collect()
    }

    async fn carry_updates(&self, updates: &[Waiting]) -> Result<(), IoError> {
        let BegunFrames {
            members,
            begun,
            frames,
        } = self.begin_commit(updates).await?;
        let mut writes: SmallVec<[(usize, Io); 4]> = SmallVec::new();
        for ((member, parts), head) in frames.iter().zip(&begun.heads) {
            let device = members
                .writable(*member)
                .filter(|_| !planted::is(Planted::NoJournal));
            let Some(device) = device else { continue };
            let start = journal_range(&members.record, *member).start() + RING_START;
            let data = frame::encode(&area(&members.record, *member), head, parts);
            let at = start + head.place.0;
            writes.push((*member, device.start(Request::Write { at, data, fua: true })));
        }
        // Also waits for those who went out before: they are named, and have no part.
        self.answer_write(&members, &mut writes).await?;
        self.parity().ring().durable(begun.commit);
        for update in updates {
            // Each update is carried once.
            let _ = update.carried.set(begun.commit);
        }
        Ok(())
    }

    async fn begin_commit<'a>(&self, updates: &'a [Waiting]) -> Result<BegunFrames<'a>, IoError> {
        loop {
            match self.try_begin(updates) {
                Ok(begun) => return Ok(begun),
                Err(NotBegun::Full) => self.free_journal().await?,
                Err(error) => {
                    tracing::error!(group = %self.number(), %error, "a commit of the journal cannot begin");
                    return Err(IoError::GroupUnavailable {
                        why: "its journal cannot be written",
                    });
                }
            }
        }
    }

    fn try_begin<'a>(&self, updates: &'a [Waiting]) -> Result<BegunFrames<'a>, NotBegun> {
        let count = u32::try_from(updates.len()).expect("a commit carries few updates");
        let mut ring = self.parity().ring();
        // Seen while the ring is held: who goes out is taken from the members before from the ring, and who comes gets a
        // ring before it is one of the members. So whoever is written here has the ring of the device that is written.
        let members = self.members.load_full();
        let frames = frames_of(&members, updates);
        let asked: Vec<(usize, &[Part<'_>])> = frames
            .iter()
            .map(|(member, parts)| (*member, parts.as_slice()))
            .collect();
        let begun = ring.begin(count, &asked)?;
        drop(asked);
        Ok(BegunFrames {
            members,
            begun,
            frames,
        })
    }
}

/// A commit with its frames, by member.
struct BegunFrames<'a> {
    members: Arc<Members>,
    begun: Begun,
    frames: Frames<'a>,
}

type Frames<'a> = Vec<(usize, Vec<Part<'a>>)>;

/// What each member that is written gets.
fn frames_of<'a>(members: &Members, updates: &'a [Waiting]) -> Frames<'a> {
    let mut frames: Frames<'a> = Vec::new();
    for (number, update) in (0..).zip(updates) {
        let participants = update.participants();
        for part in update
            .parts
            .iter()
            .filter(|part| members.writable(part.member).is_some())
        {
            let of_member = frames.iter().position(|(member, _)| *member == part.member);
            let of_member = of_member.unwrap_or_else(|| {
                frames.push((part.member, Vec::new()));
                frames.len() - 1
            });
            frames[of_member].1.push(Part {
                update: number,
                at: part.at,
                participants,
                data: part.data.as_slice(),
            });
        }
    }
    frames
}
