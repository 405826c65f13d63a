//! Runs the database server on a prepared cluster, and starts it again after a crash.
//!
//! ```text
//!   Starting ──ready──► Ready ──died──► Restarting ──► Starting
//!       └─────died────────────────────────┘   any ──asked to stop──► Stopped
//! ```
//! One thread of its own starts the child and waits for it, for as long as the cluster is to run: the kernel tells the
//! child of the end of the *thread* that started it.
#![expect(
    unsafe_code,
    reason = "the signal for the appliance's end is asked for between fork and exec"
)]

use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal};
use tokio::sync::watch;

use super::cluster::as_account;
use super::{Cluster, PostgresError, os_error};
use crate::stand_back::stand_back;

/// Pause before the server is started again, doubled with each failure in a row up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// Only part of the socket's name.
pub const PORT: u16 = 5432;
/// How long a fast end may take before the server is told to end at once; it then recovers at its next start.
const GRACE: Duration = Duration::from_secs(30);
/// How often the process file is looked at while the server starts; nothing tells of its change.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};

/// How the database server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Starting,
    /// It takes connections.
    Ready,
    /// It ended by itself and is about to be started again.
    Restarting {
        why: String,
    },
    Stopped,
}

/// What the owner and the thread share.
#[derive(Default)]
struct Control {
    stopping: bool,
    /// The thread does nothing more.
    ended: bool,
    /// The child, while there is one.
    child: Option<OwnedFd>,
}

