//! Reading: from the member that has the data, or computed from the others where it cannot give it.

use smallvec::SmallVec;

use super::row::{ColumnSet, Stretch};
use crate::io::range_lock::Mode;
use crate::io::{BufSlice, IoBuf, IoError, Segment, Segments};
use crate::raid::checks::{Read, Unread};
use crate::raid::group::Group;
use crate::raid::layout::Piece;
use crate::raid::membership::Members;
use crate::types::ByteRange;

/// What was begun for a part of a read.
enum Begun {
    Zeros(u64),
    Read(Stretch, Read),
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
                Begun::Lost(stretch, member) => Segment::Data(self.compute(*stretch, *member).await?),
                Begun::Read(stretch, read) => Segment::Data(self.end_read(&members, *stretch, read).await?),
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
        Begun::Read(stretch, members.start_read(member, device, run))
    }

    async fn end_read(
        &self,
        members: &Members,
        stretch: Stretch,
        read: &mut Read,
    ) -> Result<BufSlice, IoError> {
        let member = read.member;
        let unread = match members.end_read(read).await {
            Ok(buf) => return Ok(buf.into_slice()),
            Err(unread) => unread,
        };
        let device = members.readable(member).expect("the read was started on it");
        if device.failure().is_some() {
            // What is computed is right whether or not this succeeds; what fails shows in the group's state.
            let _ = self.drop_members(members, &[member]).await;
            return self.compute(stretch, member).await;
        }
        if let Unread::Unfit { .. } = unread
            && let Some(content) = self.read_again(stretch, member).await
        {
            return Ok(content);
        }
        if let Unread::Unfit { unfit, .. } = &unread {
            unfit.at.iter().for_each(|_| device.note_unfit());
        }
        tracing::warn!(group = %self.number(), member, at = stretch.range.start(), why = unread.why(), "computed anew");
        let content = self.compute(stretch, member).await?;
        for block in stretch.blocks().filter(|block| unread.is_of(block.range)) {
            // Writing the place anew mends it, and if not, that shows in the group's state.
            if self.write_anew(block, member).await.is_ok() {
                device.note_mended();
            }
        }
        Ok(content)
    }

    /// A write that ran may have been why a block did not fit: while nobody writes, it does then.
    async fn read_again(&self, stretch: Stretch, member: usize) -> Option<BufSlice> {
        let _claim = self.lock.claim(stretch.range, Mode::Shared).await;
        let members = self.members.load_full();
        let mut again = members.start_read(member, members.readable(member)?, stretch.range);
        let buf = members.end_read(&mut again).await.ok()?;
        let mut runs = self.regions.runs(stretch.range);
        (runs.next() == Some((stretch.range, true))).then(|| buf.into_slice())
    }

    /// What a member has there, computed from the others where it cannot be read.
    async fn compute(&self, stretch: Stretch, member: usize) -> Result<BufSlice, IoError> {
        let column = ColumnSet::one(self.layout.column_of(stretch.row, member));
        let _claim = self.lock.claim(stretch.range, Mode::Shared).await;
        // The row may have been forgotten since the read began: then its columns do not fit any more.
        let mut runs = self.regions.runs(stretch.range);
        if runs.next() == Some((stretch.range, true)) {
            return self.one_column(stretch, column).await;
        }
        let mut out = IoBuf::zeroed(stretch.len());
        for (run, _) in self.regions.runs(stretch.range).filter(|(_, written)| *written) {
            let part = Stretch {
                range: run,
                ..stretch
            };
            let content = self.one_column(part, column).await?;
            let at = usize::try_from(run.start() - stretch.range.start()).expect("within the stretch");
            out.as_mut_slice()[at..at + content.len()].copy_from_slice(content.as_slice());
        }
        Ok(out.into_slice())
    }

    async fn one_column(&self, stretch: Stretch, column: ColumnSet) -> Result<BufSlice, IoError> {
        let mut content = self.row_content(stretch, column, ColumnSet::default()).await?;
        Ok(content.pop().expect("one column was asked for"))
    }
}
