//! Running other programs: each with a deadline, its output kept and shown when something is wrong.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

/// How long a client program may take before the test fails.
pub const LIMIT: Duration = Duration::from_secs(150);

/// What a program left behind.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Both outputs, for messages and for programs that do not care where they write.
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A started program whose output goes to files, so that it never waits for a reader.
#[derive(Debug)]
pub struct Started {
    shown: String,
    child: Child,
    stdout: File,
    stderr: File,
}

/// Starts `command`.
pub fn start(command: &mut Command) -> Started {
    let stdout = tempfile::tempfile().expect("a temporary file can be made");
    let stderr = tempfile::tempfile().expect("a temporary file can be made");
    let shown = format!("{command:?}");
    let child = command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().expect("a descriptor can be duplicated"))
        .stderr(stderr.try_clone().expect("a descriptor can be duplicated"))
        .spawn()
        .unwrap_or_else(|error| {
            panic!("cannot start {shown}: {error} (`make deps` installs what the tests need)")
        });
    Started {
        shown,
        child,
        stdout,
        stderr,
    }
}

impl Started {
    /// Waits for the program's end, at most [`LIMIT`], whatever its exit code is.
    pub fn finish(self) -> Finished {
        self.finish_within(LIMIT)
    }

    /// Waits for the program's end, whatever its exit code is.
    ///
    /// # Panics
    /// Where it takes longer than `limit`.
    pub fn finish_within(mut self, limit: Duration) -> Finished {
        let status = wait_exit(&mut self.child, limit);
        if status.is_none() {
            end(&mut self.child);
        }
        let finished = Finished {
            status: status.unwrap_or_default(),
            stdout: content(&mut self.stdout),
            stderr: content(&mut self.stderr),
        };
        assert!(
            status.is_some(),
            "{} did not end within {limit:?}\n{}",
            self.shown,
            finished.output()
        );
        finished
    }
}

/// Runs `command` to its end, whatever its exit code is.
pub fn run_any(command: &mut Command) -> Finished {
    start(command).finish()
}

/// Runs `command`, which must succeed.
pub fn run(command: &mut Command) -> Finished {
    let finished = run_any(command);
    assert!(
        finished.status.success(),
        "{command:?}: {}\n{}",
        finished.status,
        finished.output()
    );
    finished
}

/// Runs `command`, which must fail by itself, that is with an exit code and not by a signal.
pub fn run_refused(command: &mut Command) -> Finished {
    let finished = run_any(command);
    let refused = finished.status.code().is_some_and(|code| code != 0);
    assert!(
        refused,
        "should have been refused: {command:?}: {}\n{}",
        finished.status,
        finished.output()
    );
    finished
}

/// Runs `command`, which must succeed and print JSON.
pub fn json(command: &mut Command) -> Value {
    parsed(&run(command).stdout)
}

/// Runs fio, which must succeed; its report.
pub fn fio_report(fio: &mut Command) -> Value {
    let printed = run(fio.arg("--output-format=json")).stdout;
    // Some engines say something before the report.
    let report = printed
        .find('{')
        .unwrap_or_else(|| panic!("fio printed no report\n{printed}"));
    parsed(&printed[report..])
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON: {error}\n{text}"))
}

/// A program with its arguments. Programs for administrators are found too, which are not in everybody's PATH.
pub fn command<const N: usize>(program: &str, args: [&str; N]) -> Command {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    let mut command = Command::new(program);
    command.env("PATH", path).args(args);
    command
}

/// Waits for `child` to end; `None` when it still runs after `limit`.
pub fn wait_exit(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let pid = Pid::from_child(child);
    let handle = pidfd_open(pid, PidfdFlags::empty()).expect("a child that was not waited for has a pidfd");
    let mut fds = [PollFd::new(&handle, PollFlags::IN)];
    let limit = Timespec::try_from(limit).expect("limits are minutes");
    let ended = poll(&mut fds, Some(&limit)).expect("polling one descriptor works");
    (ended > 0).then(|| child.wait().expect("the child is ours"))
}

/// SIGKILL, and waits until the process is gone.
pub fn end(child: &mut Child) {
    child.kill().expect("the child is ours");
    child.wait().expect("the child is ours");
}

/// Copies the lines of `pipe` into the log and to the receiver until the pipe's end.
pub fn follow(pipe: impl Read + Send + 'static, log: &Arc<Mutex<String>>) -> Receiver<String> {
    let (sender, receiver) = channel();
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut log = log.lock().expect("nobody panics while appending");
            log.push_str(&line);
            log.push('\n');
            drop(log);
            // Nobody listens once the server is ready; the log goes on.
            let _ = sender.send(line);
        }
    });
    receiver
}

fn content(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().expect("a temporary file can be rewound");
    file.read_to_end(&mut bytes)
        .expect("a temporary file can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}
