//! What stands in a stretch of a row: columns read, or computed from the others.
//!
//! A *stretch* is the same bytes of every member, within one row, so that its columns fit each other. Callers hold a
//! claim on it: what is computed is right only while nobody changes the row.

use std::sync::Arc;

use smallvec::SmallVec;

use super::code::{Column, Recovery, Row, Sums};
use crate::device::DeviceHandle;
use crate::io::{BufSlice, IoBuf, IoError};
use crate::raid::checks::{BLOCK, Read, Unread};
use crate::raid::group::Group;
use crate::raid::membership::Members;
use crate::types::ByteRange;

/// The same bytes of every member, within one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) row: u64,
    /// Addresses of a member.
    pub(super) range: ByteRange,
}

impl Stretch {
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.range.len()).expect("a unit fits memory")
    }

    /// Its blocks, each a stretch.
    pub(super) fn blocks(self) -> impl Iterator<Item = Self> {
        let blocks = self.range.split_at_multiples(BLOCK);
        blocks.map(move |range| Self { row: self.row, range })
    }

    /// Where a stretch that lies within stands in what this one holds.
    pub(super) fn place_of(&self, part: Self) -> std::ops::Range<usize> {
        let at = |at: u64| usize::try_from(at - self.range.start()).expect("within the stretch");
        at(part.range.start())..at(part.range.end())
    }
}

/// A set of columns of a row, by number: data, then P, then Q.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ColumnSet(u64);

impl ColumnSet {
    pub(super) fn one(column: usize) -> Self {
        Self(1 << column)
    }

    pub(super) fn contains(self, column: usize) -> bool {
        self.0 & 1 << column != 0
    }

    pub(super) fn insert(&mut self, column: usize) {
        self.0 |= 1 << column;
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |&column| self.contains(column))
    }
}

impl FromIterator<usize> for ColumnSet {
    fn from_iter<T: IntoIterator<Item = usize>>(columns: T) -> Self {
        let mut set = Self::default();
        columns.into_iter().for_each(|column| set.insert(column));
        set
    }
}

/// A place on one column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) column: usize,
    /// Addresses of the member.
    pub(super) range: ByteRange,
}

/// The content of columns, in the order asked for.
pub(super) type Contents = Result<SmallVec<[IoBuf; 8]>, NotGiven>;

/// Columns that could not be had from their members.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NotGiven {
    pub(super) columns: ColumnSet,
    /// Those of them that were read, and do not fit their checksums.
    pub(super) unfit: ColumnSet,
}

impl Group {
    /// Columns of data.
    pub(super) fn data_columns(&self) -> usize {
        self.layout.members as usize - self.layout.sums()
    }

    /// The columns whose members are read at this time.
    pub(super) fn readable_columns(&self, members: &Members, row: u64) -> ColumnSet {
        let all = 0..self.layout.members as usize;
        all.filter(|&column| self.column_device(members, row, column).is_some())
            .collect()
    }

