//! Zeroing and trimming (R18): whole granules become *never written* again; edges are written with zeros.
//!
//! Order: the bits are cleared and that is durable, then the members may give the space back. So a crash in between
//! leaves zeros to every reader, whatever each member holds.

use smallvec::SmallVec;

use super::group::Group;
use super::membership::Members;
use super::write::{Content, Part};
use crate::device::{DeviceInfo, Io, Request};
use crate::io::IoError;
use crate::io::range_lock::Mode;
use crate::types::ByteRange;

/// Longest stretch that one claim covers, so that a large trim lets other writes in between.
const PIECE: u64 = 256 << 20;

impl Group {
    /// Whether [`zero`](Self::zero) of `range` would need real writes of zeros (R18).
    pub fn zero_needs_writes(&self, range: ByteRange) -> bool {
        // Sums are computed, however fast members write zeros.
        let slow = self.parity.is_some() || self.device_infos().iter().any(|info| !info.zeroes_fast);
        slow && self
            .edges(range)
            .into_iter()
            .any(|edge| self.written_runs(edge).any(|(_, written)| written))
    }

    /// `range` reads zeros afterwards; with `unmap` the members give the space back. Whole blocks within the capacity.
    pub async fn zero(&self, range: ByteRange, unmap: bool, fua: bool) -> Result<(), IoError> {
        self.foreground.note();
        self.check_running()?;
        if self.parity.is_some() {
            if let Some(rows) = self.whole_rows(range) {
                for piece in rows.split_at_multiples(PIECE) {
                    self.forget_rows(piece, unmap).await?;
                }
            }
        } else if let Some(whole) = self.regions.whole_granules(range) {
            for piece in whole.split_at_multiples(PIECE) {
                self.forget(piece, unmap).await?;
            }
        }
        for edge in self.edges(range) {
            for piece in edge.split_at_multiples(1 << 20) {
                if self.written_runs(piece).any(|(_, written)| written) {
                    self.write_part(Part {
                        range: piece,
                        content: Content::Zeros,
                    })
                    .await?;
                }
            }
        }
        if fua { self.flush().await } else { Ok(()) }
    }

    /// What of `range` is not whole granules: each edge shorter than one.
    fn edges(&self, range: ByteRange) -> [ByteRange; 2] {
        if self.parity.is_some() {
            return self.edges_of_rows(range);
        }
        match self.regions.whole_granules(range) {
            Some(whole) => [
                ByteRange::between(range.start(), whole.start()),
                ByteRange::between(whole.end(), range.end()),
            ],
            None => {
                // Within one granule, or across the border of two.
                let border = self
                    .regions
                    .round_to_granules(ByteRange::between(range.start(), range.start() + 1))
                    .end();
                let middle = border.min(range.end());
                [
                    ByteRange::between(range.start(), middle),
                    ByteRange::between(middle, range.end()),
                ]
            }
        }
    }

    /// Makes never-written space blank on the members: zeros stand there afterwards, or the devices have it back. What of
    /// `range` was ever written stays as it is.
    pub async fn wipe(&self, range: ByteRange) -> Result<(), IoError> {
        self.check_running()?;
        if self.parity.is_some() {
            return self.wipe_rows(range).await;
        }
        let _claim = self.lock.claim(range, Mode::Exclusive).await;
        let members = self.members.load_full();
        let mut operations: SmallVec<[(usize, Io); 4]> = SmallVec::new();
        for (blank, _) in self.regions.runs(range).filter(|(_, written)| !written) {
            self.start_zeros(&members, blank, |_| true, &mut operations);
        }
        self.answer_write(&members, &mut operations).await
    }

    async fn forget(&self, granules: ByteRange, unmap: bool) -> Result<(), IoError> {
        let _claim = self.lock.claim(granules, Mode::Exclusive).await;
        self.regions.clear_written(granules);
        self.commit_log().await?;
        if !unmap {
            return Ok(());
        }
        let members = self.members.load_full();
        let mut operations: SmallVec<[(usize, Io); 4]> = SmallVec::new();
        self.start_zeros(&members, granules, |info| info.zeroes_fast, &mut operations);
        self.answer_write(&members, &mut operations).await
    }

    /// Has the members whose devices are `wanted` give `range` back, or write zeros there.
    fn start_zeros(
        &self,
        members: &Members,
        range: ByteRange,
        wanted: impl Fn(DeviceInfo) -> bool,
        operations: &mut SmallVec<[(usize, Io); 4]>,
    ) {
        for piece in self.layout.pieces(range) {
            for member in self.layout.column_members(piece.first_member) {
                let Some(device) = members.writable(member).filter(|device| wanted(device.info())) else {
                    continue;
                };
                let at = members.record.members[member].data_start + piece.member_at;
                let range = ByteRange::between(at, at + piece.range.len());
                operations.push((member, device.start(Request::Zero { range, unmap: true })));
            }
        }
    }
}
