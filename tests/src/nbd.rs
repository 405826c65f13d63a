//! A small blocking NBD client, written from the protocol's document and not from the engine's code, so that both
//! cannot be wrong in the same way. One request at a time; every wait for the server is bounded.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(60);

pub const OPT_GO: u32 = 7;
pub const REP_ACK: u32 = 1;
pub const REP_INFO: u32 = 3;
pub const REP_ERR_UNSUP: u32 = (1 << 31) | 1;
pub const REP_ERR_UNKNOWN: u32 = (1 << 31) | 6;
pub const CMD_READ: u16 = 0;
pub const CMD_WRITE: u16 = 1;
pub const CMD_DISC: u16 = 2;
pub const CMD_FLUSH: u16 = 3;
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
pub const EINVAL: u32 = 22;
const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";

/// Where a server listens.
#[derive(Debug, Clone)]
pub enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

trait Socket: Read + Write + Send {}
impl Socket for TcpStream {}
impl Socket for UnixStream {}

/// A connection at any stage, for sending whatever a test likes.
pub struct Raw {
    socket: Box<dyn Socket>,
}

impl Raw {
    /// Connects and says nothing.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn connect(endpoint: &Endpoint) -> io::Result<Self> {
        let socket: Box<dyn Socket> = match endpoint {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, LIMIT)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(LIMIT))?;
                stream.set_write_timeout(Some(LIMIT))?;
                Box::new(stream)
            }
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(LIMIT))?;
                stream.set_write_timeout(Some(LIMIT))?;
                Box::new(stream)
            }
        };
        Ok(Self { socket })
    }

    /// Connects, takes the server's greeting and answers it: options may follow.
    ///
    /// # Errors
    /// Those of the socket, or where the greeting is not one of a fixed newstyle server.
    pub fn greeted(endpoint: &Endpoint) -> io::Result<Self> {
        let mut raw = Self::connect(endpoint)?;
        let greeting = raw.receive(18)?;
        if &greeting[..16] != b"NBDMAGICIHAVEOPT" || greeting[17] & 1 == 0 {
            return Err(io::Error::other(format!(
                "not a fixed newstyle server: {greeting:x?}"
            )));
        }
        raw.send(&3u32.to_be_bytes())?;
        Ok(raw)
    }

    /// # Errors
    /// Those of the socket.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// # Errors
    /// Those of the socket; the end of the stream is one.
    pub fn receive(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.socket.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Whether the server closes the connection, whatever it still says before; `false` when it keeps it open.
    pub fn is_closed_by_server(&mut self) -> bool {
        let mut bytes = [0; 4096];
        loop {
            match self.socket.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    return !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                }
            }
        }
    }

    /// # Errors
    /// Those of the socket.
    pub fn send_option(&mut self, option: u32, data: &[u8]) -> io::Result<()> {
        let len = u32::try_from(data.len()).expect("options of tests are short");
        self.send(&[OPTION_MAGIC, &option.to_be_bytes()[..], &len.to_be_bytes(), data].concat())
    }

    /// The next option reply: its type and data.
    ///
    /// # Errors
    /// Those of the socket, or where it is not an option reply.
    pub fn option_reply(&mut self) -> io::Result<(u32, Vec<u8>)> {
        let header = self.receive(20)?;
        if header[..8] != 0x0003_e889_0455_65a9_u64.to_be_bytes() {
            return Err(io::Error::other(format!("not an option reply: {header:x?}")));
        }
        let data = self.receive(be32(&header[16..]) as usize)?;
        Ok((be32(&header[12..]), data))
    }

    /// Asks for an export; the last reply's type, and the size where the export was given.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn go(&mut self, export: &str) -> io::Result<(u32, u64)> {
        let len = u32::try_from(export.len()).expect("names of tests are short");
        self.send_option(OPT_GO, &[&len.to_be_bytes(), export.as_bytes(), &[0, 0]].concat())?;
        let mut size = 0;
        loop {
            match self.option_reply()? {
                (REP_INFO, data) if data.len() == 12 && data[..2] == [0, 0] => size = be64(&data[2..]),
                (REP_INFO, _) => {}
                (reply, _) => return Ok((reply, size)),
            }
        }
    }

    /// # Errors
    /// Those of the socket.
    pub fn send_request(
        &mut self,
        command: u16,
        cookie: u64,
        at: u64,
        len: u32,
        payload: &[u8],
    ) -> io::Result<()> {
        self.send(&[&request(command, cookie, at, len)[..], payload].concat())
    }

    /// A simple reply's error number and cookie.
    ///
    /// # Errors
    /// Those of the socket, or where it is not a simple reply.
    pub fn simple_reply(&mut self) -> io::Result<(u32, u64)> {
        let header = self.receive(16)?;
        if be32(&header) != 0x6744_6698 {
            return Err(io::Error::other(format!("not a simple reply: {header:x?}")));
        }
        Ok((be32(&header[4..]), be64(&header[8..])))
    }
}

/// The 28 bytes of a request's header, without flags.
pub fn request(command: u16, cookie: u64, at: u64, len: u32) -> Vec<u8> {
    [
        &REQUEST_MAGIC.to_be_bytes()[..],
        &[0, 0],
        &command.to_be_bytes(),
        &cookie.to_be_bytes(),
        &at.to_be_bytes(),
        &len.to_be_bytes(),
    ]
    .concat()
}

/// A connection attached to an export.
pub struct Client {
    raw: Raw,
    size: u64,
    cookie: u64,
}

impl Client {
    /// # Errors
    /// Those of the socket, or where the export is refused.
    pub fn attach(endpoint: &Endpoint, export: &str) -> io::Result<Self> {
        let mut raw = Raw::greeted(endpoint)?;
        match raw.go(export)? {
            (REP_ACK, size) => Ok(Self { raw, size, cookie: 0 }),
            (reply, _) => Err(io::Error::other(format!("export {export:?} refused: {reply:#x}"))),
        }
    }

    /// Bytes of the export.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// # Errors
    /// Those of the socket and of the server.
    pub fn read(&mut self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        self.call(CMD_READ, at, len, &[])?;
        self.raw.receive(len)
    }

    /// # Errors
    /// Those of the socket and of the server.
    pub fn write(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
        self.call(CMD_WRITE, at, data.len(), data)
    }

    /// # Errors
    /// Those of the socket and of the server.
    pub fn flush(&mut self) -> io::Result<()> {
        self.call(CMD_FLUSH, 0, 0, &[])
    }

    /// The bare connection, for whatever a test does next.
    pub fn into_raw(self) -> Raw {
        self.raw
    }

    fn call(&mut self, command: u16, at: u64, len: usize, payload: &[u8]) -> io::Result<()> {
        self.cookie += 1;
        let len = u32::try_from(len).expect("requests of tests are short");
        self.raw.send_request(command, self.cookie, at, len, payload)?;
        match self.raw.simple_reply()? {
            (_, cookie) if cookie != self.cookie => Err(io::Error::other("answer to another request")),
            (0, _) => Ok(()),
            (error, _) => Err(io::Error::other(format!("NBD error {error}"))),
        }
    }
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}

fn be64(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"))
}
