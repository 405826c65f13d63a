//! From a URI to a negotiated export: sockets, TLS, and the handshake over them.
//!
//! Invariant: with `nbds` nothing but the STARTTLS option passes before the server has shown a certificate of the
//! given authority for the expected name; with `nbd` TLS is never tried, so that nobody believes to have it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::negotiation::{Event, ExportInfo, Negotiation, NegotiationError, Wanted};
use crate::nbd::uri::{Address, NbdUri};

/// After so long without traffic the kernel asks a TCP peer whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Bytes received at once during the handshake.
const HANDSHAKE_BUFFER: usize = 4096;

/// A byte stream to a server.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// Whom a client trusts, and how it identifies itself.
#[derive(Clone)]
pub struct ClientTls(Arc<ClientConfig>);

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

/// Why TLS cannot be set up on this side.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error("{what} is not PEM of the right kind: {error}")]
    Pem {
        what: &'static str,
        error: rustls_pki_types::pem::Error,
    },
    #[error("there is no certificate of an authority to trust")]
    NoAuthority,
    #[error(transparent)]
    Rejected(#[from] rustls::Error),
}

/// A client's certificate chain and its private key, both PEM.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    pub chain: &'a [u8],
    pub key: &'a [u8],
}

impl ClientTls {
    /// Trusts servers with a certificate of `authority` (PEM, one or more certificates).
    pub fn from_pem(authority: &[u8], identity: Option<Identity<'_>>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(authority, "the authority's certificate")? {
            roots.add(certificate)?;
        }
        if roots.is_empty() {
            return Err(TlsError::NoAuthority);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(Identity { chain, key }) => {
                let chain = certificates(chain, "the client's certificate")?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Pem {
                    what: "the client's key",
                    error,
                })?;
                builder.with_client_auth_cert(chain, key)?
            }
        };
        Ok(Self(Arc::new(config)))
    }

    /// Reads `ca-cert.pem` and, where it exists, `client-cert.pem` with `client-key.pem` from `folder`.
    pub fn from_folder(folder: &Path) -> Result<Self, TlsError> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|error| TlsError::File { path, error })
        };
        let authority = read("ca-cert.pem")?;
        let chain = match read("client-cert.pem") {
            Err(TlsError::File { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                return Self::from_pem(&authority, None);
            }
            chain => chain?,
        };
        let key = read("client-key.pem")?;
        Self::from_pem(
            &authority,
            Some(Identity {
                chain: &chain,
                key: &key,
            }),
        )
    }
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Pem { what, error })
}

/// Why there is no connection to an export.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot reach {address}: {error}")]
    Unreachable { address: String, error: io::Error },
    #[error("the connection broke during the handshake: {0}")]
    Broken(io::Error),
    #[error("the TLS handshake failed: {0}")]
    Handshake(io::Error),
    #[error("TLS needs an authority to trust: give tls-certificates=FOLDER in the URI")]
    NoTls,
    #[error("{0:?} is not a name that a server's certificate can carry")]
    ServerName(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Negotiation(#[from] NegotiationError),
    #[error("no connection within {0:?}")]
    Timeout(Duration),
}

/// What of a connection the URI does not say.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Goes before the folder that the URI may name.
    pub tls: Option<ClientTls>,
    /// Asks for the `base:allocation` context.
    pub allocation: bool,
    /// For everything until the export is negotiated.
    pub limit: Duration,
}

/// Connects and negotiates the export.
pub async fn open(uri: &NbdUri, options: &OpenOptions) -> Result<(Box<dyn Stream>, ExportInfo), OpenError> {
    let opened = tokio::time::timeout(options.limit, async {
        let tls = if uri.tls {
            Some(tls_setup(uri, options)?)
        } else {
            None
        };
        let stream = reach(&uri.address).await?;
        let wanted = Wanted {
            export: uri.export.clone(),
            tls: uri.tls,
            dialect: super::Dialect::Extended,
            allocation: options.allocation,
        };
        negotiate(stream, wanted, tls).await
    });
    opened.await.unwrap_or(Err(OpenError::Timeout(options.limit)))
}

fn tls_setup(uri: &NbdUri, options: &OpenOptions) -> Result<(ClientTls, ServerName<'static>), OpenError> {
    let tls = match (&options.tls, &uri.tls_certificates) {
        (Some(tls), _) => tls.clone(),
        (None, Some(folder)) => ClientTls::from_folder(folder)?,
        (None, None) => return Err(OpenError::NoTls),
    };
    let name = match (&uri.tls_hostname, &uri.address) {
        (Some(name), _) => name.clone(),
        (None, Address::Tcp { host, .. }) => host.clone(),
        (None, Address::Unix(_)) => "localhost".into(),
    };
    let name = ServerName::try_from(name.clone()).map_err(|_| OpenError::ServerName(name))?;
    Ok((tls, name))
}

async fn reach(address: &Address) -> Result<Box<dyn Stream>, OpenError> {
    match address {
        Address::Unix(path) => match UnixStream::connect(path).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(OpenError::Unreachable {
                address: path.display().to_string(),
                error,
            }),
        },
        Address::Tcp { host, port } => {
            let unreachable = |error| OpenError::Unreachable {
                address: format!("{host}:{port}"),
                error,
            };
            let stream = TcpStream::connect((host.as_str(), *port))
                .await
                .map_err(unreachable)?;
            stream.set_nodelay(true).map_err(unreachable)?;
            let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
            SockRef::from(&stream)
                .set_tcp_keepalive(&keepalive)
                .map_err(unreachable)?;
            Ok(Box::new(stream))
        }
    }
}

/// Runs the handshake over `stream`.
pub async fn negotiate(
    mut stream: Box<dyn Stream>,
    wanted: Wanted,
    mut tls: Option<(ClientTls, ServerName<'static>)>,
) -> Result<(Box<dyn Stream>, ExportInfo), OpenError> {
    let mut negotiation = Negotiation::new(wanted);
    let mut received = vec![0; HANDSHAKE_BUFFER];
    let mut events = Vec::new();
    loop {
        let count = stream.read(&mut received).await.map_err(OpenError::Broken)?;
        if count == 0 {
            return Err(OpenError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        negotiation.receive(&received[..count], &mut events)?;
        while !events.is_empty() {
            match events.remove(0) {
                Event::Send(bytes) => {
                    stream.write_all(&bytes).await.map_err(OpenError::Broken)?;
                    stream.flush().await.map_err(OpenError::Broken)?;
                }
                Event::StartTls => {
                    let (tls, name) = tls.take().ok_or(OpenError::NoTls)?;
                    let secured = TlsConnector::from(tls.0).connect(name, stream).await;
                    stream = Box::new(secured.map_err(OpenError::Handshake)?);
                    negotiation.tls_started(&mut events);
                }
                Event::Ready(export) => return Ok((stream, export)),
            }
        }
    }
}
