//! The data plane's threads: the only place where the engine makes threads.
//!
//! Each data thread runs a tokio current-thread runtime with a `LocalSet`, and advances its own table of operations
//! ([`slots::tick`]). Its ring comes with the first operation that needs one. No other module of the engine depends on
//! this one: a simulation runs the same code in a runtime of its own.
//!
//! Invariants: what is spawned on a thread stays there; a task that panics is logged and ends alone; a thread that is
//! told to stop ends once its tasks have, or when their grace is over.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Once;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::MissedTickBehavior;

use crate::device::slots;

/// The data plane could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start data thread {thread}: {source}")]
pub struct StartError {
    pub thread: usize,
    pub source: std::io::Error,
}

/// The data thread ended, or the task panicked, before there was an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the data thread ended before it answered")]
pub struct Stopped;

type Task = Pin<Box<dyn Future<Output = ()>>>;

enum Order {
    Run(Box<dyn FnOnce() -> Task + Send>),
    Stop { grace: Duration },
}

struct Worker {
    orders: mpsc::UnboundedSender<Order>,
    /// `None` once it was joined.
    thread: Option<JoinHandle<()>>,
}

/// A fixed number of running data threads. Dropping it stops them without grace.
pub struct DataPlane {
    workers: Vec<Worker>,
}

impl DataPlane {
    /// Starts `threads` threads, at least one, named `data-0` and so on.
    ///
    /// # Errors
    /// Where the operating system gives no thread or no event queue; those already started are stopped.
    pub fn start(threads: usize) -> Result<Self, StartError> {
        log_panics();
        let mut plane = Self { workers: Vec::new() };
        for thread in 0..threads.max(1) {
            plane
                .workers
                .push(Worker::start(thread).map_err(|source| StartError { thread, source })?);
        }
        Ok(plane)
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.workers.len()
    }

    /// Runs `task` on data thread `thread` (counted around): calls it there and drives the future that it makes.
    /// Nothing happens where the thread has ended.
    pub fn spawn_on<F>(&self, thread: usize, task: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let worker = &self.workers[thread % self.workers.len()];
        // Refused only by a thread that has ended.
        let _ = worker.orders.send(Order::Run(Box::new(move || Box::pin(task()))));
    }

    /// Like [`spawn_on`](Self::spawn_on), and returns what the future resolves to. The task runs also where the
    /// answer is not awaited.
    pub fn run_on<T, F, C>(
        &self,
        thread: usize,
        task: C,
    ) -> impl Future<Output = Result<T, Stopped>> + Send + use<T, F, C>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
        C: FnOnce() -> F + Send + 'static,
    {
        let (sender, answer) = oneshot::channel();
        self.spawn_on(thread, move || {
            let future = task();
            async move {
                // Nobody may be waiting for it.
                let _ = sender.send(future.await);
            }
        });
        async move { answer.await.map_err(|_| Stopped) }
    }

    /// Stops the threads: what was spawned on them may end by itself within `grace`, then it is dropped. Blocks until
    /// they have ended, so it must not be called on one of them.
    pub fn stop(mut self, grace: Duration) {
        self.end(grace);
    }

    fn end(&mut self, grace: Duration) {
        for worker in &self.workers {
            let _ = worker.orders.send(Order::Stop { grace });
        }
        for thread in self.workers.iter_mut().filter_map(|worker| worker.thread.take()) {
            if thread.join().is_err() {
                tracing::error!("a data thread panicked");
            }
        }
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

impl Worker {
    fn start(number: usize) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (orders, incoming) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new()
            .name(format!("data-{number}"))
            .spawn(move || {
                ON_DATA_THREAD.set(true);
                let tasks = LocalSet::new();
                tasks.block_on(&runtime, serve(incoming));
                // Before the runtime: what is dropped here may still use it.
                drop(tasks);
            })?;
        Ok(Self {
            orders,
            thread: Some(thread),
        })
    }
}

/// The main task of a data thread.
async fn serve(mut incoming: mpsc::UnboundedReceiver<Order>) {
    let clock = tokio::task::spawn_local(tick());
    let mut tasks = JoinSet::new();
    let grace = loop {
        match incoming.recv().await {
            Some(Order::Run(task)) => spawn(&mut tasks, task),
            Some(Order::Stop { grace }) => break grace,
            None => break Duration::ZERO,
        }
        while tasks.try_join_next().is_some() {}
    };
    let ended = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, ended).await.is_err() {
        tracing::debug!(
            tasks = tasks.len(),
            "tasks did not end by themselves and are dropped"
        );
    }
    tasks.shutdown().await;
    clock.abort();
}

