//! How a thread's operations reach the server: over a connection of its own, or over the first one's thread.
//!
//! A *lane* is what a thread has of a device. The first lane is that of the thread that connected; it also serves
//! the jobs that other threads send it. Lanes live in a thread-local table under the device's id, each tended by a
//! task that removes it when the device is over.
//!
//! Invariants: a slot is completed on the thread that allocated it, exactly once, whatever ends first: connection,
//! device or thread. The device is over when any lane loses its connection, or the first lane its thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_local;

use super::operations::carry_out;
use super::plan::{Plan, Steps, completion};
use crate::device::{Completion, DeviceError, Request, SlotId, Started, slots};
use crate::io::IoBuf;
use crate::nbd::NbdUri;
use crate::nbd::client::transport::Stream;
use crate::nbd::client::{self, Answer, Connection, Driver, ExportInfo, OpenOptions, Outcome};

thread_local! {
    static LANES: RefCell<BTreeMap<u64, Lane>> = const { RefCell::new(BTreeMap::new()) };
}

/// What all threads share of one device.
#[derive(Debug)]
pub(super) struct Link {
    id: u64,
    uri: NbdUri,
    open: OpenOptions,
    limit: Duration,
    export: ExportInfo,
    plan: Plan,
    /// Why the device is over.
    over: watch::Sender<Option<Arc<str>>>,
    /// Jobs for the first lane.
    first: mpsc::UnboundedSender<Job>,
}

impl Link {
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn over(&self) -> Option<Arc<str>> {
        self.over.borrow().clone()
    }

    /// Takes the device out of service; the first reason stays.
    pub(super) fn end(&self, why: Arc<str>) {
        self.over.send_if_modified(|over| {
            let first = over.is_none();
            over.get_or_insert(why);
            first
        });
    }

    /// Resolves when the device is over.
    async fn wait_over(&self) -> Arc<str> {
        let mut over = self.over.subscribe();
        let why = over
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|why| why.clone());
        why.expect("the sender lives as long as `self`, and waits for a reason")
    }

    /// The result of `work`, or why the device was over before.
    async fn unless_over<T>(&self, work: impl Future<Output = T>) -> Result<T, Arc<str>> {
        match select(pin!(work), pin!(self.wait_over())).await {
            Either::Left((done, _)) => Ok(done),
            Either::Right((why, _)) => Err(why),
        }
    }
}

/// An operation on its way, with whoever waits for it.
#[derive(Debug)]
struct Job {
    request: Request,
    caller: Caller,
}

/// Whoever waits for an operation. Dropped unanswered, it answers that the device is gone.
#[derive(Debug)]
pub(super) struct Caller(Option<Wait>);

#[derive(Debug)]
enum Wait {
    /// A slot of this thread.
    Here(SlotId),
    /// A slot of another thread, with the way to it.
    There(SlotId, mpsc::UnboundedSender<(SlotId, Completion)>),
    Probe(oneshot::Sender<Completion>),
}

impl Caller {
    fn new(wait: Wait) -> Self {
        Self(Some(wait))
    }

    fn complete(mut self, completion: Completion) {
        self.answer(completion);
    }

