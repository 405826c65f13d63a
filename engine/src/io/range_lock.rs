//! Exclusion by byte ranges of one address space, in order of arrival.
//!
//! Three ways in ([`Mode`]): a host write excludes other writes of its bytes (R13); a shared claim excludes nothing but
//! exclusive ones; a reader waits for the writes before it and holds nothing, so that no read returns new content and
//! a later one old content again.
//!
//! The lock is also the volume's *moment gate* (R14): every claim carries the epoch in which it was admitted, and
//! [`flip`] moves any number of locks to their next epoch at one moment, without waiting for anything in flight.
//!
//! Invariants: a claim waits only for conflicting claims that arrived before it, so nobody waits in a circle and
//! nobody is overtaken for ever; a claim ends when its guard is dropped, whatever happened to its owner.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use smallvec::SmallVec;

use crate::types::ByteRange;

/// How a claim excludes others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Excludes every claim that overlaps.
    Exclusive,
    /// Excludes exclusive claims only.
    Shared,
}

impl Mode {
    fn conflicts(self, other: Self) -> bool {
        self == Self::Exclusive || other == Self::Exclusive
    }
}

struct Claim {
    number: u64,
    range: ByteRange,
    mode: Mode,
    /// Who waits for this claim to end.
    waiters: SmallVec<[Waker; 1]>,
}

#[derive(Default)]
struct Claims {
    /// In order of arrival.
    list: Vec<Claim>,
    next_number: u64,
    epoch: u64,
}

impl Claims {
    /// Whether an earlier claim than `number` is in the way; the waker is left with the first such one.
    fn wait_for_earlier(&mut self, number: u64, range: ByteRange, mode: Mode, waker: &Waker) -> bool {
        let blocker = self
            .list
            .iter_mut()
            .take_while(|claim| claim.number < number)
            .find(|claim| claim.mode.conflicts(mode) && claim.range.overlaps(range));
        match blocker {
            Some(claim) => {
                if !claim.waiters.iter().any(|known| known.will_wake(waker)) {
                    claim.waiters.push(waker.clone());
                }
                true
            }
            None => false,
        }
    }

    fn blocked(&self, number: u64, range: ByteRange, mode: Mode) -> bool {
        self.list
            .iter()
            .take_while(|claim| claim.number < number)
            .any(|claim| claim.mode.conflicts(mode) && claim.range.overlaps(range))
    }
}

/// The claims on one address space.
#[derive(Default)]
pub struct RangeLock(Mutex<Claims>);

impl RangeLock {
    pub fn new() -> Self {
        Self::default()
    }

    /// Claims `range`. The claim takes its place in the order now; the future resolves when it holds.
    pub fn claim(&self, range: ByteRange, mode: Mode) -> Claiming<'_> {
        let mut claims = self.lock();
        let number = claims.next_number;
        claims.next_number += 1;
        let granted = !claims.blocked(number, range, mode);
        let epoch = claims.epoch;
        claims.list.push(Claim {
            number,
            range,
            mode,
            waiters: SmallVec::new(),
        });
        drop(claims);
        Claiming {
            guard: Some(RangeGuard {
                lock: self,
                number,
                epoch,
            }),
            range,
            mode,
            granted,
        }
    }

    /// Resolves when every exclusive claim on `range` that stands now has ended. Holds nothing.
    pub fn pass(&self, range: ByteRange) -> Passing<'_> {
        let claims = self.lock();
        let number = claims.next_number;
        let granted = !claims.blocked(number, range, Mode::Shared);
        Passing {
            lock: self,
            number,
            range,
            granted,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Claims> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a flip found on one lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// The epoch that began: claims of it and later ones came after the moment.
    pub epoch: u64,
    /// What was in flight: it counts as before the moment.
    pub in_flight: Vec<ByteRange>,
}

/// Begins a new epoch on all locks at one moment: no claim of any of them is admitted in between. The locks come in an
/// order that every caller uses (by volume number), and none twice.
pub fn flip(locks: &[&RangeLock]) -> Vec<Moment> {
    let mut closed: Vec<MutexGuard<'_, Claims>> = locks.iter().map(|lock| lock.lock()).collect();
    for claims in &mut closed {
        claims.epoch += 1;
    }
    let moment = |claims: &MutexGuard<'_, Claims>| Moment {
        epoch: claims.epoch,
        in_flight: claims.list.iter().map(|claim| claim.range).collect(),
    };
    closed.iter().map(moment).collect()
}

/// A claim that holds. Dropping it ends the claim.
pub struct RangeGuard<'a> {
    lock: &'a RangeLock,
    number: u64,
    epoch: u64,
}

impl RangeGuard<'_> {
    /// The epoch in which the claim was admitted.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        let mut claims = self.lock.lock();
        // The newest claims end first in the common case of a short queue.
        let index = claims.list.iter().rposition(|claim| claim.number == self.number);
        let ended = claims
            .list
            .remove(index.expect("a guard's claim is listed until the guard is dropped"));
        drop(claims);
        ended.waiters.into_iter().for_each(Waker::wake);
    }
}

/// A claim on its way. Dropping it gives the place up.
pub struct Claiming<'a> {
    guard: Option<RangeGuard<'a>>,
    range: ByteRange,
    mode: Mode,
    granted: bool,
}

impl<'a> Future for Claiming<'a> {
    type Output = RangeGuard<'a>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RangeGuard<'a>> {
        if !self.granted {
            let guard = self.guard.as_ref().expect("polled after completion");
            if guard
                .lock
                .lock()
                .wait_for_earlier(guard.number, self.range, self.mode, cx.waker())
            {
                return Poll::Pending;
            }
        }
        Poll::Ready(self.guard.take().expect("polled after completion"))
    }
}

