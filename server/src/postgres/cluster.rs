//! The cluster's folder: made once, configured at every start, cleared of what a crash left.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::process::end_with_this_thread;
use super::user::Account;
use super::{Binaries, PostgresError, ROLE, os_error};

/// Longest path of a folder for Postgres' socket: its file's name needs the rest of 107 bytes.
const MAX_SOCKET_FOLDER: usize = 93;
/// How the folder of a cluster in the making begins.
const ATTEMPT: &str = "unfinished-";
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
    /// Holds `data`, the access files and, where its path allows, the socket.
    pub(super) folder: PathBuf,
    sockets: Sockets,
}

#[derive(Debug)]
enum Sockets {
    Here(PathBuf),
    /// The folder's own path is too long, or has characters that mean something to Postgres.
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
        // Ours, not the account's: what we write into it by name must not lead elsewhere.
        make_folder(&folder, 0o711)?;
        let data = folder.join("data");
        let binaries = Binaries::find(programs, made_by(&data)?)?;
        let sockets = Sockets::choose(&folder, &account)?;
        let cluster = Self {
            binaries,
            account,
            folder,
            sockets,
        };
        cluster.make_where_gone()?;
        give_way(&data)?;
        write_access(&cluster.folder, &cluster.account)?;
        Ok(cluster)
    }

    /// Makes the cluster where there is none: at the first start, and after somebody has taken it away.
    pub(super) fn make_where_gone(&self) -> Result<(), PostgresError> {
        let data = self.data();
        // An empty folder is none either: what is renamed there replaces it.
        let is_there = fs::read_dir(&data).is_ok_and(|mut files| files.next().is_some());
        match is_there {
            true => Ok(()),
            false => initdb(&self.binaries, &self.account, &self.folder, &data),
        }
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
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
        let bytes = here.as_os_str().as_encoded_bytes();
        // Postgres takes a list here, with quotes and commas.
        if bytes.len() <= MAX_SOCKET_FOLDER && bytes.iter().all(plain) {
            make_folder(&here, 0o700)?;
            own(&here, account)?;
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

/// A folder of this mode, also where it was there before or a crash left it half made.
fn make_folder(path: &Path, mode: u32) -> Result<(), PostgresError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(os_error("making the folder", path)(error));
        }
        _ => {}
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(os_error("setting the mode of", path))
}

fn own(path: &Path, account: &Account) -> Result<(), PostgresError> {
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

/// Makes a cluster beside its place and moves it there when it is whole and durable. Each attempt has a folder of its
/// own: what an interrupted one still does there disturbs nobody.
fn initdb(binaries: &Binaries, account: &Account, folder: &Path, data: &Path) -> Result<(), PostgresError> {
    let attempt = tempfile::Builder::new()
        .prefix(ATTEMPT)
        .tempdir_in(folder)
        .map_err(os_error("making a folder in", folder))?;
    own(attempt.path(), account)?;
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
        .arg(attempt.path())
        .stdin(Stdio::null());
    end_with_this_thread(&mut command, Signal::KILL);
    let made = command.output().map_err(os_error("starting", &program))?;
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr).trim().to_owned();
        return Err(PostgresError::Initdb { said });
    }
    let whole = attempt.keep();
    fs::rename(&whole, data).map_err(os_error("renaming", &whole))?;
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(os_error("making durable", folder))?;
    remove_attempts(folder);
    Ok(())
}

/// What interrupted attempts left. Nothing depends on its going.
fn remove_attempts(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(ATTEMPT.as_bytes())
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "an unfinished cluster stays behind");
        }
    }
}

/// A command that runs as that account, in a folder that it can be in, knows nothing of our environment, and is not
/// reached by what a terminal sends to us.
pub(super) fn as_account(program: &Path, account: &Account) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .env("PATH", "/usr/bin:/bin");
    command.current_dir("/").process_group(0);
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
        let mut aside = tempfile::NamedTempFile::new_in(folder).map_err(os_error("making", &path))?;
        let written = (|| {
            aside.write_all(text.as_bytes())?;
            fs::set_permissions(aside.path(), fs::Permissions::from_mode(0o640))?;
            chown(aside.path(), None, Some(account.gid))?;
            aside.persist(&path).map_err(|error| error.error)
        })();
        written.map_err(os_error("writing", &path))?;
    }
    Ok(())
}

/// Deals with the process file of an earlier run. The data folder's lock is held, so no other appliance runs this
/// cluster. What is named there is the Postgres of one that was killed, which is about to end; or somebody else who has
/// got its number since: only then the file goes, for Postgres would take that one for itself. Everything else Postgres
/// judges.
fn give_way(data: &Path) -> Result<(), PostgresError> {
    let path = data.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&path) else {
        return Ok(());
    };
    let number: Option<i32> = text.lines().next().and_then(|line| line.trim().parse().ok());
    // A server for one user only writes its number with a minus.
    let pid = number
        .map(|number| number.saturating_abs())
        .and_then(Pid::from_raw);
    let stale = match pid {
        None => true,
        Some(pid) if runs(pid, data) => {
            if !has_ended(pid) && runs(pid, data) {
                return Err(PostgresError::InUse {
                    folder: data.to_owned(),
                    pid: pid.as_raw_pid(),
                });
            }
            false
        }
        Some(pid) => rustix::process::test_kill_process(pid) != Err(Errno::SRCH),
    };
    match stale.then(|| fs::remove_file(&path)) {
        Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(os_error("removing", &path)(error))
        }
        _ => Ok(()),
    }
}

/// Waits for a process' end for a while.
fn has_ended(pid: Pid) -> bool {
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
        return true;
    };
    loop {
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&LAST_BREATH)) {
            Err(Errno::INTR) => {}
            ready => return ready.is_ok_and(|ready| ready > 0),
        }
    }
}

/// Whether that process is a Postgres on this cluster.
fn runs(pid: Pid, data: &Path) -> bool {
    let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_pid())).unwrap_or_default();
    let wanted = data.as_os_str().as_encoded_bytes();
    line.split(|&byte| byte == 0).any(|word| word == wanted)
}
