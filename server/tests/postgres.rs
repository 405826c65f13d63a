//! The private Postgres with real programs: made, used, killed, started again.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ashlar_server::postgres::{Binaries, Cluster, Running, State};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// A folder that the user of Postgres can reach, too.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    folder
}

/// Waits for such a state, or is in it already.
fn wait_for(running: &Running, wanted: impl Fn(&State) -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let mut state = running.state();
    let reached = async {
        let limit = std::time::Duration::from_secs(60);
        tokio::time::timeout(limit, state.wait_for(|state| wanted(state)))
            .await
            .is_ok_and(|reached| reached.is_ok())
    };
    assert!(runtime.block_on(reached), "{:?}", *running.state().borrow());
}

fn start(folder: &Path) -> Running {
    let running = Running::start(Cluster::prepare(folder, None).unwrap()).unwrap();
    wait_for(&running, |state| *state == State::Ready);
    running
}

/// What the statement answers, or the refusal.
fn sql(sockets: &Path, statement: &str) -> Result<String, String> {
    let binaries = Binaries::find(None, None).unwrap();
    let told = Command::new(binaries.program("psql"))
        .args([
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            "--username",
            "ashlar",
        ])
        .args(["--dbname", "postgres", "--command", statement, "--host"])
        .arg(sockets)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match told.status.success() {
        true => Ok(text(&told.stdout)),
        false => Err(text(&told.stderr)),
    }
}

fn server_pid(data: &Path) -> Pid {
    let text = fs::read_to_string(data.join("postmaster.pid")).unwrap();
    Pid::from_raw(text.lines().next().unwrap().trim().parse().unwrap()).unwrap()
}

fn ends(process: &OwnedFd) -> bool {
    let limit = Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&limit)).unwrap() > 0
}

#[test]
fn what_was_committed_is_there_after_a_stop_and_a_new_start() {
    let folder = folder();
    let running = start(folder.path());
    let sockets = running.cluster().socket_folder().to_owned();
    sql(&sockets, "create table kept as select 42 as answer").unwrap();
    let process = pidfd_open(server_pid(&running.cluster().data()), PidfdFlags::empty()).unwrap();
    running.stop();
    assert!(ends(&process));
    assert!(sql(&sockets, "select 1").is_err());
    let running = start(folder.path());
    assert_eq!(sql(&sockets, "select answer from kept").unwrap(), "42");
    running.stop();
}

#[test]
fn a_crash_of_the_database_server_is_told_and_mended() {
    let folder = folder();
    let running = start(folder.path());
    let sockets = running.cluster().socket_folder().to_owned();
    sql(&sockets, "create table kept as select 42 as answer").unwrap();
    let mut state = running.state();
    state.mark_unchanged();
    kill_process(server_pid(&running.cluster().data()), Signal::KILL).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(state.changed()).unwrap();
    wait_for(&running, |state| *state == State::Ready);
    assert_eq!(sql(&sockets, "select answer from kept").unwrap(), "42");
    running.stop();
}

struct Appliance {
    process: Child,
    sockets: PathBuf,
}

fn appliance(folder: &Path) -> Appliance {
    let tests = std::env::current_exe().unwrap();
    let built = tests
        .ancestors()
        .nth(2)
        .expect("tests lie in the folder of dependencies");
    let mut process = Command::new(built.join("examples/private_postgres"))
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let sockets = line
        .trim()
        .strip_prefix("ready ")
        .expect("it says that it is ready");
    Appliance {
        sockets: sockets.into(),
        process,
    }
}

#[test]
fn it_ends_with_a_killed_appliance_and_the_next_one_takes_over() {
    let folder = folder();
    let mut first = appliance(folder.path());
    sql(&first.sockets, "create table kept as select 42 as answer").unwrap();
    let data = folder.path().canonicalize().unwrap().join("postgres/data");
    let database = pidfd_open(server_pid(&data), PidfdFlags::empty()).unwrap();
    first.process.kill().unwrap();
    first.process.wait().unwrap();
    // At once: the new one waits for the old database server's end by itself.
    let mut second = appliance(folder.path());
    assert!(ends(&database));
    assert_eq!(sql(&second.sockets, "select answer from kept").unwrap(), "42");
    drop(second.process.stdin.take());
    assert!(second.process.wait().unwrap().success());
}

#[test]
fn a_process_file_whose_number_somebody_else_has_got_does_not_hinder() {
    let folder = folder();
    start(folder.path()).stop();
    let data = folder.path().join("postgres/data");
    let stale = format!("{}\n{}\n", std::process::id(), data.display());
    fs::write(data.join("postmaster.pid"), stale).unwrap();
    start(folder.path()).stop();
    fs::write(data.join("postmaster.pid"), "nonsense").unwrap();
    start(folder.path()).stop();
}

#[test]
fn what_an_interrupted_making_left_is_not_used_and_goes() {
    let folder = folder();
    let unfinished = folder.path().join("postgres/unfinished-abc");
    fs::create_dir_all(&unfinished).unwrap();
    fs::set_permissions(folder.path().join("postgres"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(unfinished.join("PG_VERSION"), "15").unwrap();
    start(folder.path()).stop();
    assert!(!unfinished.exists());
}

#[test]
fn a_link_in_place_of_an_access_file_is_replaced_and_not_followed() {
    let folder = folder();
    start(folder.path()).stop();
    let (elsewhere, link) = (
        folder.path().join("elsewhere"),
        folder.path().join("postgres/pg_hba.conf"),
    );
    fs::write(&elsewhere, "precious").unwrap();
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
    start(folder.path()).stop();
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "precious");
}

#[test]
fn a_folder_with_a_long_path_has_its_socket_elsewhere() {
    let folder = folder();
    let long = folder.path().join("a".repeat(100));
    fs::create_dir(&long).unwrap();
    let running = start(&long);
    let sockets = running.cluster().socket_folder().to_owned();
    assert!(!sockets.starts_with(&long));
    assert_eq!(sql(&sockets, "select 1").unwrap(), "1");
    running.stop();
    assert!(!sockets.exists());
}

#[test]
fn a_cluster_of_a_version_that_is_not_installed_is_left_alone() {
    let folder = folder();
    start(folder.path()).stop();
    let version = folder.path().join("postgres/data/PG_VERSION");
    fs::write(&version, "7\n").unwrap();
    let refused = Cluster::prepare(folder.path(), None).unwrap_err().to_string();
    assert!(refused.contains("postgresql-7"), "{refused}");
}
