//! Sockets of the API: HTTPS or HTTP over TCP, HTTP at the maintenance socket.
//!
//! Invariants: at most [`MOST_CONNECTIONS`] at a time, further ones wait to be accepted; a TLS handshake and a request's
//! headers have a deadline, so that nobody holds a place by saying nothing. Whoever comes over the maintenance socket is
//! known by the number of their user, which the kernel tells.

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
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

/// Connections at a time, on all sockets.
const MOST_CONNECTIONS: usize = 4096;
/// For a TLS handshake, and for the headers of a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// For what runs when the appliance stops.
const GRACE: Duration = Duration::from_secs(10);

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
    places: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

impl Sockets {
    pub fn new(router: Router, stop: watch::Receiver<bool>) -> Self {
        Self {
            router,
            places: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
            stop,
        }
    }

    /// Accepts TCP connections, with TLS where there is an acceptor. Returns when told to stop and what ran has ended.
    pub async fn tcp(&self, listener: TcpListener, tls: Option<TlsAcceptor>) {
        let graceful = Arc::new(GracefulShutdown::new());
        let mut stop = self.stop.clone();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(listener.accept()) => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let Some(((stream, address), place)) = accepted else {
                continue;
            };
            // Answers are small and whole: waiting for more of them only delays them.
            let _ = stream.set_nodelay(true);
            let (router, tls, watched) = (self.router.clone(), tls.clone(), Arc::clone(&graceful));
            tokio::spawn(async move {
                let _place = place;
                let origin = Origin::Network(address);
                match tls {
                    None => serve(stream, router, origin, &watched).await,
                    Some(tls) => match tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
                        Ok(Ok(stream)) => serve(stream, router, origin, &watched).await,
                        Ok(Err(error)) => tracing::debug!(%address, %error, "TLS handshake failed"),
                        Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
                    },
                }
            });
        }
        drop(listener);
        end(graceful).await;
    }

    /// Accepts connections of the maintenance socket.
    pub async fn maintenance(&self, listener: UnixListener) {
        let graceful = Arc::new(GracefulShutdown::new());
        let mut stop = self.stop.clone();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(listener.accept()) => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let Some(((stream, _), place)) = accepted else {
                continue;
            };
            let Ok(peer) = stream.peer_cred() else { continue };
            let (router, watched) = (self.router.clone(), Arc::clone(&graceful));
            tokio::spawn(async move {
                let _place = place;
                serve(stream, router, Origin::Maintenance { uid: peer.uid() }, &watched).await;
            });
        }
        drop(listener);
        end(graceful).await;
    }

    async fn accept<T>(
        &self,
        accepted: impl Future<Output = io::Result<T>>,
    ) -> Option<(T, OwnedSemaphorePermit)> {
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
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
}

async fn end(graceful: Arc<GracefulShutdown>) {
    // Connections that are in a handshake hold a reference; they get no requests any more either way.
    if let Ok(graceful) = Arc::try_unwrap(graceful)
        && tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err()
    {
        tracing::info!("requests that took too long were cut off");
    }
}

async fn serve<S>(stream: S, router: Router, origin: Origin, graceful: &GracefulShutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(origin);
        request.map(axum::body::Body::new)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(PATIENCE))
        .max_concurrent_streams(64);
    let connection =
        builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
    if let Err(error) = graceful.watch(connection.into_owned()).await {
        tracing::debug!(?origin, %error, "a connection ended early");
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
