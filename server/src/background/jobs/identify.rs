//! Making a device seen: reads that keep its light blinking, a few all the time and a burst each second.
//!
//! The device is opened a second time, read-only: whatever becomes of these reads, the engine's own requests do not know
//! of it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ashlar_openapi::devices::DeviceSource;
use ashlar_openapi::{Problem, ProblemType};
use tokio::time::Instant;

use super::work::{Cancelled, Outcome, Progress, Work};
use crate::app::internal;

/// Small reads, this often.
const TICK: Duration = Duration::from_millis(50);
const TICKS_A_BURST: u64 = 20;
/// Bytes of a read: what direct access is aligned to.
const SMALL: usize = 4096;
/// Reads of a burst.
const BURST: usize = 64;

/// Why an earlier life's job ends.
const RESTARTED: &str = "the appliance was restarted meanwhile";

/// Reads from the device until the time is over.
///
/// # Errors
/// Where the job is cancelled.
pub async fn run(work: &mut Work) -> Result<Outcome, Cancelled> {
    if work.restarted {
        return Ok(Outcome::Cancelled(Some(RESTARTED)));
    }
    let seconds = work.job.params["seconds"].as_u64().unwrap_or(0);
    let path = match work.app.engine.locations.of(work.job.subject_id) {
        Some(DeviceSource::File { path, .. } | DeviceSource::Block { path, .. }) => PathBuf::from(path),
        _ => return Ok(Outcome::Failed(absent())),
    };
    let eye = match blocking(move || Eye::open(&path)).await {
        Ok(eye) => Arc::new(eye),
        Err(problem) => return Ok(Outcome::Failed(problem)),
    };
    let mut end = Instant::now() + Duration::from_secs(seconds);
    let (mut done, mut ticks) = (0, 0_u64);
    while Instant::now() < end {
        let before = Instant::now();
        work.allowed().await?;
        // Time during a pause does not count.
        end += before.elapsed();
        let reads = if ticks.is_multiple_of(TICKS_A_BURST) {
            BURST
        } else {
            1
        };
        ticks += 1;
        let bytes = (reads * SMALL) as u64;
        let Ok(within) = tokio::time::timeout_at(end, work.within_limits(bytes)).await else {
            break;
        };
        within?;
        let eye = Arc::clone(&eye);
        match blocking(move || eye.look(reads)).await {
            Ok(read) => done += read,
            Err(problem) => return Ok(Outcome::Failed(problem)),
        }
        work.progress(progress(done)).await;
        tokio::time::sleep(TICK).await;
    }
    work.last_progress(progress(done)).await;
    Ok(Outcome::Succeeded(None))
}

fn progress(done: u64) -> Progress {
    Progress {
        done,
        ..Progress::default()
    }
}

fn absent() -> Problem {
    Problem::new(
        ProblemType::DeviceAbsent,
        "it is not known where the device is",
        "return the device first",
    )
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| internal())?;
    done.map_err(|error| {
        Problem::new(
            ProblemType::DeviceCannotBeOpened,
            format!("the device cannot be read: {error}"),
            "look whether it is there",
        )
    })
}

/// A device, opened to be looked at.
struct Eye {
    file: File,
    blocks: u64,
    random: File,
}

impl Eye {
    fn open(path: &std::path::Path) -> io::Result<Self> {
        let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        let opened = File::options().read(true).custom_flags(direct).open(path);
        let mut file = match opened {
            // The file system knows no direct access; then there is no light either.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => File::open(path)?,
            other => other?,
        };
        let length = file.seek(SeekFrom::End(0))?;
        Ok(Self {
            file,
            blocks: length / SMALL as u64,
            random: File::open("/dev/urandom")?,
        })
    }

    /// Reads from anywhere; returns the bytes that were read.
    fn look(&self, reads: usize) -> io::Result<u64> {
        if self.blocks == 0 {
            return Ok(0);
        }
        let mut buffer = vec![0; 2 * SMALL];
        // Direct access wants the memory aligned too.
        let at = buffer.as_ptr().align_offset(SMALL);
        let aligned = &mut buffer[at..at + SMALL];
        let mut dice = vec![0; reads * size_of::<u64>()];
        (&self.random).read_exact(&mut dice)?;
        let mut read = 0;
        for die in dice.chunks_exact(size_of::<u64>()) {
            let die = die.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
            self.file
                .read_exact_at(aligned, die % self.blocks * SMALL as u64)?;
            read += SMALL as u64;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stay_within_the_device_and_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device");
        std::fs::write(&path, vec![7; 3 * SMALL + 100]).unwrap();
        let eye = Eye::open(&path).unwrap();
        assert_eq!(eye.look(50).unwrap(), 50 * SMALL as u64);
        assert_eq!(std::fs::read(&path).unwrap(), vec![7; 3 * SMALL + 100]);
        std::fs::write(&path, b"short").unwrap();
        assert_eq!(Eye::open(&path).unwrap().look(5).unwrap(), 0);
        assert!(Eye::open(&folder.path().join("none")).is_err());
    }
}
