//! Making copies equal: after a crash (R3), for a member that returned, for one that is new; and taking marks back.
//!
//! All three are one walk over the marked regions. A chunk is copied under an exclusive claim from the first member in
//! sync to every other member that is written, several at a time while no host asks for anything; never-written granules
//! need nothing. The walk's place is the marks
//! themselves, so it goes on after a restart where it stood.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{FuturesOrdered, StreamExt as _};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::checks;
use super::copy_pace::{CopyLimit, Foreground};
use super::group::{Group, zeros};
use super::layout::Piece;
use super::regions::CopyProgress;
use crate::device::{Io, Request};
use crate::io::IoError;
use crate::io::range_lock::Mode;
use crate::planted::{self, Planted};
use crate::types::ByteRange;

/// Bytes copied under one claim: host writes there wait so long.
const CHUNK: u64 = 256 << 10;
/// Chunks under way at once while no host is there.
const AT_A_TIME: usize = 8;
/// Beside hosts one chunk at a time is copied, so short that a request which meets it on a device hardly waits.
const CHUNK_BESIDE_HOSTS: u64 = 16 << 10;
/// Where so short a chunk takes so long, a device seeks, and longer ones make nobody wait much longer.
const SEEKS: Duration = Duration::from_millis(4);
/// Hosts are there for so long after a request.
const HOSTS_STAY: Duration = Duration::from_millis(100);
/// How many times longer than it worked it rests for hosts, and how long at the most.
const REST_FOR_HOSTS: u32 = 2;
const LONGEST_REST: Duration = Duration::from_millis(100);

/// Whether hosts are there.
struct Hosts<'a> {
    foreground: &'a Foreground,
    requests: u64,
    seen: Option<Instant>,
}

impl<'a> Hosts<'a> {
    fn of(foreground: &'a Foreground) -> Self {
        Self {
            foreground,
            requests: foreground.requests(),
            seen: None,
        }
    }

    fn are_there(&mut self) -> bool {
        let requests = self.foreground.requests();
        if std::mem::replace(&mut self.requests, requests) != requests {
            self.seen = Some(Instant::now());
        }
        self.seen.is_some_and(|seen| seen.elapsed() < HOSTS_STAY)
    }
}

/// A chunk to be copied.
#[derive(Debug, Clone, Copy)]
struct Step {
    region: u64,
    /// How often a member had begun to join before the region's first chunk.
    joins: u64,
    chunk: ByteRange,
    /// The last of its region.
    is_last: bool,
}

/// The chunks of the marked regions, in the order of their addresses.
struct Walk<'a> {
    group: &'a Group,
    from: u64,
    region: Option<Step>,
}

impl<'a> Walk<'a> {
    fn new(group: &'a Group) -> Self {
        Self {
            group,
            from: 0,
            region: None,
        }
    }

    /// The next chunk, of at most `longest` bytes.
    fn next(&mut self, longest: u64) -> Option<Step> {
        let rest = match self.region.take() {
            Some(rest) => rest,
            None => {
                let regions = &self.group.regions;
                let region = regions.next_to_sync(self.from)?;
                self.from = region + 1;
                Step {
                    region,
                    joins: regions.joins(),
                    chunk: regions.region_range(region),
                    is_last: true,
                }
            }
        };
        let end = rest.chunk.end().min((rest.chunk.start() / longest + 1) * longest);
        let is_last = end == rest.chunk.end();
        if !is_last {
            let chunk = ByteRange::between(end, rest.chunk.end());
            self.region = Some(Step { chunk, ..rest });
        }
        let chunk = ByteRange::between(rest.chunk.start(), end);
        Some(Step {
            chunk,
            is_last,
            ..rest
        })
    }
}

impl Group {
    /// Regions that still have to be made equal.
    pub fn regions_to_sync(&self) -> usize {
        self.regions.to_sync()
    }

    /// How far copies are made equal.
    pub fn copy_progress(&self) -> CopyProgress {
        self.regions.copy_progress()
    }

    /// Has background work end at its next step.
    pub fn halt(&self) {
        self.halted.store(true, Ordering::Release);
        self.copy_limit_changed();
        self.work.notify_one();
    }

