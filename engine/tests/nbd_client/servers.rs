//! Real servers as child processes, ended when dropped.
//!
//! A server gets its listening socket from its parent, so that it can be connected to from the first moment.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ashlar_engine::nbd::NbdUri;

pub(crate) struct Server {
    child: Child,
    pub(crate) folder: tempfile::TempDir,
    port: Option<u16>,
}

/// Systemd's way of handing over a socket: descriptor 3, and the process id in the environment.
const HAND_OVER: &str = r#"exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@""#;

impl Server {
    /// Runs `program` on a Unix socket in a new folder.
    pub(crate) fn on_unix_socket(program: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::on_unix_socket_in(folder, program)
    }

    /// Runs `program`, with `folder` as its working directory.
    pub(crate) fn on_unix_socket_in(folder: tempfile::TempDir, program: &[&str]) -> Self {
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        Self {
            child: run(program, folder.path(), listener.into()),
            folder,
            port: None,
        }
    }

    pub(crate) fn on_tcp_in(folder: tempfile::TempDir, program: &[&str]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        Self {
            child: run(program, folder.path(), listener.into()),
            folder,
            port: Some(port),
        }
    }

    pub(crate) fn uri(&self) -> NbdUri {
        let text = match self.port {
            Some(port) => format!("nbd://127.0.0.1:{port}/"),
            None => format!("nbd+unix:///?socket={}", self.socket().display()),
        };
        text.parse().unwrap()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Sends SIGKILL and waits until the process is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Killed before by the test, perhaps.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(program: &[&str], folder: &Path, listener: OwnedFd) -> Child {
    Command::new("sh")
        .args(["-c", HAND_OVER, "sh"])
        .args(program)
        .current_dir(folder)
        .stdin(Stdio::from(listener))
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {program:?}: {error}"))
}

/// nbdkit with these arguments on a Unix socket.
pub(crate) fn nbdkit(arguments: &[&str]) -> Server {
    Server::on_unix_socket(&[&["nbdkit", "-f", "--exit-with-parent"], arguments].concat())
}
