//! A RAID group in service: its parts, opening it, reading and flushing.
//!
//! Invariants: what a read returns was acknowledged or is being written; never-written space reads as zeros; a flush
//! that returned `Ok` has made everything acknowledged before it durable on every member in sync, together with the
//! marks that say it was written.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use smallvec::SmallVec;

use super::checks::{Checks, Formula};
use super::commit::Turns;
use super::copy_pace::{CopyPace, Foreground};
use super::layout::Layout;
use super::membership::{Journal, Member, Members, Serving};
use super::parity::{self, Parity};
use super::record::{GroupRecord, MemberStatus};
use super::region_log::{self, Image};
use super::regions::Regions;
use super::scrub::Scrubbing;
use crate::device::{DeviceError, DeviceHandle, DeviceInfo, Io};
use crate::io::range_lock::RangeLock;
use crate::io::{BufSlice, IoBuf, IoError, Segment, Segments};
use crate::planted::{self, Planted};
use crate::types::{ByteRange, GroupId, GroupNumber};

/// Longest stretch that a new member is told to clear at once: devices have a limited time for each operation.
const FORMATTED_AT_A_TIME: u64 = 256 << 20;

/// The state that people see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupState {
    Optimal,
    /// Serves with fewer members than it has places.
    Degraded,
    /// Members are being copied to.
    Rebuilding,
    /// Does not serve writes.
    Failed,
}

/// A RAID group.
pub struct Group {
    pub(super) id: GroupId,
    number: GroupNumber,
    pub(super) layout: Layout,
    slice: u64,
    pub(super) members: ArcSwap<Members>,
    pub(super) durable_generation: AtomicU64,
    /// Held while the membership changes.
    pub(super) change: tokio::sync::Mutex<()>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) regions: Regions,
    pub(super) turns: Turns,
    /// Writes share it; first use, trimming and copying exclude.
    pub(super) lock: RangeLock,
    stopped: OnceLock<&'static str>,
    /// Told when a member begins to join.
    pub(super) work: tokio::sync::Notify,
    pub(super) halted: AtomicBool,
    pub(super) pace: CopyPace,
    pub(super) foreground: Foreground,
    pub(super) scrubbing: Scrubbing,
    block: u32,
    /// Where the layout has sums.
    pub(super) parity: Option<Parity>,
    /// Where what the members hold has checksums.
    pub(super) checks: Option<Checks>,
}

/// Why a group could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("the region log is damaged on every member in sync")]
    LogDamaged,
    #[error("a column has no member in sync")]
    Incomplete,
    #[error("the journal cannot be opened: {0}")]
    Journal(IoError),
}

impl Group {
    /// Clears the region log of a new member, which stands for *never written* everywhere, and the journal's place.
    /// `log` is the place of all that, and of the checksums, which tell nothing of what was never written.
    pub async fn format_member(
        record: &GroupRecord,
        device: &DeviceHandle,
        log: ByteRange,
    ) -> Result<(), DeviceError> {
        for piece in record
            .without_checksums(log)
            .split_at_multiples(FORMATTED_AT_A_TIME)
        {
            device.zero(piece, false).await?;
        }
        device.flush().await
    }

    /// Begins the journal on a member of a new group, where it has one.
    pub async fn begin_journal(
        record: &GroupRecord,
        member: usize,
        device: &DeviceHandle,
    ) -> Result<(), DeviceError> {
        if record.layout.sums() == 0 {
            return Ok(());
        }
        parity::format_journal(record, member, device).await
    }

    /// Opens a group on the devices that are there, by member; those in sync must be complete. Afterwards
    /// [`sync`](Self::sync) must run: a crash may have left copies different.
    pub async fn open(
        record: GroupRecord,
        devices: Vec<Option<Arc<DeviceHandle>>>,
        journal: Arc<dyn Journal>,
    ) -> Result<Self, OpenError> {
        let checks = record.checksums.then(|| Checks::new(Formula::of(record.id)));
        let list: SmallVec<[Member; 4]> = record
            .members
            .iter()
            .zip(devices)
            .map(|(member, device)| {
                let serves = member.status == MemberStatus::InSync && device.is_some();
                Member {
                    serving: if serves { Serving::InSync } else { Serving::Out },
                    device: device.filter(|_| serves),
                    checks: checks.as_ref().filter(|_| serves).map(Checks::of_member),
                }
            })
            .collect();
        let members = Members { record, list };
        if !members.complete() {
            return Err(OpenError::Incomplete);
        }
        let record = &members.record;
        let images = read_log(&members).await?;
        let space = record.layout.known_space();
        let regions = Regions::open(space, record.granule, record.region, &images);
        let parity = (record.layout.sums() > 0).then(|| Parity::new(&record.layout, journal.ids()));
        if parity.is_none() {
            regions.suspect_all_marked();
        }
        let present = members.all_writable();
        let block = present
            .map(|(_, device)| device.info().block)
            .max()
            .ok_or(OpenError::Incomplete)?;
        let pace = CopyPace::default();
        let group = Self {
            id: record.id,
            number: record.number,
            layout: record.layout,
            slice: record.slice,
            durable_generation: AtomicU64::new(record.membership.generation),
            members: ArcSwap::from_pointee(members),
            change: tokio::sync::Mutex::new(()),
            journal,
            regions,
            turns: Turns::default(),
            lock: RangeLock::new(),
            stopped: OnceLock::new(),
            work: tokio::sync::Notify::new(),
            halted: AtomicBool::new(false),
            scrubbing: Scrubbing::new(&pace),
            pace,
            foreground: Foreground::default(),
            block,
            parity,
            checks,
        };
        group.settle_log().await?;
        if group.parity.is_some() {
            group.open_journal().await.map_err(OpenError::Journal)?;
        }
        Ok(group)
    }

