//! The table of operations in flight on this thread, and the future that waits for one.
//!
//! Invariants: a slot is completed at most once; its buffer stays owned by the table until the device has completed
//! it, also where nobody waits any more. A [`SlotId`] carries the slot's use count, so that an answer that comes after
//! a time-out cannot complete a later operation.
//!
//! Deadlines cost no clock reading per operation: each slot remembers the tick of its start, and [`tick`], called
//! about once per [`TICK`], fails those that are too old.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::coop::poll_proceed;

use super::{Completion, DeviceError, Started};
use crate::statistics::Meter;

/// How often [`tick`] is to be called.
pub const TICK: Duration = Duration::from_millis(500);

/// Names one use of one slot of the thread's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotId {
    index: u32,
    used: u32,
}

impl SlotId {
    /// The id as one number, for the user data of a kernel ring.
    pub fn to_u64(self) -> u64 {
        u64::from(self.index) << 32 | u64::from(self.used)
    }

    #[expect(clippy::cast_possible_truncation, reason = "takes the number apart again")]
    pub fn from_u64(number: u64) -> Self {
        Self {
            index: (number >> 32) as u32,
            used: number as u32,
        }
    }
}

#[derive(Debug)]
enum State {
    Free,
    /// The device works on it. `None` where nobody has asked yet.
    Running {
        waker: Option<Waker>,
    },
    /// The waiter gave up (or timed out); the device may still use the memory that it was given.
    Abandoned,
    Done(Completion),
}

#[derive(Debug)]
struct Slot {
    state: State,
    used: u32,
    started_tick: u64,
    limit_ticks: u64,
}

#[derive(Debug, Default)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    now_tick: u64,
}

thread_local! {
    static TABLE: RefCell<Table> = const { RefCell::new(Table { slots: Vec::new(), free: Vec::new(), now_tick: 0 }) };
}

/// Takes a slot for an operation that a device will complete later. `limit` is its deadline; `None` for none.
pub fn allocate(limit: Option<Duration>) -> SlotId {
    let limit_ticks = limit.map_or(u64::MAX, |limit| {
        u64::try_from(limit.as_millis().div_ceil(TICK.as_millis()) + 1).unwrap_or(u64::MAX)
    });
    TABLE.with_borrow_mut(|table| {
        let index = table.free.pop().unwrap_or_else(|| {
            table.slots.push(Slot {
                state: State::Free,
                used: 0,
                started_tick: 0,
                limit_ticks: 0,
            });
            u32::try_from(table.slots.len() - 1).expect("fewer than 2^32 operations in flight")
        });
        let started_tick = table.now_tick;
        let slot = &mut table.slots[index as usize];
        slot.used = slot.used.wrapping_add(1);
        slot.state = State::Running { waker: None };
        slot.started_tick = started_tick;
        slot.limit_ticks = limit_ticks;
        SlotId {
            index,
            used: slot.used,
        }
    })
}

