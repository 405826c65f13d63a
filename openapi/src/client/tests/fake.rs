//! A server that answers as it is told, one request a connection.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
    BufReader,
};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Method and path with query.
    pub(super) line: String,
    /// Names in small letters.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What the server does.
pub(super) enum Reply {
    /// Status line, headers and body, and the end of the connection.
    Say(String),
    /// The end of the connection.
    HangUp,
}

pub(super) fn json(status: u16, headers: &str, body: &(impl ToString + ?Sized)) -> Reply {
    let body = body.to_string();
    let length = body.len();
    Reply::Say(format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\
         {headers}\r\n{body}"
    ))
}

/// Everything that came, in order.
pub(super) type Log = Arc<Mutex<Vec<Seen>>>;

/// Answers the n-th request as `reply(n, request)` says, at the URL that comes back.
pub(super) async fn over_tcp(reply: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> (String, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let log = Log::default();
    let seen = Arc::clone(&log);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serve(stream, &seen, &reply).await;
        }
    });
    (url, log)
}

/// The same behind TLS.
pub(super) async fn over_tls(
    config: rustls::ServerConfig,
    reply: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static,
) -> (String, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let log = Log::default();
    let seen = Arc::clone(&log);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, &seen, &reply).await;
            }
        }
    });
    (url, log)
}

/// The same at a Unix socket.
pub(super) fn over_unix(path: &Path, reply: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Log {
    let listener = UnixListener::bind(path).unwrap();
    let log = Log::default();
    let seen = Arc::clone(&log);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serve(stream, &seen, &reply).await;
        }
    });
    log
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    log: &Log,
    reply: &impl Fn(usize, &Seen) -> Reply,
) {
    let mut stream = BufReader::new(stream);
    let Some(seen) = request(&mut stream).await else {
        return;
    };
    let number = log.lock().unwrap().len();
    let reply = reply(number, &seen);
    log.lock().unwrap().push(seen);
    if let Reply::Say(text) = reply {
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    }
}

async fn request(stream: &mut (impl AsyncBufRead + Unpin)) -> Option<Seen> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let line = lines.remove(0).trim_end_matches(" HTTP/1.1").to_owned();
    let headers: Vec<_> = lines.iter().filter_map(|line| line.split_once(": ")).collect();
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.to_lowercase(), (*value).to_owned()))
        .collect();
    let mut seen = Seen {
        line,
        headers,
        body: String::new(),
    };
    let length = seen
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    seen.body = String::from_utf8(body).unwrap();
    Some(seen)
}
