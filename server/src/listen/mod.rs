//! Sockets of the API: HTTPS or HTTP over TCP, HTTP at the maintenance socket.
//!
//! Invariants: at most [`MOST_CONNECTIONS`] at a time from the network, further ones wait to be accepted, and only some of
//! them from one client ([`peers`]); the maintenance socket has places of its own, so that whoever fills the network's
//! shuts nobody out there. Nobody holds a place by saying nothing: a TLS handshake, a request's headers and the time
//! between requests have deadlines ([`activity`]), and a client that is gone or takes no answer is found out by the
//! kernel. Whoever comes over the maintenance socket is known by the number of their user, which the kernel tells.

pub mod activity;
pub mod peers;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use activity::Activity;
use peers::Peers;

/// Connections at a time from the network.
const MOST_CONNECTIONS: usize = 4096;
/// Connections at a time at the maintenance socket.
const MOST_MAINTENANCE: usize = 256;
/// For a TLS handshake, and for the headers of a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// For what runs when the appliance stops.
const GRACE: Duration = Duration::from_secs(10);
/// How long a client may take nothing of an answer, and may not say that it is still there.
const GONE: Duration = Duration::from_secs(60);
/// Before a client that says nothing is asked whether it is still there, and between askings.
const PROBE: Duration = Duration::from_secs(15);
/// What a client of HTTP/2 may send ahead of its being read, for one request and for all of a connection.
const AHEAD_OF_REQUEST: u32 = 64 << 10;
const AHEAD: u32 = 256 << 10;
/// The same for HTTP/1: headers fit into it.
const AHEAD_HTTP1: usize = 64 << 10;

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub enum Origin {
    Network(SocketAddr),
    /// Over the maintenance socket, by the operating system's user of this number.
    Maintenance {
        uid: u32,
    },
}

/// Serves the API on sockets until told to stop.
pub struct Sockets {
    router: Router,
    network: Arc<Semaphore>,
    maintenance: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

impl Sockets {
    pub fn new(router: Router, stop: watch::Receiver<bool>) -> Self {
        Self {
            router,
            network: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
            maintenance: Arc::new(Semaphore::new(MOST_MAINTENANCE)),
            stop,
        }
    }

    /// Accepts TCP connections, with TLS where there is an acceptor. Returns when told to stop and what ran has ended.
    pub async fn tcp(&self, listener: TcpListener, tls: Option<TlsAcceptor>) {
        let graceful = GracefulShutdown::new();
        let peers = Peers::default();
        let mut stop = self.stop.clone();
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.network, listener.accept()) => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let Some(((stream, address), place)) = accepted else {
                continue;
            };
            let Some(counted) = peers.admit(address.ip()) else {
                tracing::debug!(%address, "a client with too many connections was sent away");
                continue;
            };
            let served = network(
                stream,
                address,
                tls.clone(),
                self.router.clone(),
                graceful.watcher(),
                self.stop.clone(),
            );
            tokio::spawn(async move {
                let _held = (place, counted);
                served.await;
            });
        }
        drop(listener);
        end(graceful).await;
    }

    /// Accepts connections of the maintenance socket.
    pub async fn maintenance(&self, listener: UnixListener) {
        let graceful = GracefulShutdown::new();
        let mut stop = self.stop.clone();
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.maintenance, listener.accept()) => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let Some(((stream, _), place)) = accepted else {
                continue;
            };
            let Ok(peer) = stream.peer_cred() else { continue };
            let (router, watcher) = (self.router.clone(), graceful.watcher());
            tokio::spawn(async move {
                let _place = place;
                serve(stream, router, Origin::Maintenance { uid: peer.uid() }, watcher).await;
            });
        }
        drop(listener);
        end(graceful).await;
    }
}