    fn answer(&mut self, completion: Completion) {
        match self.0.take() {
            Some(Wait::Here(slot)) => slots::complete(slot, completion),
            // A thread that has ended, or a probe that was given up, wants no answer.
            Some(Wait::There(slot, back)) => drop(back.send((slot, completion))),
            Some(Wait::Probe(probe)) => drop(probe.send(completion)),
            None => {}
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.answer(gone("its task has ended"));
    }
}

fn gone(why: &str) -> Completion {
    Completion {
        result: Err(DeviceError::Gone(why.into())),
        buf: None,
    }
}

/// What a request to the server belongs to.
pub(super) enum Token {
    Whole {
        caller: Caller,
        reading: bool,
    },
    /// A step of an operation of several.
    Step(oneshot::Sender<Outcome>),
}

impl From<oneshot::Sender<Outcome>> for Token {
    fn from(step: oneshot::Sender<Outcome>) -> Self {
        Self::Step(step)
    }
}

impl Answer for Token {
    fn answer(self, outcome: Outcome) {
        match self {
            Self::Whole { caller, reading } => caller.complete(completion(outcome, reading)),
            Self::Step(step) => step.answer(outcome),
        }
    }
}

#[derive(Clone)]
enum Lane {
    Own(Rc<OwnLane>),
    /// Everything goes to the first lane, and answers come back through this.
    Routed(mpsc::UnboundedSender<(SlotId, Completion)>),
}

/// A lane with a connection.
struct OwnLane(RefCell<Phase>);

enum Phase {
    Connecting(Vec<Job>),
    Up(Connection<Token>),
    Down(Arc<str>),
}

impl OwnLane {
    fn new() -> Rc<Self> {
        Rc::new(Self(RefCell::new(Phase::Connecting(Vec::new()))))
    }

    fn submit(&self, link: &Arc<Link>, job: Job) {
        let connection = match &mut *self.0.borrow_mut() {
            Phase::Connecting(waiting) => return waiting.push(job),
            Phase::Down(why) => return job.caller.complete(gone(why)),
            Phase::Up(connection) => connection.clone(),
        };
        start(link, connection, job);
    }

    /// Begins everything that waited for the connection.
    fn up(&self, link: &Arc<Link>, connection: &Connection<Token>) {
        let before = self.0.replace(Phase::Up(connection.clone()));
        if let Phase::Connecting(waiting) = before {
            waiting
                .into_iter()
                .for_each(|job| start(link, connection.clone(), job));
        }
    }

    fn down(&self, why: &Arc<str>) {
        let before = self.0.replace(Phase::Down(Arc::clone(why)));
        if let Phase::Connecting(waiting) = before {
            waiting.into_iter().for_each(|job| job.caller.complete(gone(why)));
        }
    }
}

fn start(link: &Arc<Link>, connection: Connection<Token>, Job { request, caller }: Job) {
    let reading = matches!(request, Request::Read { .. });
    match link.plan.steps(request) {
        Steps::Nothing(buf) => caller.complete(Completion { result: Ok(()), buf }),
        Steps::One(command) => connection.submit(command, Token::Whole { caller, reading }),
        Steps::Many(request) => {
            let plan = link.plan;
            spawn_local(async move { caller.complete(carry_out(&connection, &plan, request).await) });
        }
    }
}

/// Makes the device of an export that was opened on this thread, and its first lane.
pub(super) fn begin(
    id: u64,
    uri: NbdUri,
    open: OpenOptions,
    limit: Duration,
    plan: Plan,
    (stream, export): (Box<dyn Stream>, ExportInfo),
) -> Arc<Link> {
    let (first, mut jobs) = mpsc::unbounded_channel();
    let link = Arc::new(Link {
        id,
        uri,
        open,
        limit,
        export,
        plan,
        over: watch::Sender::new(None),
        first,
    });
    let own = OwnLane::new();
    LANES.with_borrow_mut(|lanes| lanes.insert(id, Lane::Own(Rc::clone(&own))));
    let opened = Connection::new(stream, export);
    let place = Place {
        link: Arc::clone(&link),
        first: true,
    };
    spawn_local(tend(place, Rc::clone(&own), std::future::ready(Ok(opened))));
    let router = Arc::clone(&link);
    spawn_local(async move {
        let serving = async {
            while let Some(job) = jobs.recv().await {
                own.submit(&router, job);
            }
        };
        // Jobs that nobody took are dropped with the channel, and so answered.
        let _ = router.unless_over(serving).await;
    });
    link
}

/// Starts an operation of this thread.
pub(super) fn submit(link: &Arc<Link>, request: Request) -> Started {
    let slot = slots::allocate(Some(link.limit));
    match lane_of(link) {
        Lane::Own(own) => own.submit(
            link,
            Job {
                request,
                caller: Caller::new(Wait::Here(slot)),
            },
        ),
        Lane::Routed(back) => {
            let caller = Caller::new(Wait::There(slot, back));
            // A job that cannot be sent is dropped, and so answered.
            let _ = link.first.send(Job { request, caller });
        }
    }
    Started::Pending(slot)
}

/// This thread's lane, made where it is the thread's first operation.
fn lane_of(link: &Arc<Link>) -> Lane {
    LANES.with_borrow_mut(|lanes| {
        let lane = lanes.entry(link.id).or_insert_with(|| {
            if link.plan.multi {
                let own = OwnLane::new();
                let opening = open_another(Arc::clone(link));
                let place = Place {
                    link: Arc::clone(link),
                    first: false,
                };
                spawn_local(tend(place, Rc::clone(&own), opening));
                Lane::Own(own)
            } else {
                let (back, answers) = mpsc::unbounded_channel();
                spawn_local(deliver(Arc::clone(link), answers));
                Lane::Routed(back)
            }
        });
        lane.clone()
    })
}

/// A lane's place in the thread's table, kept by the task that tends it. With the first lane's goes the device.
struct Place {
    link: Arc<Link>,
    first: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.first {
            self.link.end("the thread that connected it has ended".into());
        }
        let lane = LANES.try_with(|lanes| lanes.borrow_mut().remove(&self.link.id));
        drop(lane);
    }
}

