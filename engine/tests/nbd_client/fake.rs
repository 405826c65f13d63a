//! A server that does what a test tells it, step by step.

use std::path::PathBuf;

use ashlar_engine::nbd::NbdUri;
use ashlar_engine::nbd::wire;
use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

pub(crate) const ALL: u16 = wire::TX_HAS_FLAGS
    | wire::TX_SEND_FLUSH
    | wire::TX_SEND_FUA
    | wire::TX_SEND_WRITE_ZEROES
    | wire::TX_CAN_MULTI_CONN;

pub(crate) const SIZE: u64 = 1 << 20;

pub(crate) struct Fake {
    listener: UnixListener,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

/// A request that a fake received.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) cookie: u64,
    pub(crate) at: u64,
    pub(crate) len: u32,
}

pub(crate) struct FakeConnection(UnixStream);

impl Fake {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        Self {
            listener: UnixListener::bind(&socket).unwrap(),
            socket,
            _folder: folder,
        }
    }

    pub(crate) fn uri(&self) -> NbdUri {
        format!("nbd+unix:///?socket={}", self.socket.display())
            .parse()
            .unwrap()
    }

    /// Takes the next connection through the handshake, offering simple replies only.
    pub(crate) async fn accept(&self, flags: u16) -> FakeConnection {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let mut greeting = wire::NBD_MAGIC.to_be_bytes().to_vec();
        greeting.extend(wire::OPTION_MAGIC.to_be_bytes());
        greeting.extend(3u16.to_be_bytes());
        stream.write_all(&greeting).await.unwrap();
        stream.read_u32().await.unwrap();
        loop {
            assert_eq!(stream.read_u64().await.unwrap(), wire::OPTION_MAGIC);
            let option = stream.read_u32().await.unwrap();
            let mut data = vec![0; stream.read_u32().await.unwrap() as usize];
            stream.read_exact(&mut data).await.unwrap();
            if option != wire::OPT_GO {
                stream
                    .write_all(&reply(option, wire::REP_ERR_UNSUP, &[]))
                    .await
                    .unwrap();
                continue;
            }
            let info = [
                &wire::INFO_EXPORT.to_be_bytes()[..],
                &SIZE.to_be_bytes(),
                &flags.to_be_bytes(),
            ]
            .concat();
            stream
                .write_all(&reply(option, wire::REP_INFO, &info))
                .await
                .unwrap();
            stream
                .write_all(&reply(option, wire::REP_ACK, &[]))
                .await
                .unwrap();
            return FakeConnection(stream);
        }
    }

    /// Whether a client waits to be accepted now.
    pub(crate) fn is_wanted(&self) -> bool {
        self.listener.accept().now_or_never().is_some()
    }
}

impl FakeConnection {
    /// The next request, without its payload; `None` where the client closed the connection.
    pub(crate) async fn asked(&mut self) -> Option<Asked> {
        let magic = self.0.read_u32().await.ok()?;
        assert_eq!(magic, wire::REQUEST_MAGIC);
        let (flags, kind) = (self.0.read_u16().await.unwrap(), self.0.read_u16().await.unwrap());
        let (cookie, at) = (self.0.read_u64().await.unwrap(), self.0.read_u64().await.unwrap());
        let len = self.0.read_u32().await.unwrap();
        if kind == wire::CMD_WRITE {
            self.0.read_exact(&mut vec![0; len as usize]).await.unwrap();
        }
        Some(Asked {
            kind,
            flags,
            cookie,
            at,
            len,
        })
    }

    pub(crate) async fn answer(&mut self, cookie: u64, data: &[u8]) {
        self.0
            .write_all(&wire::SIMPLE_REPLY_MAGIC.to_be_bytes())
            .await
            .unwrap();
        self.0.write_all(&[0; 4]).await.unwrap();
        self.0.write_u64(cookie).await.unwrap();
        self.0.write_all(data).await.unwrap();
    }
}

fn reply(option: u32, kind: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = wire::OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend(payload);
    bytes
}
