//! Zeroing and trimming rows: whole rows become *never written* again, edges are written with zeros by who calls.

use smallvec::SmallVec;

use crate::device::{Io, Request};
use crate::io::IoError;
use crate::io::range_lock::Mode;
use crate::raid::group::Group;
use crate::raid::membership::Members;
use crate::types::ByteRange;

impl Group {
    /// The member addresses of the rows that lie whole in `range`.
    pub(in crate::raid) fn whole_rows(&self, range: ByteRange) -> Option<ByteRange> {
        let row_len = self.layout.row_len();
        let (first, end) = (range.start().div_ceil(row_len), range.end() / row_len);
        let unit = self.layout.unit;
        (first < end).then(|| ByteRange::between(first * unit, end * unit))
    }

    /// What of `range` is not whole rows.
    pub(in crate::raid) fn edges_of_rows(&self, range: ByteRange) -> [ByteRange; 2] {
        let row_len = self.layout.row_len();
        let first = range.start().next_multiple_of(row_len).min(range.end());
        let last = (range.end() / row_len * row_len).max(first);
        [
            ByteRange::between(range.start(), first),
            ByteRange::between(last, range.end()),
        ]
    }

    /// The member addresses of all rows that `range` touches.
    pub(in crate::raid) fn touched_rows(&self, range: ByteRange) -> ByteRange {
        let row_len = self.layout.row_len();
        let (first, end) = (range.start() / row_len, range.end().div_ceil(row_len));
        ByteRange::between(first * self.layout.unit, end * self.layout.unit)
    }

    /// Makes rows, given by member addresses, *never written*. The journal must not have them any more by then: what it
    /// has of them would be written over what comes next.
    pub(in crate::raid) async fn forget_rows(&self, rows: ByteRange, unmap: bool) -> Result<(), IoError> {
        let _claim = self.lock.claim(rows, Mode::Exclusive).await;
        self.free_range(rows).await?;
        self.regions.clear_written(rows);
        self.commit_log().await?;
        if !unmap {
            return Ok(());
        }
        let members = self.members.load_full();
        let mut operations: SmallVec<[(usize, Io); 4]> = SmallVec::new();
        start_zeros(&members, rows, true, &mut operations);
        self.answer_write(&members, &mut operations).await
    }

    /// Makes the rows that `range` touches blank on the members, where they were never written.
    pub(in crate::raid) async fn wipe_rows(&self, range: ByteRange) -> Result<(), IoError> {
        let rows = self.touched_rows(range);
        let _claim = self.lock.claim(rows, Mode::Exclusive).await;
        let members = self.members.load_full();
        let mut operations: SmallVec<[(usize, Io); 4]> = SmallVec::new();
        for (blank, _) in self.regions.runs(rows).filter(|(_, written)| !written) {
            start_zeros(&members, blank, false, &mut operations);
        }
        self.answer_write(&members, &mut operations).await
    }
}

/// Has members give `range` back, or write zeros there; `fast`: only those that need not write for that.
fn start_zeros(members: &Members, range: ByteRange, fast: bool, operations: &mut SmallVec<[(usize, Io); 4]>) {
    for (member, device) in members.all_writable() {
        if !fast || device.info().zeroes_fast {
            let at = members.record.members[member].data_start;
            let range = ByteRange::between(at + range.start(), at + range.end());
            operations.push((member, device.start(Request::Zero { range, unmap: true })));
        }
    }
}
