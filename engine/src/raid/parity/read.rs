//! Reading: from the member that has the data, or computed from the others where it cannot give it.

use smallvec::SmallVec;

use super::row::{ColumnSet, Stretch};
use crate::device::{Completion, Io, Request};
use crate::io::range_lock::Mode;
use crate::io::{BufSlice, IoBuf, IoError, Segment, Segments};
use crate::raid::group::Group;
use crate::raid::layout::Piece;
use crate::raid::membership::Members;
use crate::types::ByteRange;

/// What was begun for a part of a read.
enum Begun {
    Zeros(u64),
    Read {
        stretch: Stretch,
        member: usize,
        io: Io,
    },
    /// Its member is not read.
    Lost(Stretch, usize),
}

impl Group {
    /// Reads `range`, which lies within the capacity and is made of whole blocks.
    pub(in crate::raid) async fn read_rows(&self, range: ByteRange) -> Result<Segments, IoError> {
        let members = self.members.load_full();
        let mut begun: SmallVec<[Begun; 2]> = SmallVec::new();
        for piece in self.layout.pieces(range) {
            for (run, written) in self.regions.runs(piece.member_range()) {
                begun.push(match written {
                    true => self.begin_read(&members, &piece, run),
                    false => Begun::Zeros(run.len()),
                });
            }
        }
        let mut out = Segments::new();
        for begun in &mut begun {
            out.push(match begun {
                Begun::Zeros(len) => Segment::Zero(*len),
                Begun::Lost(stretch, member) => Segment::Data(self.compute(*stretch, *member, false).await?),
                Begun::Read { stretch, member, io } => {
                    Segment::Data(self.end_read(&members, *stretch, *member, io).await?)
                }
            });
        }
        Ok(out)
    }

    /// The range, addresses of the group, in runs of written and never written space.
    pub(in crate::raid) fn written_runs_of_rows(
        &self,
        range: ByteRange,
    ) -> impl Iterator<Item = (ByteRange, bool)> + '_ {
        self.layout.pieces(range).flat_map(move |piece| {
            let runs = self.regions.runs(piece.member_range());
            runs.map(move |(run, written)| {
                let start = piece.range.start() + (run.start() - piece.member_at);
                (ByteRange::between(start, start + run.len()), written)
            })
        })
    }

    fn begin_read(&self, members: &Members, piece: &Piece, run: ByteRange) -> Begun {
        let member = piece.first_member;
        let stretch = Stretch {
            row: run.start() / self.layout.unit,
            range: run,
        };
        let device = members
            .readable(member)
            .filter(|device| device.failure().is_none());
        let Some(device) = device else {
            return Begun::Lost(stretch, member);
        };
        let at = members.record.members[member].data_start + run.start();
        let buf = IoBuf::new(stretch.len());
        let io = device.start(Request::Read { at, buf });
        Begun::Read { stretch, member, io }
    }

    async fn end_read(
        &self,
        members: &Members,
        stretch: Stretch,
        member: usize,
        io: &mut Io,
    ) -> Result<BufSlice, IoError> {
        let device = members.readable(member).expect("the read was started on it");
        let completion = (&mut *io).await;
        match device.settle(io, completion) {
            Completion {
                result: Ok(()),
                buf: Some(buf),
            } => Ok(buf.into_slice()),
            _ if device.failure().is_some() => {
                // What is computed is right whether or not this succeeds; what fails shows in the group's state.
                let _ = self.drop_members(members, &[member]).await;
                self.compute(stretch, member, false).await
            }
            _ => {
                let content = self.compute(stretch, member, true).await?;
                // The place cannot be read: writing it anew mends it, and if not, that shows in the group's state.
                if self.write_anew(stretch, member).await.is_ok() {
                    device.note_mended();
                }
                Ok(content)
            }
        }
    }

    /// What a member has there, from the others; `unreadable`: though it is read otherwise.
    async fn compute(&self, stretch: Stretch, member: usize, unreadable: bool) -> Result<BufSlice, IoError> {
        let column = ColumnSet::one(self.layout.column_of(stretch.row, member));
        let lost = if unreadable { column } else { ColumnSet::default() };
        let _claim = self.lock.claim(stretch.range, Mode::Shared).await;
        // The row may have been forgotten since the read began: then its columns do not fit any more.
        let mut runs = self.regions.runs(stretch.range);
        if runs.next() == Some((stretch.range, true)) {
            return self.one_column(stretch, column, lost).await;
        }
        let mut out = IoBuf::zeroed(stretch.len());
        for (run, _) in self.regions.runs(stretch.range).filter(|(_, written)| *written) {
            let part = Stretch {
                range: run,
                ..stretch
            };
            let content = self.one_column(part, column, lost).await?;
            let at = usize::try_from(run.start() - stretch.range.start()).expect("within the stretch");
            out.as_mut_slice()[at..at + content.len()].copy_from_slice(content.as_slice());
        }
        Ok(out.into_slice())
    }

    async fn one_column(
        &self,
        stretch: Stretch,
        column: ColumnSet,
        lost: ColumnSet,
    ) -> Result<BufSlice, IoError> {
        let mut content = self.row_content(stretch, column, lost).await?;
        Ok(content.pop().expect("one column was asked for"))
    }
}
