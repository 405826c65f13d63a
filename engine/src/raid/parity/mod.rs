//! Groups with sums: levels 3, 5 and 6 (decision 0010).
//!
//! `code` is the arithmetic of the sums. `row` reads what stands in a row, and computes what cannot be read; `read`,
//! `write` (with `queue`, `gather`, `update`), `zero`, `rebuild` and `scrub` are what is done with rows. `journal` is the journal that
//! closes the write hole: pure; `commit`, `free` and `open` do its I/O.
//!
//! Everything known about such a group's space is kept by *member addresses*: `[a, b)` stands for these bytes of every
//! member. The group's lock and its regions are over them.

pub mod code;
mod commit;
mod free;
mod gather;
mod journal;
mod open;
mod queue;
mod read;
mod rebuild;
mod row;
mod scrub;
mod update;
mod write;
mod zero;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) use self::free::format_journal;

use self::code::Code;
use self::commit::Waiting;
use self::journal::ring::Ring;
use self::journal::units::{Area, CommitSequence, Incarnation, RING_START, RingLen};
use self::queue::Queue;
use super::Layout;
use super::commit::Turns;
use super::group::Group;
use super::record::GroupRecord;
use crate::types::{ByteRange, IdSource};

/// A ring's part of its member, and its bounds: stripe units, so that every row's update fits many times, and bytes.
const RING_SHARE: u64 = 64;
const RING_UNITS: u64 = 16;
const LONGEST_RING: u64 = 64 << 20;

/// Bytes of the journal on each member; none without sums.
pub(super) fn journal_len(layout: &Layout) -> u64 {
    if layout.sums() == 0 {
        return 0;
    }
    let share = layout.member_len / RING_SHARE;
    let least = layout.unit.saturating_mul(RING_UNITS).max(1 << 20);
    RING_START + share.next_multiple_of(4096).clamp(least, LONGEST_RING.max(least))
}

/// What a group with sums has besides.
pub(super) struct Parity {
    code: Code,
    queue: Queue,
    ring: Mutex<Ring>,
    /// Updates that no commit carries yet.
    waiting: Mutex<Vec<Waiting>>,
    turns: Turns,
    /// The newest commit when a member joined last: it may be named in commits up to there, and has no part in them.
    joined_at: Mutex<CommitSequence>,
    /// Held while something is freed.
    freeing: tokio::sync::Mutex<()>,
    /// Told when an update is in place, or never will be.
    settled: tokio::sync::Notify,
    /// Told when it is time to free something.
    fills: tokio::sync::Notify,
}

impl Parity {
    /// For a group whose journal is not opened yet.
    pub(super) fn new(layout: &Layout, ids: &IdSource) -> Self {
        let none = std::iter::empty();
        let ring = Ring::open(ring_len(layout), incarnation(ids), CommitSequence(0), none);
        Self {
            code: Code::fastest(),
            queue: Queue::default(),
            ring: Mutex::new(ring),
            waiting: Mutex::default(),
            turns: Turns::default(),
            joined_at: Mutex::new(CommitSequence(0)),
            freeing: tokio::sync::Mutex::default(),
            settled: tokio::sync::Notify::new(),
            fills: tokio::sync::Notify::new(),
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether members that joined may be taken in sync: whatever may name them is freed.
    pub(super) fn may_finish_joining(&self) -> bool {
        let joined_at = *self.joined_at.lock().unwrap_or_else(PoisonError::into_inner);
        self.ring().is_freed(joined_at)
    }

    /// The group stopped: who waits for an update looks again.
    pub(super) fn stopped(&self) {
        self.settled.notify_waiters();
    }

    /// A member was taken out: its ring is not written any more.
    pub(super) fn leave(&self, member: usize) {
        self.ring().leave(member);
    }
}

fn ring_len(layout: &Layout) -> RingLen {
    RingLen::in_area(journal_len(layout)).expect("a journal has room for more than its anchors")
}

fn incarnation(ids: &IdSource) -> Incarnation {
    Incarnation(ids.below(u64::MAX))
}

/// Where a member's journal stands on its device.
fn journal_range(record: &GroupRecord, member: usize) -> ByteRange {
    let start = record.members[member].log.start() + record.shape_of_log().len();
    ByteRange::between(start, start + journal_len(&record.layout))
}

fn area(record: &GroupRecord, member: usize) -> Area {
    Area {
        group: record.id,
        member,
        ring: ring_len(&record.layout),
        data: ByteRange::between(0, record.layout.member_len),
    }
}

impl Group {
    pub(super) fn parity(&self) -> &Parity {
        self.parity
            .as_ref()
            .expect("asked only where the layout has sums")
    }
}
