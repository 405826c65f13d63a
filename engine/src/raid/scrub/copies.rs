//! Scrubbing where members are copies of each other, or hold what nobody else has.

use smallvec::SmallVec;

use super::blocks;
use super::findings::{BLOCK, ScrubFindings, ScrubMode};
use crate::device::{Io, Request};
use crate::io::{BufSlice, IoError};
use crate::raid::checks::{Read, Unread};
use crate::raid::group::Group;
use crate::raid::layout::Piece;
use crate::raid::membership::Members;

/// What a member in sync has.
enum Copy {
    Is(BufSlice),
    Unreadable,
    /// It was read, and does not fit its checksum.
    Unfit,
}

impl Copy {
    fn content(&self) -> Option<&BufSlice> {
        match self {
            Self::Is(content) => Some(content),
            Self::Unreadable | Self::Unfit => None,
        }
    }
}

type Copies = SmallVec<[(usize, Copy); 4]>;

impl Group {
    /// Compares the copies of a piece. The caller holds a claim on it.
    pub(super) async fn scrub_copies(
        &self,
        piece: &Piece,
        mode: ScrubMode,
        findings: &mut ScrubFindings,
    ) -> Result<(), IoError> {
        let members = self.members.load_full();
        let copies = self.read_every_copy(&members, piece).await;
        if copies.len() < self.layout.copies().min(2) {
            findings.left_out += piece.range.len();
            return Ok(());
        }
        if all_equal(&copies) {
            findings.checked += blocks(piece.range.len());
            return Ok(());
        }
        for range in piece.range.split_at_multiples(BLOCK) {
            let block = Piece {
                range,
                member_at: piece.member_at + (range.start() - piece.range.start()),
                ..*piece
            };
            self.scrub_block(&block, mode, findings).await?;
        }
        Ok(())
    }

    /// The same, of a block: what is wrong there is counted, and mended where that is wanted.
    async fn scrub_block(
        &self,
        block: &Piece,
        mode: ScrubMode,
        findings: &mut ScrubFindings,
    ) -> Result<(), IoError> {
        let members = self.members.load_full();
        let copies = self.read_every_copy(&members, block).await;
        let is_unreadable = |copy: &Copy| matches!(copy, Copy::Unreadable);
        let unreadable = copies.iter().filter(|(_, copy)| is_unreadable(copy)).count() as u64;
        findings.checked += 1;
        findings.unreadable += unreadable;
        let right = right_copy(&copies);
        let mut wrong: SmallVec<[usize; 4]> = SmallVec::new();
        for (member, copy) in &copies {
            if right.is_none() || !is_same(copy.content(), right) {
                wrong.push(*member);
                let unreadable = is_unreadable(copy);
                findings.list(Self::scrub_place(&members, *member, block.member_at, unreadable));
            }
        }
        let mismatched = u64::from(wrong.len() as u64 > unreadable);
        findings.mismatched += mismatched;
        let Some(right) = right else {
            findings.unrepairable += wrong.len() as u64;
            return Ok(());
        };
        if mode == ScrubMode::Repair && !wrong.is_empty() {
            if copies.len() < self.layout.copies() && !is_certain(&copies, right, self.layout.copies()) {
                // Who is out may know.
                findings.unrepairable += wrong.len() as u64;
                return Ok(());
            }
            let _in_use = self.mark_intent(block.range).await?;
            self.write_copy(&members, block, &copies, right).await?;
            findings.repaired += mismatched + unreadable;
        }
        Ok(())
    }

    /// Writes what is right to every copy that has something else, or that is not read yet.
    async fn write_copy(
        &self,
        members: &Members,
        block: &Piece,
        copies: &Copies,
        right: &BufSlice,
    ) -> Result<(), IoError> {
        let values = self.values_of(block.member_at, right.as_slice());
        let mut operations: SmallVec<[(usize, Io); 4]> = SmallVec::new();
        for member in self.layout.column_members(block.first_member) {
            let has_it = |(of, copy): &(usize, Copy)| *of == member && is_same(copy.content(), Some(right));
            let Some(device) = members.writable(member) else {
                continue;
            };
            if !copies.iter().any(has_it) {
                let at = members.record.members[member].data_start + block.member_at;
                let data = right.clone();
                members.note(member, block.member_at, values.as_ref());
                operations.push((member, device.start(Request::Write { at, data, fua: false })));
            }
        }
        self.answer_write(members, &mut operations).await
    }

    /// A piece from every copy in sync. A member whose device fails is taken out and has none.
    async fn read_every_copy(&self, members: &Members, piece: &Piece) -> Copies {
        let mut reads: SmallVec<[Read; 4]> = SmallVec::new();
        for member in self.layout.column_members(piece.first_member) {
            if let Some(device) = members.readable(member) {
                reads.push(members.start_read(member, device, piece.member_range()));
            }
        }
        let mut copies = Copies::new();
        let mut failed = SmallVec::<[usize; 4]>::new();
        for read in &mut reads {
            let member = read.member;
            let device = members.readable(member).expect("the read was started on it");
            match members.end_read(read).await {
                Ok(buf) => copies.push((member, Copy::Is(buf.into_slice()))),
                Err(_) if device.failure().is_some() => failed.push(member),
                Err(Unread::Unfit { .. }) => copies.push((member, Copy::Unfit)),
                Err(Unread::Failed(_)) => copies.push((member, Copy::Unreadable)),
            }
        }
        if !failed.is_empty() {
            // The others are compared whether or not this succeeds; what fails shows in the group's state.
            let _ = self.drop_members(members, &failed).await;
        }
        copies
    }
}

fn is_same(one: Option<&BufSlice>, other: Option<&BufSlice>) -> bool {
    one.map(BufSlice::as_slice) == other.map(BufSlice::as_slice)
}

/// Whether all could be read and are the same.
fn all_equal(copies: &Copies) -> bool {
    let first = copies.first().and_then(|(_, copy)| copy.content());
    first.is_some() && copies.iter().all(|(_, copy)| is_same(copy.content(), first))
}

/// Whether nobody of `all` copies could outvote it: more than half of them have it, or no other content can be read.
fn is_certain(copies: &Copies, right: &BufSlice, all: usize) -> bool {
    let readable = || copies.iter().filter_map(|(_, copy)| copy.content());
    let same = readable()
        .filter(|other| other.as_slice() == right.as_slice())
        .count();
    same * 2 > all || same == readable().count()
}

/// The content that counts: what most copies have, and of those that are had equally often the one that the first copy
/// has. `None` where none can be read.
fn right_copy(copies: &Copies) -> Option<&BufSlice> {
    let readable = || copies.iter().filter_map(|(_, copy)| copy.content());
    let votes = |content: &BufSlice| {
        readable()
            .filter(|other| other.as_slice() == content.as_slice())
            .count()
    };
    // Of several with the greatest number, `max_by_key` takes the last.
    readable().rev().max_by_key(|content| votes(content))
}
