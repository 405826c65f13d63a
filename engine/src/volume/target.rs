//! A volume as what host protocols attach to: every kind of request on its way down.

use std::sync::atomic::Ordering;

use futures_util::future::join_all;

use super::{Shape, Volume, stopping};
use crate::io::range_lock::{Mode, RangeGuard};
use crate::io::target::{StatusRun, Target, TargetInfo, ZeroOptions};
use crate::io::{BufSlice, IoError, Segments};
use crate::map::Piece;
use crate::statistics::Kind;
use crate::types::ByteRange;

/// Largest part of a trim or zeroing that goes through guard and hooks at once (R18).
const ZERO_PIECE: u64 = 1 << 30;
/// How much of a volume one block status request looks at: bounds its time on sparse volumes.
const STATUS_SPAN: u64 = 64 << 30;
/// Requests of whole multiples of this are served best.
const PREFERRED: u32 = 4096;

impl Volume {
    fn check(&self, shape: &Shape, range: ByteRange) -> Result<(), IoError> {
        let block = self.emulation.block();
        if range.end() > shape.capacity {
            return Err(IoError::OutOfBounds {
                range,
                capacity: shape.capacity,
            });
        }
        if !range.is_aligned(u64::from(block)) {
            return Err(IoError::Misaligned { range, block });
        }
        Ok(())
    }

    fn check_mapped(shape: &Shape, range: ByteRange) -> Result<(), IoError> {
        let hole = shape.map.pieces(range).find_map(|piece| match piece {
            Piece::Hole(range) => Some(range),
            Piece::Mapped { .. } => None,
        });
        hole.map_or(Ok(()), |range| Err(IoError::Unmapped { range }))
    }

    /// Admits a write: its place in the order, then the hooks.
    async fn admit(&self, range: ByteRange) -> RangeGuard<'_> {
        let claim = self.order.claim(range, Mode::Exclusive).await;
        if let Some(hooks) = &*self.hooks.load() {
            hooks
                .iter()
                .for_each(|hook| hook.before_write(range, claim.epoch()));
        }
        claim
    }

    async fn zero_piece(&self, range: ByteRange, unmap: bool) -> Result<(), IoError> {
        let _claim = self.admit(range).await;
        let shape = self.shape.load_full();
        all_of(shape.map.pieces(range).map(|piece| {
            let shape = &shape;
            async move {
                match piece {
                    Piece::Mapped {
                        range,
                        group,
                        group_start,
                    } => {
                        let at = ByteRange::between(group_start, group_start + range.len());
                        shape.group(group).zero(at, unmap, false).await
                    }
                    Piece::Hole(range) => Err(IoError::Unmapped { range }),
                }
            }
        }))
        .await?;
        Ok(())
    }
}

/// Writes a request that lies on several places of the map.
async fn write_pieces(shape: &Shape, range: ByteRange, data: &BufSlice) -> Result<(), IoError> {
    all_of(shape.map.pieces(range).map(|piece| async move {
        match piece {
            Piece::Mapped {
                range: part,
                group,
                group_start,
            } => {
                let offset = usize::try_from(part.start() - range.start()).expect("within the data");
                let len = usize::try_from(part.len()).expect("within the data");
                shape
                    .group(group)
                    .write(group_start, data.cut(offset, len), false)
                    .await
            }
            Piece::Hole(range) => Err(IoError::Unmapped { range }),
        }
    }))
    .await?;
    Ok(())
}

async fn read_pieces(shape: &Shape, range: ByteRange) -> Result<Segments, IoError> {
    let parts = all_of(shape.map.pieces(range).map(|piece| async move {
        match piece {
            Piece::Mapped {
                range: part,
                group,
                group_start,
            } => {
                shape
                    .group(group)
                    .read(ByteRange::between(group_start, group_start + part.len()))
                    .await
            }
            Piece::Hole(range) => Err(IoError::Unmapped { range }),
        }
    }))
    .await?;
    Ok(parts.into_iter().flatten().collect())
}

async fn flush_groups(shape: &Shape) -> Result<(), IoError> {
    match shape.groups.as_slice() {
        [only] => only.flush().await,
        groups => all_of(groups.iter().map(|group| group.flush())).await.map(|_| ()),
    }
}

impl Target for Volume {
    fn info(&self) -> TargetInfo {
        TargetInfo {
            capacity: self.shape.load().capacity,
            block: self.emulation.block(),
            preferred: PREFERRED,
        }
    }