/// The closure runs within its task too, so that its panic is the task's.
fn spawn(tasks: &mut JoinSet<()>, task: Box<dyn FnOnce() -> Task + Send>) {
    tasks.spawn_local(async move { task().await });
}

async fn tick() {
    let mut interval = tokio::time::interval(slots::TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        interval.tick().await;
        slots::tick();
    }
}

thread_local! {
    static ON_DATA_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Has panics on data threads logged. The tasks' handles may be dropped, and with them the only other trace.
fn log_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if ON_DATA_THREAD.get() {
                let thread = std::thread::current().name().unwrap_or_default().to_owned();
                tracing::error!(%thread, %panic, "a task panicked and was ended");
            } else {
                others(panic);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::device::{CachePolicy, Device, OpenOptions, Request, file, start};
    use crate::io::IoBuf;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn a_task_runs_on_the_thread_that_it_was_given_to() {
        let plane = DataPlane::start(2).unwrap();
        assert_eq!(plane.threads(), 2);
        for (thread, name) in [(0, "data-0"), (1, "data-1"), (2, "data-0")] {
            let told = plane.run_on(thread, || async {
                std::thread::current().name().map(str::to_owned)
            });
            assert_eq!(block_on(told).unwrap().unwrap(), name);
        }
        plane.stop(Duration::from_secs(10));
    }

    #[test]
    fn a_panic_ends_its_task_and_no_other() {
        let plane = DataPlane::start(1).unwrap();
        let other = plane.run_on(0, || async {
            tokio::task::yield_now().await;
            "alive"
        });
        assert_eq!(
            block_on(plane.run_on(0, || async { panic!("on purpose") })),
            Err::<(), _>(Stopped)
        );
        let early: Result<(), Stopped> =
            block_on(plane.run_on(0, || -> std::future::Ready<()> { panic!("on purpose, early") }));
        assert_eq!(early, Err(Stopped));
        assert_eq!(block_on(other), Ok("alive"));
    }

    #[test]
    fn stopping_lets_tasks_end_within_their_grace() {
        let plane = DataPlane::start(1).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let seen = ended.clone();
        plane.spawn_on(0, move || async move {
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
            seen.store(true, Ordering::SeqCst);
        });
        plane.stop(Duration::from_secs(600));
        assert!(ended.load(Ordering::SeqCst));
    }

    #[test]
    fn stopping_drops_the_tasks_that_outlive_their_grace() {
        let plane = DataPlane::start(1).unwrap();
        let endless = plane.run_on(0, std::future::pending::<()>);
        plane.stop(Duration::from_millis(1));
        assert_eq!(block_on(endless), Err(Stopped));
    }

    #[test]
    fn one_device_serves_all_threads() {
        let folder = tempfile::tempdir_in(Path::new("/var/tmp")).unwrap();
        let options = OpenOptions {
            cache: Some(CachePolicy::Direct),
            ..OpenOptions::default()
        };
        let device: Arc<dyn Device> =
            Arc::new(file::create(&folder.path().join("device"), 1 << 20, &options).unwrap());
        let plane = DataPlane::start(2).unwrap();
        for (thread, byte) in [(0, 1), (1, 2)] {
            let writer = device.clone();
            let data = move || IoBuf::from_slice(&[byte; 4096]).into_slice();
            let write = move || async move {
                start(
                    &*writer,
                    Request::Write {
                        at: 0,
                        data: data(),
                        fua: false,
                    },
                )
                .await
                .result
            };
            assert_eq!(block_on(plane.run_on(thread, write)), Ok(Ok(())));
            let reader = device.clone();
            let read = move || async move {
                let answer = start(
                    &*reader,
                    Request::Read {
                        at: 0,
                        buf: IoBuf::new(4096),
                    },
                )
                .await;
                answer.buf.is_some_and(|buf| buf.as_slice() == [byte; 4096])
            };
            assert_eq!(block_on(plane.run_on(thread + 1, read)), Ok(true));
        }
    }
}
