//! A small client of the management API: over the maintenance socket, or over HTTPS. One connection for each request,
//! and a deadline for each answer.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Where the API is reached.
#[derive(Clone)]
enum Way {
    Socket(PathBuf),
    Https(SocketAddr, Arc<ClientConfig>),
}

/// The management API of one appliance.
#[derive(Clone)]
pub struct Api {
    way: Way,
    /// Sent with every request.
    headers: Vec<(String, String)>,
}

/// A body as it is sent.
#[derive(Debug, Default)]
struct Sent {
    /// `None` where there is none.
    kind: Option<String>,
    bytes: Bytes,
}

/// An answer, also where it is a problem.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// `null` where there is none.
    pub body: Value,
}

impl Answer {
    /// The body, where the request was granted.
    ///
    /// # Panics
    /// Where it was not.
    pub fn granted(self) -> Value {
        assert!(
            (200..300).contains(&self.status),
            "{} {:#}",
            self.status,
            self.body
        );
        self.body
    }

    /// The problem's name, without what all have in common, where the request was refused.
    ///
    /// # Panics
    /// Where it was not, or not with a problem document.
    pub fn refused(&self) -> &str {
        assert!(self.status >= 400, "not refused: {} {:#}", self.status, self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let kind = self.body["type"].as_str().unwrap_or_default();
        kind.strip_prefix("urn:ashlar:problem:")
            .unwrap_or_else(|| panic!("no problem: {:#}", self.body))
    }

    /// A header's value; empty where it was not sent.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).map(|value| value.to_str());
        value.and_then(Result::ok).unwrap_or_default()
    }
}

impl Api {
    /// Over the maintenance socket at this path.
    pub fn over_socket(path: &Path) -> Self {
        Self {
            way: Way::Socket(path.to_owned()),
            headers: Vec::new(),
        }
    }

    /// Over HTTPS, trusting the certificates in `pem` only.
    ///
    /// # Panics
    /// Where the file holds none.
    pub fn over_https(address: SocketAddr, pem: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        let found =
            CertificateDer::pem_file_iter(pem).unwrap_or_else(|error| panic!("{}: {error}", pem.display()));
        for certificate in found {
            let certificate = certificate.expect("the file holds certificates");
            roots.add(certificate).expect("a certificate can be trusted");
        }
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            way: Way::Https(address, Arc::new(config)),
            headers: Vec::new(),
        }
    }

    /// The same, with one more header.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut with = self.clone();
        with.headers.push((name.to_owned(), value.to_owned()));
        with
    }

    /// # Panics
    /// Where there is no answer.
    pub fn get(&self, path: &str) -> Answer {
        self.must("GET", path, &Value::Null)
    }

    /// # Panics
    /// Where there is no answer.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.must("POST", path, body)
    }

    /// # Panics
    /// Where there is no answer.
    pub fn patch(&self, path: &str, body: &Value) -> Answer {
        self.must("PATCH", path, body)
    }

    /// # Panics
    /// Where there is no answer.
    pub fn delete(&self, path: &str) -> Answer {
        self.must("DELETE", path, &Value::Null)
    }

    fn must(&self, method: &str, path: &str, body: &Value) -> Answer {
        let answer = self.request(method, path, body);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Sends a request below `/api/v1` and waits for the answer. A body of `null` is no body.
    ///
    /// # Errors
    /// Where there is no whole answer.
    ///
    /// # Panics
    /// Where it does not come within a minute.
    pub fn request(&self, method: &str, path: &str, body: &Value) -> io::Result<Answer> {
        let sent = match body {
            Value::Null => Sent::default(),
            body => Sent {
                kind: Some("application/json".to_owned()),
                bytes: Bytes::from(body.to_string()),
            },
        };
        self.send(method, path, &sent)
    }

    /// Sends bytes that are said to be of this type, whatever they are.
    ///
    /// # Panics
    /// Where there is no answer.
    pub fn raw(&self, method: &str, path: &str, kind: &str, bytes: &[u8]) -> Answer {
        let sent = Sent {
            kind: Some(kind.to_owned()),
            bytes: Bytes::copy_from_slice(bytes),
        };
        let answer = self.send(method, path, &sent);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn send(&self, method: &str, path: &str, body: &Sent) -> io::Result<Answer> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let answer =
            runtime.block_on(async { tokio::time::timeout(LIMIT, self.ask(method, path, body)).await });
        answer.unwrap_or_else(|_| panic!("{method} {path}: no answer within {LIMIT:?}"))
    }

    async fn ask(&self, method: &str, path: &str, body: &Sent) -> io::Result<Answer> {
        match &self.way {
            Way::Socket(socket) => {
                let stream = UnixStream::connect(socket).await?;
                self.talk(stream, method, path, body).await
            }
            Way::Https(address, config) => {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::from(address.ip());
                let stream = TlsConnector::from(Arc::clone(config))
                    .connect(name, stream)
                    .await?;
                self.talk(stream, method, path, body).await
            }
        }
    }

    async fn talk<S>(&self, stream: S, method: &str, path: &str, body: &Sent) -> io::Result<Answer>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let driver = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header("host", "ashlar");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(kind) = &body.kind {
            request = request.header("content-type", kind);
        }
        let request = request
            .body(Full::new(body.bytes.clone()))
            .map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.map_err(io::Error::other)?.to_bytes();
        driver.abort();
        let body = match bytes.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&bytes)?,
        };
        Ok(Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        })
    }
}
