//! Writing to all copies.
//!
//! Order: claim (shared) → intent durable → data to every member that is written → failed members taken out, durably →
//! answer. Space that was never written goes another way (`first_use`). With checksums, only whole blocks are written: what
//! is less is read first, exclusively.

use smallvec::SmallVec;

use super::checks::{self, Values};
use super::group::{Group, zeros};
use super::layout::Piece;
use super::membership::Members;
use super::regions::WriteTicket;
use crate::device::{DeviceHandle, Io, Request};
use crate::io::range_lock::Mode;
use crate::io::{BufSlice, IoBuf, IoError};
use crate::types::ByteRange;

/// What is to stand in a range afterwards.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// As many bytes as the range has.
    Data(BufSlice),
    /// Zeros; the range is no longer than a granule.
    Zeros,
}

/// One range of a write.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) range: ByteRange,
    pub(super) content: Content,
}

/// Ends the use of the write's regions, whatever became of the write.
pub(super) struct InUse<'a> {
    group: &'a Group,
    ticket: WriteTicket,
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.group.regions.end_write(&self.ticket);
    }
}

impl Group {
    /// Writes `data` at `at`; whole blocks within the capacity. Writes that overlap must not run together: the volume
    /// sees to that.
    pub async fn write(&self, at: u64, data: BufSlice, fua: bool) -> Result<(), IoError> {
        self.foreground.note();
        let range = ByteRange::between(at, at + data.len() as u64);
        self.write_part(Part {
            range,
            content: Content::Data(data),
        })
        .await?;
        if fua { self.flush().await } else { Ok(()) }
    }

    pub(super) async fn write_part(&self, part: Part) -> Result<(), IoError> {
        self.check_running()?;
        if self.layout.sums() > 0 {
            return self.write_rows(part).await;
        }
        if self.checks.is_some() && !checks::is_blocks(part.range) {
            return self.write_part_of_blocks(part).await;
        }
        let claim = self.lock.claim(part.range, Mode::Shared).await;
        if self.regions.all_written(part.range) {
            return self.write_parts(part.range, &[part]).await;
        }
        drop(claim);
        self.write_first_use(part).await
    }

    /// Writes parts that lie within `range`, with intent. The caller holds a claim on `range`.
    pub(super) async fn write_parts(&self, range: ByteRange, parts: &[Part]) -> Result<(), IoError> {
        self.has_room_for_checks().await?;
        let _in_use = if self.layout.level.is_redundant() || self.checks.is_some() {
            Some(self.mark_intent(range).await?)
        } else {
            None
        };
        let members = self.members.load_full();
        let mut operations: SmallVec<[(usize, Io); 4]> = SmallVec::new();
        for part in parts {
            for piece in self.layout.pieces(part.range) {
                let values = self.values_of_part(part, &piece);
                for member in self.layout.column_members(piece.first_member) {
                    let Some(device) = members.writable(member) else {
                        continue;
                    };
                    let at = members.record.members[member].data_start + piece.member_at;
                    members.note(member, piece.member_at, values.as_ref());
                    operations.push((member, device.start(part.request(device, at, piece.range))));
                }
            }
        }
        self.answer_write(&members, &mut operations).await
    }

    fn values_of_part(&self, part: &Part, piece: &Piece) -> Option<Values> {
        match &part.content {
            Content::Zeros => self.values_of_zeros(piece.member_range()),
            Content::Data(_) => {
                self.checks.as_ref()?;
                self.values_of(piece.member_at, part.data(piece.range).as_slice())
            }
        }
    }

    /// Writes what is not whole blocks, of which there are checksums: with what stands around it.
    async fn write_part_of_blocks(&self, part: Part) -> Result<(), IoError> {
        let span = self.regions.round_to_granules(part.range);
        let _claim = self.lock.claim(span, Mode::Exclusive).await;
        let part = self.with_whole_blocks(&part).await?;
        if self.regions.all_written(part.range) {
            return self.write_parts(part.range, &[part]).await;
        }
        self.write_first_use_claimed(part).await
    }

    async fn with_whole_blocks(&self, part: &Part) -> Result<Part, IoError> {
        let range = checks::round_to_blocks(part.range);
        let len = |range: ByteRange| usize::try_from(range.len()).expect("a request fits memory");
        let mut whole = IoBuf::zeroed(len(range));
        let edges = range.split_at_multiples(checks::BLOCK);
        for edge in edges.filter(|edge| !part.range.covers(*edge)) {
            if self.regions.all_written(edge) {
                let old = self.read_block(edge).await?;
                let at = usize::try_from(edge.start() - range.start()).expect("within a request");
                whole.as_mut_slice()[at..at + old.len()].copy_from_slice(old.as_slice());
            }
        }
        let at = usize::try_from(part.range.start() - range.start()).expect("within a block");
        let into = &mut whole.as_mut_slice()[at..at + len(part.range)];
        match &part.content {
            Content::Zeros => into.fill(0),
            Content::Data(data) => into.copy_from_slice(data.as_slice()),
        }
        Ok(Part {
            range,
            content: Content::Data(whole.into_slice()),
        })
    }

    /// A block, which the caller holds exclusively.
    async fn read_block(&self, block: ByteRange) -> Result<IoBuf, IoError> {
        let members = self.members.load_full();
        let piece = self.layout.pieces(block).next().expect("a block is not empty");
        let found = self.find(&members, &piece).await;
        if found.lost.is_empty() {
            Ok(found.data)
        } else {
            Err(found.into_error())
        }
    }

    pub(super) async fn mark_intent(&self, range: ByteRange) -> Result<InUse<'_>, IoError> {
        let ticket = self.regions.begin_write(range);
        let needs_commit = ticket.needs_commit;
        let in_use = InUse { group: self, ticket };
        if needs_commit {
            self.commit_log().await?;
        }
        Ok(in_use)
    }

    /// Waits for the operations of a write and does what must be durable before it is answered.
    pub(super) async fn answer_write(
        &self,
        members: &Members,
        operations: &mut [(usize, Io)],
    ) -> Result<(), IoError> {
        let mut failed = SmallVec::<[usize; 4]>::new();
        self.settle_all(members, operations, &mut failed).await;
        if failed.is_empty() {
            return self.wait_durable(members.record.membership.generation).await;
        }
        self.drop_members(members, &failed).await
    }
}

impl Part {
    /// What of it lies in `range`, which lies within it.
    pub(super) fn within(&self, range: ByteRange) -> Self {
        let content = match &self.content {
            Content::Data(_) => Content::Data(self.data(range)),
            Content::Zeros => Content::Zeros,
        };
        Self { range, content }
    }

    /// The bytes for `range`, which lies within the part.
    pub(super) fn data(&self, range: ByteRange) -> BufSlice {
        match &self.content {
            Content::Data(data) => {
                let offset = usize::try_from(range.start() - self.range.start()).expect("within the data");
                let len = usize::try_from(range.len()).expect("within the data");
                if len == data.len() {
                    data.clone()
                } else {
                    data.cut(offset, len)
                }
            }
            Content::Zeros => zeros(range.len()),
        }
    }

    /// The operation that puts `piece` (group addresses within the part) at `at` on a member.
    fn request(&self, device: &DeviceHandle, at: u64, piece: ByteRange) -> Request {
        match &self.content {
            Content::Zeros if device.info().zeroes_fast => Request::Zero {
                range: ByteRange::between(at, at + piece.len()),
                unmap: false,
            },
            Content::Data(_) | Content::Zeros => Request::Write {
                at,
                data: self.data(piece),
                fua: false,
            },
        }
    }
}