/// A reader that waits for the writes before it.
pub struct Passing<'a> {
    lock: &'a RangeLock,
    number: u64,
    range: ByteRange,
    granted: bool,
}

impl Future for Passing<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.granted
            && self
                .lock
                .lock()
                .wait_for_earlier(self.number, self.range, Mode::Shared, cx.waker())
        {
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    fn range(start: u64, len: u64) -> ByteRange {
        ByteRange::new(start, len).unwrap()
    }

    #[test]
    fn writes_of_other_bytes_do_not_wait() {
        let lock = RangeLock::new();
        let first = lock.claim(range(0, 4096), Mode::Exclusive).now_or_never();
        let second = lock.claim(range(4096, 4096), Mode::Exclusive).now_or_never();
        assert!(first.is_some() && second.is_some());
    }

    #[test]
    fn a_later_write_waits_also_for_one_that_itself_waits() {
        let lock = RangeLock::new();
        let first = lock.claim(range(0, 8), Mode::Exclusive).now_or_never().unwrap();
        let mut second = lock.claim(range(4, 8), Mode::Exclusive);
        assert!((&mut second).now_or_never().is_none());
        let mut third = lock.claim(range(10, 8), Mode::Exclusive);
        assert!((&mut third).now_or_never().is_none());
        drop(first);
        let second = second.now_or_never().expect("the way is free");
        assert!((&mut third).now_or_never().is_none());
        drop(second);
        assert!(third.now_or_never().is_some());
    }

    #[test]
    fn shared_claims_overlap_and_keep_an_exclusive_one_out() {
        let lock = RangeLock::new();
        let first = lock.claim(range(0, 8), Mode::Shared).now_or_never().unwrap();
        let second = lock.claim(range(0, 8), Mode::Shared).now_or_never().unwrap();
        let mut copier = lock.claim(range(0, 64), Mode::Exclusive);
        assert!((&mut copier).now_or_never().is_none());
        let mut late = lock.claim(range(0, 8), Mode::Shared);
        assert!(
            (&mut late).now_or_never().is_none(),
            "a copier is not starved by writes that come after it"
        );
        drop((first, second));
        drop(copier.now_or_never().expect("the writes have ended"));
        assert!(late.now_or_never().is_some());
    }

    #[test]
    fn a_reader_waits_for_writes_before_it_and_keeps_nobody_out() {
        let lock = RangeLock::new();
        let write = lock.claim(range(0, 8), Mode::Exclusive).now_or_never().unwrap();
        let mut reader = lock.pass(range(4, 1));
        assert!((&mut reader).now_or_never().is_none());
        drop(write);
        let _next = lock
            .claim(range(0, 8), Mode::Exclusive)
            .now_or_never()
            .expect("readers hold nothing");
        assert!(reader.now_or_never().is_some());
    }

    #[test]
    fn giving_up_a_waiting_claim_lets_the_next_one_go() {
        let lock = RangeLock::new();
        let first = lock.claim(range(0, 8), Mode::Exclusive).now_or_never().unwrap();
        let mut second = lock.claim(range(0, 8), Mode::Exclusive);
        assert!((&mut second).now_or_never().is_none());
        let mut third = lock.claim(range(0, 8), Mode::Exclusive);
        assert!((&mut third).now_or_never().is_none());
        drop(first);
        drop(second);
        assert!(third.now_or_never().is_some());
    }

    #[test]
    fn a_flip_divides_claims_of_all_locks_at_one_moment() {
        let locks = [RangeLock::new(), RangeLock::new()];
        let before = locks[1]
            .claim(range(0, 8), Mode::Exclusive)
            .now_or_never()
            .unwrap();
        let moments = flip(&[&locks[0], &locks[1]]);
        let after = locks[1]
            .claim(range(8, 8), Mode::Exclusive)
            .now_or_never()
            .unwrap();
        assert!(before.epoch() < moments[1].epoch && after.epoch() == moments[1].epoch);
        assert_eq!(
            (&moments[0].in_flight, &moments[1].in_flight),
            (&vec![], &vec![range(0, 8)])
        );
    }

    proptest! {
        #[test]
        fn no_two_conflicting_claims_ever_hold_together(
            steps in proptest::collection::vec((0u64..40, 1u64..20, any::<bool>(), 0usize..8), 1..60)
        ) {
            let lock = RangeLock::new();
            let mut waiting: Vec<(Claiming<'_>, ByteRange, Mode)> = Vec::new();
            let mut holding: Vec<(RangeGuard<'_>, ByteRange, Mode)> = Vec::new();
            for (start, len, exclusive, drop_at) in steps {
                let mode = if exclusive { Mode::Exclusive } else { Mode::Shared };
                waiting.push((lock.claim(range(start, len), mode), range(start, len), mode));
                if drop_at < holding.len() {
                    holding.remove(drop_at);
                }
                let mut index = 0;
                while index < waiting.len() {
                    if let Some(guard) = (&mut waiting[index].0).now_or_never() {
                        let (_, range, mode) = waiting.remove(index);
                        for (_, other, other_mode) in &holding {
                            prop_assert!(!(other.overlaps(range) && mode.conflicts(*other_mode)));
                        }
                        holding.push((guard, range, mode));
                    } else {
                        index += 1;
                    }
                }
                prop_assert!(!holding.is_empty() || waiting.is_empty(), "somebody always holds");
            }
        }
    }
}
