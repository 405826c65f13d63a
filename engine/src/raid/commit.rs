//! Turns of commits, and the group commit of the region log: whoever needs something in the log to be durable joins the commit that carries it.
//!
//! Invariant: when [`Group::commit_log`] returns `Ok`, everything that was dirty when it was called is durable on every
//! member that is written. At most one commit runs at a time, so that images of one block are never in flight twice.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use smallvec::SmallVec;

use super::group::Group;
use super::region_log::{self, BlockId, Image};
use crate::device::{Io, Request};
use crate::io::{BufSlice, IoError};

#[derive(Debug, Default)]
struct State {
    running: bool,
    /// Commits begun and ended; a commit that begins now carries number `begun + 1`.
    begun: u64,
    ended: u64,
    waiters: Vec<Waker>,
}

/// The turns of commits of one log.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<State>);

pub(super) enum Turn {
    /// Carries what the caller needs; the caller does the work, and [ends](Turns::end) the turn.
    Mine,
    /// What the caller needs is durable, or its commit failed.
    Over,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the first commit that will carry everything that is dirty now.
    pub(super) fn needed(&self) -> u64 {
        self.lock().begun + 1
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.lock().running
    }

    /// Waits for the end of commit `needed`, for a turn, or until the caller has what it needs (`is_over`), which is asked
    /// at the end of every turn.
    pub(super) async fn wait(&self, needed: u64, is_over: impl Fn() -> bool) -> Turn {
        std::future::poll_fn(|cx| {
            let mut state = self.lock();
            if state.ended >= needed || is_over() {
                return Poll::Ready(Turn::Over);
            }
            if !state.running {
                state.running = true;
                state.begun += 1;
                return Poll::Ready(Turn::Mine);
            }
            if !state.waiters.iter().any(|known| known.will_wake(cx.waker())) {
                state.waiters.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Ends the turn that runs. What was not `complete` is left to the next one.
    pub(super) fn end(&self, complete: bool) {
        let mut state = self.lock();
        state.running = false;
        if complete {
            state.ended = state.begun;
        }
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        waiters.into_iter().for_each(Waker::wake);
    }
}

/// A commit in progress. Where its owner is dropped in the middle, the images are dirty again and nobody is told that
/// they were durable.
struct Running<'a> {
    group: &'a Group,
    images: Vec<(BlockId, Image)>,
    complete: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.complete {
            self.group.regions.not_committed(&self.images);
        }
        self.group.turns.end(self.complete);
    }
}

impl Group {
    /// Makes everything in the region log durable that is dirty now.
    pub(super) async fn commit_log(&self) -> Result<(), IoError> {
        let needed = self.turns.needed();
        loop {
            match self.turns.wait(needed, || false).await {
                Turn::Over => return self.check_running(),
                Turn::Mine => {
                    let images = self.regions.take_dirty();
                    let mut running = Running {
                        group: self,
                        images,
                        complete: false,
                    };
                    self.write_images(&running.images).await?;
                    self.regions.committed(&running.images);
                    running.complete = true;
                }
            }
        }
    }

    async fn write_images(&self, images: &[(BlockId, Image)]) -> Result<(), IoError> {
        if images.is_empty() {
            return Ok(());
        }
        let shape = self.regions.shape();
        let encoded = images.iter().map(|(block, image)| {
            (
                shape.place(*block, image.sequence),
                region_log::encode(self.id, *block, image),
            )
        });
        self.write_blocks(&encoded.collect::<Vec<_>>()).await
    }

    /// Writes log blocks to every member that is written, durably. A member that fails is taken out.
    async fn write_blocks(&self, blocks: &[(u64, BufSlice)]) -> Result<(), IoError> {
        let members = self.members.load_full();
        let one = blocks.len() == 1;
        let mut failed = SmallVec::<[usize; 4]>::new();
        let mut writes: SmallVec<[(usize, Io); 4]> = SmallVec::new();
        for (member, device) in members.all_writable() {
            let log = members.record.members[member].log.start();
            for (place, data) in blocks {
                let request = Request::Write {
                    at: log + place,
                    data: data.clone(),
                    fua: one,
                };
                writes.push((member, device.start(request)));
            }
        }
        self.settle_all(&members, &mut writes, &mut failed).await;
        if !one {
            let mut flushes = members.start_flushes();
            self.settle_all(&members, &mut flushes, &mut failed).await;
        }
        if failed.is_empty() {
            Ok(())
        } else {
            self.drop_members(&members, &failed).await
        }
    }
}