    /// Whether background work is to end.
    pub fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Acquire)
    }

    /// Resolves when background work is to end; at once where that is so already.
    pub async fn halted(&self) {
        loop {
            let changed = self.pace.changed.notified();
            if self.is_halted() {
                return;
            }
            changed.await;
        }
    }

    /// Resolves when a member has begun to join since the last call.
    pub async fn wants_sync(&self) {
        self.work.notified().await;
    }

    /// Most bytes per second that the group copies in the background, whatever it copies; `None`: as fast as it goes.
    pub fn set_standing_copy_limit(&self, limit: Option<u64>) {
        self.pace.set_standing_limit(limit);
        self.copy_limit_changed();
    }

    pub fn standing_copy_limit(&self) -> Option<u64> {
        self.pace.standing_limit()
    }

    /// The same, of what is copied at this time: the smaller limit counts.
    pub fn set_copy_limit(&self, limit: Option<u64>) {
        self.pace.set_limit(limit);
    }

    pub fn copy_limit(&self) -> Option<u64> {
        self.pace.limit()
    }

    /// Another limit that holds as well, for this group and others together. Set once; who changes it
    /// [tells](Self::copy_limit_changed) the groups.
    pub fn share_copy_limit(&self, limit: Arc<CopyLimit>) {
        self.scrubbing.pace.share(Arc::clone(&limit));
        self.pace.share(limit);
    }

    pub fn copy_limit_changed(&self) {
        self.pace.changed.notify_waiters();
        self.scrubbing.pace.changed.notify_waiters();
    }

    /// Has background copying stop after the chunk that is being copied, or go on.
    pub fn set_copy_paused(&self, paused: bool) {
        self.pace.set_paused(paused);
        self.work.notify_one();
    }

    pub fn is_copy_paused(&self) -> bool {
        self.pace.is_paused()
    }

    fn copying_is_to_stop(&self) -> bool {
        self.is_halted() || self.pace.is_paused()
    }

    /// Copies everything that is suspect or stale, then takes joining members in. Ends early, without an error, where
    /// nothing is to be done, or while it is paused.
    pub async fn sync(&self) -> Result<(), IoError> {
        let _watching = self.foreground.watch();
        let mut walk = Walk::new(self);
        let mut running = FuturesOrdered::new();
        let mut first_error = None;
        let mut kept_mark = None;
        let mut stopped = false;
        let mut hosts = Hosts::of(&self.foreground);
        let mut seeks = false;
        loop {
            let is_busy = hosts.are_there();
            let (most, longest) = match is_busy {
                false => (AT_A_TIME, CHUNK),
                true if seeks => (1, CHUNK),
                true => (1, CHUNK_BESIDE_HOSTS),
            };
            while !stopped && running.len() < most {
                let Some(step) = walk.next(longest) else { break };
                running.push_back(self.sync_step(step, is_busy));
            }
            // In order of address, so that a region's last chunk comes last.
            let Some((step, copied)) = running.next().await else {
                break;
            };
            let took = copied.as_ref().map_or(None, |took| *took).unwrap_or_default();
            seeks |= step.chunk.len() <= CHUNK_BESIDE_HOSTS && took > SEEKS;
            let copied = copied.map(|took| took.is_some());
            match copied {
                Ok(true) if step.is_last && kept_mark != Some(step.region) => {
                    self.regions.synced(step.region, step.joins);
                }
                Ok(true) => {}
                Ok(false) => stopped = true,
                // The others can still be made equal; this one keeps its mark.
                Err(error) => {
                    kept_mark = Some(step.region);
                    first_error = first_error.or(Some(error));
                }
            }
        }
        if stopped {
            return Ok(());
        }
        self.flush_members().await?;
        // Older updates may name a member that joins, and it has no part in them.
        self.empty_journal().await?;
        self.finish_joining().await?;
        first_error.map_or(Ok(()), Err)
    }

    /// How long the chunk took; `None`: it was told to stop before.
    async fn sync_step(&self, step: Step, is_busy: bool) -> (Step, Result<Option<Duration>, IoError>) {
        if planted::is(Planted::SkipResync) {
            return (step, Ok(Some(Duration::ZERO)));
        }
        let written = self.regions.runs(step.chunk).filter(|(_, written)| *written);
        let bytes = written.map(|(run, _)| run.len()).sum();
        if !self.pace.turn(bytes, || self.copying_is_to_stop()).await {
            return (step, Ok(None));
        }
        let begun = Instant::now();
        let copied = self.copy_chunk(step.chunk).await;
        let took = begun.elapsed();
        tokio::task::yield_now().await;
        if is_busy {
            tokio::time::sleep((took * REST_FOR_HOSTS).min(LONGEST_REST)).await;
        }
        (step, copied.map(|()| Some(took)))
    }

    /// Makes what waits for a flush durable, and takes back the marks of regions that no write touched since the last
    /// call. `last` is kept by the caller from call to call, first 0.
    pub async fn take_back_marks(&self, last: &mut u64) -> Result<(), IoError> {
        self.empty_journal().await?;
        let whole = self.members.load().whole();
        let is_to_flush = self.regions.has_pending() || self.has_changed_checks();
        if !(is_to_flush || whole && self.regions.marked() > 0) {
            return Ok(());
        }
        self.flush_members().await?;
        if !whole {
            return Ok(());
        }
        let idle_since = std::mem::replace(last, self.regions.epoch());
        // A member may have left while the devices flushed.
        if self.members.load().whole() && self.regions.unmark_idle(idle_since) {
            self.commit_log().await?;
        }
        Ok(())
    }

    /// Before a read in a suspect region: a block that was being written when the appliance went down must not change
    /// back and forth.
    pub(super) async fn equalize(&self, range: ByteRange) -> Result<(), IoError> {
        match self.copy_chunk(self.regions.round_to_granules(range)).await {
            // A block beside those that are read cannot be read from any copy: that is no reason to refuse these.
            Err(IoError::Device(_)) => self.copy_chunk(range).await,
            copied => copied,
        }
    }

    /// Makes all copies of `range` equal to the first one in sync. Where they are suspect, durably, and that one is
    /// written as well: what is read from now on must not change again, also not where the power fails next and one
    /// member then, or where what the first one shows never becomes durable, as it failed to flush before the crash (R5).
    pub(super) async fn copy_chunk(&self, range: ByteRange) -> Result<(), IoError> {
        if self.parity.is_some() {
            return self.copy_rows(range).await;
        }
        let range = match self.checks {
            Some(_) => checks::round_to_blocks(range),
            None => range,
        };
        let _claim = self.lock.claim(range, Mode::Exclusive).await;
        self.has_room_for_checks().await?;
        let with_source = self.regions.is_suspect(range);
        let written: SmallVec<[ByteRange; 4]> = self
            .regions
            .runs(range)
            .filter(|(_, written)| *written)
            .map(|(run, _)| run)
            .collect();
        for run in written {
            for piece in self.layout.pieces(run) {
                self.copy_piece(&piece, with_source).await?;
            }
        }
        Ok(())
    }

    async fn copy_piece(&self, piece: &Piece, with_source: bool) -> Result<(), IoError> {
        let members = self.members.load_full();
        let column = || self.layout.column_members(piece.first_member);
        let there = column().filter(|&member| members.writable(member).is_some());
        if there.count() < 2 && !with_source {
            return Ok(());
        }
        let found = self.find(&members, piece).await;
        if !found.lost.is_empty() && (found.has_failed || self.checks.is_none()) {
            return Err(found.into_error());
        }
        let mut operations: SmallVec<[(usize, Io); 4]> = SmallVec::new();
        let (good, lost, data) = (found.good, found.lost, found.data.into_slice());
        for range in without(piece.member_range(), &lost) {
            let offset = usize::try_from(range.start() - piece.member_at).expect("within the piece");
            let len = usize::try_from(range.len()).expect("within the piece");
            let data = data.cut(offset, len);
            let values = self.values_of(range.start(), data.as_slice());
            for member in column().filter(|&member| with_source || good != Some(member)) {
                let Some(device) = members.writable(member) else {
                    continue;
                };
                members.note(member, range.start(), values.as_ref());
                let at = members.record.members[member].data_start + range.start();
                let (data, fua) = (data.clone(), with_source);
                operations.push((member, device.start(Request::Write { at, data, fua })));
            }
        }
        // Nobody knows what is lost: who holds it stays as it is, and who joins gets that it is.
        for range in lost {
            tracing::warn!(group = %self.number(), at = range.start(), "a block is lost");
            for member in column().filter(|&member| members.readable(member).is_none()) {
                let Some(device) = members.writable(member) else {
                    continue;
                };
                members.note_lost(member, range);
                let at = members.record.members[member].data_start + range.start();
                let data = zeros(range.len());
                operations.push((member, device.start(Request::Write { at, data, fua: false })));
            }
        }
        self.answer_write(&members, &mut operations).await
    }
}

/// What of `range` is not in `holes`, which lie within it and apart from each other.
fn without(range: ByteRange, holes: &[ByteRange]) -> Vec<ByteRange> {
    let mut holes: SmallVec<[ByteRange; 4]> = holes.into();
    holes.sort_by_key(|hole| hole.start());
    let mut at = range.start();
    let mut out = Vec::new();
    for hole in holes {
        if at < hole.start() {
            out.push(ByteRange::between(at, hole.start()));
        }
        at = hole.end();
    }
    if at < range.end() {
        out.push(ByteRange::between(at, range.end()));
    }
    out
}
