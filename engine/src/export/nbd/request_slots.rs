//! The running requests of one connection, in slots that are used again and again.
//!
//! A request's future is placed in its slot and polled once at once; with an inline device it is ready then, and
//! nothing was allocated. A future that waits is polled again only after its own waker was called.
//!
//! Invariants: after warm-up no request allocates. A future, once started, stays in its slot until it is ready.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Most requests that one connection has running.
pub(super) const MAX_RUNNING: usize = 128;
const WORDS: usize = MAX_RUNNING / 64;

/// Which slots were woken.
#[derive(Default)]
struct Woken {
    bits: [AtomicU64; WORDS],
    connection: AtomicWaker,
}

struct SlotWaker {
    index: usize,
    woken: Arc<Woken>,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let before = self.woken.bits[self.index / 64].fetch_or(1 << (self.index % 64), Ordering::AcqRel);
        // With a bit set the connection was woken already and has not looked since.
        if before == 0 {
            self.woken.connection.wake();
        }
    }
}

struct Slot<F> {
    future: Pin<Box<Option<F>>>,
    waker: Waker,
}

/// Running requests.
pub(super) struct RequestSlots<F> {
    slots: Vec<Slot<F>>,
    free: Vec<usize>,
    woken: Arc<Woken>,
}

impl<F: Future> RequestSlots<F> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            woken: Arc::default(),
        }
    }

    pub(super) fn running(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.running() == MAX_RUNNING
    }

    /// Runs `future` as far as it goes now. Its output, where that was to the end.
    ///
    /// # Panics
    /// Where the slots are full.
    pub(super) fn start(&mut self, future: F) -> Option<F::Output> {
        let index = self.free.pop().unwrap_or_else(|| self.add_slot());
        self.slots[index].future.set(Some(future));
        self.poll(index)
    }

    fn add_slot(&mut self) -> usize {
        let index = self.slots.len();
        assert!(index < MAX_RUNNING, "the caller asks `is_full` first");
        let waker = Waker::from(Arc::new(SlotWaker {
            index,
            woken: Arc::clone(&self.woken),
        }));
        self.slots.push(Slot {
            future: Box::pin(None),
            waker,
        });
        index
    }

    fn poll(&mut self, index: usize) -> Option<F::Output> {
        let slot = &mut self.slots[index];
        // A wake-up may come after its request has ended.
        let future = slot.future.as_mut().as_pin_mut()?;
        let Poll::Ready(output) = future.poll(&mut Context::from_waker(&slot.waker)) else {
            return None;
        };
        slot.future.set(None);
        self.free.push(index);
        Some(output)
    }

    /// Polls every request that was woken and hands over the outputs of those that ended. The task of `context` is
    /// woken when more are.
    pub(super) fn poll_woken(&mut self, context: &Context<'_>, mut ended: impl FnMut(F::Output)) {
        self.woken.connection.register(context.waker());
        for word in 0..WORDS {
            let mut bits = self.woken.bits[word].swap(0, Ordering::AcqRel);
            while bits != 0 {
                let index = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if let Some(output) = self.poll(index) {
                    ended(output);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::task::Waker as StdWaker;

    type Held = Rc<RefCell<(bool, Option<StdWaker>)>>;

    async fn waits(held: Held, output: u32) -> u32 {
        std::future::poll_fn(|context| {
            let mut held = held.borrow_mut();
            held.1 = Some(context.waker().clone());
            if held.0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        output
    }

    fn release(held: &Held) {
        held.borrow_mut().0 = true;
        let waker = held.borrow_mut().1.take().unwrap();
        waker.wake();
    }

    fn ended<F: Future<Output = u32>>(slots: &mut RequestSlots<F>) -> Vec<u32> {
        let mut outputs = Vec::new();
        slots.poll_woken(&Context::from_waker(StdWaker::noop()), |output| {
            outputs.push(output);
        });
        outputs
    }

    #[test]
    fn a_request_that_is_ready_at_once_leaves_its_slot_free() {
        let mut slots = RequestSlots::new();
        let outputs: Vec<_> = (0..1000).map(|n| slots.start(async move { n })).collect();
        assert!(outputs.into_iter().eq((0..1000).map(Some)));
        assert_eq!(slots.slots.len(), 1);
    }

    #[test]
    fn only_woken_requests_end_and_their_slots_are_used_again() {
        let mut slots = RequestSlots::new();
        let helds: Vec<Held> = (0..MAX_RUNNING).map(|_| Held::default()).collect();
        for (output, held) in (0..).zip(&helds) {
            assert_eq!(slots.start(waits(Rc::clone(held), output)), None);
        }
        assert!(slots.is_full());
        assert!(ended(&mut slots).is_empty());
        release(&helds[70]);
        release(&helds[3]);
        assert_eq!(ended(&mut slots), [3, 70]);
        assert_eq!(slots.running(), MAX_RUNNING - 2);
        assert_eq!(slots.start(waits(Held::default(), 0)), None);
        assert_eq!(slots.slots.len(), MAX_RUNNING);
    }

    #[test]
    fn a_wake_up_after_the_end_is_without_effect() {
        let mut slots = RequestSlots::new();
        let held = Held::default();
        assert_eq!(slots.start(waits(Rc::clone(&held), 7)), None);
        let kept = held.borrow().1.clone().unwrap();
        release(&held);
        assert_eq!(ended(&mut slots), [7]);
        kept.wake();
        assert!(ended(&mut slots).is_empty());
    }
}
