//! How long bundles are kept: the newest five, for seven days.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::files::FileError;

const MOST: usize = 5;
const AGE: Duration = Duration::from_secs(7 * 24 * 3600);
const SUFFIX: &str = ".tar.gz";

/// Where the bundle of a job is.
pub fn path(folder: &Path, job: Uuid) -> PathBuf {
    folder.join(format!("{job}{SUFFIX}"))
}

/// Removes the bundle of a job, where there is one.
pub fn remove(folder: &Path, job: Uuid) {
    if let Err(error) = std::fs::remove_file(path(folder, job))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%job, %error, "a support bundle is still there");
    }
}

/// Removes those that are too old or too many, and what a crash left half written.
///
/// # Errors
/// Where the file system refuses.
pub fn prune(folder: &Path) -> Result<(), FileError> {
    let failed = |source| FileError::Os {
        path: folder.display().to_string(),
        source,
    };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed)?,
    };
    let mut bundles = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let Ok(made) = path.metadata().and_then(|about| about.modified()) else {
            continue;
        };
        bundles.push((made, path));
    }
    bundles.sort();
    let now = SystemTime::now();
    for (at, (made, path)) in bundles.iter().rev().enumerate() {
        let whole = path.to_string_lossy().ends_with(SUFFIX);
        let old = now.duration_since(*made).is_ok_and(|age| age > AGE);
        // One that is not whole may be in the making; after its time it is not.
        if old || whole && at >= MOST {
            std::fs::remove_file(path).map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, FileTimes};

    #[test]
    fn the_newest_five_are_kept_for_seven_days() {
        let folder = tempfile::tempdir().unwrap();
        prune(&folder.path().join("none")).unwrap();
        let make = |age_days: u64| {
            let job = Uuid::new_v4();
            let file = File::create(path(folder.path(), job)).unwrap();
            let made = SystemTime::now() - Duration::from_secs(age_days * 24 * 3600 + 60);
            file.set_times(FileTimes::new().set_modified(made)).unwrap();
            job
        };
        let jobs: Vec<Uuid> = (0..9).map(make).collect();
        let there = |jobs: &[Uuid]| -> Vec<bool> {
            jobs.iter()
                .map(|job| path(folder.path(), *job).exists())
                .collect()
        };
        prune(folder.path()).unwrap();
        assert_eq!(
            there(&jobs),
            [true, true, true, true, true, false, false, false, false]
        );
        for job in &jobs[..4] {
            remove(folder.path(), *job);
        }
        let old = make(7);
        prune(folder.path()).unwrap();
        assert_eq!(there(&[jobs[4], old]), [true, false]);
    }
}
