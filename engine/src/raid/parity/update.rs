//! Writing over what stands in a row: sums that fit what is new, and the journal before the places (R25).
//!
//! The sums are computed in the way that reads fewer bytes: from what they were and the old content of what is written
//! (*modify*), or from all data, of which only what is not written is read (*compute*). Where a member is missing or
//! cannot be read, there may be one way only, and what is missing is computed first.

use smallvec::SmallVec;

use super::row::{ColumnSet, NotGiven, Place, Stretch};
use super::write::New;
use crate::device::{Io, Request};
use crate::io::{BufSlice, IoBuf, IoError};
use crate::raid::checks::Values;
use crate::raid::group::Group;
use crate::raid::membership::Members;

/// New sums, by column.
type NewSums = SmallVec<[(usize, IoBuf); 2]>;

/// How the sums are brought up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Modify,
    Compute,
}

impl Group {
    /// Writes `news`, which lie within a stretch that was written before. The caller holds the row.
    pub(super) async fn update(&self, stretch: Stretch, news: &[New]) -> Result<(), IoError> {
        let sums = self.new_sums(stretch, news).await?;
        self.has_room_for_checks().await?;
        let members = self.members.load_full();
        // Who is out of these has no part: before that is durable, a start could take it as in sync and without it.
        self.wait_durable(members.record.membership.generation).await?;
        let mut parts: SmallVec<[Written; 4]> = SmallVec::new();
        let mut add = |column: usize, at: u64, data: BufSlice| {
            let member = self.layout.member_of(stretch.row, column);
            if members.writable(member).is_some() {
                parts.push(Written { member, at, data });
            }
        };
        for new in news {
            add(new.column, new.range.start(), new.data.clone());
        }
        for (column, sum) in sums {
            add(column, stretch.range.start(), sum.into_slice());
        }
        let values: SmallVec<[Option<Values>; 4]> = parts
            .iter()
            .map(|part| self.values_of(part.at, part.data.as_slice()))
            .collect();
        let in_journal = self.commit_parts(&parts).await?;
        let mut operations: SmallVec<[(usize, Io); 4]> = SmallVec::new();
        for (Written { member, at, data }, values) in parts.into_iter().zip(values) {
            let Some(device) = members.writable(member) else {
                continue;
            };
            members.note(member, at, values.as_ref());
            let at = members.record.members[member].data_start + at;
            operations.push((member, device.start(Request::Write { at, data, fua: false })));
        }
        self.answer_write(&members, &mut operations).await?;
        in_journal.in_place();
        Ok(())
    }

    /// The sums of the stretch as they will be, of those whose members are written.
    async fn new_sums(&self, stretch: Stretch, news: &[New]) -> Result<NewSums, IoError> {
        let mut lost = ColumnSet::default();
        loop {
            let members = self.members.load_full();
            let sums = self.written_sums(&members, stretch.row);
            if sums.is_empty() {
                return Ok(NewSums::new());
            }
            let there = self.readable_columns(&members, stretch.row).without(lost);
            match self.way(stretch, news, sums, there) {
                Way::Compute => return self.compute_sums(stretch, news, sums, lost).await,
                Way::Modify => match self.modified_sums(&members, stretch, news, sums).await {
                    Ok(sums) => return Ok(sums),
                    Err(not_given) => lost = lost.or(not_given.columns),
                },
            }
        }
    }

    fn way(&self, stretch: Stretch, news: &[New], sums: ColumnSet, there: ColumnSet) -> Way {
        let touched: ColumnSet = news.iter().map(|new| new.column).collect();
        if !touched.or(sums).without(there).is_empty() {
            return Way::Compute;
        }
        let rest = self.not_all_new(stretch, news);
        if !rest.without(there).is_empty() {
            return Way::Modify;
        }
        let modify =
            news.iter().map(|new| new.range.len()).sum::<u64>() + sums.len() as u64 * stretch.range.len();
        let compute = rest.len() as u64 * stretch.range.len();
        if modify < compute {
            Way::Modify
        } else {
            Way::Compute
        }
    }

    /// Data columns of which something stays as it is.
    fn not_all_new(&self, stretch: Stretch, news: &[New]) -> ColumnSet {
        let new_bytes = |column: usize| -> u64 {
            let of_column = news.iter().filter(|new| new.column == column);
            of_column.map(|new| new.range.len()).sum()
        };
        (0..self.data_columns())
            .filter(|&column| new_bytes(column) < stretch.range.len())
            .collect()
    }

    async fn modified_sums(
        &self,
        members: &Members,
        stretch: Stretch,
        news: &[New],
        sums: ColumnSet,
    ) -> Result<NewSums, NotGiven> {
        let old = news.iter().map(|new| Place {
            column: new.column,
            range: new.range,
        });
        let range = stretch.range;
        let of_sums = sums.iter().map(|column| Place { column, range });
        let mut old = self.read_places(members, stretch.row, old.chain(of_sums)).await?;
        let mut sums: NewSums = sums.iter().zip(old.drain(news.len()..)).collect();
        for (new, old) in news.iter().zip(&old) {
            let place = new.place_in(stretch);
            let into = self.as_sums(&mut sums, place.start, place.len());
            self.parity()
                .code
                .update(into, new.column, old.as_slice(), new.data.as_slice());
        }
        Ok(sums)
    }

    async fn compute_sums(
        &self,
        stretch: Stretch,
        news: &[New],
        sums: ColumnSet,
        lost: ColumnSet,
    ) -> Result<NewSums, IoError> {
        let rest = self.not_all_new(stretch, news);
        let old = self.row_content(stretch, rest, lost).await?;
        let mut old = rest.iter().zip(old).peekable();
        let mut data: SmallVec<[BufSlice; 16]> = SmallVec::new();
        for column in 0..self.data_columns() {
            let old = old.next_if(|(of, _)| *of == column).map(|(_, content)| content);
            data.push(with_news(stretch, column, old, news));
        }
        let views: SmallVec<[Option<&[u8]>; 16]> = data.iter().map(|data| Some(data.as_slice())).collect();
        Ok(self.sums_of(stretch, &views, sums))
    }
}

/// What will stand on a member.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) member: usize,
    /// Address of the member.
    pub(super) at: u64,
    pub(super) data: BufSlice,
}

/// A column's content as it will be; without old content all of it is new.
fn with_news(stretch: Stretch, column: usize, old: Option<BufSlice>, news: &[New]) -> BufSlice {
    let of_column = || news.iter().filter(|new| new.column == column);
    let mut content = match old {
        Some(old) if of_column().next().is_none() => return old,
        Some(old) => IoBuf::from_slice(old.as_slice()),
        None => match of_column().find(|new| new.range == stretch.range) {
            Some(whole) => return whole.data.clone(),
            None => IoBuf::new(stretch.len()),
        },
    };
    of_column().for_each(|new| new.put(stretch, &mut content));
    content.into_slice()
}
