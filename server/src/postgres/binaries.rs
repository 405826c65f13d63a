//! Where the programs of Postgres are.
//!
//! A cluster that exists needs the version that made it; a new one gets the newest there is.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::PostgresError;

/// Where Debian's packages put each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// A folder with `initdb` and `postgres` of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    pub folder: PathBuf,
    /// Major version.
    pub version: u32,
}

impl Binaries {
    /// Those in `given`; else, of Debian's folders, `pg_config`'s and those in `PATH`, the newest, or those of
    /// `wanted`'s version.
    ///
    /// # Errors
    /// Where there are none, or none of the version that is wanted.
    pub fn find(given: Option<&Path>, wanted: Option<u32>) -> Result<Self, PostgresError> {
        let found: Vec<Self> = match given {
            Some(folder) => Self::in_folder(folder).into_iter().collect(),
            None => candidates()
                .iter()
                .filter_map(|folder| Self::in_folder(folder))
                .collect(),
        };
        let newest = found.iter().map(|binaries| binaries.version).max();
        let Some(newest) = newest else {
            return Err(PostgresError::NoBinaries {
                given: given.map(Path::to_owned),
            });
        };
        let version = wanted.unwrap_or(newest);
        let chosen = found.into_iter().find(|binaries| binaries.version == version);
        chosen.ok_or(PostgresError::OtherVersion {
            wanted: version,
            found: newest,
        })
    }

    fn in_folder(folder: &Path) -> Option<Self> {
        if !folder.join("initdb").is_file() {
            return None;
        }
        let said = Command::new(folder.join("postgres"))
            .arg("--version")
            .output()
            .ok()?;
        let version = major_version(&String::from_utf8_lossy(&said.stdout))?;
        Some(Self {
            folder: folder.to_owned(),
            version,
        })
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Folders that may hold the programs, the likeliest first.
fn candidates() -> Vec<PathBuf> {
    let versions = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    let told = Command::new("pg_config").arg("--bindir").output();
    folders.extend(told.ok().map(|told| {
        let line = String::from_utf8_lossy(&told.stdout);
        PathBuf::from(line.trim())
    }));
    let path = std::env::var_os("PATH");
    folders.extend(std::env::split_paths(path.as_deref().unwrap_or(OsStr::new(""))));
    folders
}

/// From `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`.
fn major_version(said: &str) -> Option<u32> {
    let number = said.split_once("(PostgreSQL)")?.1.trim_start();
    let digits: &str = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_first_number() {
        assert_eq!(
            major_version("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(major_version("postgres (PostgreSQL) 19devel"), Some(19));
        assert_eq!(major_version("something else"), None);
    }

    #[test]
    fn a_folder_without_programs_and_a_version_that_is_not_there_are_refused() {
        let empty = tempfile::tempdir().unwrap();
        let refused = Binaries::find(Some(empty.path()), None).unwrap_err();
        assert!(refused.to_string().contains(&empty.path().display().to_string()));
        let refused = Binaries::find(None, Some(7)).unwrap_err();
        assert!(matches!(refused, PostgresError::OtherVersion { wanted: 7, .. }));
    }
}
