//! `ashlar serve` in a temporary folder: started, stopped, killed, and started again with what it left.

use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tempfile::TempDir;

use crate::api::Api;
use crate::appliance::{Store, folder};
use crate::binaries;
use crate::nbd::Endpoint;
use crate::process::{command, end, follow, run, run_any, wait_exit};

/// How long a server may take to get ready or to stop.
const LIMIT: Duration = Duration::from_secs(60);
/// Names the step at which a debug build kills itself.
pub const KILL_AT_STEP: &str = "ASHLAR_KILL_AT_STEP";

/// A data folder and the files that are its devices, whether a server runs on them or not.
#[derive(Debug)]
pub struct Home {
    dir: TempDir,
}

/// A copy of all that a home holds.
#[derive(Debug)]
pub struct Saved {
    dir: TempDir,
}

impl Home {
    /// An empty one, in memory.
    pub fn new() -> Self {
        Self::on(Store::Memory)
    }

    /// An empty one.
    pub fn on(store: Store) -> Self {
        let dir = open_folder(store);
        std::fs::create_dir(dir.path().join("live")).expect("a folder can be made");
        std::fs::create_dir(dir.path().join("live/devices")).expect("a folder can be made");
        Self { dir }
    }

    fn live(&self) -> PathBuf {
        self.dir.path().join("live")
    }

    /// The data folder; the server makes it.
    pub fn data(&self) -> PathBuf {
        self.live().join("data")
    }

    /// Where devices' files lie.
    pub fn devices(&self) -> PathBuf {
        self.live().join("devices")
    }

    /// The path of a device's file.
    pub fn device(&self, name: &str) -> PathBuf {
        self.devices().join(name)
    }

    /// Copies everything; no server may run.
    pub fn save(&self) -> Saved {
        self.postgres_is_gone();
        let dir = open_folder(Store::Memory);
        copy(&self.live(), dir.path());
        Saved { dir }
    }

    /// Brings back what was saved, at the same paths; no server may run.
    pub fn restore(&self, saved: &Saved) {
        self.postgres_is_gone();
        std::fs::remove_dir_all(self.live()).expect("nobody uses the folder");
        copy(&saved.dir.path().join("live"), self.dir.path());
    }

    /// A server on this data folder.
    ///
    /// # Panics
    /// Where it does not get ready.
    pub fn start(&self) -> Managed {
        let started = self.try_start(&[]);
        started.unwrap_or_else(|exited| panic!("the server ended before it was ready: {exited:?}"))
    }

    /// The same with variables in its environment.
    ///
    /// # Errors
    /// How it ended, where it was not ready before.
    pub fn try_start(&self, environment: &[(&str, &str)]) -> Result<Managed, Exited> {
        let mut command = self.command(&[]);
        command.envs(environment.iter().copied());
        Managed::start(command, &self.data())
    }

    /// A server that nobody waits for.
    pub fn launch(&self) -> Managed {
        Managed::launch(self.command(&[]), &self.data()).0
    }

    /// How the server is started: ports of its own choice, further arguments.
    pub fn command(&self, more: &[&str]) -> Command {
        serve(&self.data(), more)
    }

