//! Which space of a group was ever written, and which may differ between its members: the bitmaps of the region log in
//! memory, with everything that decides when a bit may change. Synchronous; does no I/O.
//!
//! - *written* (per granule): clear means *never written*, reads as zeros whatever the members hold (R12). A bit that
//!   was set in memory is *pending* until a flush that began later has made the granule's content durable on all
//!   members; only then may it go to the log: a *done* mark, exact (R1).
//! - *intent* (per region): set and durable before data of a write goes to any member; cleared only after a flush that
//!   began after the last write of the region (R2), never while a member is missing.
//! - *suspect* (per region, memory only): marked when the group was opened; copies in sync may differ (R3).
//! - *stale* (per region, memory only): the member that is joining lacks it.
//!
//! Invariants: `intent_durable` ⊆ `intent`; a granule in `pending` is written; all changes happen under one lock, so
//! that an image taken for the log is a state that existed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::bits::BitVec;
use super::region_log::{BITS, Bitmap, BlockId, Image, LogShape, WORDS};
use crate::planted::{self, Planted};
use crate::types::ByteRange;

type Words = Box<[AtomicU64; WORDS]>;

/// Use of one region by writes.
#[derive(Debug, Clone, Copy, Default)]
struct RegionUse {
    in_flight: u32,
    /// The flush epoch in which the last write of the region ended.
    epoch: u64,
}

#[derive(Debug, Default)]
struct Inner {
    intent: BitVec,
    intent_durable: BitVec,
    suspect: BitVec,
    stale: BitVec,
    uses: Vec<RegionUse>,
    /// Granules whose bit is set but may not be logged yet, with the epoch in which it was set.
    pending: BTreeMap<u64, u64>,
    epoch: u64,
    flushed_epoch: u64,
    /// How often a member began to join.
    joins: u64,
    /// Regions copied since the copying began that still goes on, or was the last.
    copied: usize,
    dirty: BTreeSet<BlockId>,
    sequences: Vec<u64>,
}

/// The regions of one group.
pub(super) struct Regions {
    capacity: u64,
    granule: u64,
    region: u64,
    shape: LogShape,
    written: Vec<OnceLock<Words>>,
    suspects: AtomicUsize,
    inner: Mutex<Inner>,
}

/// How far copies are made equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopyProgress {
    /// Bytes, in regions, that are to be looked at.
    pub left: u64,
    /// Bytes that were, since the copying began: with what is left, all of it.
    pub done: u64,
}

/// Holds the regions of a write in flight in use; must be given back by [`Regions::end_write`].
#[derive(Debug)]
#[must_use]
pub(super) struct WriteTicket {
    regions: std::ops::Range<u64>,
    /// The log must be committed before data may go out.
    pub(super) needs_commit: bool,
}

impl Regions {
    /// The state that these images stand for (in the order of [`LogShape::blocks`]), of so many bytes.
    pub(super) fn open(capacity: u64, granule: u64, region: u64, images: &[Image]) -> Self {
        let shape = LogShape::new(capacity, granule, region);
        let regions = usize::try_from(capacity.div_ceil(region)).expect("regions fit memory");
        let mut inner = Inner {
            intent: BitVec::new(regions),
            intent_durable: BitVec::new(regions),
            suspect: BitVec::new(regions),
            stale: BitVec::new(regions),
            uses: vec![RegionUse::default(); regions],
            epoch: 1,
            sequences: images.iter().map(|image| image.sequence).collect(),
            ..Inner::default()
        };
        let written: Vec<OnceLock<Words>> = (0..shape.written).map(|_| OnceLock::new()).collect();
        for (block, image) in shape.blocks().zip(images) {
            let first = u64::from(block.index) * BITS;
            match block.bitmap {
                Bitmap::Written if image.words.iter().any(|&word| word != 0) => {
                    let words = written[block.index as usize].get_or_init(empty_words);
                    let stored = image.words_within(capacity.div_ceil(granule) - first);
                    for (word, value) in words.iter().zip(stored) {
                        word.store(value, Ordering::Relaxed);
                    }
                }
                Bitmap::Written => {}
                Bitmap::Intent => {
                    let stored = image.words_within(regions as u64 - first);
                    inner.intent.load_block(block.index, stored);
                }
            }
        }
        inner.intent_durable = inner.intent.clone();
        Self {
            capacity,
            granule,
            region,
            shape,
            written,
            suspects: AtomicUsize::new(0),
            inner: Mutex::new(inner),
        }
    }

    /// Unit of *never written*.
    pub(super) fn granule(&self) -> u64 {
        self.granule
    }

