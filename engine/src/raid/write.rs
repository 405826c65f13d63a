//! Writing to all copies.
//!
//! Order: claim (shared) → intent durable → data to every member that is written → failed members taken out, durably →
//! answer. Space that was never written goes another way (`first_use`).

use smallvec::SmallVec;

use super::group::{Group, zeros};
use super::membership::Members;
use super::regions::WriteTicket;
use crate::device::{DeviceHandle, Io, Request};
use crate::io::range_lock::Mode;
use crate::io::{BufSlice, IoError};
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
        let claim = self.lock.claim(part.range, Mode::Shared).await;
        if self.regions.all_written(part.range) {
            return self.write_parts(part.range, &[part]).await;
        }
        drop(claim);
        self.write_first_use(part).await
    }

    /// Writes parts that lie within `range`, with intent. The caller holds a claim on `range`.
    pub(super) async fn write_parts(&self, range: ByteRange, parts: &[Part]) -> Result<(), IoError> {
        let _in_use = if self.layout.level.is_redundant() {
            Some(self.mark_intent(range).await?)
        } else {
            None
        };
        let members = self.members.load_full();
        let mut operations: SmallVec<[(usize, Io); 4]> = SmallVec::new();
        for part in parts {
            for piece in self.layout.pieces(part.range) {
                for member in self.layout.column_members(piece.first_member) {
                    let Some(device) = members.writable(member) else {
                        continue;
                    };
                    let at = members.record.members[member].data_start + piece.member_at;
                    operations.push((member, device.start(part.request(device, at, piece.range))));
                }
            }
        }
        self.answer_write(&members, &mut operations).await
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
