//! A request whose content comes late: begun, and finished when the test says so.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use crate::api::Answer;

/// How long each part of the answer may take.
const LIMIT: Duration = Duration::from_secs(60);
const GO_ON: &str = "HTTP/1.1 100 Continue\r\n\r\n";

/// A request over the maintenance socket that the server has begun to handle.
#[derive(Debug)]
pub struct HeldRequest {
    stream: UnixStream,
}

impl HeldRequest {
    /// Asks for what is at `path`, below `/api/v1`, and waits until the server wants the content.
    ///
    /// # Panics
    /// Where it does not.
    pub fn begin(socket: &Path, path: &str) -> Self {
        let mut stream = UnixStream::connect(socket).expect("the server listens");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit can be set");
        write!(
            stream,
            "GET /api/v1{path} HTTP/1.1\r\nhost: ashlar\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
        )
        .expect("the server reads");
        let mut told = vec![0; GO_ON.len()];
        stream
            .read_exact(&mut told)
            .expect("the server wants the content");
        assert_eq!(String::from_utf8_lossy(&told), GO_ON);
        Self { stream }
    }

    /// Sends the content, and reads the answer until the server hangs up.
    ///
    /// # Panics
    /// Where there is no whole answer.
    pub fn finish(mut self) -> Answer {
        self.stream.write_all(b"{}").expect("the server reads");
        let mut text = String::new();
        self.stream.read_to_string(&mut text).expect("the server answers");
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let mut headers = HeaderMap::new();
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            let name = HeaderName::try_from(name).expect("it is a header");
            headers.insert(name, HeaderValue::try_from(value).expect("it is a header"));
        }
        Answer {
            status: status
                .and_then(|status| status.parse().ok())
                .expect("an answer has a status"),
            headers,
            body: serde_json::from_str(body).expect("answers are JSON"),
        }
    }
}
