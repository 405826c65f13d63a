//! Scrubbing: all written space is read from every member and compared, so that what a device lost or changed silently is
//! found while the others still have it.
//!
//! `findings` is what is counted; `copies` compares mirrors, and [`parity::scrub`](super::parity) rows. The walk goes over
//! the known space chunk by chunk, each under an exclusive claim: what a host writes meanwhile is never a mismatch. Where
//! copies may rightly differ (after a crash, while a member joins) nothing is compared: that is counted as left out.
//!
//! Invariants: a check writes nothing. A repair writes only blocks that were found wrong, and only what was read or
//! computed under the same claim.

mod copies;
mod findings;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::copy_pace::CopyPace;
use super::group::Group;
use super::membership::Members;
use crate::io::IoError;
use crate::io::range_lock::Mode;
use crate::types::{ByteRange, OperationId};

pub(in crate::raid) use findings::BLOCK;
pub use findings::{ScrubFindings, ScrubMode, ScrubPlace, ScrubRun};

/// Bytes compared under one claim: host writes there wait so long.
const CHUNK: u64 = 256 << 10;
/// What is looked through for written space at a time.
const LOOK: u64 = 1 << 30;
/// How many times longer than it worked a scrub rests for hosts.
const REST_FOR_HOSTS: u32 = 4;
/// Longest rest: whatever a slow device takes for a chunk.
const LONGEST_REST: Duration = Duration::from_millis(500);

/// The scrub of a group, where one is under way.
pub(super) struct Scrubbing {
    run: Mutex<Option<ScrubRun>>,
    pub(super) pace: CopyPace,
    /// Told when there may be something to do.
    wake: Notify,
    /// Held while one begins or ends.
    change: tokio::sync::Mutex<()>,
    /// Something was mended that is not flushed.
    unflushed: AtomicBool,
}

impl Scrubbing {
    /// `beside`: what else the group copies, with which it shares the standing limit.
    pub(super) fn new(beside: &CopyPace) -> Self {
        Self {
            run: Mutex::default(),
            pace: CopyPace::beside(beside),
            wake: Notify::new(),
            change: tokio::sync::Mutex::default(),
            unflushed: AtomicBool::new(false),
        }
    }

    fn run(&self) -> MutexGuard<'_, Option<ScrubRun>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a step of a scrub came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScrubStep {
    /// There is more.
    On,
    /// All written space was walked over, and what was mended is durable.
    End,
    /// It is paused, or was taken away, or background work is to end.
    Held,
}

impl Group {
    /// The scrub that is under way.
    pub fn scrub(&self) -> Option<ScrubRun> {
        self.scrubbing.run().clone()
    }

    /// Held by whoever begins or ends a scrub.
    pub async fn change_scrub(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.scrubbing.change.lock().await
    }

    /// Puts a scrub in the place of the one that is under way; `None` ends that.
    pub fn set_scrub(&self, run: Option<ScrubRun>) {
        let (paused, limit) = run.as_ref().map_or((false, None), |run| (run.paused, run.limit));
        *self.scrubbing.run() = run;
        self.steer_scrub(paused, limit);
    }

    /// What a new scrub begins with.
    pub fn new_scrub(&self, id: OperationId, mode: ScrubMode) -> ScrubRun {
        ScrubRun {
            id,
            mode,
            begun_at: None,
            limit: None,
            paused: false,
            at: 0,
            findings: ScrubFindings {
                total: self.written_bytes(),
                ..ScrubFindings::default()
            },
        }
    }

    /// Has the scrub that is under way stop after its chunk, or go on, and read at most so many bytes per second, beside
    /// the limits of all that the group copies. Returns it where that is something new.
    pub fn hold_scrub(&self, paused: bool, limit: Option<u64>) -> Option<ScrubRun> {
        let mut now = self.scrubbing.run();
        let run = now.as_mut()?;
        if (run.paused, run.limit) == (paused, limit) {
            return None;
        }
        (run.paused, run.limit) = (paused, limit);
        let held = run.clone();
        drop(now);
        self.steer_scrub(paused, limit);
        Some(held)
    }

    fn steer_scrub(&self, paused: bool, limit: Option<u64>) {
        // Each time begins its pace anew: only where it is another one.
        if self.scrubbing.pace.limit() != limit {
            self.scrubbing.pace.set_limit(limit);
        }
        self.scrubbing.pace.set_paused(paused);
        self.scrubbing.wake.notify_one();
    }

    /// Resolves when a scrub was begun, paused, resumed or ended since the last call.
    pub async fn scrub_changed(&self) {
        self.scrubbing.wake.notified().await;
    }