    /// Writes every block of the log again as it was found, with the sequence it has, so that all members in sync hold
    /// the same images before a new one is written beside them.
    async fn settle_log(&self) -> Result<(), OpenError> {
        let members = self.members.load_full();
        if members.all_writable().count() < 2 {
            return Ok(());
        }
        let shape = self.regions.shape();
        let mut failed = SmallVec::<[usize; 4]>::new();
        for (member, device) in members.all_writable() {
            let log = members.record.members[member].log.start();
            for (block, image) in self
                .regions
                .all_images()
                .iter()
                .filter(|(_, image)| image.sequence > 0)
            {
                let data = region_log::encode(self.id, *block, image);
                // What fails closes the device's latch, and so the flush fails as well.
                let _ = device
                    .write(log + shape.place(*block, image.sequence), data, false)
                    .await;
            }
            if device.flush().await.is_err() {
                failed.push(member);
            }
        }
        self.drop_members(&members, &failed)
            .await
            .map_err(|_| OpenError::Incomplete)
    }

    pub fn id(&self) -> GroupId {
        self.id
    }

    pub fn number(&self) -> GroupNumber {
        self.number
    }

    pub fn capacity(&self) -> u64 {
        self.layout.capacity()
    }

    /// Length of a logical device.
    pub fn slice(&self) -> u64 {
        self.slice
    }

    /// Addresses and lengths are multiples of this.
    pub fn block(&self) -> u32 {
        self.block
    }

    pub fn record(&self) -> GroupRecord {
        self.members.load().record.clone()
    }

    /// Whether a restart would find the record that is served, for no change of it is under way.
    pub fn membership_is_durable(&self) -> bool {
        let generation = self.members.load().record.membership.generation;
        self.change.try_lock().is_ok() && self.durable_generation.load(Ordering::Acquire) >= generation
    }

    /// How each member takes part, in the record's order.
    pub fn serving(&self) -> Vec<Serving> {
        self.members
            .load()
            .list
            .iter()
            .map(|member| member.serving)
            .collect()
    }

    pub fn state(&self) -> GroupState {
        let members = self.members.load();
        let joining = members
            .list
            .iter()
            .any(|member| member.serving == Serving::Joining);
        match () {
            () if self.stopped.get().is_some() => GroupState::Failed,
            () if joining => GroupState::Rebuilding,
            () if members.whole() => GroupState::Optimal,
            () => GroupState::Degraded,
        }
    }

    /// Regions whose writes are not known to be everywhere and durable.
    pub fn marked_regions(&self) -> usize {
        self.regions.marked()
    }

    /// Bytes that were ever written, in granules.
    pub fn written_bytes(&self) -> u64 {
        let columns = if self.parity.is_some() {
            self.layout.columns()
        } else {
            1
        };
        self.regions.written_bytes() * columns
    }