    /// The process of the private Postgres, where it runs.
    pub fn postgres(&self) -> Option<Pid> {
        let data = self.postgres_data();
        let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
        let pid = Pid::from_raw(text.lines().next()?.trim().parse().ok()?)?;
        let said = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_pid())).ok()?;
        let wanted = data.as_os_str().as_encoded_bytes();
        said.split(|byte| *byte == 0)
            .any(|word| word == wanted)
            .then_some(pid)
    }

    /// Where the private Postgres keeps its tables.
    pub fn postgres_data(&self) -> PathBuf {
        self.data().join("postgres/data")
    }

    /// Every process of the private Postgres, its head first.
    ///
    /// # Panics
    /// Where none runs.
    pub fn postgres_processes(&self) -> Vec<Pid> {
        let head = self.postgres().expect("the private Postgres runs");
        let number = head.as_raw_pid();
        let children = std::fs::read_to_string(format!("/proc/{number}/task/{number}/children"));
        let children = children.expect("the private Postgres runs");
        let children = children
            .split_whitespace()
            .filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
        std::iter::once(head).chain(children).collect()
    }

    /// Runs Postgres on the catalog while no server does, as whoever's its files are.
    ///
    /// # Panics
    /// Where it does not take connections within a minute.
    pub fn with_postgres_alone(&self, work: impl FnOnce()) {
        let (data, folder) = (self.postgres_data(), self.data().join("postgres"));
        let version = std::fs::read_to_string(data.join("PG_VERSION")).expect("there is a cluster");
        let program = format!("/usr/lib/postgresql/{}/bin/postgres", version.trim());
        let owner = data.metadata().expect("there is a cluster");
        let mut postgres = command(&program, ["-c", "listen_addresses="]);
        postgres.arg("-D").arg(&data).arg("-k").arg(folder.join("socket"));
        for file in ["hba_file=pg_hba.conf", "ident_file=pg_ident.conf"] {
            let (name, file) = file.split_once('=').expect("it has one");
            postgres
                .arg("-c")
                .arg(format!("{name}={}", folder.join(file).display()));
        }
        postgres
            .current_dir("/")
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        if rustix::process::geteuid().is_root() {
            postgres.uid(owner.uid()).gid(owner.gid());
        }
        let mut postgres = postgres
            .spawn()
            .expect("Postgres is installed where Debian has it");
        let begun = Instant::now();
        let mut ready = self.postgres_client("psql");
        ready.args(["--command", "select 1"]);
        while !run_any(&mut ready).status.success() {
            assert!(begun.elapsed() < LIMIT, "Postgres takes no connections");
        }
        work();
        kill_process(Pid::from_child(&postgres), Signal::INT).expect("the child is ours");
        wait_exit(&mut postgres, LIMIT).expect("Postgres ends");
    }

    /// Waits until no Postgres runs on the data folder: it ends a moment after a server that was killed.
    ///
    /// # Panics
    /// Where it goes on.
    pub fn postgres_is_gone(&self) {
        if let Some(pid) = self.postgres() {
            assert!(has_ended(pid), "the private Postgres does not end");
        }
    }

    /// A client program of Postgres, connected to the private catalog.
    pub fn postgres_client(&self, program: &str) -> Command {
        let socket = self.data().join("postgres/socket");
        let mut client = command(program, ["--username=ashlar", "--dbname=ashlar", "--host"]);
        client.arg(socket);
        client
    }

    /// What a query of the private catalog answers: rows as lines, columns parted by `|`.
    ///
    /// # Panics
    /// Where it fails.
    pub fn query(&self, sql: &str) -> String {
        let mut psql = self.postgres_client("psql");
        psql.args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--set=ON_ERROR_STOP=1",
        ]);
        run(psql.args(["--command", sql])).stdout
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Otherwise it would write while the folder is taken away.
        if let Some(pid) = self.postgres() {
            has_ended(pid);
        }
    }
}

/// How a server on that data folder is started: ports of its own choice, further arguments.
pub fn serve(data: &Path, more: &[&str]) -> Command {
    let mut command = binaries::ashlar();
    command.args([
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--nbd-listen",
        "127.0.0.1:0",
        "--data",
    ]);
    command.arg(data).args(more);
    command
}

/// A temporary folder that Postgres' user can pass through.
pub fn open_folder(store: Store) -> TempDir {
    let dir = folder(store);
    let mode = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(dir.path(), mode).expect("the folder is ours");
    dir
}

fn copy(from: &Path, into: &Path) {
    run(command("cp", ["--archive", "--sparse=always", "--target-directory"]).args([into, from]));
}

/// Sends a signal to each of these, where it has not ended.
pub fn signal_all(processes: &[Pid], signal: Signal) {
    for pid in processes {
        let _ = kill_process(*pid, signal);
    }
}

/// Waits for a process that is not our child; whether it ended in time.
fn has_ended(pid: Pid) -> bool {
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
        return true;
    };
    let limit = Timespec::try_from(LIMIT).expect("limits are minutes");
    let mut fds = [PollFd::new(&handle, PollFlags::IN)];
    poll(&mut fds, Some(&limit)).is_ok_and(|ended| ended > 0)
}

