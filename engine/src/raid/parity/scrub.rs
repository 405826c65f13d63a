//! Scrubbing rows: whether the sums fit the data, and which column is wrong where they do not.

use smallvec::SmallVec;

use super::code::{Column, Recovery, Row};
use super::row::{ColumnSet, NotGiven, Place, Stretch};
use crate::io::{IoBuf, IoError};
use crate::raid::group::Group;
use crate::raid::membership::Members;
use crate::raid::scrub::{BLOCK, ScrubFindings, ScrubMode, blocks};
use crate::types::ByteRange;

/// All columns of a stretch: data, then the sums.
type Columns = SmallVec<[IoBuf; 8]>;

impl Group {
    /// Compares the written part of `range`, member addresses. The caller holds a claim on it.
    pub(in crate::raid) async fn scrub_rows(
        &self,
        range: ByteRange,
        mode: ScrubMode,
        findings: &mut ScrubFindings,
    ) -> Result<(), IoError> {
        for stretch in self.written_stretches(range) {
            let members = self.members.load_full();
            if !self.has_all_columns(&members, stretch) {
                findings.left_out += stretch.range.len() * self.data_columns() as u64;
                continue;
            }
            let columns = self
                .read_places(&members, stretch.row, self.places(stretch))
                .await;
            if columns.is_ok_and(|columns| self.unfitting_sums(stretch, &columns).is_empty()) {
                findings.checked += blocks(stretch.range.len());
                continue;
            }
            for range in stretch.range.split_at_multiples(BLOCK) {
                let block = Stretch { range, ..stretch };
                self.scrub_row_block(block, mode, findings).await?;
            }
        }
        Ok(())
    }

    /// The same, of a block: what is wrong there is counted, and mended where that is wanted.
    async fn scrub_row_block(
        &self,
        block: Stretch,
        mode: ScrubMode,
        findings: &mut ScrubFindings,
    ) -> Result<(), IoError> {
        let members = self.members.load_full();
        if !self.has_all_columns(&members, block) {
            findings.left_out += block.range.len() * self.data_columns() as u64;
            return Ok(());
        }
        let (wrong, unreadable) = match self.read_places(&members, block.row, self.places(block)).await {
            Ok(columns) => {
                let unfitting = self.unfitting_sums(block, &columns);
                findings.mismatched += u64::from(!unfitting.is_empty());
                let wrong = self.wrong_columns(block, &columns, unfitting);
                (wrong, ColumnSet::default())
            }
            Err(NotGiven { columns, unfit }) if self.has_all_columns(&self.members.load(), block) => {
                let unreadable = columns.without(unfit);
                findings.unreadable += unreadable.len() as u64;
                findings.mismatched += u64::from(!unfit.is_empty());
                (columns, unreadable)
            }
            // A device failed just now.
            Err(_) => {
                findings.left_out += block.range.len() * self.data_columns() as u64;
                return Ok(());
            }
        };
        findings.checked += 1;
        for column in wrong.iter() {
            let member = self.layout.member_of(block.row, column);
            let is_unreadable = unreadable.contains(column);
            findings.list(Self::scrub_place(
                &members,
                member,
                block.range.start(),
                is_unreadable,
            ));
        }
        if wrong.len() > self.layout.sums() {
            findings.unrepairable += wrong.len() as u64;
        } else if mode == ScrubMode::Repair && !wrong.is_empty() {
            // What the journal has of it would be written over it by the next start.
            self.free_range(block.range).await?;
            // Who goes out in the middle lacks it.
            let _in_use = self.mark_intent(block.range).await?;
            self.write_columns(block, wrong, wrong).await?;
            if !self.has_all_columns(&self.members.load(), block) {
                findings.left_out += block.range.len() * self.data_columns() as u64;
                return Ok(());
            }
            let mismatched = !wrong.without(unreadable).is_empty();
            findings.repaired += unreadable.len() as u64 + u64::from(mismatched);
        }
        Ok(())
    }

    fn has_all_columns(&self, members: &Members, stretch: Stretch) -> bool {
        self.readable_columns(members, stretch.row).len() == self.layout.members as usize
    }

    fn places(&self, stretch: Stretch) -> impl Iterator<Item = Place> + use<> {
        let range = stretch.range;
        (0..self.layout.members as usize).map(move |column| Place { column, range })
    }

    /// The sums that are not those of the data.
    fn unfitting_sums(&self, stretch: Stretch, columns: &Columns) -> ColumnSet {
        let data: SmallVec<[Option<&[u8]>; 16]> = (0..self.data_columns())
            .map(|column| Some(columns[column].as_slice()))
            .collect();
        let wanted = (self.data_columns()..columns.len()).collect();
        let sums = self.sums_of(stretch, &data, wanted);
        let unfitting = sums
            .iter()
            .filter(|(column, sum)| sum.as_slice() != columns[*column].as_slice());
        unfitting.map(|(column, _)| *column).collect()
    }

    /// The columns of a block to be computed anew from the rest. With two sums: the one column that explains why both do
    /// not fit, where there is one; in every other case the sums.
    fn wrong_columns(&self, block: Stretch, columns: &Columns, unfitting: ColumnSet) -> ColumnSet {
        if unfitting.len() < 2 {
            return unfitting;
        }
        let mut explaining = (0..self.data_columns()).filter(|&column| self.explains(block, columns, column));
        match (explaining.next(), explaining.next()) {
            (Some(column), None) => ColumnSet::one(column),
            _ => unfitting,
        }
    }

    /// Whether the row fits both sums with this data column as P and the others give it.
    fn explains(&self, block: Stretch, columns: &Columns, column: usize) -> bool {
        let data = self.data_columns();
        let others = |of: usize| (of != column).then(|| columns[of].as_slice());
        let mut content = IoBuf::new(block.len());
        let mut views: SmallVec<[Option<&[u8]>; 16]> = (0..data).map(others).collect();
        let row = Row {
            data: &views,
            p: Some(columns[data].as_slice()),
            q: None,
        };
        let recovery = Recovery::of(Column::Data(column), None);
        let code = self.parity().code;
        code.recover(recovery, row, [Some(content.as_mut_slice()), None]);
        views[column] = Some(content.as_slice());
        let q = self.sums_of(block, &views, ColumnSet::one(data + 1));
        q.iter()
            .all(|(of, sum)| sum.as_slice() == columns[*of].as_slice())
    }
}
