//! Writing: each row by itself, gathered ([`queue`](super::queue)), and what was never written whole.
//!
//! Order for space that was written before: claim on the row → intent durable → what the sums need is read → new data and
//! sums durable in the journal → their places → failed members taken out, durably → answer. A stretch that was never
//! written is written over all members, what nobody wrote as zeros, and then counts as written: until that is durable,
//! with the next flush, it reads zeros whatever a crash left of it.

use futures_util::future::join_all;
use smallvec::SmallVec;

use super::gather::clusters;
use super::queue::{Turn, Updating, Word};
use super::row::{ColumnSet, Stretch};
use crate::device::{DeviceInfo, Io, Request};
use crate::io::range_lock::Mode;
use crate::io::{BufSlice, IoBuf, IoError};
use crate::raid::group::{Group, zeros};
use crate::raid::layout::Piece;
use crate::raid::membership::Members;
use crate::raid::write::Part;
use crate::types::ByteRange;

/// New content of a place on one data column.
#[derive(Debug, Clone)]
pub(super) struct New {
    pub(super) column: usize,
    /// Addresses of the member.
    pub(super) range: ByteRange,
    pub(super) data: BufSlice,
}

impl New {
    /// What of it lies in `range`.
    fn within(&self, range: ByteRange) -> Option<Self> {
        let range = self.range.intersection(range).filter(|range| !range.is_empty())?;
        let offset = usize::try_from(range.start() - self.range.start()).expect("within the data");
        let len = usize::try_from(range.len()).expect("within the data");
        Some(Self {
            column: self.column,
            range,
            data: self.data.cut(offset, len),
        })
    }

    /// Puts it into a column's content of the stretch, within which it lies.
    pub(super) fn put(&self, stretch: Stretch, content: &mut IoBuf) {
        content.as_mut_slice()[self.place_in(stretch)].copy_from_slice(self.data.as_slice());
    }

    /// Where it lies in the stretch.
    pub(super) fn place_in(&self, stretch: Stretch) -> std::ops::Range<usize> {
        let offset = |at: u64| usize::try_from(at - stretch.range.start()).expect("within the stretch");
        offset(self.range.start())..offset(self.range.end())
    }
}

impl Group {
    /// Writes a part that lies within the capacity, made of whole blocks.
    pub(in crate::raid) async fn write_rows(&self, part: Part) -> Result<(), IoError> {
        let row_len = self.layout.row_len();
        let row = part.range.start() / row_len;
        if part.range.end() <= (row + 1) * row_len {
            return self.write_row(row, part).await;
        }
        let rows = part.range.split_at_multiples(row_len).map(|range| {
            let part = part.within(range);
            self.write_row(range.start() / row_len, part)
        });
        join_all(rows).await.into_iter().collect()
    }

    /// Writes within one row, with whoever else writes there.
    async fn write_row(&self, row: u64, part: Part) -> Result<(), IoError> {
        let queue = &self.parity().queue;
        match queue.enter(row, part) {
            Turn::Mine(updating, part) => self.update_row(row, updating, part).await,
            Turn::Wait(word) => match word.await {
                Ok(Word::Done(result)) => result,
                Ok(Word::Yours(part)) => self.update_row(row, queue.updating(row), part).await,
                Err(_) => Err(IoError::Stopping),
            },
        }
    }

    async fn update_row(&self, row: u64, mut updating: Updating<'_>, part: Part) -> Result<(), IoError> {
        let unit = self.layout.unit;
        let whole = ByteRange::between(row * unit, (row + 1) * unit);
        let _claim = self.lock.claim(whole, Mode::Exclusive).await;
        let mut parts = updating.gather();
        parts.push(part);
        let result = self.write_gathered(row, &parts).await;
        updating.answer(&result);
        result
    }

    async fn write_gathered(&self, row: u64, parts: &[Part]) -> Result<(), IoError> {
        self.check_running()?;
        let news: Vec<New> = parts.iter().flat_map(|part| self.news(part)).collect();
        let start = news.iter().map(|new| new.range.start()).min();
        let end = news.iter().map(|new| new.range.end()).max();
        let (Some(start), Some(end)) = (start, end) else {
            return Ok(());
        };
        let touched = self.regions.round_to_granules(ByteRange::between(start, end));
        let _in_use = self.mark_intent(touched).await?;
        for (run, written) in self.regions.runs(touched) {
            if written {
                self.write_over(row, run, &news).await?;
            } else {
                self.write_fresh(row, run, &news).await?;
            }
        }
        Ok(())
    }

