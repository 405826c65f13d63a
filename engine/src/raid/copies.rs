//! Reading from copies: from one of them in turn, and from the others where it cannot give what stands there.
//!
//! Invariant: what a copy could not give, and another could, is written anew before the read is answered, or the member
//! is taken out.

use std::sync::Arc;

use smallvec::SmallVec;

use super::checks::{self, Read, Unread};
use super::group::Group;
use super::layout::Piece;
use super::membership::Members;
use crate::device::{DeviceError, DeviceHandle, Io, Request};
use crate::io::range_lock::Mode;
use crate::io::{IoBuf, IoError, Segment, Segments};
use crate::types::ByteRange;

/// Stretch of a member that is read from one copy before the next copy takes its turn.
const READ_STRETCH: u64 = 1 << 20;

/// What the copies of a piece hold between them.
pub(super) struct Found {
    /// Zeros where it is `lost`.
    pub(super) data: IoBuf,
    /// The member that gave all of it.
    pub(super) good: Option<usize>,
    /// Members that were asked for something and could not give it.
    wrong: SmallVec<[usize; 4]>,
    /// Member addresses of what nobody could give.
    pub(super) lost: SmallVec<[ByteRange; 1]>,
    /// A device that was asked, or should have been, failed: it may have what is lost.
    pub(super) has_failed: bool,
    why: String,
}

