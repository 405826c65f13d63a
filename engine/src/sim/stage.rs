//! What the devices of one simulated run share: the order of completions, the crash switch, the trace.
//!
//! Invariants: completions are delivered in the order of their simulated moments, ties broken by the seed. From the
//! moment of a crash nothing completes and nothing is delivered until the next life begins.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::dice::{Dice, Stream};

/// Something that a moment was set for.
pub trait Due: Send + Sync {
    /// The moment of operation `op` has come.
    fn deliver(self: Arc<Self>, op: u64);
}

#[derive(Default)]
struct Trace {
    print: bool,
    hash: u64,
    lines: u64,
    line: String,
}

struct Inner {
    dice: Dice,
    trace: Trace,
    /// By moment since the start of the life, then by chance.
    queue: BTreeMap<(Duration, u64), (u64, Arc<dyn Due>)>,
    started: Option<Instant>,
    ops: u64,
    events: u64,
    crash_at: Option<u64>,
    crashed: bool,
    pump: Option<Waker>,
    watcher: Option<Waker>,
}

/// Shared by the devices and the runner of one run.
pub struct Stage(Mutex<Inner>);

enum Next {
    Deliver(u64, Arc<dyn Due>),
    At(Instant),
    Nothing,
}

impl Stage {
    /// `print` writes every line of the trace to the standard output.
    pub fn new(seed: u64, print: bool) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner {
            dice: Dice::new(seed, Stream::Devices),
            trace: Trace {
                print,
                hash: 0xCBF2_9CE4_8422_2325,
                ..Trace::default()
            },
            queue: BTreeMap::new(),
            started: None,
            ops: 0,
            events: 0,
            crash_at: None,
            crashed: true,
            pump: None,
            watcher: None,
        })))
    }

    /// Begins a life; called in its runtime.
    pub fn begin_life(&self) {
        let mut inner = self.lock();
        inner.started = Some(Instant::now());
        inner.crashed = false;
        inner.crash_at = None;
    }

    /// The crash comes `events` device events from now (an event: something submitted or completed).
    pub fn arm(&self, events: u64) {
        let mut inner = self.lock();
        inner.crash_at = Some(inner.events + events);
    }

    /// Nothing completes from now on.
    pub fn crash(&self) {
        self.lock().crash();
    }

    pub fn has_crashed(&self) -> bool {
        self.lock().crashed
    }

    /// Resolves at the crash.
    pub async fn crashed(&self) {
        poll_fn(|cx| {
            let mut inner = self.lock();
            inner.watcher = Some(cx.waker().clone());
            if inner.crashed {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Delivers what falls due, for as long as the life lasts.
    pub async fn pump(self: Arc<Self>) {
        let mut sleep = pin!(sleep_until(Instant::now()));
        poll_fn::<(), _>(|cx| {
            loop {
                match self.next(cx.waker()) {
                    Next::Deliver(op, device) => device.deliver(op),
                    Next::At(moment) => {
                        sleep.as_mut().reset(moment);
                        ready!(sleep.as_mut().poll(cx));
                    }
                    Next::Nothing => return Poll::Pending,
                }
            }
        })
        .await;
    }

    /// A number for one more device operation.
    pub(super) fn next_op(&self) -> u64 {
        let mut inner = self.lock();
        inner.ops += 1;
        inner.ops
    }

    /// Counts one device event; the crash may come with it.
    pub(super) fn event(&self) {
        let mut inner = self.lock();
        inner.events += 1;
        if inner.crash_at.is_some_and(|at| inner.events >= at) {
            inner.crash();
        }
    }

    /// Sets the moment of `op`, `delay` from now.
    pub(super) fn schedule(&self, op: u64, device: Arc<dyn Due>, delay: Duration) {
        let mut inner = self.lock();
        if inner.crashed {
            return;
        }
        let started = inner.started.expect("operations are submitted within a life");
        let key = (Instant::now() - started + delay, inner.dice.number());
        let first = inner.queue.first_key_value().is_none_or(|(next, _)| key < *next);
        inner.queue.insert(key, (op, device));
        if first && let Some(pump) = inner.pump.take() {
            pump.wake();
        }
    }

    /// A decision of the devices.
    pub fn dice<T>(&self, decide: impl FnOnce(&mut Dice) -> T) -> T {
        decide(&mut self.lock().dice)
    }

    /// Adds a line to the trace.
    pub fn trace(&self, line: std::fmt::Arguments<'_>) {
        let mut inner = self.lock();
        let now = inner
            .started
            .filter(|_| !inner.crashed)
            .map_or(0, |start| (Instant::now() - start).as_millis());
        let trace = &mut inner.trace;
        trace.line.clear();
        write!(trace.line, "{now:>7} {line}").expect("a string takes everything");
        for byte in trace.line.bytes() {
            trace.hash = (trace.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        trace.lines += 1;
        if trace.print {
            println!("{}", trace.line);
        }
    }

    /// Hash and number of the trace's lines so far.
    pub fn fingerprint(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.trace.hash, inner.trace.lines)
    }

    fn next(&self, waker: &Waker) -> Next {
        let mut inner = self.lock();
        inner.pump = Some(waker.clone());
        let Some(started) = inner.started.filter(|_| !inner.crashed) else {
            return Next::Nothing;
        };
        let Some((&(due, _), _)) = inner.queue.first_key_value() else {
            return Next::Nothing;
        };
        if started + due > Instant::now() {
            return Next::At(started + due);
        }
        let (_, (op, device)) = inner.queue.pop_first().expect("seen above");
        Next::Deliver(op, device)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn crash(&mut self) {
        self.crashed = true;
        self.queue.clear();
        if let Some(watcher) = self.watcher.take() {
            watcher.wake();
        }
    }
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (hash, lines) = self.fingerprint();
        write!(f, "Stage({lines} lines, {hash:016x})")
    }
}