/// The next connection, once there is a place for it.
async fn accept<T>(
    places: &Arc<Semaphore>,
    accepted: impl Future<Output = io::Result<T>>,
) -> Option<(T, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match accepted.await {
        Ok(accepted) => Some((accepted, place)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            // Out of descriptors: until one is free again there is nothing to do but wait.
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Lets what is asked be answered; connections where nothing is are closed.
async fn end(graceful: GracefulShutdown) {
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::info!("requests that took too long were cut off");
    }
}

async fn network(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    watcher: Watcher,
    mut stop: watch::Receiver<bool>,
) {
    if let Err(error) = tune(&stream) {
        tracing::debug!(%address, %error, "a connection keeps the kernel's settings");
    }
    let origin = Origin::Network(address);
    let Some(tls) = tls else {
        return serve(stream, router, origin, watcher).await;
    };
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(PATIENCE, tls.accept(stream)) => shaken,
        // Nothing was asked yet that could be finished.
        _ = stop.wait_for(|stop| *stop) => return,
    };
    match shaken {
        Ok(Ok(stream)) => serve(stream, router, origin, watcher).await,
        Ok(Err(error)) => tracing::debug!(%address, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
    }
}

/// Has the kernel send answers at once, and give up clients that are gone or take nothing.
fn tune(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    // Answers are small and whole: waiting for more of them only delays them.
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PROBE)?;
    sockopt::set_tcp_keepintvl(stream, PROBE)?;
    let gone = u32::try_from(GONE.as_millis()).unwrap_or(u32::MAX);
    Ok(sockopt::set_tcp_user_timeout(stream, gone)?)
}

async fn serve<S>(stream: S, router: Router, origin: Origin, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Activity::default();
    let requests = activity.clone();
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(origin);
        let running = requests.begin();
        let answered = router.clone().oneshot(request.map(axum::body::Body::new));
        async move {
            let Ok(response) = answered.await;
            Ok::<_, Infallible>(running.until_sent(response))
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_buf_size(AHEAD_HTTP1)
        .header_read_timeout(PATIENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(AHEAD_OF_REQUEST)
        .initial_connection_window_size(AHEAD)
        .keep_alive_interval(Some(PROBE))
        .max_concurrent_streams(64);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::select! {
        ended = watcher.watch(connection.into_owned()) => {
            if let Err(error) = ended {
                tracing::debug!(?origin, %error, "a connection ended early");
            }
        }
        () = activity.until_idle() => tracing::debug!(?origin, "an idle connection was closed"),
    }
}

/// Makes the maintenance socket: a stale one is taken away. Everybody may connect; who is let in is seen from the
/// user's number.
///
/// # Errors
/// Where the path is too long or the file system refuses.
pub fn bind_maintenance(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    const ORIGIN: Origin = Origin::Maintenance { uid: 0 };

    /// A connection to a server that answers everything with nothing.
    fn connect(graceful: &GracefulShutdown) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(4096);
        tokio::spawn(serve(theirs, Router::new(), ORIGIN, graceful.watcher()));
        ours
    }

    async fn hung_up(mut client: DuplexStream) -> bool {
        let mut rest = Vec::new();
        // Cut off or closed: either way the place is free.
        let limit = Duration::from_secs(3600);
        tokio::time::timeout(limit, client.read_to_end(&mut rest))
            .await
            .is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_or_only_the_beginning_is_sent_away() {
        let graceful = GracefulShutdown::new();
        let beginnings: [&[u8]; 4] = [
            b"",
            b"PRI * HTTP/2",
            b"GET / HTTP/1.1\r\nhost: a\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        ];
        for beginning in beginnings {
            let mut client = connect(&graceful);
            client.write_all(beginning).await.unwrap();
            assert!(hung_up(client).await, "{:?}", String::from_utf8_lossy(beginning));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_closes_connections_where_nothing_is_asked() {
        let graceful = GracefulShutdown::new();
        let mut client = connect(&graceful);
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 404");
        let begun = tokio::time::Instant::now();
        end(graceful).await;
        assert!(begun.elapsed().is_zero());
        assert!(hung_up(client).await);
    }
}