impl Found {
    fn put(&mut self, piece: &Piece, at: u64, bytes: &[u8]) {
        let offset = usize::try_from(at - piece.member_at).expect("within the piece");
        self.data.as_mut_slice()[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn into_error(self) -> IoError {
        IoError::Device(self.why)
    }
}

/// Blocks that do not fit on any copy, in a region where that is no wonder: what one of them holds will do.
struct Tolerated {
    is_suspect: bool,
    blocks: SmallVec<[u64; 2]>,
    /// Those of which a copy tells that they were lost before.
    not: SmallVec<[u64; 2]>,
}

impl Tolerated {
    fn has(&self, block: u64) -> bool {
        self.blocks.contains(&block) && !self.not.contains(&block)
    }
}

impl Group {
    /// Reads written space.
    pub(super) async fn read_copies(&self, range: ByteRange, out: &mut Segments) -> Result<(), IoError> {
        let members = self.members.load_full();
        let mut reads: SmallVec<[(Piece, Option<Read>); 1]> = self
            .layout
            .pieces(range)
            .map(|piece| (piece, self.start_copy(&members, &piece)))
            .collect();
        for (piece, read) in &mut reads {
            let read = match read {
                Some(read) => self.end_copy(&members, piece, read).await?,
                None => {
                    return Err(IoError::GroupUnavailable {
                        why: "no member holds these blocks",
                    });
                }
            };
            out.push(Segment::Data(read.into_slice()));
        }
        Ok(())
    }

    fn start_copy(&self, members: &Members, piece: &Piece) -> Option<Read> {
        let column = self.layout.column_members(piece.first_member);
        let usable = |member: &usize| {
            let device = members.readable(*member);
            device.is_some_and(|device| device.failure().is_none())
        };
        let count = column.clone().filter(usable).count();
        let turn = usize::try_from(piece.member_at / READ_STRETCH)
            .expect("fits 64 bits")
            .checked_rem(count)?;
        let member = column.filter(usable).nth(turn)?;
        Some(members.start_read(member, members.readable(member)?, piece.member_range()))
    }

    async fn end_copy(&self, members: &Members, piece: &Piece, read: &mut Read) -> Result<IoBuf, IoError> {
        match members.end_read(read).await {
            Ok(data) => Ok(data),
            Err(unread) => self.read_mended(piece, &unread).await,
        }
    }

    /// Reads a piece of which one copy could not be read, and mends that.
    async fn read_mended(&self, piece: &Piece, unread: &Unread) -> Result<IoBuf, IoError> {
        let wide = self.in_blocks(piece);
        // A write that runs may be why a block does not fit: under the claim none does.
        let _claim = self.lock.claim(wide.range, Mode::Exclusive).await;
        let mut out = IoBuf::zeroed(usize::try_from(piece.range.len()).expect("a request fits memory"));
        // It may have been trimmed since the read began.
        for (run, _) in self.regions.runs(wide.range).filter(|(_, written)| *written) {
            let part = Piece {
                range: run,
                first_member: piece.first_member,
                member_at: wide.member_at + (run.start() - wide.range.start()),
            };
            let data = self.read_and_mend(&part, unread).await?;
            let Some(wanted) = run.intersection(piece.range) else {
                continue;
            };
            let place = |at: u64, of: ByteRange| usize::try_from(at - of.start()).expect("within a request");
            let from = place(wanted.start(), run)..place(wanted.end(), run);
            let into = place(wanted.start(), piece.range)..place(wanted.end(), piece.range);
            out.as_mut_slice()[into].copy_from_slice(&data.as_slice()[from]);
        }
        Ok(out)
    }

    async fn read_and_mend(&self, piece: &Piece, unread: &Unread) -> Result<IoBuf, IoError> {
        loop {
            let members = self.members.load_full();
            let found = self.find(&members, piece).await;
            if !found.lost.is_empty() {
                // A member may have come in sync since, or a device have taken a failed one's place.
                if Arc::ptr_eq(&self.members.load_full(), &members) {
                    tracing::warn!(group = %self.number(), why = unread.why(), range = %piece.range, "data is lost");
                    return Err(found.into_error());
                }
                continue;
            }
            // The data is right whether or not this succeeds; what fails shows in the group's state.
            let _ = self.mend(&members, piece, &found).await;
            return Ok(found.data);
        }
    }

    async fn mend(&self, members: &Members, piece: &Piece, found: &Found) -> Result<(), IoError> {
        let values = self.values_of(piece.member_at, found.data.as_slice());
        let data = IoBuf::from_slice(found.data.as_slice()).into_slice();
        let mut operations: SmallVec<[(usize, Io); 4]> = SmallVec::new();
        let mut mended: SmallVec<[&DeviceHandle; 4]> = SmallVec::new();
        for &member in &found.wrong {
            let device = members
                .readable(member)
                .filter(|device| device.failure().is_none());
            let Some(device) = device else { continue };
            tracing::warn!(group = %self.number(), member, at = piece.member_at, why = found.why, "written anew");
            let at = members.record.members[member].data_start + piece.member_at;
            let data = data.clone();
            members.note(member, piece.member_at, values.as_ref());
            operations.push((member, device.start(Request::Write { at, data, fua: false })));
            mended.push(device);
        }
        self.answer_write(members, &mut operations).await?;
        mended.iter().for_each(|device| device.note_mended());
        Ok(())
    }

    /// A piece in whole blocks, where the group has checksums.
    pub(super) fn in_blocks(&self, piece: &Piece) -> Piece {
        if self.checks.is_none() {
            return *piece;
        }
        let range = checks::round_to_blocks(piece.range);
        Piece {
            range,
            first_member: piece.first_member,
            // Units are whole blocks, so that the piece stays on its column.
            member_at: piece.member_at - (piece.range.start() - range.start()),
        }
    }

    /// What stands in a piece, from as many copies as it takes. The caller holds an exclusive claim on it.
    pub(super) async fn find(&self, members: &Members, piece: &Piece) -> Found {
        let mut found = Found {
            data: IoBuf::zeroed(usize::try_from(piece.range.len()).expect("a request fits memory")),
            good: None,
            wrong: SmallVec::new(),
            lost: SmallVec::from_slice(&[piece.member_range()]),
            has_failed: false,
            why: "no copy can be read".into(),
        };
        let mut tolerated = Tolerated {
            is_suspect: self.regions.is_suspect(piece.range),
            blocks: SmallVec::new(),
            not: SmallVec::new(),
        };
        let mut failed = SmallVec::<[usize; 4]>::new();
        for member in self.layout.column_members(piece.first_member) {
            if found.lost.is_empty() {
                break;
            }
            let Some(device) = members.readable(member) else {
                continue;
            };
            let wants_all = found.lost.as_slice() == [piece.member_range()];
            self.ask(members, piece, member, &mut found, &mut tolerated).await;
            if found.lost.is_empty() && wants_all {
                found.good = Some(member);
            } else if !found.lost.is_empty() {
                found.wrong.push(member);
            }
            if device.failure().is_some() {
                found.has_failed = true;
                failed.push(member);
            }
        }
        if tolerated.is_suspect {
            found.lost.retain(|range| !tolerated.has(range.start()));
            if !tolerated.blocks.is_empty() {
                let at = piece.member_at;
                tracing::warn!(group = %self.number(), at, "blocks may be torn: a crash came while they were written");
            }
        }
        if !failed.is_empty() {
            // What was found is right whether or not this succeeds; what fails shows in the group's state.
            let _ = self.drop_members(members, &failed).await;
        }
        found
    }

    /// Asks a member for what is still lost.
    async fn ask(
        &self,
        members: &Members,
        piece: &Piece,
        member: usize,
        found: &mut Found,
        tolerated: &mut Tolerated,
    ) {
        let mut ranges: Vec<ByteRange> = std::mem::take(&mut found.lost).into_iter().rev().collect();
        while let Some(range) = ranges.pop() {
            let Some(device) = members
                .readable(member)
                .filter(|device| device.failure().is_none())
            else {
                found.lost.push(range);
                continue;
            };
            let mut read = members.start_read(member, device, range);
            let unread = match members.end_read(&mut read).await {
                Ok(data) => {
                    found.put(piece, range.start(), data.as_slice());
                    continue;
                }
                Err(unread) => unread,
            };
            found.why = unread.why();
            match unread {
                Unread::Failed(DeviceError::Medium) if range.len() > checks::BLOCK => {
                    let blocks: Vec<ByteRange> = range.split_at_multiples(checks::BLOCK).collect();
                    ranges.extend(blocks.into_iter().rev());
                }
                Unread::Failed(_) => found.lost.push(range),
                Unread::Unfit { unfit, blocks } => {
                    tolerated.not.extend(unfit.lost.iter().copied());
                    let data = blocks.as_slice().chunks_exact(checks::BLOCK_LEN);
                    for (block, data) in range.split_at_multiples(checks::BLOCK).zip(data) {
                        let is_unfit = unfit.at.contains(&block.start());
                        let is_tolerated = tolerated.is_suspect && !tolerated.blocks.contains(&block.start());
                        if !is_unfit || is_tolerated {
                            found.put(piece, block.start(), data);
                        }
                        if is_unfit {
                            // Where a crash cut a write off it is not the device's doing.
                            if !tolerated.is_suspect {
                                device.note_unfit();
                            }
                            tolerated.blocks.push(block.start());
                            found.lost.push(block);
                        }
                    }
                }
            }
        }
    }
}