/// Completes a slot. The answer to a slot that was abandoned only frees it.
pub fn complete(id: SlotId, completion: Completion) {
    let waker = TABLE.with_borrow_mut(|table| {
        let slot = table
            .slots
            .get_mut(id.index as usize)
            .filter(|slot| slot.used == id.used)?;
        match std::mem::replace(&mut slot.state, State::Done(completion)) {
            State::Running { waker } => waker,
            State::Abandoned => {
                table.release(id);
                None
            }
            // A slot that was reset under its device, or a second answer: nobody waits for it.
            other @ (State::Free | State::Done(_)) => {
                debug_assert!(matches!(other, State::Free), "slot {id:?} completed twice");
                slot.state = other;
                None
            }
        }
    });
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Advances the table's clock and fails every operation that is older than its limit.
pub fn tick() {
    let wakers: Vec<Waker> = TABLE.with_borrow_mut(|table| {
        table.now_tick += 1;
        let now = table.now_tick;
        let late = |slot: &&mut Slot| now - slot.started_tick.min(now) > slot.limit_ticks;
        table
            .slots
            .iter_mut()
            .filter(|slot| matches!(slot.state, State::Running { waker: Some(_) }))
            .filter(late)
            .filter_map(|slot| {
                // The waiter sees the time-out by itself (`poll`), and then abandons the slot.
                let State::Running { waker } = &mut slot.state else {
                    return None;
                };
                slot.limit_ticks = 0;
                waker.take()
            })
            .collect()
    });
    wakers.into_iter().for_each(Waker::wake);
}

/// Forgets every operation of this thread: a simulated crash, whose devices answer nobody any more.
pub fn reset() {
    TABLE.with_borrow_mut(|table| {
        table.free.clear();
        let count = u32::try_from(table.slots.len()).expect("fewer than 2^32 slots");
        for slot in &mut table.slots {
            slot.state = State::Free;
            slot.used = slot.used.wrapping_add(1);
        }
        table.free.extend((0..count).rev());
    });
}

impl Table {
    fn release(&mut self, id: SlotId) {
        self.slots[id.index as usize].state = State::Free;
        self.free.push(id.index);
    }

    fn poll(&mut self, id: SlotId, waker: &Waker) -> Poll<Completion> {
        let now = self.now_tick;
        let slot = &mut self.slots[id.index as usize];
        if slot.used != id.used {
            return Poll::Ready(Completion {
                result: Err(DeviceError::Gone("reset".into())),
                buf: None,
            });
        }
        match &mut slot.state {
            State::Done(_) => {
                let State::Done(completion) = std::mem::replace(&mut slot.state, State::Free) else {
                    unreachable!("matched above");
                };
                self.free.push(id.index);
                Poll::Ready(completion)
            }
            State::Running { .. } if now - slot.started_tick.min(now) > slot.limit_ticks => {
                slot.state = State::Abandoned;
                Poll::Ready(Completion {
                    result: Err(DeviceError::Timeout),
                    buf: None,
                })
            }
            State::Running { waker: kept } => {
                match kept {
                    Some(kept) if kept.will_wake(waker) => {}
                    kept => *kept = Some(waker.clone()),
                }
                Poll::Pending
            }
            State::Free | State::Abandoned => unreachable!("a waiter's slot is running or done"),
        }
    }
}

/// One operation in flight. Resolves to its completion; polling after that panics.
#[derive(Debug)]
pub struct Io {
    /// `None` once it has resolved.
    started: Option<Started>,
    meter: Meter,
}

impl Io {
    pub(super) fn new(started: Started) -> Self {
        Self::metered(started, Meter::default())
    }

    pub(super) fn metered(started: Started, meter: Meter) -> Self {
        Self {
            started: Some(started),
            meter,
        }
    }

    /// An operation that failed before it reached a device.
    pub(super) fn failed(error: DeviceError, meter: Meter) -> Self {
        let (result, buf) = (Err(error), None);
        Self::metered(Started::Done(Completion { result, buf }), meter)
    }

    /// What its statistics are to know at its end.
    pub(super) fn meter(&self) -> Meter {
        self.meter
    }
}

impl Future for Io {
    type Output = Completion;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Completion> {
        match self.started.take().expect("polled after completion") {
            Started::Done(completion) => {
                // A device that always answers at once would keep a task that loops over it running for ever.
                let Poll::Ready(turn) = poll_proceed(cx) else {
                    self.started = Some(Started::Done(completion));
                    return Poll::Pending;
                };
                turn.made_progress();
                Poll::Ready(completion)
            }
            Started::Pending(id) => {
                let polled = TABLE.with_borrow_mut(|table| table.poll(id, cx.waker()));
                if polled.is_pending() {
                    self.started = Some(Started::Pending(id));
                }
                polled
            }
        }
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        if let Some(Started::Pending(id)) = self.started.take() {
            let _ = TABLE.try_with(|table| {
                // Dropped from within the table (a buffer's owner): the slot is then already on its way out.
                let Ok(mut table) = table.try_borrow_mut() else {
                    return;
                };
                let Some(slot) = table
                    .slots
                    .get_mut(id.index as usize)
                    .filter(|slot| slot.used == id.used)
                else {
                    return;
                };
                match slot.state {
                    State::Running { .. } => slot.state = State::Abandoned,
                    State::Done(_) => table.release(id),
                    State::Free | State::Abandoned => {}
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn done() -> Completion {
        Completion {
            result: Ok(()),
            buf: None,
        }
    }

    #[test]
    fn a_completed_slot_answers_its_waiter_once() {
        let id = allocate(None);
        let mut io = Io::new(Started::Pending(id));
        assert!((&mut io).now_or_never().is_none());
        complete(id, done());
        assert!(io.now_or_never().expect("done").result.is_ok());
    }

    #[test]
    fn a_late_answer_does_not_complete_the_next_user_of_the_slot() {
        let first = allocate(None);
        let mut io = Io::new(Started::Pending(first));
        assert!((&mut io).now_or_never().is_none());
        drop(io);
        complete(first, done());
        let second = allocate(None);
        assert_ne!(first, second);
        complete(first, done());
        assert!(Io::new(Started::Pending(second)).now_or_never().is_none());
    }

    #[test]
    fn an_operation_beyond_its_limit_times_out_and_keeps_the_slot_until_answered() {
        let id = allocate(Some(Duration::from_secs(1)));
        let mut io = Io::new(Started::Pending(id));
        assert!((&mut io).now_or_never().is_none());
        (0..8).for_each(|_| tick());
        assert_eq!(io.now_or_never().expect("late").result, Err(DeviceError::Timeout));
        assert_ne!(allocate(None).index, id.index);
        complete(id, done());
        assert_eq!(allocate(None).index, id.index);
    }

    #[test]
    fn a_task_that_loops_over_a_device_that_answers_at_once_lets_others_run() {
        let count = std::rc::Rc::new(std::cell::Cell::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let counted = count.clone();
            tokio::task::spawn_local(async move {
                for _ in 0..10_000 {
                    Io::new(Started::Done(done())).await.result.unwrap();
                    counted.set(counted.get() + 1);
                }
            });
            let seen = tokio::task::spawn_local(async move { count.get() })
                .await
                .unwrap();
            assert!(
                (1..10_000).contains(&seen),
                "{seen} operations before anybody else ran"
            );
        });
    }
}
