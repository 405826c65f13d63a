//! Giving members what they lack: one that joins, or a place that cannot be read.

use smallvec::SmallVec;

use super::row::{ColumnSet, Stretch};
use crate::device::{Io, Request};
use crate::io::IoError;
use crate::io::range_lock::Mode;
use crate::raid::checks::{self, BLOCK};
use crate::raid::group::{Group, zeros};
use crate::types::ByteRange;

impl Group {
    /// Writes what stands in `range`, member addresses, to the members that join, computed from the others.
    pub(in crate::raid) async fn copy_rows(&self, range: ByteRange) -> Result<(), IoError> {
        let _claim = self.lock.claim(range, Mode::Exclusive).await;
        for stretch in self.written_stretches(range) {
            let members = self.members.load_full();
            let joins =
                |member: &usize| members.writable(*member).is_some() && members.readable(*member).is_none();
            let all = 0..self.layout.members as usize;
            let columns = all
                .filter(joins)
                .map(|member| self.layout.column_of(stretch.row, member));
            let columns: ColumnSet = columns.collect();
            self.write_columns(stretch, columns, ColumnSet::default()).await?;
        }
        Ok(())
    }

    /// Writes a stretch of a member anew, as it is computed from the others.
    pub(super) async fn write_anew(&self, stretch: Stretch, member: usize) -> Result<(), IoError> {
        let range = match self.checks {
            Some(_) => checks::round_to_blocks(stretch.range),
            None => stretch.range,
        };
        let _claim = self.lock.claim(range, Mode::Exclusive).await;
        let column = ColumnSet::one(self.layout.column_of(stretch.row, member));
        for written in self.written_stretches(range) {
            self.write_columns(written, column, column).await?;
        }
        Ok(())
    }

    pub(super) async fn write_columns(
        &self,
        stretch: Stretch,
        columns: ColumnSet,
        lost: ColumnSet,
    ) -> Result<(), IoError> {
        if columns.is_empty() {
            return Ok(());
        }
        let contents = match self.row_content(stretch, columns, lost).await {
            Ok(contents) => contents,
            Err(error) => return self.write_what_is_left(stretch, columns, lost, error).await,
        };
        self.has_room_for_checks().await?;
        let members = self.members.load_full();
        let mut operations: SmallVec<[(usize, Io); 4]> = SmallVec::new();
        for (column, data) in columns.iter().zip(contents) {
            let member = self.layout.member_of(stretch.row, column);
            let Some(device) = members.writable(member) else {
                continue;
            };
            let at = members.record.members[member].data_start + stretch.range.start();
            let values = self.values_of(stretch.range.start(), data.as_slice());
            members.note(member, stretch.range.start(), values.as_ref());
            operations.push((member, device.start(Request::Write { at, data, fua: false })));
        }
        self.answer_write(&members, &mut operations).await
    }

    /// Where something of a stretch is lost: what of it is not; and with checksums the rest as lost, so that it does not
    /// keep a member from joining.
    async fn write_what_is_left(
        &self,
        stretch: Stretch,
        columns: ColumnSet,
        lost: ColumnSet,
        error: IoError,
    ) -> Result<(), IoError> {
        if self.checks.is_none() || self.check_running().is_err() {
            return Err(error);
        }
        if stretch.range.len() > BLOCK {
            for block in stretch.blocks() {
                Box::pin(self.write_columns(block, columns, lost)).await?;
            }
            return Ok(());
        }
        tracing::warn!(group = %self.number(), at = stretch.range.start(), %error, "a block is lost");
        let members = self.members.load_full();
        let mut operations: SmallVec<[(usize, Io); 4]> = SmallVec::new();
        for column in columns.iter() {
            let member = self.layout.member_of(stretch.row, column);
            // Who is in sync stays as it is.
            let joins = members.readable(member).is_none();
            let Some(device) = members.writable(member).filter(|_| joins) else {
                continue;
            };
            members.note_lost(member, stretch.range);
            let at = members.record.members[member].data_start + stretch.range.start();
            let data = zeros(stretch.range.len());
            operations.push((member, device.start(Request::Write { at, data, fua: false })));
        }
        self.answer_write(&members, &mut operations).await
    }

    /// What was ever written of `range`, cut into stretches.
    pub(super) fn written_stretches(&self, range: ByteRange) -> Vec<Stretch> {
        let unit = self.layout.unit;
        let written = self.regions.runs(range).filter(|(_, written)| *written);
        let stretches = written.flat_map(|(run, _)| run.split_at_multiples(unit));
        stretches
            .map(|range| Stretch {
                row: range.start() / unit,
                range,
            })
            .collect()
    }
}
