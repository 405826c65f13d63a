//! An NBD server that forgets: what was not flushed is kept in its memory only, and gone when it is killed.
//!
//! `forgetful_nbd SOCKET FILE SIZE` serves FILE, made to SIZE bytes, as the export of any name on a Unix socket. It
//! prints `ready` when it listens. Writes go to memory; FLUSH writes all of them to the file and syncs it, FUA the
//! one write. A test that kills it sees what a host sees of a server with a volatile cache that lost its power.
//!
//! It trusts its client: what breaks the protocol ends the connection without a word.
#![expect(
    clippy::disallowed_methods,
    reason = "a tool of its own, outside the engine's simulation"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use ashlar_engine::nbd::wire;
use clap::Parser;

/// Writes are kept by this many bytes.
const SECTOR: u64 = 512;
const SECTOR_LEN: usize = 512;

#[derive(Parser)]
#[command(about = "An NBD server that loses what was not flushed when it is killed")]
struct Arguments {
    /// Path of the Unix socket to listen on; a stale one is replaced.
    socket: PathBuf,
    /// What was flushed; created where it does not exist.
    file: PathBuf,
    /// Bytes of the export, a multiple of 512.
    size: u64,
}

/// The export: a file, and before it the sectors that were written since the last flush.
struct Store {
    file: File,
    unflushed: BTreeMap<u64, [u8; SECTOR_LEN]>,
}

impl Store {
    fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, at)?;
        for (sector, part) in (at / SECTOR..).zip(bytes.chunks_mut(SECTOR_LEN)) {
            if let Some(newer) = self.unflushed.get(&sector) {
                part.copy_from_slice(newer);
            }
        }
        Ok(())
    }

    fn write(&mut self, at: u64, bytes: &[u8], fua: bool) -> io::Result<()> {
        for (sector, part) in (at / SECTOR..).zip(bytes.chunks_exact(SECTOR_LEN)) {
            self.unflushed
                .insert(sector, part.try_into().map_err(io::Error::other)?);
        }
        if fua {
            let end = (at + bytes.len() as u64) / SECTOR;
            let here: Vec<u64> = self
                .unflushed
                .range(at / SECTOR..end)
                .map(|(&sector, _)| sector)
                .collect();
            for sector in here {
                self.unflushed.remove(&sector);
            }
            self.file.write_all_at(bytes, at)?;
            self.file.sync_all()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        for (sector, bytes) in &self.unflushed {
            self.file.write_all_at(bytes, sector * SECTOR)?;
        }
        self.file.sync_all()?;
        self.unflushed.clear();
        Ok(())
    }
}

struct Server {
    size: u64,
    store: Mutex<Store>,
}

struct Request {
    flags: u16,
    kind: u16,
    cookie: [u8; 8],
    at: u64,
    len: usize,
}

fn main() -> io::Result<()> {
    let Arguments { socket, file, size } = Arguments::parse();
    if !size.is_multiple_of(SECTOR) {
        return Err(io::Error::other(format!("SIZE is not a multiple of {SECTOR}")));
    }
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(file)?;
    file.set_len(size)?;
    let server = Arc::new(Server {
        size,
        store: Mutex::new(Store {
            file,
            unflushed: BTreeMap::new(),
        }),
    });
    if socket.exists() {
        std::fs::remove_file(&socket)?;
    }
    let listener = UnixListener::bind(&socket)?;
    println!("ready");
    for stream in listener.incoming() {
        let (stream, server) = (stream?, Arc::clone(&server));
        thread::spawn(move || {
            if let Err(error) = serve(&server, stream) {
                eprintln!("connection ended: {error}");
            }
        });
    }
    Ok(())
}

fn serve(server: &Server, mut stream: UnixStream) -> io::Result<()> {
    if !negotiate(server, &mut stream)? {
        return Ok(());
    }
    while let Some(request) = receive(&mut stream)? {
        let reading = request.kind == wire::CMD_READ;
        let mut bytes = vec![
            0;
            if reading || request.kind == wire::CMD_WRITE {
                request.len
            } else {
                0
            }
        ];
        if request.kind == wire::CMD_WRITE {
            stream.read_exact(&mut bytes)?;
        }
        let errno = match carry_out(server, &request, &mut bytes) {
            Ok(()) => 0,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => wire::EINVAL,
            Err(_) => wire::EIO,
        };
        let mut reply = wire::SIMPLE_REPLY_MAGIC.to_be_bytes().to_vec();
        reply.extend(errno.to_be_bytes());
        reply.extend(request.cookie);
        if reading && errno == 0 {
            reply.extend(bytes);
        }
        stream.write_all(&reply)?;
    }
    Ok(())
}