struct Shared {
    control: Mutex<Control>,
    /// Told when the owner wants it to end, and when the thread has.
    changed: Condvar,
    state: watch::Sender<State>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cluster that is run. Dropping it stops the database server and waits for its end.
pub struct Running {
    cluster: Arc<Cluster>,
    shared: Arc<Shared>,
    /// `None` once it was joined.
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts the database server; [`Running::state`] tells when it is ready.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    pub fn start(cluster: Cluster) -> Result<Self, PostgresError> {
        let cluster = Arc::new(cluster);
        let shared = Arc::new(Shared {
            control: Mutex::default(),
            changed: Condvar::new(),
            state: watch::Sender::new(State::Starting),
        });
        let (of_thread, runs) = (Arc::clone(&shared), Arc::clone(&cluster));
        let thread = std::thread::Builder::new()
            .name("postgres".into())
            .spawn(move || {
                // The database server inherits it.
                stand_back();
                supervise(&runs, &of_thread);
            })
            .map_err(os_error("starting a thread for", &cluster.data()))?;
        Ok(Self {
            cluster,
            shared,
            thread: Some(thread),
        })
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// How it is, and each change of that.
    pub fn state(&self) -> watch::Receiver<State> {
        self.shared.state.subscribe()
    }

    /// Ends the database server: connections are cut, what they had not committed is undone. Returns when it is gone.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        {
            let mut control = self.shared.lock();
            control.stopping = true;
            signal(&control, Signal::INT);
            self.shared.changed.notify_all();
            let waited = self
                .shared
                .changed
                .wait_timeout_while(control, GRACE, |control| !control.ended);
            let (control, _) = waited.unwrap_or_else(PoisonError::into_inner);
            signal(&control, Signal::QUIT);
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the private Postgres panicked");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// To Postgres INT says to end fast, and QUIT at once.
fn signal(control: &Control, signal: Signal) {
    if let Some(child) = &control.child {
        // It may have ended meanwhile.
        let _ = pidfd_send_signal(child, signal);
    }
}

fn supervise(cluster: &Cluster, shared: &Shared) {
    let mut pause = FIRST_PAUSE;
    while !shared.lock().stopping {
        shared.state.send_replace(State::Starting);
        let why = match run_once(cluster, shared) {
            Ok((status, was_ready)) => {
                if was_ready {
                    pause = FIRST_PAUSE;
                }
                format!("Postgres ended: {status}")
            }
            Err(error) => error.to_string(),
        };
        let control = shared.lock();
        if control.stopping {
            break;
        }
        tracing::error!(why, "the private Postgres is started again");
        shared.state.send_replace(State::Restarting { why });
        let paused = shared
            .changed
            .wait_timeout_while(control, pause, |control| !control.stopping);
        drop(paused);
        pause = (pause * 2).min(LAST_PAUSE);
    }
    shared.state.send_replace(State::Stopped);
    shared.lock().ended = true;
    shared.changed.notify_all();
}

/// One life of the database server: how it ended, and whether it had been ready.
fn run_once(cluster: &Cluster, shared: &Shared) -> Result<(ExitStatus, bool), PostgresError> {
    cluster.make_where_gone()?;
    let program = cluster.binaries.program("postgres");
    let mut child = command(cluster, &program)
        .spawn()
        .map_err(os_error("starting", &program))?;
    let pid = Pid::from_child(&child);
    // Nobody else waits for the child, so its number is still its own.
    let handles = pidfd_open(pid, PidfdFlags::empty())
        .map_err(std::io::Error::from)
        .and_then(|handle| Ok((handle.try_clone()?, handle)));
    let (handle, kept) = match handles {
        Ok(handles) => handles,
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            return Err(os_error("watching", &program)(error));
        }
    };
    {
        let mut control = shared.lock();
        control.child = Some(kept);
        if control.stopping {
            signal(&control, Signal::INT);
        }
    }
    follow_log(&mut child);
    let ready = wait_until_ready(cluster, pid, &handle);
    if ready {
        shared.state.send_replace(State::Ready);
    }
    let status = child.wait();
    shared.lock().child = None;
    Ok((status.map_err(os_error("waiting for", &program))?, ready))
}

fn command(cluster: &Cluster, program: &Path) -> Command {
    let folder = &cluster.folder;
    let settings = [
        ("listen_addresses", String::new()),
        ("port", PORT.to_string()),
        (
            "unix_socket_directories",
            cluster.socket_folder().display().to_string(),
        ),
        ("unix_socket_permissions", "0777".into()),
        ("hba_file", folder.join("pg_hba.conf").display().to_string()),
        ("ident_file", folder.join("pg_ident.conf").display().to_string()),
        ("log_destination", "stderr".into()),
        ("logging_collector", "off".into()),
        // A row that cannot be written would stand in the log with the secrets that it holds.
        ("log_error_verbosity", "terse".into()),
        ("lc_messages", "C".into()),
        ("max_connections", "50".into()),
    ];
    let mut command = as_account(program, &cluster.account);
    command.arg("-D").arg(cluster.data());
    for (name, value) in settings {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    end_with_this_thread(&mut command, Signal::INT);
    command
}

/// Has the kernel send the command's process that signal when the thread that starts it has ended.
pub(super) fn end_with_this_thread(command: &mut Command, signal: Signal) {
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec only system calls are made, which allocate nothing and take no lock.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(signal))?;
            // We may have ended before the kernel was asked to tell.
            match getppid() == Some(parent) {
                true => Ok(()),
                false => Err(std::io::ErrorKind::BrokenPipe.into()),
            }
        });
    }
}

/// Hands what the database server says on to the log, until it ends.
fn follow_log(child: &mut Child) {
    let Some(said) = child.stderr.take() else { return };
    let follower = std::thread::Builder::new().name("postgres-log".into());
    let spawned = follower.spawn(move || {
        for line in BufReader::new(said).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            if line.contains("FATAL:") || line.contains("PANIC:") || line.contains("ERROR:") {
                tracing::warn!(target: "postgres", "{line}");
            } else {
                tracing::debug!(target: "postgres", "{line}");
            }
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "the private Postgres' log is not followed");
    }
}

/// Waits until it takes connections. `false` where it ended before.
fn wait_until_ready(cluster: &Cluster, pid: Pid, handle: &OwnedFd) -> bool {
    let path = cluster.data().join("postmaster.pid");
    let pid = pid.as_raw_pid().to_string();
    loop {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let mut lines = text.lines();
        // The file's format: process number first, state in the eighth line.
        if lines.next().map(str::trim) == Some(&pid) && lines.nth(6).map(str::trim) == Some("ready") {
            return true;
        }
        let mut ended = [PollFd::new(handle, PollFlags::IN)];
        if poll(&mut ended, Some(&LOOK)).is_ok_and(|ready| ready > 0) {
            return false;
        }
    }
}
