//! An appliance in a temporary folder: created, served, killed and served again through the real binary.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::binaries;
use crate::nbd::Endpoint;
use crate::process::{end, follow, run, wait_exit};

pub const MIB: u64 = 1 << 20;

/// How long a server may take to get ready or to stop.
const LIMIT: Duration = Duration::from_secs(60);

/// Where members' files lie and how they are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// On a tmpfs, through the page cache.
    Memory,
    /// On a disk, past the page cache.
    Direct,
}

/// What is made at the start: one group, one volume named `vol0`.
#[derive(Debug, Clone)]
pub struct Setup {
    pub level: u8,
    /// All members; those in `remote` are the last of them, the others are files.
    pub members: usize,
    pub remote: Vec<String>,
    pub store: Store,
    pub size: u64,
    pub third_holder: bool,
}

impl Setup {
    pub fn new(level: u8) -> Self {
        let members = 2;
        Self {
            level,
            members,
            remote: Vec::new(),
            store: Store::Memory,
            size: 256 * MIB,
            third_holder: false,
        }
    }

    fn command(&self, dir: &Path) -> Command {
        let mut command = binaries::engine();
        let cache = if self.store == Store::Direct {
            "direct"
        } else {
            "buffered"
        };
        command
            .arg("create")
            .arg("--dir")
            .arg(dir)
            .args(["--cache", cache, "--volume", "vol0"]);
        command.args([
            "--level",
            &self.level.to_string(),
            "--members",
            &self.members.to_string(),
        ]);
        command.args([
            "--member-size",
            &(2 * self.size).to_string(),
            "--size",
            &self.size.to_string(),
        ]);
        command.args(self.remote.iter().flat_map(|uri| ["--member", uri]));
        if self.third_holder {
            command.arg("--third-holder");
        }
        command
    }
}

/// A temporary folder on a tmpfs or on a disk.
pub fn folder(store: Store) -> TempDir {
    let base = match store {
        Store::Memory if Path::new("/dev/shm").is_dir() => PathBuf::from("/dev/shm"),
        Store::Memory => std::env::temp_dir(),
        Store::Direct => {
            std::env::var_os("ASHLAR_TEST_DISK").map_or_else(|| "/var/tmp".into(), PathBuf::from)
        }
    };
    tempfile::Builder::new()
        .prefix("ashlar-")
        .tempdir_in(base)
        .expect("a temporary folder can be made")
}

/// An appliance that exists on its devices; it may be served or not.
#[derive(Debug)]
pub struct Appliance {
    dir: TempDir,
    /// Apart from the devices, because a socket's path may be no longer than 107 bytes.
    sockets: TempDir,
}

impl Appliance {
    pub fn create(setup: &Setup) -> Self {
        let (dir, sockets) = (folder(setup.store), folder(Store::Memory));
        run(&mut setup.command(dir.path()));
        Self { dir, sockets }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Serves on a Unix socket and on a free port of the loopback address, with further arguments.
    pub fn serve(&self, more: &[&str]) -> Server {
        let mut command = binaries::engine();
        command.arg("serve").arg("--dir").arg(self.dir.path());
        command
            .args(["--listen", "127.0.0.1:0", "--socket"])
            .arg(self.sockets.path().join("s"))
            .args(more);
        Server::start(command)
    }
}

/// A running server. Dropping it ends it with SIGKILL, and prints what it said where the test has failed.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: Arc<Mutex<String>>,
    uri: String,
    tcp_uri: String,
}

impl Server {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let log = Arc::default();
        let said = follow(child.stdout.take().expect("stdout is a pipe"), &log);
        let errors = follow(child.stderr.take().expect("stderr is a pipe"), &log);
        drop(errors);
        let mut server = Self {
            child,
            log,
            uri: String::new(),
            tcp_uri: String::new(),
        };
        let line = server.ready_line(&said);
        let uri = |scheme: &str| {
            let found = line.split_whitespace().find(|word| word.starts_with(scheme));
            found
                .unwrap_or_else(|| panic!("no {scheme} in the ready line: {line}"))
                .to_owned()
        };
        (server.uri, server.tcp_uri) = (uri("nbd+unix://"), uri("nbd://"));
        server
    }

    fn ready_line(&self, said: &Receiver<String>) -> String {
        loop {
            match said.recv_timeout(LIMIT) {
                Ok(line) if line.starts_with("ashlar-engine ready:") => return line,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("the server is not ready within {LIMIT:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("the server ended before it was ready"),
            }
        }
    }

    /// The volume over the Unix socket.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The volume over TCP.
    pub fn tcp_uri(&self) -> &str {
        &self.tcp_uri
    }

    pub fn address(&self) -> SocketAddr {
        let rest = self.tcp_uri.trim_start_matches("nbd://");
        let address = rest.split('/').next().expect("split gives at least one piece");
        address
            .parse()
            .unwrap_or_else(|error| panic!("{}: {error}", self.tcp_uri))
    }

    pub fn tcp(&self) -> Endpoint {
        Endpoint::Tcp(self.address())
    }

    pub fn unix(&self) -> Endpoint {
        let (_, path) = self
            .uri
            .split_once("socket=")
            .unwrap_or_else(|| panic!("no socket in {}", self.uri));
        Endpoint::Unix(path.into())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: what a crash of the process is.
    pub fn kill(mut self) {
        let early = self.child.try_wait().expect("the child is ours");
        assert!(early.is_none(), "the server had ended by itself: {early:?}");
        end(&mut self.child);
    }

    /// Waits until the server has ended because somebody else killed it.
    ///
    /// # Panics
    /// Where it goes on.
    pub fn was_killed(mut self) {
        let status = wait_exit(&mut self.child, LIMIT);
        let signal = status.and_then(|status| status.signal());
        assert_eq!(signal, Some(9), "the server was not killed: {status:?}");
    }

    /// SIGTERM; the server must stop in order, with exit code 0.
    pub fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("the child is ours");
        let status = wait_exit(&mut self.child, LIMIT);
        let status = status.unwrap_or_else(|| panic!("the server did not stop within {LIMIT:?}"));
        assert!(status.success(), "the server stopped with {status}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            end(&mut self.child);
        }
        if std::thread::panicking() {
            let log = self
                .log
                .lock()
                .map_or_else(|poisoned| poisoned.into_inner().clone(), |log| log.clone());
            eprintln!("--- what the server said:\n{log}---");
        }
    }
}