    /// The range in runs of written (`true`) and never written space; with sums cut at stripe units.
    pub fn written_runs(&self, range: ByteRange) -> impl Iterator<Item = (ByteRange, bool)> + '_ {
        let plain = self.parity.is_none().then(|| self.regions.runs(range));
        let of_rows = self.parity.is_some().then(|| self.written_runs_of_rows(range));
        plain.into_iter().flatten().chain(of_rows.into_iter().flatten())
    }

    pub(super) fn check_running(&self) -> Result<(), IoError> {
        match self.stopped.get() {
            Some(why) => Err(IoError::GroupUnavailable { why }),
            None => Ok(()),
        }
    }

    /// Stops serving writes; the first reason stays.
    pub(super) fn stop(&self, why: &'static str) -> IoError {
        if self.stopped.set(why).is_ok() {
            tracing::error!(group = %self.number, why, "RAID group stopped");
        }
        if let Some(parity) = &self.parity {
            parity.stopped();
        }
        IoError::GroupUnavailable { why }
    }

    /// Waits for every operation and notes whose failed, each member once.
    pub(super) async fn settle_all(
        &self,
        members: &Members,
        operations: &mut [(usize, Io)],
        failed: &mut SmallVec<[usize; 4]>,
    ) {
        for (member, io) in operations {
            let completion = (&mut *io).await;
            let device = members.writable(*member).expect("an operation was started on it");
            if device.settle(io, completion).result.is_err() && !failed.contains(member) {
                failed.push(*member);
            }
        }
    }

    /// Reads `range`, which lies within the capacity and is made of whole blocks.
    pub async fn read(&self, range: ByteRange) -> Result<Segments, IoError> {
        self.foreground.note();
        if self.parity.is_some() {
            return self.read_rows(range).await;
        }
        if self.regions.is_suspect(range) {
            self.equalize(range).await?;
        }
        let mut out = Segments::new();
        if self.regions.all_written(range) {
            self.read_copies(range, &mut out).await?;
            return Ok(out);
        }
        for (run, written) in self.regions.runs(range) {
            if written {
                self.read_copies(run, &mut out).await?;
            } else {
                out.push(Segment::Zero(run.len()));
            }
        }
        Ok(out)
    }

    /// Makes everything acknowledged before durable.
    pub async fn flush(&self) -> Result<(), IoError> {
        if planted::is(Planted::AckBeforeFlush) {
            return Ok(());
        }
        // What is in the journal was durable before it was acknowledged.
        if self.parity.is_some() && self.regions.is_settled() && self.turns.is_idle() {
            return self.check_running();
        }
        self.flush_members().await
    }

    /// Has all members flush, and commits what may go to the log then.
    pub(super) async fn flush_members(&self) -> Result<(), IoError> {
        self.check_running()?;
        let epoch = self.regions.begin_flush();
        self.write_checks().await?;
        let members = self.members.load_full();
        let mut failed = SmallVec::<[usize; 4]>::new();
        let mut flushes = members.start_flushes();
        self.settle_all(&members, &mut flushes, &mut failed).await;
        if failed.is_empty() {
            self.wait_durable(members.record.membership.generation).await?;
        } else {
            self.drop_members(&members, &failed).await?;
        }
        if self.regions.end_flush(epoch) || !self.turns.is_idle() {
            return self.commit_log().await;
        }
        // A commit that carried what this flush needs may just have failed.
        self.check_running()
    }

    /// Shared facts of the members that are there.
    pub fn device_infos(&self) -> Vec<DeviceInfo> {
        self.members
            .load()
            .all_writable()
            .map(|(_, device)| device.info())
            .collect()
    }

    /// The device at a member's place, where it serves.
    pub fn member_device(&self, member: usize) -> Option<Arc<DeviceHandle>> {
        self.members.load().writable(member).cloned()
    }
}

/// The newest image of every block over the members in sync.
async fn read_log(members: &Members) -> Result<Vec<Image>, OpenError> {
    let record = &members.record;
    let shape = record.shape_of_log();
    let mut newest: Vec<Option<Image>> = vec![None; shape.blocks().count()];
    for (member, device) in members.all_writable() {
        // A member that fails here is taken out when the log is settled.
        let Ok(bytes) = read_whole(device, record.members[member].log.start(), shape.len()).await else {
            continue;
        };
        let images = region_log::newest_images(record.id, shape, &bytes);
        for (known, found) in newest.iter_mut().zip(images) {
            let newer =
                found.filter(|found| known.as_ref().is_none_or(|known| known.sequence < found.sequence));
            if newer.is_some() {
                *known = newer;
            }
        }
    }
    newest
        .into_iter()
        .collect::<Option<Vec<Image>>>()
        .ok_or(OpenError::LogDamaged)
}

/// Reads `len` bytes in bounded pieces. What the medium cannot give reads as damage.
async fn read_whole(device: &DeviceHandle, start: u64, len: u64) -> Result<Vec<u8>, DeviceError> {
    let mut out = Vec::with_capacity(usize::try_from(len).expect("the log fits memory"));
    for piece in ByteRange::between(start, start + len).split_at_multiples(1 << 20) {
        let len = usize::try_from(piece.len()).expect("at most 1 MiB");
        match device.read(piece.start(), len).await {
            Ok(bytes) => out.extend_from_slice(bytes.as_slice()),
            Err(DeviceError::Medium) => out.resize(out.len() + len, 0xff),
            Err(error) => return Err(error),
        }
    }
    Ok(out)
}

/// Zeros that no operation changes, cut to `len` (at most 1 MiB).
pub(super) fn zeros(len: u64) -> BufSlice {
    thread_local! {
        static ZEROS: BufSlice = IoBuf::zeroed(1 << 20).into_slice();
    }
    ZEROS.with(|zeros| zeros.cut(0, usize::try_from(len).expect("at most 1 MiB")))
}
