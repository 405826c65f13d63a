//! The server: how many clients it has, and one client's way from the first byte to transmission.
//!
//! Invariants: a connection counts from its acceptance to the end of its task. Negotiation has a deadline that covers
//! TLS and the wait for an exclusive export. Until a connection is attached it holds a few KiB.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::connection::{ClientStream, Ended, transmit};
use super::negotiation::{Agreed, ExportInfo, Exports, Negotiation, NegotiationError, Step, TlsStage};
use super::tls::Tls;
use crate::export::access::{Protection, Refusal, Visitor};
use crate::export::registry::{Attachment, EndSignal, Registry};
use crate::export::{Export, Target};

/// What a server allows.
#[derive(Debug, Clone)]
pub struct Settings {
    pub tls: Tls,
    /// Connections at a time; further ones are closed at once.
    pub max_connections: u32,
    /// Time from acceptance to transmission.
    pub negotiation_limit: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tls: Tls::Off,
            max_connections: 10_000,
            negotiation_limit: Duration::from_secs(30),
        }
    }
}

/// Why a connection did not reach transmission.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Negotiation(#[from] NegotiationError),
    #[error("the connection failed: {0}")]
    Socket(#[from] io::Error),
    #[error("the client left before it attached")]
    Left,
    #[error("the client did not attach in time")]
    TooSlow,
    #[error("the export went away meanwhile: {0}")]
    Refused(#[from] Refusal),
    #[error("the server ended the connection")]
    Asked,
}

/// Serves the exports of a registry over NBD.
#[derive(Debug)]
pub struct Server<T> {
    registry: Arc<Registry<T>>,
    settings: Settings,
    places: Arc<Semaphore>,
    admitted: Mutex<Admitted>,
    pub(super) stopping: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Admitted {
    stopping: bool,
    next: u64,
    connections: BTreeMap<u64, Arc<EndSignal>>,
}

/// One connection's place in the server.
#[derive(Debug)]
pub struct Admission<T> {
    server: Arc<Server<T>>,
    id: u64,
    end: Arc<EndSignal>,
    _place: OwnedSemaphorePermit,
}

impl<T> Drop for Admission<T> {
    fn drop(&mut self) {
        self.server.lock().connections.remove(&self.id);
    }
}

impl<T> Server<T> {
    pub fn new(registry: Arc<Registry<T>>, settings: Settings) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(settings.max_connections as usize));
        Arc::new(Self {
            registry,
            settings,
            places,
            admitted: Mutex::default(),
            stopping: watch::Sender::new(false),
        })
    }

    /// A place for one connection; `None` where there is none left, or the server stops.
    pub fn admit(self: &Arc<Self>) -> Option<Admission<T>> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let mut admitted = self.lock();
        if admitted.stopping {
            return None;
        }
        let (id, end) = (admitted.next, Arc::new(EndSignal::default()));
        admitted.next += 1;
        admitted.connections.insert(id, Arc::clone(&end));
        drop(admitted);
        Some(Admission {
            server: Arc::clone(self),
            id,
            end,
            _place: place,
        })
    }

    /// Connections at this moment.
    pub fn connections(&self) -> usize {
        self.lock().connections.len()
    }

    /// Ends the listeners and all connections, and waits for these to complete what they began.
    pub async fn stop(&self) {
        {
            let mut admitted = self.lock();
            admitted.stopping = true;
            admitted.connections.values().for_each(|end| end.give());
        }
        self.stopping.send_replace(true);
        let all = self.places.acquire_many(self.settings.max_connections).await;
        drop(all.expect("the semaphore is never closed"));
    }

    fn lock(&self) -> MutexGuard<'_, Admitted> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The registry's exports as one visitor sees them.
struct Seen<'a, T> {
    registry: &'a Registry<T>,
    visitor: Visitor,
}

impl<T: Target> Exports for Seen<'_, T> {
    fn names(&self) -> Vec<String> {
        self.registry.names(&self.visitor)
    }

    fn info(&self, name: &str) -> Result<ExportInfo, Refusal> {
        let offered = self.registry.find(name, &self.visitor)?;
        let Export {
            target,
            access,
            exclusive,
            ..
        } = &offered.export;
        let info = target.info();
        Ok(ExportInfo {
            capacity: info.capacity,
            block: info.block,
            preferred: info.preferred,
            read_only: access.read_only,
            multi_connection: !exclusive,
        })
    }
}

/// How a negotiation went.
enum Negotiated<T> {
    Attached {
        attachment: Attachment<T>,
        agreed: Agreed,
    },
    StartTls,
    Goodbye,
}