    fn read(&self, range: ByteRange) -> impl Future<Output = Result<Segments, IoError>> {
        let request = self.counters.begin(Kind::Read, range.len());
        request.counts(async move {
            let _running = self.running.begin().ok_or_else(stopping)?;
            let shape = self.shape.load_full();
            self.check(&shape, range)?;
            self.order.pass(range).await;
            match shape.map.lookup(range.start()) {
                Some(place) if place.len >= range.len() => {
                    let at = ByteRange::between(place.start, place.start + range.len());
                    shape.group(place.group).read(at).await
                }
                _ => {
                    Self::check_mapped(&shape, range)?;
                    read_pieces(&shape, range).await
                }
            }
        })
    }

    // Counted within: around it, as the others are, would cost 10 ns.
    async fn write(&self, at: u64, data: BufSlice, fua: bool) -> Result<(), IoError> {
        let request = self.counters.begin(Kind::Write, data.len() as u64);
        let _running = self.running.begin().ok_or_else(stopping)?;
        let shape = self.shape.load_full();
        let capacity = shape.capacity;
        let range = ByteRange::new(at, data.len() as u64).ok_or(IoError::OutOfBounds {
            range: ByteRange::between(at, at),
            capacity,
        })?;
        self.check(&shape, range)?;
        let claim = match shape.map.lookup(at) {
            Some(place) if place.len >= range.len() => {
                let claim = self.admit(range).await;
                shape.group(place.group).write(place.start, data, false).await?;
                claim
            }
            _ => {
                Self::check_mapped(&shape, range)?;
                let claim = self.admit(range).await;
                write_pieces(&shape, range, &data).await?;
                claim
            }
        };
        if fua {
            flush_groups(&shape).await?;
        }
        drop(claim);
        request.succeeded();
        Ok(())
    }

    fn zero(&self, range: ByteRange, options: ZeroOptions) -> impl Future<Output = Result<(), IoError>> {
        let request = self.counters.begin(Kind::Zero, range.len());
        request.counts(async move {
            let _running = self.running.begin().ok_or_else(stopping)?;
            let shape = self.shape.load_full();
            self.check(&shape, range)?;
            Self::check_mapped(&shape, range)?;
            let slow = |piece: Piece| match piece {
                Piece::Mapped {
                    range,
                    group,
                    group_start,
                } => shape
                    .group(group)
                    .zero_needs_writes(ByteRange::between(group_start, group_start + range.len())),
                Piece::Hole(_) => false,
            };
            if options.fast_only && shape.map.pieces(range).any(slow) {
                return Err(IoError::NotFast);
            }
            for piece in range.split_at_multiples(ZERO_PIECE) {
                self.zero_piece(piece, options.unmap).await?;
            }
            if options.fua {
                flush_groups(&shape).await
            } else {
                Ok(())
            }
        })
    }

    fn flush(&self) -> impl Future<Output = Result<(), IoError>> {
        let request = self.counters.begin(Kind::Flush, 0);
        request.counts(async move {
            let _running = self.running.begin().ok_or_else(stopping)?;
            flush_groups(&self.shape.load_full()).await
        })
    }

    fn losses(&self) -> u64 {
        self.losses.load(Ordering::SeqCst)
    }

    fn block_status(&self, range: ByteRange, limit: usize) -> Result<Vec<StatusRun>, IoError> {
        let shape = self.shape.load_full();
        self.check(&shape, range)?;
        let looked = ByteRange::between(
            range.start(),
            range.end().min(range.start().saturating_add(STATUS_SPAN)),
        );
        let mut runs: Vec<StatusRun> = Vec::new();
        for piece in shape.map.pieces(looked) {
            match piece {
                Piece::Hole(range) => push(
                    &mut runs,
                    StatusRun {
                        len: range.len(),
                        hole: true,
                        zero: false,
                    },
                ),
                Piece::Mapped {
                    range,
                    group,
                    group_start,
                } => {
                    let at = ByteRange::between(group_start, group_start + range.len());
                    for (run, written) in shape.group(group).written_runs(at) {
                        push(
                            &mut runs,
                            StatusRun {
                                len: run.len(),
                                hole: !written,
                                zero: !written,
                            },
                        );
                        if runs.len() > limit {
                            break;
                        }
                    }
                }
            }
            if runs.len() > limit {
                break;
            }
        }
        runs.truncate(limit);
        Ok(runs)
    }
}

/// Appends a run, joined to the last one where they are alike.
fn push(runs: &mut Vec<StatusRun>, run: StatusRun) {
    match runs.last_mut() {
        Some(last) if last.hole == run.hole && last.zero == run.zero => last.len += run.len,
        _ => runs.push(run),
    }
}

/// Runs all to their end, then fails with the first error: a part that failed must not cut off the others in the
/// middle of what they change.
async fn all_of<T>(
    parts: impl Iterator<Item = impl Future<Output = Result<T, IoError>>>,
) -> Result<Vec<T>, IoError> {
    join_all(parts).await.into_iter().collect()
}
