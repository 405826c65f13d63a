//! A client that says exactly what a test wants it to say.

use ashlar_engine::nbd::wire;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

pub(crate) struct RawClient<S> {
    pub(crate) stream: S,
}

/// An option with its data.
pub(crate) fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap();
    [
        &wire::OPTION_MAGIC.to_be_bytes()[..],
        &number.to_be_bytes(),
        &len.to_be_bytes(),
        data,
    ]
    .concat()
}

/// Data of NBD_OPT_GO that asks for nothing but the export.
pub(crate) fn named(export: &str) -> Vec<u8> {
    [
        &u32::try_from(export.len()).unwrap().to_be_bytes()[..],
        export.as_bytes(),
        &[0, 0],
    ]
    .concat()
}

/// A compact request.
pub(crate) fn request(flags: u16, kind: u16, cookie: u64, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = wire::REQUEST_MAGIC.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(u32::try_from(len).unwrap().to_be_bytes());
    bytes
}

pub(crate) fn write(cookie: u64, offset: u64, payload: &[u8]) -> Vec<u8> {
    [
        &request(0, wire::CMD_WRITE, cookie, offset, payload.len())[..],
        payload,
    ]
    .concat()
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawClient<S> {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub(crate) async fn receive(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    /// Whether the server has closed the connection, with nothing more to say.
    pub(crate) async fn is_closed(&mut self) -> bool {
        !matches!(self.stream.read(&mut [0]).await, Ok(1))
    }

    /// Takes the greeting and answers it.
    pub(crate) async fn greet(&mut self) {
        let greeting = self.receive(18).await;
        assert_eq!(greeting[..8], wire::NBD_MAGIC.to_be_bytes());
        self.send(&[0, 0, 0, 3]).await;
    }

    /// The next option reply's kind and data.
    pub(crate) async fn option_reply(&mut self) -> (u32, Vec<u8>) {
        let header = self.receive(20).await;
        let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        (number(12), self.receive(number(16) as usize).await)
    }

    /// Sends an option; the kind of its last reply.
    pub(crate) async fn ask(&mut self, number: u32, data: &[u8]) -> u32 {
        self.send(&option(number, data)).await;
        loop {
            match self.option_reply().await {
                (wire::REP_INFO | wire::REP_SERVER, _) => {}
                (kind, _) => return kind,
            }
        }
    }

    /// Greets and attaches, with simple replies.
    pub(crate) async fn attach(&mut self, export: &str) {
        self.greet().await;
        assert_eq!(self.ask(wire::OPT_GO, &named(export)).await, wire::REP_ACK);
    }

    /// The next simple reply's cookie and error number.
    pub(crate) async fn reply(&mut self) -> (u64, u32) {
        let header = self.receive(16).await;
        assert_eq!(header[..4], wire::SIMPLE_REPLY_MAGIC.to_be_bytes());
        let errno = u32::from_be_bytes(header[4..8].try_into().unwrap());
        (u64::from_be_bytes(header[8..].try_into().unwrap()), errno)
    }

    /// Sends one request; its error number.
    pub(crate) async fn call(&mut self, bytes: &[u8]) -> u32 {
        self.send(bytes).await;
        self.reply().await.1
    }

    /// Reads `len` bytes, which must succeed.
    pub(crate) async fn read(&mut self, offset: u64, len: usize) -> Vec<u8> {
        assert_eq!(self.call(&request(0, wire::CMD_READ, 1, offset, len)).await, 0);
        self.receive(len).await
    }
}