fn carry_out(server: &Server, request: &Request, bytes: &mut [u8]) -> io::Result<()> {
    let Request {
        flags, kind, at, len, ..
    } = *request;
    let fits = at.checked_add(len as u64).is_some_and(|end| end <= server.size);
    if !fits || !at.is_multiple_of(SECTOR) || !(len as u64).is_multiple_of(SECTOR) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut store = server.store.lock().unwrap_or_else(PoisonError::into_inner);
    let fua = flags & wire::CMD_FLAG_FUA != 0;
    match kind {
        wire::CMD_READ => store.read(at, bytes),
        wire::CMD_WRITE => store.write(at, bytes, fua),
        wire::CMD_WRITE_ZEROES => store.write(at, &vec![0; len], fua),
        wire::CMD_FLUSH => store.flush(),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// The next request; `None` where the client says goodbye or goes without.
fn receive(stream: &mut UnixStream) -> io::Result<Option<Request>> {
    let mut head = [0; wire::REQUEST_LEN];
    match stream.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    if be32(&head, 0) != wire::REQUEST_MAGIC {
        return Err(io::Error::other("a request without its magic number"));
    }
    let request = Request {
        flags: be16(&head, 4),
        kind: be16(&head, 6),
        cookie: head[8..16].try_into().map_err(io::Error::other)?,
        at: u64::from(be32(&head, 16)) << 32 | u64::from(be32(&head, 20)),
        len: usize::try_from(be32(&head, 24)).map_err(io::Error::other)?,
    };
    Ok((request.kind != wire::CMD_DISC).then_some(request))
}

/// The handshake; whether transmission follows.
fn negotiate(server: &Server, stream: &mut UnixStream) -> io::Result<bool> {
    let mut greeting = wire::NBD_MAGIC.to_be_bytes().to_vec();
    greeting.extend(wire::OPTION_MAGIC.to_be_bytes());
    greeting.extend((wire::FLAG_FIXED_NEWSTYLE | wire::FLAG_NO_ZEROES).to_be_bytes());
    stream.write_all(&greeting)?;
    stream.read_exact(&mut [0; 4])?;
    loop {
        let mut head = [0; 16];
        stream.read_exact(&mut head)?;
        let option = be32(&head, 8);
        io::copy(
            &mut Read::take(&mut *stream, be32(&head, 12).into()),
            &mut io::sink(),
        )?;
        match option {
            wire::OPT_GO | wire::OPT_INFO => {
                let mut info = wire::INFO_EXPORT.to_be_bytes().to_vec();
                info.extend(server.size.to_be_bytes());
                let flags = wire::TX_HAS_FLAGS
                    | wire::TX_SEND_FLUSH
                    | wire::TX_SEND_FUA
                    | wire::TX_SEND_WRITE_ZEROES
                    | wire::TX_CAN_MULTI_CONN;
                info.extend(flags.to_be_bytes());
                answer(stream, option, wire::REP_INFO, &info)?;
                answer(stream, option, wire::REP_ACK, &[])?;
                if option == wire::OPT_GO {
                    return Ok(true);
                }
            }
            wire::OPT_ABORT => {
                answer(stream, option, wire::REP_ACK, &[])?;
                return Ok(false);
            }
            _ => answer(stream, option, wire::REP_ERR_UNSUP, &[])?,
        }
    }
}

fn answer(stream: &mut UnixStream, option: u32, kind: u32, payload: &[u8]) -> io::Result<()> {
    let mut reply = wire::OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
    reply.extend(option.to_be_bytes());
    reply.extend(kind.to_be_bytes());
    reply.extend(
        u32::try_from(payload.len())
            .map_err(io::Error::other)?
            .to_be_bytes(),
    );
    reply.extend(payload);
    stream.write_all(&reply)
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
