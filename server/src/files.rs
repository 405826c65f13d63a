//! Small files of the data folder: replaced whole, durable when the call returns, readable to the service only.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a file of the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{path}: {source}")]
    Os { path: String, source: io::Error },
    #[error("{path} is damaged: {source}")]
    Damaged { path: String, source: serde_json::Error },
}

/// Replaces a file, or makes it.
///
/// # Errors
/// Where the file system refuses; the file is then as it was.
pub fn write(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let failed = |source| FileError::Os {
        path: path.display().to_string(),
        source,
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.as_file()
        .set_permissions(Permissions::from_mode(0o600))
        .and_then(|()| file.write_all(content))
        .and_then(|()| file.as_file().sync_all())
        .map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed)
}

/// [`write()`] of a value as JSON.
///
/// # Errors
/// As there.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    let text = serde_json::to_string_pretty(value).map_err(|source| FileError::Damaged {
        path: path.display().to_string(),
        source,
    })?;
    write(path, (text + "\n").as_bytes())
}

/// The value in a file; `None` where there is no file.
///
/// # Errors
/// Where it cannot be read or is none.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, FileError> {
    let content = match std::fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(FileError::Os {
                path: path.display().to_string(),
                source,
            });
        }
    };
    let value = serde_json::from_slice(&content).map_err(|source| FileError::Damaged {
        path: path.display().to_string(),
        source,
    })?;
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_is_nobody_elses_to_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("value");
        assert_eq!(read_json::<u32>(&path).unwrap(), None);
        for value in [1, 2] {
            write_json(&path, &value).unwrap();
            assert_eq!(read_json(&path).unwrap(), Some(value));
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(read_json::<u32>(&path), Err(FileError::Damaged { .. })));
    }
}
