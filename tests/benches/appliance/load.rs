//! Clients of an HTTP server: each has one connection and sends the next request when the last one is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// Makes a request, each time with another number.
pub(crate) type Make = Arc<dyn Fn(u64) -> Request<Full<Bytes>> + Send + Sync>;

/// How long answers took, in order of length.
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn of(mut all: Vec<Duration>) -> Self {
        assert!(!all.is_empty(), "nothing was answered");
        all.sort_unstable();
        Self(all)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that this part of all took at most, in milliseconds.
    pub(crate) fn quantile_ms(&self, part: f64) -> f64 {
        let last = self.0.len() - 1;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a part of an index"
        )]
        let at = (last as f64 * part) as usize;
        self.0[at.min(last)].as_secs_f64() * 1e3
    }
}

/// A request. A body of `null` is none.
pub(crate) fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Request<Full<Bytes>> {
    let method: Method = method.parse().expect("a method of HTTP");
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "bench");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = match body {
        Value::Null => Bytes::new(),
        body => {
            request = request.header("content-type", "application/json");
            body.to_string().into()
        }
    };
    request.body(Full::new(body)).expect("its parts are well-formed")
}

/// One connection.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = tokio::net::TcpStream::connect(address).await;
        let stream = stream.expect("the server listens");
        stream.set_nodelay(true).expect("a socket can be told so");
        let (sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("a connection can be used");
        tokio::spawn(driver);
        Self { sender }
    }

    /// The answer, as soon as its head is there.
    pub(crate) async fn begin(&mut self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        self.sender.ready().await.expect("the server goes on");
        let answered = self.sender.send_request(request).await;
        answered.expect("the server answers")
    }

    /// The whole body of the answer.
    ///
    /// # Panics
    /// Where it is a refusal.
    pub(crate) async fn ask(&mut self, request: Request<Full<Bytes>>) -> Bytes {
        let asked = format!("{} {}", request.method(), request.uri());
        let answer = self.begin(request).await;
        let status = answer.status();
        let body = answer.into_body().collect().await;
        let body = body.expect("the server answers to the end").to_bytes();
        let said = || String::from_utf8_lossy(&body);
        assert!(status.is_success(), "{asked}: {status} {}", said());
        body
    }
}

/// A runtime for clients on this thread.
pub(crate) fn clients<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the system gives an event queue");
    runtime.block_on(work)
}

/// Has so many connections ask for so long.
pub(crate) fn run(address: SocketAddr, connections: u64, lasts: Duration, make: &Make) -> Latencies {
    clients(async {
        let begun = Instant::now();
        let over = || begun.elapsed() >= lasts;
        drive(address, connections, make, None, &over).await
    })
}

/// Has so many connections ask until it is told to end; each once in `every` at most.
pub(crate) fn run_until(
    address: SocketAddr,
    connections: u64,
    make: &Make,
    every: Option<Duration>,
    end: &AtomicBool,
) -> Latencies {
    let over = || end.load(Ordering::Relaxed);
    clients(drive(address, connections, make, every, &over))
}

async fn drive(
    address: SocketAddr,
    connections: u64,
    make: &Make,
    every: Option<Duration>,
    over: &dyn Fn() -> bool,
) -> Latencies {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let client = async || {
        let mut connection = Connection::open(address).await;
        let mut took = Vec::new();
        let mut turns = every.map(tokio::time::interval);
        while !over() {
            if let Some(turns) = &mut turns {
                turns.tick().await;
            }
            let request = make(NEXT.fetch_add(1, Ordering::Relaxed));
            let sent = Instant::now();
            connection.ask(request).await;
            took.push(sent.elapsed());
        }
        took
    };
    let all = futures_util::future::join_all((0..connections).map(|_| client())).await;
    Latencies::of(all.concat())
}
