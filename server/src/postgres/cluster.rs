//! The cluster's folder: made once, configured at every start, cleared of what a crash left.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::user::Account;
use super::{Binaries, PostgresError, ROLE, os_error};

/// Longest path of a folder for Postgres' socket: its file's name needs the rest of 107 bytes.
const MAX_SOCKET_FOLDER: usize = 93;
/// How long a Postgres whose appliance was killed may take to end.
const LAST_BREATH: Timespec = Timespec {
    tv_sec: 30,
    tv_nsec: 0,
};

/// A cluster that is ready to be run.
#[derive(Debug)]
pub struct Cluster {
    pub(super) binaries: Binaries,
    pub(super) account: Account,
    /// Holds `data`, the access files and, where its path is short enough, the socket.
    pub(super) folder: PathBuf,
    sockets: Sockets,
}

#[derive(Debug)]
enum Sockets {
    Here(PathBuf),
    /// The folder's own path is too long.
    Elsewhere(tempfile::TempDir),
}

impl Cluster {
    /// The cluster below `parent`, which this process has to itself; made where there is none. `programs` is where
    /// Postgres' programs are, where the user says so.
    ///
    /// # Errors
    /// Where Postgres is not there in the version needed, cannot get at the folder, or somebody still uses it.
    pub fn prepare(parent: &Path, programs: Option<&Path>) -> Result<Self, PostgresError> {
        let account = Account::for_postgres()?;
        let folder = parent.join("postgres");
        account.check_way_to(&folder)?;
        make_folder(&folder, &account)?;
        let data = folder.join("data");
        let binaries = Binaries::find(programs, made_by(&data)?)?;
        if !data.exists() {
            initdb(&binaries, &account, &folder, &data)?;
        }
        give_way(&data)?;
        write_access(&folder, &account)?;
        let sockets = Sockets::choose(&folder, &account)?;
        Ok(Self {
            binaries,
            account,
            folder,
            sockets,
        })
    }

    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The folder of the socket, as a connection names it.
    pub fn socket_folder(&self) -> &Path {
        match &self.sockets {
            Sockets::Here(path) => path,
            Sockets::Elsewhere(folder) => folder.path(),
        }
    }
}

impl Sockets {
    fn choose(folder: &Path, account: &Account) -> Result<Self, PostgresError> {
        let here = folder.join("socket");
        if here.as_os_str().len() <= MAX_SOCKET_FOLDER {
            make_folder(&here, account)?;
            return Ok(Self::Here(here));
        }
        let elsewhere = tempfile::Builder::new()
            .prefix("ashlar-")
            .tempdir_in("/tmp")
            .map_err(os_error("making a folder in", Path::new("/tmp")))?;
        own(elsewhere.path(), account)?;
        Ok(Self::Elsewhere(elsewhere))
    }
}

/// A folder of `account`'s that nobody else can look into.
fn make_folder(path: &Path, account: &Account) -> Result<(), PostgresError> {
    match fs::create_dir(path) {
        Ok(()) => own(path, account),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(os_error("making the folder", path)(error)),
    }
}

fn own(path: &Path, account: &Account) -> Result<(), PostgresError> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .map_err(os_error("setting the mode of", path))?;
    chown(path, Some(account.uid), Some(account.gid)).map_err(os_error("setting the owner of", path))
}

/// The major version of the Postgres that made the cluster, where there is one.
fn made_by(data: &Path) -> Result<Option<u32>, PostgresError> {
    let path = data.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(os_error("reading", &path)(error)),
    }
}

/// Makes a cluster beside its place and moves it there when it is whole.
fn initdb(binaries: &Binaries, account: &Account, folder: &Path, data: &Path) -> Result<(), PostgresError> {
    let unfinished = folder.join("data.new");
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(os_error("removing", &unfinished)(error));
        }
        _ => {}
    }
    let program = binaries.program("initdb");
    let mut command = as_account(&program, account);
    command
        .args([
            "--username",
            ROLE,
            "--auth",
            "peer",
            "--encoding",
            "UTF8",
            "--locale",
            "C.UTF-8",
        ])
        .args(["--data-checksums", "--no-instructions", "--pgdata"])
        .arg(&unfinished)
        .stdin(Stdio::null());
    let made = command.output().map_err(os_error("starting", &program))?;
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr).trim().to_owned();
        return Err(PostgresError::Initdb { said });
    }
    fs::rename(&unfinished, data).map_err(os_error("renaming", &unfinished))
}

/// A command that runs as that account, in a folder that it can be in.
pub(super) fn as_account(program: &Path, account: &Account) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").env("LC_ALL", "C.UTF-8");
    if rustix::process::geteuid().is_root() {
        command.uid(account.uid).gid(account.gid);
    }
    command
}

/// Who is let in: the appliance's user, as the owner of everything. Written at each start, for that user may be
/// another one now.
fn write_access(folder: &Path, account: &Account) -> Result<(), PostgresError> {
    let own = Account::own()?;
    let files = [
        ("pg_hba.conf", "local all all peer map=ashlar\n".to_owned()),
        ("pg_ident.conf", format!("ashlar \"{}\" {ROLE}\n", own.name)),
    ];
    for (name, text) in files {
        let path = folder.join(name);
        fs::write(&path, text).map_err(os_error("writing", &path))?;
        chown(&path, Some(account.uid), Some(account.gid))
            .map_err(os_error("setting the owner of", &path))?;
    }
    Ok(())
}

/// Deals with the process file of an earlier run. The data folder's lock is held, so no other appliance runs this
/// cluster: what is named there is the Postgres of one that was killed, which is about to end, or somebody else who has
/// got its number since.
fn give_way(data: &Path) -> Result<(), PostgresError> {
    let path = data.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&path) else {
        return Ok(());
    };
    let pid = text.lines().next().and_then(|line| line.trim().parse().ok());
    let Some(pid) = pid.and_then(Pid::from_raw) else {
        return fs::remove_file(&path).map_err(os_error("removing", &path));
    };
    if runs(pid, data) {
        let ended = pidfd_open(pid, PidfdFlags::empty()).is_ok_and(|process| {
            let mut waited = [PollFd::new(&process, PollFlags::IN)];
            poll(&mut waited, Some(&LAST_BREATH)).is_ok_and(|ready| ready > 0)
        });
        if !ended && runs(pid, data) {
            return Err(PostgresError::InUse {
                folder: data.to_owned(),
                pid: pid.as_raw_pid(),
            });
        }
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(os_error("removing", &path)(error)),
        _ => Ok(()),
    }
}

/// Whether that process is a Postgres on this cluster.
fn runs(pid: Pid, data: &Path) -> bool {
    let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_pid())).unwrap_or_default();
    let wanted = data.as_os_str().as_encoded_bytes();
    line.split(|&byte| byte == 0).any(|word| word == wanted)
}