    pub(super) fn shape(&self) -> LogShape {
        self.shape
    }

    /// Granules whole, cut to the group's end.
    pub(super) fn round_to_granules(&self, range: ByteRange) -> ByteRange {
        let out = range
            .round_out(self.granule)
            .expect("a range within the capacity rounds within 64 bits");
        ByteRange::between(out.start(), out.end().min(self.capacity))
    }

    /// The whole granules within `range`; the last granule of the group counts as whole at the group's end.
    pub(super) fn whole_granules(&self, range: ByteRange) -> Option<ByteRange> {
        let start = range.start().next_multiple_of(self.granule);
        let end = if range.end() == self.capacity {
            range.end()
        } else {
            range.end() / self.granule * self.granule
        };
        (start < end).then(|| ByteRange::between(start, end))
    }

    pub(super) fn region_range(&self, region: u64) -> ByteRange {
        let start = region * self.region;
        ByteRange::between(start, (start + self.region).min(self.capacity))
    }

    fn is_written(&self, granule: u64) -> bool {
        let (block, bit) = (granule / BITS, granule % BITS);
        let Some(words) = self.written[index(block)].get() else {
            return false;
        };
        words[index(bit / 64)].load(Ordering::Acquire) & 1 << (bit % 64) != 0
    }

    pub(super) fn all_written(&self, range: ByteRange) -> bool {
        range.units(self.granule).all(|granule| self.is_written(granule))
    }