/// A server that ended by itself, and what it said.
#[derive(Debug)]
pub struct Exited {
    pub status: ExitStatus,
    pub said: String,
}

impl Exited {
    /// Whether it was killed: that is how [`KILL_AT_STEP`] ends it.
    pub fn was_killed(&self) -> bool {
        self.status.signal() == Some(9)
    }
}

/// A running server. Dropping it ends it with SIGKILL, and prints what it said where the test has failed.
#[derive(Debug)]
pub struct Managed {
    child: Child,
    log: Arc<Mutex<String>>,
    api: SocketAddr,
    nbd: SocketAddr,
    data: PathBuf,
}

impl Managed {
    /// Starts `command`, which serves on that data folder.
    ///
    /// # Errors
    /// How it ended, where it was not ready before.
    ///
    /// # Panics
    /// Where it is neither ready nor ended within a minute.
    pub fn start(command: Command, data: &Path) -> Result<Self, Exited> {
        let (mut server, said, errors) = Self::launch(command, data);
        let Some(line) = server.ready_line(&said) else {
            let status = wait_exit(&mut server.child, LIMIT).expect("its output has ended");
            // All that it said is in the log when its end is seen.
            errors.iter().for_each(drop);
            let said = server.said();
            return Err(Exited { status, said });
        };
        let address = |schemes: &[&str]| {
            let mut uris = line.split_whitespace().filter_map(|word| word.split_once("://"));
            let found = uris.find(|(scheme, _)| schemes.contains(scheme));
            let found = found.and_then(|(_, address)| address.parse().ok());
            found.unwrap_or_else(|| panic!("no {schemes:?} in the ready line: {line}"))
        };
        (server.api, server.nbd) = (address(&["https", "http"]), address(&["nbd"]));
        Ok(server)
    }

    /// Starts it and waits for nothing; what it says on standard output and on standard error.
    fn launch(mut command: Command, data: &Path) -> (Self, Receiver<String>, Receiver<String>) {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let log = Arc::default();
        let said = follow(child.stdout.take().expect("stdout is a pipe"), &log);
        let errors = follow(child.stderr.take().expect("stderr is a pipe"), &log);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Self {
            child,
            log,
            api: nowhere,
            nbd: nowhere,
            data: data.to_owned(),
        };
        (server, said, errors)
    }

    fn ready_line(&self, said: &Receiver<String>) -> Option<String> {
        loop {
            match said.recv_timeout(LIMIT) {
                Ok(line) if line.starts_with("ashlar ready:") => return Some(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("the server is not ready within {LIMIT:?}"),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        let log = self.log.lock();
        log.map_or_else(|poisoned| poisoned.into_inner().clone(), |log| log.clone())
    }

    /// The API over the maintenance socket, as an administrator.
    pub fn api(&self) -> Api {
        Api::over_socket(&self.data.join("ashlar.sock"))
    }

    /// Where the API listens: for HTTPS, unless the server was started without.
    pub fn listens(&self) -> SocketAddr {
        self.api
    }

    /// Where hosts attach.
    pub fn nbd(&self) -> Endpoint {
        Endpoint::Tcp(self.nbd)
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

    /// Waits until the server has ended because it killed itself.
    ///
    /// # Panics
    /// Where it goes on.
    pub fn was_killed(mut self) {
        let status = wait_exit(&mut self.child, LIMIT);
        let signal = status.and_then(|status| status.signal());
        assert_eq!(signal, Some(9), "the server was not killed: {status:?}");
    }

    /// SIGTERM, and does not wait.
    pub fn begin_to_stop(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("the child is ours");
    }

    /// SIGTERM; the server must stop in order, with exit code 0.
    pub fn stop(mut self) {
        self.begin_to_stop();
        let status = wait_exit(&mut self.child, LIMIT);
        let status = status.unwrap_or_else(|| panic!("the server did not stop within {LIMIT:?}"));
        assert!(status.success(), "the server stopped with {status}");
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            end(&mut self.child);
        }
        if std::thread::panicking() {
            eprintln!("--- what the server said:\n{}---", self.said());
        }
    }
}