    fn news(&self, part: &Part) -> SmallVec<[New; 2]> {
        let pieces = self.layout.pieces(part.range);
        let new = |piece: Piece| New {
            column: usize::try_from(piece.range.start() / self.layout.unit % self.layout.columns())
                .expect("below the member count"),
            range: piece.member_range(),
            data: part.data(piece.range),
        };
        pieces.map(new).collect()
    }

    async fn write_over(&self, row: u64, run: ByteRange, news: &[New]) -> Result<(), IoError> {
        let mut news: Vec<New> = news.iter().filter_map(|new| new.within(run)).collect();
        if self.checks.is_some() {
            news = self.in_whole_blocks(row, news).await?;
        }
        let updates = clusters(news)
            .into_iter()
            .map(|(range, news)| async move { self.update(Stretch { row, range }, &news).await });
        join_all(updates).await.into_iter().collect()
    }

    /// Writes the granules of a never-written run that something of `news` lies in.
    async fn write_fresh(&self, row: u64, run: ByteRange, news: &[New]) -> Result<(), IoError> {
        let news: Vec<New> = news.iter().filter_map(|new| new.within(run)).collect();
        let granules = run.split_at_multiples(self.regions.granule());
        let mut touched: SmallVec<[ByteRange; 2]> = SmallVec::new();
        for granule in granules.filter(|granule| news.iter().any(|new| new.range.overlaps(*granule))) {
            match touched.last_mut() {
                Some(last) if last.end() == granule.start() => {
                    *last = ByteRange::between(last.start(), granule.end());
                }
                _ => touched.push(granule),
            }
        }
        for range in touched {
            self.write_whole(Stretch { row, range }, &news).await?;
        }
        Ok(())
    }

    /// Writes every column of a stretch: what is new, zeros where nothing is, and the sums.
    async fn write_whole(&self, stretch: Stretch, news: &[New]) -> Result<(), IoError> {
        self.has_room_for_checks().await?;
        let columns = 0..self.data_columns();
        let data: SmallVec<[Option<BufSlice>; 16]> =
            columns.map(|column| filled(stretch, column, news)).collect();
        let members = self.members.load_full();
        let views: SmallVec<[Option<&[u8]>; 16]> = data
            .iter()
            .map(|data| data.as_ref().map(BufSlice::as_slice))
            .collect();
        let sums = self.sums_of(stretch, &views, self.written_sums(&members, stretch.row));
        let mut operations: SmallVec<[(usize, Io); 4]> = SmallVec::new();
        drop(views);
        let sums = sums
            .into_iter()
            .map(|(column, sum)| (column, Some(sum.into_slice())));
        for (column, content) in data.into_iter().enumerate().chain(sums) {
            let member = self.layout.member_of(stretch.row, column);
            let Some(device) = members.writable(member) else {
                continue;
            };
            let at = members.record.members[member].data_start + stretch.range.start();
            let values = match &content {
                Some(content) => self.values_of(stretch.range.start(), content.as_slice()),
                None => self.values_of_zeros(stretch.range),
            };
            members.note(member, stretch.range.start(), values.as_ref());
            operations.push((
                member,
                device.start(whole_column(device.info(), at, stretch, content)),
            ));
        }
        self.answer_write(&members, &mut operations).await?;
        self.regions.set_written(stretch.range);
        Ok(())
    }

    /// The sums whose members are written at this time.
    pub(super) fn written_sums(&self, members: &Members, row: u64) -> ColumnSet {
        let sums = self.data_columns()..self.layout.members as usize;
        sums.filter(|&column| members.writable(self.layout.member_of(row, column)).is_some())
            .collect()
    }
}

/// The content of a column of which nothing is known but what is new: zeros elsewhere; `None` where all of it is.
fn filled(stretch: Stretch, column: usize, news: &[New]) -> Option<BufSlice> {
    let news = || {
        let of_column = news.iter().filter(|new| new.column == column);
        of_column.filter_map(|new| new.within(stretch.range))
    };
    let first = news().next()?;
    if first.range == stretch.range {
        return Some(first.data);
    }
    let mut buf = IoBuf::zeroed(stretch.len());
    news().for_each(|new| new.put(stretch, &mut buf));
    Some(buf.into_slice())
}

fn whole_column(info: DeviceInfo, at: u64, stretch: Stretch, content: Option<BufSlice>) -> Request {
    match content {
        Some(data) => Request::Write { at, data, fua: false },
        None if info.zeroes_fast => Request::Zero {
            range: ByteRange::between(at, at + stretch.range.len()),
            unmap: false,
        },
        None => Request::Write {
            at,
            data: zeros(stretch.range.len()),
            fua: false,
        },
    }
}
