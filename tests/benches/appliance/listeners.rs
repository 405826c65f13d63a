//! A thousand listeners of the event stream: each gets each event in order, and changes go on as before.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ashlar_tests::server::Home;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;

use crate::load::{self, Connection, Latencies, Make};
use crate::signed_in::SignedIn;
use crate::table::Row;
use crate::table::Wanted::{AtMost, Nothing};
use crate::usage::{self, Spent};

/// Between two changes: people and programs, not a storm.
const PACE: Duration = Duration::from_millis(50);

/// What the listeners have heard.
#[derive(Default)]
struct Heard {
    ready: AtomicUsize,
    /// Of each event in turn: how many heard it, and when the last one did.
    events: Mutex<Vec<(usize, Instant)>>,
}

impl Heard {
    /// Whether so many have heard so many events.
    fn all(&self, events: usize, listeners: usize) -> bool {
        let heard = self.events.lock().expect("nobody panics with it");
        heard.len() == events && heard.iter().all(|(count, _)| *count == listeners)
    }
}

/// Follows the events for good. Counts each, and that none is left out or comes twice.
async fn listen(address: SocketAddr, request: Request<Full<Bytes>>, heard: Arc<Heard>) {
    let mut connection = Connection::open(address).await;
    let mut body = connection.begin(request).await.into_body();
    let (mut last, mut index) = (None, 0);
    while let Some(Ok(frame)) = body.frame().await {
        let now = Instant::now();
        let Ok(chunk) = frame.into_data() else { continue };
        let text = String::from_utf8_lossy(&chunk);
        for line in text.lines() {
            if line == ": events follow" {
                heard.ready.fetch_add(1, Ordering::Relaxed);
            }
            let Some(number) = line.strip_prefix("id: ") else {
                continue;
            };
            let number: u64 = number.parse().expect("events have numbers");
            assert!(
                last.is_none_or(|last| number == last + 1),
                "{number} follows {last:?}"
            );
            last = Some(number);
            let mut events = heard.events.lock().expect("nobody panics with it");
            match events.get_mut(index) {
                Some(event) => *event = (event.0 + 1, now),
                None => events.push((1, now)),
            }
            index += 1;
        }
    }
}

/// Makes changes for a while; how long each took, and when it was answered.
async fn change(address: SocketAddr, make: &Make, lasts: Duration) -> (Latencies, Vec<Instant>) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let mut connection = Connection::open(address).await;
    let (mut took, mut answered) = (Vec::new(), Vec::new());
    let mut pace = tokio::time::interval(PACE);
    let begun = Instant::now();
    while begun.elapsed() < lasts {
        pace.tick().await;
        let request = make(1_000_000_000 + NEXT.fetch_add(1, Ordering::Relaxed) as u64);
        let sent = Instant::now();
        connection.ask(request).await;
        took.push(sent.elapsed());
        answered.push(Instant::now());
    }
    (Latencies::of(took), answered)
}

/// What came of changes while somebody listened, or nobody did.
struct Changed {
    took: Latencies,
    answered: Vec<Instant>,
    /// Of the server.
    spent: Duration,
}

async fn changed(ours: &SignedIn, make: &Make, until: impl AsyncFnOnce(usize)) -> Changed {
    // Repetitions are one long one: what comes late would come late then, too.
    let lasts = crate::seconds() * u32::try_from(crate::number("REPS", 3)).expect("a small number");
    let before = Spent::by(ours.server.pid());
    let (took, answered) = change(ours.address(), make, lasts).await;
    until(answered.len()).await;
    Changed {
        took,
        answered,
        spent: Spent::by(ours.server.pid()).since(&before).server,
    }
}

pub(crate) fn measure() -> Vec<Row> {
    // Each listener is a descriptor here, and one there.
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
    raised.expect("a process may use its own limit");
    let ours = SignedIn::start(Home::new());
    ours.webhooks();
    load::clients(measure_on(&ours))
}

async fn measure_on(ours: &SignedIn) -> Vec<Row> {
    let listeners = usize::try_from(crate::number("LISTENERS", 1000)).expect("a small number");
    let (pid, make) = (ours.server.pid(), ours.rename_webhook());
    let alone = changed(ours, &make, async |_| ()).await;
    let memory = usage::memory(pid, "VmRSS");
    let heard = Arc::new(Heard::default());
    for _ in 0..listeners {
        let mut request = ours.request("GET", "/events", &Value::Null);
        let accept = HeaderValue::from_static("text/event-stream");
        request.headers_mut().insert("accept", accept);
        tokio::spawn(listen(ours.address(), request, Arc::clone(&heard)));
    }
    wait_until("all listen", || heard.ready.load(Ordering::Relaxed) == listeners).await;
    let memory = usage::memory(pid, "VmRSS").saturating_sub(memory);
    let with = changed(ours, &make, async |changes| {
        wait_until("all have heard all", || heard.all(changes, listeners)).await;
    })
    .await;
    let events = heard.events.lock().expect("nobody panics with it").clone();
    let late = with.answered.iter().zip(&events);
    let late = late.map(|(answered, (_, heard))| heard.saturating_duration_since(*answered));
    rows(listeners, memory, &Latencies::of(late.collect()), [&with, &alone])
}

fn rows(listeners: usize, memory: u64, late: &Latencies, [with, alone]: [&Changed; 2]) -> Vec<Row> {
    let name = |what: &str| format!("{listeners} listeners: {what}");
    let each = memory as f64 / 1024.0 / listeners as f64;
    let told = (with.answered.len() * listeners) as f64;
    let cost = with.spent.saturating_sub(alone.spent).as_secs_f64() * 1e6 / told;
    let beside = |part: f64| [(with.took.quantile_ms(part), alone.took.quantile_ms(part))];
    vec![
        Row::alone(
            name("ms until the last one has heard, p50"),
            late.quantile_ms(0.5),
            Nothing,
        ),
        Row::alone(
            name("ms until the last one has heard, p99"),
            late.quantile_ms(0.99),
            AtMost(250.0),
        ),
        Row::alone(name("KiB of memory for each"), each, AtMost(100.0)),
        Row::alone(name("µs of the server for each event told"), cost, Nothing),
        Row::beside(
            name("p50 ms of a change, beside no listeners"),
            &beside(0.5),
            Nothing,
        ),
        Row::beside(
            name("p99 ms of a change, beside no listeners"),
            &beside(0.99),
            Nothing,
        ),
    ]
}

/// Looks again and again, for a minute.
async fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "not within a minute: {what}"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
