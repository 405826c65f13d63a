//! A mirror of two disks without metadata, to test the simulation: it writes through, and copies at every start.
//!
//! Reads share, writes exclude each other and reads, over the whole volume.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ashlar_engine::device::{self, Device as _, DeviceError, Request};
use ashlar_engine::export::{StatusRun, Target, TargetInfo, ZeroOptions};
use ashlar_engine::io::{BufSlice, IoBuf, IoError, Segment, Segments};
use ashlar_engine::planted::{self, Planted};
use ashlar_engine::sim::device::SimDevice;
use ashlar_engine::sim::dice::Dice;
use ashlar_engine::sim::shape::Shape;
use ashlar_engine::sim::world::{GroupHealth, OpenVolume, Verb, World, WorldError};
use ashlar_engine::types::{ByteRange, IdSource, OperationId, VolumeId};
use futures_util::future::join_all;
use tokio::sync::RwLock;
use uuid::Uuid;

/// Bytes of each disk: small, as all of it is copied at each start.
const CAPACITY: u64 = 2 << 20;
/// Bytes copied at once at a start.
const COPIED_AT_ONCE: u64 = 1 << 20;

pub(crate) struct Mirror {
    volume: Arc<MirrorVolume>,
}

pub(crate) struct MirrorVolume {
    disks: Vec<SimDevice>,
    capacity: u64,
    block: u32,
    lock: RwLock<()>,
    /// Counts reads: they take turns.
    next: AtomicUsize,
}

impl MirrorVolume {
    fn new(disks: Vec<SimDevice>) -> Self {
        let info = disks[0].info();
        let capacity = disks.iter().map(|disk| disk.info().capacity).min().unwrap_or(0);
        Self {
            disks,
            capacity,
            block: info.block,
            lock: RwLock::new(()),
            next: AtomicUsize::new(0),
        }
    }

    fn check(&self, range: ByteRange) -> Result<(), IoError> {
        if range.end() > self.capacity {
            return Err(IoError::OutOfBounds {
                range,
                capacity: self.capacity,
            });
        }
        if !range.is_aligned(u64::from(self.block)) {
            return Err(IoError::Misaligned {
                range,
                block: self.block,
            });
        }
        Ok(())
    }

    /// Does the same on all disks.
    async fn everywhere(&self, request: impl Fn() -> Request) -> Result<(), IoError> {
        let running: Vec<_> = self
            .disks
            .iter()
            .map(|disk| device::start(disk, request()))
            .collect();
        let ended = join_all(running).await;
        ended
            .into_iter()
            .try_for_each(|completion| completion.result)
            .map_err(failed)
    }

    async fn read_from(&self, disk: usize, range: ByteRange) -> Result<BufSlice, IoError> {
        let buf = IoBuf::new(usize::try_from(range.len()).expect("bounded by the caller"));
        let ended = device::start(
            &self.disks[disk],
            Request::Read {
                at: range.start(),
                buf,
            },
        )
        .await;
        ended.result.map_err(failed)?;
        Ok(ended.buf.expect("a read answers with its buffer").into_slice())
    }

    async fn zero_everywhere(&self, range: ByteRange, unmap: bool) -> Result<(), IoError> {
        self.everywhere(|| Request::Zero { range, unmap }).await?;
        self.everywhere(|| Request::Flush).await
    }

    async fn copy_first_to_others(&self) -> Result<(), IoError> {
        for range in ByteRange::between(0, self.capacity).split_at_multiples(COPIED_AT_ONCE) {
            let data = self.read_from(0, range).await?;
            self.everywhere(|| Request::Write {
                at: range.start(),
                data: data.clone(),
                fua: true,
            })
            .await?;
        }
        Ok(())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "maps errors")]
fn failed(error: DeviceError) -> IoError {
    IoError::Device(error.to_string())
}

impl Target for MirrorVolume {
    fn info(&self) -> TargetInfo {
        TargetInfo {
            capacity: self.capacity,
            block: self.block,
            preferred: 4096,
        }
    }