    fn column_device<'a>(
        &self,
        members: &'a Members,
        row: u64,
        column: usize,
    ) -> Option<&'a Arc<DeviceHandle>> {
        let device = members.readable(self.layout.member_of(row, column))?;
        device.failure().is_none().then_some(device)
    }

    /// Reads places of a row; all their members are read. A member whose device failed is taken out.
    pub(super) async fn read_places(
        &self,
        members: &Members,
        row: u64,
        places: impl Iterator<Item = Place>,
    ) -> Contents {
        let mut not_given = NotGiven::default();
        let mut reads: SmallVec<[(usize, Read); 8]> = SmallVec::new();
        for Place { column, range } in places {
            let member = self.layout.member_of(row, column);
            let Some(device) = members.readable(member) else {
                not_given.columns.insert(column);
                continue;
            };
            reads.push((column, members.start_read(member, device, range)));
        }
        let mut contents = SmallVec::new();
        let mut failed = SmallVec::<[usize; 4]>::new();
        for (column, read) in &mut reads {
            let member = read.member;
            match members.end_read(read).await {
                Ok(buf) => contents.push(buf),
                Err(unread) => {
                    not_given.columns.insert(*column);
                    if let Unread::Unfit { .. } = unread {
                        not_given.unfit.insert(*column);
                    }
                    if members
                        .readable(member)
                        .is_some_and(|device| device.failure().is_some())
                    {
                        failed.push(member);
                    }
                }
            }
        }
        if !failed.is_empty() {
            // What can be read is right whether or not this succeeds; what fails shows in the group's state.
            let _ = self.drop_members(members, &failed).await;
        }
        if not_given.columns.is_empty() {
            Ok(contents)
        } else {
            Err(not_given)
        }
    }

    /// The content of the `wanted` columns, in their order; those that are not read, or are `lost`, are computed.
    ///
    /// # Errors
    /// Where more columns of a block are missing than the row has sums.
    pub(super) async fn row_content(
        &self,
        stretch: Stretch,
        wanted: ColumnSet,
        lost: ColumnSet,
    ) -> Result<SmallVec<[BufSlice; 8]>, IoError> {
        let whole = self.stretch_content(stretch, wanted, lost).await;
        if whole.is_ok() || stretch.range.len() <= BLOCK {
            return whole;
        }
        // What cannot be read may be another column in each block.
        let mut out: SmallVec<[IoBuf; 8]> = wanted.iter().map(|_| IoBuf::new(stretch.len())).collect();
        for block in stretch.blocks() {
            let contents = self.stretch_content(block, wanted, lost).await?;
            for (out, content) in out.iter_mut().zip(contents) {
                out.as_mut_slice()[stretch.place_of(block)].copy_from_slice(content.as_slice());
            }
        }
        Ok(out.into_iter().map(IoBuf::into_slice).collect())
    }

    async fn stretch_content(
        &self,
        stretch: Stretch,
        wanted: ColumnSet,
        mut lost: ColumnSet,
    ) -> Result<SmallVec<[BufSlice; 8]>, IoError> {
        let all: ColumnSet = (0..self.layout.members as usize).collect();
        loop {
            let members = self.members.load_full();
            let missing = all.without(self.readable_columns(&members, stretch.row)).or(lost);
            let recovery = match wanted.and(missing).is_empty() {
                true => None,
                false => Some(self.recovery(missing)?),
            };
            let needed = match &recovery {
                None => wanted,
                Some(recovery) => {
                    let needs = |column: &usize| recovery.needs(self.kind_of(*column));
                    let for_recovery: ColumnSet = all.iter().filter(needs).collect();
                    wanted.without(missing).or(for_recovery)
                }
            };
            let range = stretch.range;
            let places = needed.iter().map(|column| Place { column, range });
            let read = match self.read_places(&members, stretch.row, places).await {
                Ok(read) => read,
                Err(not_given) => {
                    lost = lost.or(not_given.columns);
                    continue;
                }
            };
            let mut contents: Contents64 = std::array::from_fn(|_| None);
            for (column, buf) in needed.iter().zip(read) {
                contents[column] = Some(buf.into_slice());
            }
            if let Some(recovery) = recovery {
                self.recover(stretch, recovery, missing, wanted, &mut contents);
            }
            let found = wanted.iter().filter_map(|column| contents[column].take());
            return Ok(found.collect());
        }
    }

    fn kind_of(&self, column: usize) -> Column {
        match column.checked_sub(self.data_columns()) {
            None => Column::Data(column),
            Some(0) => Column::P,
            Some(_) => Column::Q,
        }
    }

    /// How to compute the `missing` columns of a row.
    fn recovery(&self, missing: ColumnSet) -> Result<Recovery, IoError> {
        if missing.len() > self.layout.sums() {
            return Err(IoError::Device(
                "more members cannot be read than the level bears".into(),
            ));
        }
        let mut columns = missing.iter().map(|column| self.kind_of(column));
        let first = columns.next().expect("something is missing");
        Ok(Recovery::of(first, columns.next()))
    }

    fn recover(
        &self,
        stretch: Stretch,
        recovery: Recovery,
        missing: ColumnSet,
        wanted: ColumnSet,
        contents: &mut Contents64,
    ) {
        let data = self.data_columns();
        let mut bufs = missing
            .iter()
            .map(|column| wanted.contains(column).then(|| IoBuf::new(stretch.len())));
        let mut bufs = [bufs.next().flatten(), bufs.next().flatten()];
        let of = |column: usize| contents[column].as_ref().map(BufSlice::as_slice);
        let there = |column: &usize| !missing.contains(*column);
        let columns: SmallVec<[Option<&[u8]>; 16]> = (0..data).map(of).collect();
        let row = Row {
            data: &columns,
            p: Some(data).filter(there).and_then(of),
            q: Some(data + 1).filter(there).and_then(of),
        };
        let [first, second] = &mut bufs;
        let outs = [first, second].map(|buf| buf.as_mut().map(IoBuf::as_mut_slice));
        self.parity().code.recover(recovery, row, outs);
        drop(columns);
        for (column, buf) in missing.iter().zip(bufs) {
            contents[column] = buf.map(IoBuf::into_slice);
        }
    }

    /// The sums of a stretch with these data columns; `None` is one of zeros. Only those `wanted` are computed.
    pub(super) fn sums_of(
        &self,
        stretch: Stretch,
        data: &[Option<&[u8]>],
        wanted: ColumnSet,
    ) -> SmallVec<[(usize, IoBuf); 2]> {
        let mut sums: SmallVec<[(usize, IoBuf); 2]> = wanted
            .iter()
            .map(|column| (column, IoBuf::new(stretch.len())))
            .collect();
        self.parity()
            .code
            .sums(self.as_sums(&mut sums, 0, stretch.len()), data);
        sums
    }

    /// `len` bytes from `offset` of sums, for the arithmetic.
    pub(super) fn as_sums<'a>(&self, sums: &'a mut [(usize, IoBuf)], offset: usize, len: usize) -> Sums<'a> {
        let mut out = Sums { p: None, q: None };
        for (column, buf) in sums {
            let part = Some(&mut buf.as_mut_slice()[offset..offset + len]);
            match self.kind_of(*column) {
                Column::Q => out.q = part,
                Column::P | Column::Data(_) => out.p = part,
            }
        }
        out
    }
}

/// Content by column.
type Contents64 = [Option<BufSlice>; 64];
