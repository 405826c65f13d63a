//! Accepts clients on TCP and Unix sockets and gives each to a data thread.
//!
//! Invariants: a listener never spins: where accepting fails for want of something it waits. It ends when its server
//! stops, and nothing else ends it.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use socket2::{Socket, TcpKeepalive};
use tokio::net::{TcpListener, UnixListener};

use super::client_socket::ClientSocket;
use super::server::{Admission, Server};
use crate::export::Target;

/// How long to wait after a failed accept.
const BACK_OFF: Duration = Duration::from_millis(100);
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);

/// One connection's whole life, to be started on a data thread.
pub type ConnectionTask = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// Brings connections to data threads.
pub trait ConnectionSpawner {
    /// Runs the task on some thread whose runtime has a `LocalSet` or runs it as its only future. Dropping the task
    /// closes its connection.
    fn spawn(&self, task: ConnectionTask);
}

/// An accepted socket that belongs to no runtime.
enum Accepted {
    Tcp(std::net::TcpStream, IpAddr),
    Unix(std::os::unix::net::UnixStream),
}

impl Accepted {
    fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(_, address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The stream, in the runtime of this thread.
    fn ready(self) -> io::Result<ClientSocket> {
        let socket: Socket = match self {
            Self::Unix(stream) => stream.into(),
            Self::Tcp(stream, _) => {
                stream.set_nodelay(true)?;
                let keepalive = TcpKeepalive::new()
                    .with_time(KEEPALIVE_AFTER)
                    .with_interval(KEEPALIVE_EVERY);
                let socket = Socket::from(stream);
                socket.set_tcp_keepalive(&keepalive)?;
                socket
            }
        };
        ClientSocket::new(socket)
    }
}

impl<T: Target + Send + Sync> Server<T> {
    /// Accepts from `listener` until the server stops.
    pub async fn listen_tcp(self: Arc<Self>, listener: TcpListener, spawner: &impl ConnectionSpawner) {
        let accept = async || {
            let (stream, client) = listener.accept().await?;
            Ok(Accepted::Tcp(stream.into_std()?, client.ip()))
        };
        self.accept_all(accept, spawner).await;
    }

    /// Accepts from `listener` until the server stops.
    pub async fn listen_unix(self: Arc<Self>, listener: UnixListener, spawner: &impl ConnectionSpawner) {
        let accept = async || Ok(Accepted::Unix(listener.accept().await?.0.into_std()?));
        self.accept_all(accept, spawner).await;
    }

    async fn accept_all(
        self: &Arc<Self>,
        accept: impl AsyncFn() -> io::Result<Accepted>,
        spawner: &impl ConnectionSpawner,
    ) {
        let mut stopping = self.stopping.subscribe();
        let mut stopped = pin!(stopping.wait_for(|stopping| *stopping));
        loop {
            let accepted = match select(stopped.as_mut(), pin!(accept())).await {
                Either::Left(_) => return,
                Either::Right((accepted, _)) => accepted,
            };
            match accepted {
                Ok(socket) => match self.admit() {
                    Some(admission) => {
                        spawner.spawn(Box::new(move || Box::pin(serve(admission, socket))));
                    }
                    None => tracing::debug!("connection closed: no place left"),
                },
                // The client was gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }
}

async fn serve<T: Target>(admission: Admission<T>, socket: Accepted) {
    let address = socket.address();
    match socket.ready() {
        Ok(stream) => admission.serve(stream, address).await,
        Err(error) => tracing::warn!(%error, "cannot serve a connection"),
    }
}

/// Listens at `path`; a socket that a dead server left there is replaced.
///
/// # Errors
/// Where somebody listens there, or the path cannot be used.
pub fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_over(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

fn is_left_over(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && std::os::unix::net::UnixStream::connect(path).is_err_and(refused)
}