    async fn read(&self, range: ByteRange) -> Result<Segments, IoError> {
        self.check(range)?;
        let _reading = self.lock.read().await;
        let disk = self.next.fetch_add(1, Ordering::Relaxed) % self.disks.len();
        let data = self.read_from(disk, range).await?;
        Ok(Segments::from_buf([Segment::Data(data)]))
    }

    async fn write(&self, at: u64, data: BufSlice, _fua: bool) -> Result<(), IoError> {
        self.check(ByteRange::between(at, at + data.len() as u64))?;
        let _writing = self.lock.write().await;
        let fua = !planted::is(Planted::AckBeforeFlush);
        self.everywhere(|| Request::Write {
            at,
            data: data.clone(),
            fua,
        })
        .await
    }

    async fn zero(&self, range: ByteRange, options: ZeroOptions) -> Result<(), IoError> {
        self.check(range)?;
        if options.fast_only {
            return Err(IoError::NotFast);
        }
        let _writing = self.lock.write().await;
        self.zero_everywhere(range, options.unmap).await
    }

    async fn flush(&self) -> Result<(), IoError> {
        if planted::is(Planted::AckBeforeFlush) {
            return Ok(());
        }
        self.everywhere(|| Request::Flush).await
    }

    fn block_status(&self, range: ByteRange, _limit: usize) -> Result<Vec<StatusRun>, IoError> {
        self.check(range)?;
        Ok(vec![StatusRun {
            len: range.len(),
            hole: false,
            zero: false,
        }])
    }
}

impl World for Mirror {
    type Target = MirrorVolume;

    const PLANTED: &'static [Planted] = &[Planted::AckBeforeFlush, Planted::SkipResync];

    fn shape(dice: &mut Dice) -> Shape {
        let mut shape = Shape::mirror(dice, 2, 0);
        shape.absences = false;
        shape.volumes.truncate(1);
        shape.disks.iter_mut().for_each(|disk| disk.capacity = CAPACITY);
        shape
    }

    fn mirror(_dice: &mut Dice, _copies: usize) -> Option<Shape> {
        None
    }

    async fn create(disks: &[SimDevice], _ids: IdSource, _shape: &Shape) -> Result<Self, WorldError> {
        let volume = MirrorVolume::new(disks.to_vec());
        let everything = ByteRange::between(0, volume.capacity);
        let zeroed = volume.zero_everywhere(everything, true).await;
        zeroed.map_err(|error| WorldError::Failed(error.to_string()))?;
        Ok(Self {
            volume: Arc::new(volume),
        })
    }

    async fn open(disks: &[Option<SimDevice>], _groups: usize, _ids: IdSource) -> Result<Self, WorldError> {
        let volume = MirrorVolume::new(disks.iter().flatten().cloned().collect());
        if !planted::is(Planted::SkipResync) {
            let copied = volume.copy_first_to_others().await;
            copied.map_err(|error| WorldError::Failed(error.to_string()))?;
        }
        Ok(Self {
            volume: Arc::new(volume),
        })
    }

    fn volumes(&self) -> Vec<OpenVolume<MirrorVolume>> {
        vec![OpenVolume {
            id: VolumeId(Uuid::nil()),
            group: 0,
            target: self.volume.clone(),
        }]
    }

    fn groups(&self) -> Vec<GroupHealth> {
        let members: Vec<usize> = self.volume.disks.iter().map(SimDevice::index).collect();
        vec![GroupHealth {
            serving: true,
            settled: true,
            members: members.clone(),
            in_sync: members.clone(),
            in_use: members,
        }]
    }

    async fn holders(&self) -> Vec<usize> {
        Vec::new()
    }

    async fn manage(&self, _operation: OperationId, _verb: Verb) -> Result<Option<VolumeId>, WorldError> {
        Err(WorldError::Unsupported)
    }

    async fn settle(&self) {}

    async fn stop(&self) {}
}
