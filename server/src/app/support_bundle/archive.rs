//! Packs a bundle: a gzipped tar archive, whole or not there, readable to the service only.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Part, keep};
use crate::files::FileError;

/// Writes the bundle of a job. Returns its length in bytes.
///
/// # Errors
/// Where the file system refuses; then there is no bundle.
pub fn write(folder: &Path, job: Uuid, parts: &[Part]) -> Result<u64, FileError> {
    let path = keep::path(folder, job);
    let failed = |source| FileError::Os {
        path: path.display().to_string(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed)?;
    let file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.as_file()
        .set_permissions(Permissions::from_mode(0o600))
        .map_err(failed)?;
    pack(file.as_file(), job, parts).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    let bytes = file.as_file().metadata().map_err(failed)?.len();
    file.persist(&path).map_err(|error| failed(error.error))?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed)?;
    Ok(bytes)
}

fn pack(file: &File, job: Uuid, parts: &[Part]) -> io::Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    let now = u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or(0);
    for part in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(part.content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now);
        let name = format!("ashlar-support-{job}/{}", part.name);
        archive.append_data(&mut header, name, part.content.as_slice())?;
    }
    archive.into_inner()?.finish()?;
    Ok(())
}