    /// The range in runs of written and never written space.
    pub(super) fn runs(&self, range: ByteRange) -> impl Iterator<Item = (ByteRange, bool)> + '_ {
        let mut at = range.start();
        std::iter::from_fn(move || {
            if at >= range.end() {
                return None;
            }
            let written = self.is_written(at / self.granule);
            let mut granule = at / self.granule + 1;
            while granule * self.granule < range.end() && self.is_written(granule) == written {
                granule += 1;
            }
            let run = ByteRange::between(at, (granule * self.granule).min(range.end()));
            at = run.end();
            Some((run, written))
        })
    }

    /// Marks granules written. They go to the log after the next flush.
    pub(super) fn set_written(&self, range: ByteRange) {
        let mut inner = self.lock();
        let epoch = inner.epoch;
        for granule in range.units(self.granule) {
            if !self.is_written(granule) {
                inner.pending.insert(granule, epoch);
                self.change_written(granule, true);
            }
        }
    }

    /// Marks whole granules never written. The log must be committed before their content may be touched.
    pub(super) fn clear_written(&self, range: ByteRange) {
        let mut inner = self.lock();
        for granule in range.units(self.granule) {
            if self.is_written(granule) {
                inner.pending.remove(&granule);
                self.change_written(granule, false);
                inner.dirty.insert(self.written_block(granule));
            }
        }
    }

    fn change_written(&self, granule: u64, written: bool) {
        let (block, bit) = (granule / BITS, granule % BITS);
        let words = self.written[index(block)].get_or_init(empty_words);
        let (word, mask) = (&words[index(bit / 64)], 1 << (bit % 64));
        if written {
            word.fetch_or(mask, Ordering::AcqRel);
        } else {
            word.fetch_and(!mask, Ordering::AcqRel);
        }
    }

    fn written_block(&self, granule: u64) -> BlockId {
        BlockId {
            bitmap: Bitmap::Written,
            index: u32::try_from(granule / BITS).expect("checked by LogShape"),
        }
    }

    /// Begins a write: takes its regions into use and marks them.
    pub(super) fn begin_write(&self, range: ByteRange) -> WriteTicket {
        let regions = range.units(self.region);
        let mut inner = self.lock();
        let mut needs_commit = false;
        for region in regions.clone() {
            let at = index(region);
            inner.uses[at].in_flight += 1;
            if !inner.intent_durable.get(at) {
                needs_commit = true;
                if !inner.intent.get(at) {
                    inner.intent.set(at, true);
                    inner.dirty.insert(intent_block(region));
                }
            }
        }
        WriteTicket {
            regions,
            needs_commit,
        }
    }

    pub(super) fn end_write(&self, ticket: &WriteTicket) {
        let mut inner = self.lock();
        let epoch = inner.epoch;
        for region in ticket.regions.clone() {
            let at = index(region);
            inner.uses[at].in_flight -= 1;
            inner.uses[at].epoch = epoch;
            if planted::is(Planted::ClearIntentAtAck) && inner.uses[at].in_flight == 0 {
                inner.unmark(region);
            }
        }
    }

    /// Begins a flush: writes that end from now on are not covered by it.
    pub(super) fn begin_flush(&self) -> u64 {
        let mut inner = self.lock();
        inner.epoch += 1;
        inner.epoch
    }

    /// The devices have flushed. Tells whether the log must be committed before the flush may be answered.
    pub(super) fn end_flush(&self, epoch: u64) -> bool {
        let mut inner = self.lock();
        inner.flushed_epoch = inner.flushed_epoch.max(epoch);
        let ready: Vec<u64> = inner
            .pending
            .iter()
            .filter(|&(_, &set)| set < epoch)
            .map(|(&granule, _)| granule)
            .collect();
        for granule in &ready {
            inner.pending.remove(granule);
            inner.dirty.insert(self.written_block(*granule));
        }
        inner.dirty.iter().any(|block| block.bitmap == Bitmap::Written)
    }

    /// Unmarks regions that no write touched since the flush epoch `before`. Tells whether any was.
    pub(super) fn unmark_idle(&self, before: u64) -> bool {
        let mut inner = self.lock();
        let limit = before.min(inner.flushed_epoch);
        let idle: Vec<usize> = inner
            .intent
            .ones()
            .filter(|&at| inner.uses[at].in_flight == 0 && inner.uses[at].epoch < limit)
            .filter(|&at| !inner.suspect.get(at) && !inner.stale.get(at))
            .collect();
        idle.iter().for_each(|&at| inner.unmark(at as u64));
        !idle.is_empty()
    }

    /// The current flush epoch.
    pub(super) fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    /// Images of all blocks that changed since they were last taken; each with its next sequence.
    pub(super) fn take_dirty(&self) -> Vec<(BlockId, Image)> {
        let mut inner = self.lock();
        let dirty = std::mem::take(&mut inner.dirty);
        dirty
            .into_iter()
            .map(|block| (block, self.next_image(&mut inner, block)))
            .collect()
    }

    fn next_image(&self, inner: &mut Inner, block: BlockId) -> Image {
        let position = self.shape.position(block);
        inner.sequences[position] += 1;
        let mut image = self.image(inner, block);
        image.sequence = inner.sequences[position];
        image
    }

    fn image(&self, inner: &Inner, block: BlockId) -> Image {
        let mut image = Image::empty();
        image.sequence = inner.sequences[self.shape.position(block)];
        match block.bitmap {
            Bitmap::Intent => inner.intent.store_block(block.index, &mut image.words),
            Bitmap::Written => {
                if let Some(words) = self.written[block.index as usize].get() {
                    for (out, word) in image.words.iter_mut().zip(words.iter()) {
                        *out = word.load(Ordering::Acquire);
                    }
                }
                let first = u64::from(block.index) * BITS;
                for (granule, _) in inner.pending.range(first..first + BITS) {
                    let bit = granule - first;
                    image.words[index(bit / 64)] &= !(1 << (bit % 64));
                }
            }
        }
        image
    }

    /// All blocks as they would stand in the log now, with the sequences they have: for a member's first copy.
    pub(super) fn all_images(&self) -> Vec<(BlockId, Image)> {
        let inner = self.lock();
        self.shape
            .blocks()
            .map(|block| (block, self.image(&inner, block)))
            .collect()
    }

    /// These images are durable on every member in sync.
    pub(super) fn committed(&self, images: &[(BlockId, Image)]) {
        let mut inner = self.lock();
        for (block, image) in images.iter().filter(|(block, _)| block.bitmap == Bitmap::Intent) {
            inner.make_durable(block.index, image);
        }
    }

    /// These images did not become durable: they are to be written again.
    pub(super) fn not_committed(&self, images: &[(BlockId, Image)]) {
        self.lock().dirty.extend(images.iter().map(|(block, _)| *block));
    }

    /// Everything marked may differ between the members in sync: what a crash leaves.
    pub(super) fn suspect_all_marked(&self) {
        let mut inner = self.lock();
        inner.begin_copying();
        inner.suspect = inner.intent.clone();
        self.suspects
            .store(inner.suspect.ones().count(), Ordering::Release);
    }

    /// Everything marked is lacking on the member that joins.
    pub(super) fn stale_all_marked(&self) {
        let mut inner = self.lock();
        inner.joins += 1;
        inner.begin_copying();
        inner.stale = inner.intent.clone();
    }

    /// Marks every region that holds written space: the work of a full rebuild.
    pub(super) fn mark_all_written(&self) {
        let mut inner = self.lock();
        for region in 0..inner.uses.len() {
            let range = self.region_range(region as u64);
            if !inner.intent.get(region) && range.units(self.granule).any(|granule| self.is_written(granule))
            {
                inner.intent.set(region, true);
                inner.dirty.insert(intent_block(region as u64));
            }
        }
    }

    /// Has every block written again by the next commit: for a member that has none of them.
    pub(super) fn rewrite_all(&self) {
        self.lock().dirty.extend(self.shape.blocks());
    }

    /// Whether copies in sync may differ somewhere in `range`.
    pub(super) fn is_suspect(&self, range: ByteRange) -> bool {
        if self.suspects.load(Ordering::Acquire) == 0 {
            return false;
        }
        let inner = self.lock();
        range
            .units(self.region)
            .any(|region| inner.suspect.get(index(region)))
    }

    /// The first region from `from` on that must be copied.
    pub(super) fn next_to_sync(&self, from: u64) -> Option<u64> {
        let inner = self.lock();
        let next = |bits: &BitVec| bits.next_one(index(from));
        let found = [next(&inner.suspect), next(&inner.stale)]
            .into_iter()
            .flatten()
            .min()?;
        Some(found as u64)
    }

    /// Regions still to be copied.
    pub(super) fn to_sync(&self) -> usize {
        self.lock().to_sync()
    }

    pub(super) fn copy_progress(&self) -> CopyProgress {
        let inner = self.lock();
        let bytes = |regions: usize| (regions as u64 * self.region).min(self.capacity);
        CopyProgress {
            left: bytes(inner.to_sync()),
            done: bytes(inner.copied),
        }
    }

    /// How often a member began to join: to be asked before the first chunk of a region is copied.
    pub(super) fn joins(&self) -> u64 {
        self.lock().joins
    }

    /// All copies of the region are equal, though not flushed yet. Means nothing where a member began to join while
    /// the region was copied (`joins` changed): it may lack the first chunks.
    pub(super) fn synced(&self, region: u64, joins: u64) {
        let mut inner = self.lock();
        if inner.joins != joins {
            return;
        }
        let at = index(region);
        inner.copied += 1;
        inner.suspect.set(at, false);
        inner.stale.set(at, false);
        inner.uses[at].epoch = inner.epoch;
        self.suspects
            .store(inner.suspect.ones().count(), Ordering::Release);
    }

    /// Whether space was written for the first time since the last flush. Bounds what a host that never flushes leaves
    /// in memory, and what it loses.
    pub(super) fn has_pending(&self) -> bool {
        !self.lock().pending.is_empty()
    }

    /// Whether a flush would leave the log as it is.
    pub(super) fn is_settled(&self) -> bool {
        let inner = self.lock();
        inner.pending.is_empty() && inner.dirty.iter().all(|block| block.bitmap != Bitmap::Written)
    }

    /// Regions with a mark.
    pub(super) fn marked(&self) -> usize {
        self.lock().intent.ones().count()
    }

    /// Bytes in granules that were written.
    pub(super) fn written_bytes(&self) -> u64 {
        let ones = |words: &Words| -> u64 {
            words
                .iter()
                .map(|word| u64::from(word.load(Ordering::Relaxed).count_ones()))
                .sum()
        };
        self.written
            .iter()
            .filter_map(OnceLock::get)
            .map(ones)
            .sum::<u64>()
            * self.granule
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn to_sync(&self) -> usize {
        self.suspect.ones_of_either(&self.stale)
    }

    fn begin_copying(&mut self) {
        if self.to_sync() == 0 {
            self.copied = 0;
        }
    }

    fn unmark(&mut self, region: u64) {
        self.intent.set(index(region), false);
        self.intent_durable.set(index(region), false);
        self.dirty.insert(intent_block(region));
    }

    fn make_durable(&mut self, block: u32, image: &Image) {
        let first = u64::from(block) * BITS;
        for (number, &word) in image.words.iter().enumerate().filter(|&(_, &word)| word != 0) {
            for bit in (0..64).filter(|bit| word & 1 << bit != 0) {
                let at = index(first) + number * 64 + bit;
                // A mark that was taken back meanwhile will be cleared by the next commit.
                if self.intent.get(at) {
                    self.intent_durable.set(at, true);
                }
            }
        }
    }
}

fn intent_block(region: u64) -> BlockId {
    BlockId {
        bitmap: Bitmap::Intent,
        index: u32::try_from(region / BITS).expect("checked by LogShape"),
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("an index into a bitmap in memory")
}

fn empty_words() -> Words {
    Box::new([const { AtomicU64::new(0) }; WORDS])
}