impl<T: Target> Admission<T> {
    /// Serves one client from its first byte to its last. `address` is the client's; `None` on a Unix socket.
    pub async fn serve<S>(self, stream: S, address: Option<IpAddr>)
    where
        S: ClientStream,
    {
        match self.run(stream, address).await {
            Ok(Some(ended)) => tracing::debug!(?address, %ended, "connection ended"),
            Ok(None) => tracing::debug!(?address, "connection ended: the client needed nothing more"),
            Err(error) => tracing::debug!(?address, %error, "connection ended before transmission"),
        }
    }

    async fn run<S>(&self, mut stream: S, address: Option<IpAddr>) -> Result<Option<Ended>, ServeError>
    where
        S: ClientStream,
    {
        let deadline = Instant::now() + self.server.settings.negotiation_limit;
        let (tls_stage, config) = match &self.server.settings.tls {
            Tls::Off => (TlsStage::Unavailable, None),
            Tls::Offered(config) => (TlsStage::Offered, Some(config)),
            Tls::Required(config) => (TlsStage::Required, Some(config)),
        };
        let mut negotiation = Negotiation::new(tls_stage);
        let visitor = Visitor {
            address,
            protection: Protection::Plain,
        };
        let plain = async {
            stream.write_all(&Negotiation::greeting()).await?;
            self.negotiate(&mut stream, &mut negotiation, visitor).await
        };
        match (self.in_time(deadline, plain).await?, config) {
            (Negotiated::Attached { attachment, agreed }, _) => {
                let begun = negotiation.into_rest();
                Ok(Some(
                    transmit(&mut stream, attachment, agreed, &begun, &self.end).await,
                ))
            }
            (Negotiated::StartTls, Some(config)) => {
                self.run_secured(stream, config, negotiation.secured()?, address, deadline)
                    .await
            }
            (Negotiated::StartTls, None) | (Negotiated::Goodbye, _) => Ok(None),
        }
    }

    async fn run_secured<S>(
        &self,
        stream: S,
        config: &Arc<ServerConfig>,
        mut negotiation: Negotiation,
        address: Option<IpAddr>,
        deadline: Instant,
    ) -> Result<Option<Ended>, ServeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(Arc::clone(config));
        let secured = async {
            let mut stream = acceptor.accept(stream).await?;
            let shown = stream.get_ref().1.peer_certificates().is_some();
            let protection = if shown {
                Protection::TlsClientCertificate
            } else {
                Protection::Tls
            };
            let visitor = Visitor { address, protection };
            let negotiated = self.negotiate(&mut stream, &mut negotiation, visitor).await?;
            Ok((stream, negotiated))
        };
        let (mut stream, negotiated) = self.in_time(deadline, secured).await?;
        let Negotiated::Attached { attachment, agreed } = negotiated else {
            return Ok(None);
        };
        let begun = negotiation.into_rest();
        Ok(Some(
            transmit(&mut stream, attachment, agreed, &begun, &self.end).await,
        ))
    }

    /// Runs a part of the negotiation until it is done, too late, or the connection is asked to end.
    async fn in_time<V>(
        &self,
        deadline: Instant,
        part: impl Future<Output = Result<V, ServeError>>,
    ) -> Result<V, ServeError> {
        let part = timeout_at(deadline, part);
        match select(pin!(self.end.given()), pin!(part)).await {
            Either::Left(_) => Err(ServeError::Asked),
            Either::Right((in_time, _)) => in_time.map_err(|_| ServeError::TooSlow)?,
        }
    }

    async fn negotiate<S>(
        &self,
        stream: &mut S,
        negotiation: &mut Negotiation,
        visitor: Visitor,
    ) -> Result<Negotiated<T>, ServeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let registry = &self.server.registry;
        let exports = Seen { registry, visitor };
        let mut out = Vec::new();
        let mut received = vec![0; 4096];
        loop {
            let step = negotiation.step(&exports, &mut out)?;
            let negotiated = match step {
                Step::Receive => {
                    let count = stream.read(&mut received).await?;
                    if count == 0 {
                        return Err(ServeError::Left);
                    }
                    negotiation.receive(&received[..count])?;
                    continue;
                }
                Step::Answered => None,
                Step::StartTls => Some(Negotiated::StartTls),
                Step::Close => Some(Negotiated::Goodbye),
                Step::Attach(agreed) => {
                    let offered = registry.find(&agreed.export, &visitor)?;
                    let attachment = offered.attach(Arc::clone(&self.end)).await?;
                    Some(Negotiated::Attached { attachment, agreed })
                }
            };
            stream.write_all(&out).await?;
            stream.flush().await?;
            out.clear();
            if let Some(negotiated) = negotiated {
                return Ok(negotiated);
            }
        }
    }
}