type Opened = (Connection<Token>, Driver<Token>);

/// Opens and runs the connection of one lane until the device is over.
async fn tend(place: Place, own: Rc<OwnLane>, opening: impl Future<Output = Result<Opened, Arc<str>>>) {
    let link = Arc::clone(&place.link);
    let why = match link.unless_over(opening).await {
        Ok(Ok(opened)) => run(&link, &own, opened).await,
        Ok(Err(why)) | Err(why) => why,
    };
    if link.over().is_none() {
        tracing::warn!(uri = %link.uri, %why, "a remote device is gone");
    }
    link.end(Arc::clone(&why));
    own.down(&why);
    drop(place);
}

async fn run(link: &Arc<Link>, own: &OwnLane, (connection, driver): Opened) -> Arc<str> {
    own.up(link, &connection);
    match select(pin!(driver.run()), pin!(link.wait_over())).await {
        Either::Left((why, _)) => why,
        Either::Right((why, driver)) => {
            connection.close();
            driver.await;
            why
        }
    }
}

/// Opens one more connection to the export, and makes sure that it leads to the server that the first one leads to.
async fn open_another(link: Arc<Link>) -> Result<Opened, Arc<str>> {
    let (stream, export) = client::open(&link.uri, &link.open)
        .await
        .map_err(|error| error.to_string())?;
    if export != link.export {
        return Err("the server offers the export otherwise than before".into());
    }
    let (probe, answer) = oneshot::channel();
    let block = usize::try_from(link.plan.info.block).expect("a block fits in memory");
    let request = Request::Read {
        at: 0,
        buf: IoBuf::new(block),
    };
    let _ = link.first.send(Job {
        request,
        caller: Caller::new(Wait::Probe(probe)),
    });
    match tokio::time::timeout(link.open.limit, answer).await {
        Ok(Ok(Completion {
            result: Err(DeviceError::Gone(why)),
            ..
        })) => Err(why.into()),
        // A medium error there proves the connection as well as data does.
        Ok(Ok(_)) => Ok(Connection::new(stream, export)),
        _ => Err("the first connection does not answer".into()),
    }
}

/// Completes this thread's slots with what the first lane answers.
async fn deliver(link: Arc<Link>, mut answers: mpsc::UnboundedReceiver<(SlotId, Completion)>) {
    let place = Place {
        link: Arc::clone(&link),
        first: false,
    };
    let mut delivering = pin!(async {
        while let Some((slot, completion)) = answers.recv().await {
            slots::complete(slot, completion);
        }
    });
    if link.unless_over(delivering.as_mut()).await.is_err() {
        // Nothing new is sent once the lane is gone from the table; what is under way is still answered.
        drop(place);
        delivering.await;
    }
}
