//! The folder in which an appliance keeps what is its own: the catalog's cluster, keys, sockets.
//!
//! Invariant: one process at a time has it open. The lock is the kernel's and ends with the process, however that ends;
//! the number in the lock file only says who it is.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::geteuid;

/// Others may pass through, for the database server may be another user; nobody else may list or write.
const MODE: u32 = 0o711;
const LOCK_FILE: &str = "ashlar.lock";
/// What an appliance keeps there for itself. Whatever else lies there is the administrator's.
const OWN: [&str; 11] = [
    LOCK_FILE,
    "admin-password",
    "appliance.json",
    "ashlar.sock",
    "devices.json",
    "keys.json",
    "postgres",
    "rate-limit.json",
    "service-key.json",
    "support",
    "tls",
];

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("data folder {path}: {doing}: {source}")]
    Os {
        path: PathBuf,
        doing: &'static str,
        source: std::io::Error,
    },
    #[error("data folder {path} is in use by another ashlar{}", process(.pid))]
    InUse { path: PathBuf, pid: Option<u32> },
    #[error("data folder {path} belongs to user {owner}, and this process runs as {own}")]
    Foreign { path: PathBuf, owner: u32, own: u32 },
    #[error(
        "data folder {path} can be written by others than its owner (mode {mode:o}): `chmod go-w` it, or give another"
    )]
    Open { path: PathBuf, mode: u32 },
}

fn process(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// Whether a path, relative to the data folder, is of what an appliance keeps there for itself.
pub fn is_own(within: &Path) -> bool {
    let first = within.components().next();
    first.is_some_and(|first| OWN.iter().any(|own| first.as_os_str() == *own))
}

/// A data folder that this process has to itself.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Takes the folder; makes it where there is none.
    ///
    /// # Errors
    /// Where another process has it, it is not this user's alone to write, or the file system refuses.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let failed = |doing| {
            move |source: std::io::Error| DataDirError::Os {
                path: path.to_owned(),
                doing,
                source,
            }
        };
        if !path.exists() {
            DirBuilder::new()
                .recursive(true)
                .create(path)
                .map_err(failed("it cannot be made"))?;
            std::fs::set_permissions(path, Permissions::from_mode(MODE))
                .map_err(failed("its mode cannot be set"))?;
        }
        let path = path.canonicalize().map_err(failed("it cannot be entered"))?;
        let meta = path.metadata().map_err(failed("it cannot be looked at"))?;
        let (mode, owner, own) = (meta.mode() & 0o7777, meta.uid(), geteuid().as_raw());
        if owner != own {
            return Err(DataDirError::Foreign { path, owner, own });
        }
        if mode & 0o022 != 0 {
            return Err(DataDirError::Open { path, mode });
        }
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK_FILE))
            .map_err(failed("its lock file cannot be opened"))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _only_for_the_message = lock.read_to_string(&mut holder);
                let pid = holder.trim().parse().ok();
                return Err(DataDirError::InUse { path, pid });
            }
            Err(errno) => return Err(failed("it cannot be locked")(errno.into())),
        }
        let told = (|| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        })();
        told.map_err(failed("its lock file cannot be written"))?;
        Ok(Self { path, _lock: lock })
    }

    /// Absolute, without links.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_refused_and_told_who_has_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/data");
        let first = DataDir::open(&path).unwrap();
        let refused = DataDir::open(&path).unwrap_err();
        let pid = std::process::id();
        assert!(matches!(&refused, DataDirError::InUse { pid: Some(holder), .. } if *holder == pid));
        assert!(refused.to_string().contains(&format!("(process {pid})")));
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn a_folder_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let refused = DataDir::open(folder.path()).unwrap_err();
        assert!(matches!(refused, DataDirError::Open { mode: 0o777, .. }));
        assert!(!folder.path().join(LOCK_FILE).exists(), "nothing was changed");
    }

    #[test]
    fn a_file_in_its_place_is_an_error_that_names_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = DataDir::open(file.path()).unwrap_err().to_string();
        assert!(refused.contains(&file.path().display().to_string()), "{refused}");
    }
}