    /// Walks over the next chunk of the scrub that is under way.
    ///
    /// # Errors
    /// Where the group does not serve any more.
    pub async fn scrub_on(&self) -> Result<ScrubStep, IoError> {
        let Some(mut run) = self.scrub() else {
            return Ok(ScrubStep::Held);
        };
        let Some(chunk) = self.next_to_scrub(&mut run.at).await else {
            self.flush_scrubbed().await?;
            run.findings.total = run.findings.done;
            return Ok(self.note_scrub(run, ScrubStep::End));
        };
        let id = run.id;
        let is_stopped = || {
            let other = self.scrubbing.run().as_ref().is_none_or(|now| now.id != id);
            self.is_halted() || self.scrubbing.pace.is_paused() || other
        };
        if !self.scrubbing.pace.turn(chunk.len(), is_stopped).await {
            return Ok(ScrubStep::Held);
        }
        let (begun, requests) = (Instant::now(), self.foreground.requests());
        let _watching = self.foreground.watch();
        let before = run.findings.repaired;
        if let Err(error) = self.scrub_chunk(chunk, run.mode, &mut run.findings).await {
            self.check_running()?;
            tracing::warn!(group = %self.number(), %error, "a part of the group could not be scrubbed");
            run.findings.left_out += chunk.len() * self.scrub_width();
        }
        if run.findings.repaired > before {
            self.scrubbing.unflushed.store(true, Ordering::Release);
        }
        run.at = chunk.end();
        run.findings.done += chunk.len() * self.scrub_width();
        run.findings.total = run.findings.total.max(run.findings.done);
        let step = self.note_scrub(run, ScrubStep::On);
        self.give_way(begun.elapsed(), requests).await;
        Ok(step)
    }

    /// Makes durable what was mended: to be called before it is written down how far the scrub is.
    pub async fn flush_scrubbed(&self) -> Result<(), IoError> {
        if self.scrubbing.unflushed.swap(false, Ordering::AcqRel) {
            self.flush_members().await?;
        }
        Ok(())
    }

    /// Tells how far the scrub is, where it was not taken away meanwhile.
    fn note_scrub(&self, run: ScrubRun, step: ScrubStep) -> ScrubStep {
        match &mut *self.scrubbing.run() {
            Some(now) if now.id == run.id => {
                // Held up meanwhile, perhaps.
                let (paused, limit) = (now.paused, now.limit);
                *now = ScrubRun { paused, limit, ..run };
                step
            }
            _ => ScrubStep::Held,
        }
    }

    /// The next written stretch from `at` on, at most a chunk; `at` moves on over what was never written.
    async fn next_to_scrub(&self, at: &mut u64) -> Option<ByteRange> {
        let end = self.layout.known_space();
        while *at < end {
            let window = ByteRange::between(*at, at.saturating_add(LOOK).min(end));
            let written = self.regions.runs(window).find(|(_, written)| *written);
            if let Some((run, _)) = written {
                return run.split_at_multiples(CHUNK).next();
            }
            *at = window.end();
            tokio::task::yield_now().await;
        }
        None
    }

    /// Bytes of data for each byte of known space.
    fn scrub_width(&self) -> u64 {
        if self.parity.is_some() {
            self.layout.columns()
        } else {
            1
        }
    }

    /// Compares a chunk that was written.
    async fn scrub_chunk(
        &self,
        chunk: ByteRange,
        mode: ScrubMode,
        findings: &mut ScrubFindings,
    ) -> Result<(), IoError> {
        self.check_running()?;
        let _claim = self.lock.claim(chunk, Mode::Exclusive).await;
        // Trimmed since it was looked for.
        let written: Vec<ByteRange> = self
            .regions
            .runs(chunk)
            .filter(|(_, written)| *written)
            .map(|(run, _)| run)
            .collect();
        for run in written {
            if self.parity.is_some() {
                self.scrub_rows(run, mode, findings).await?;
            } else if self.regions.is_suspect(run) {
                findings.left_out += run.len();
            } else {
                for piece in self.layout.pieces(run) {
                    self.scrub_copies(&piece, mode, findings).await?;
                }
            }
        }
        Ok(())
    }

    /// Where a member has something, as people are told of it.
    pub(super) fn scrub_place(members: &Members, member: usize, at: u64, unreadable: bool) -> ScrubPlace {
        let record = &members.record.members[member];
        ScrubPlace {
            device: record.device,
            at: record.data_start + at,
            unreadable,
        }
    }

    /// Rests where hosts asked for something meanwhile, for longer than the chunk took.
    async fn give_way(&self, took: Duration, requests: u64) {
        tokio::task::yield_now().await;
        if self.foreground.requests() != requests {
            tokio::time::sleep((took * REST_FOR_HOSTS).min(LONGEST_REST)).await;
        }
    }
}

/// Blocks in so many bytes.
pub(super) fn blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK)
}

#[cfg(test)]
mod tests;
