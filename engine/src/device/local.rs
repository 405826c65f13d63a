//! A storage device of this machine: an open regular file or block device, and which way its operations go.
//!
//! Three ways, fixed at opening: a file in memory (tmpfs) is read and written at once on the calling thread, since a
//! kernel worker would cost twice; a direct device goes through the thread's ring; so does a buffered one, but for
//! reads that the page cache answers without waiting.
//!
//! Invariant: nothing here blocks the calling thread on a medium.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, FlockOperation, OFlags, Stat, StatxFlags};
use rustix::io::Errno;

use super::operation::{Operation, Work, Zeroing};
use super::ring::{self, RingUnavailable};
use super::{Completion, Device, DeviceError, DeviceInfo, Request, Started, inline};
use crate::io::IoBuf;
use crate::io::buffer::PAGE;

/// How often, and how long apart, the lock of a file is tried that somebody holds: 3 s in all.
const LOCK_TRIES: u32 = 60;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Whether data passes the kernel's page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CachePolicy {
    Direct,
    Buffered,
}

/// How a device is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// `None`: direct for block devices, buffered for files. Files in memory (tmpfs) have no cache to pass.
    pub cache: Option<CachePolicy>,
    /// An operation that takes longer fails with [`DeviceError::Timeout`].
    pub limit: Duration,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            cache: None,
            limit: Duration::from_secs(30),
        }
    }
}

/// Why a device cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path}: {what}: {errno}")]
    Os {
        path: PathBuf,
        what: &'static str,
        errno: Errno,
    },
    #[error("{0} exists already")]
    Exists(PathBuf),
    #[error("{0} is in use")]
    InUse(PathBuf),
    #[error("{path} is not a {wanted}")]
    WrongKind { path: PathBuf, wanted: &'static str },
    #[error("{path}: a capacity of {size} bytes is not a multiple of {block} bytes, or is none")]
    Size { path: PathBuf, size: u64, block: u32 },
    #[error("{path}: blocks of {block} bytes are not supported, only 512 to 4096")]
    Block { path: PathBuf, block: u32 },
    #[error("{0}: its file system has no direct I/O")]
    NoDirect(PathBuf),
    #[error("{path}: {source}")]
    Ring { path: PathBuf, source: RingUnavailable },
}

/// Makes an [`OpenError`] of an error at `path` while doing `what`.
pub(super) fn os_error(path: &Path, what: &'static str) -> impl FnOnce(Errno) -> OpenError {
    let path = path.to_owned();
    move |errno| match errno {
        Errno::EXIST => OpenError::Exists(path),
        Errno::BUSY | Errno::WOULDBLOCK | Errno::TXTBSY => OpenError::InUse(path),
        errno => OpenError::Os { path, what, errno },
    }
}

/// The way of a device's operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Memory,
    PageCache,
    Direct,
}

/// An open regular file or block device. See [`super::file`] and [`super::block`].
#[derive(Debug)]
pub struct LocalDevice {
    file: Arc<OwnedFd>,
    info: DeviceInfo,
    way: Way,
    limit: Duration,
    is_file: bool,
}

impl LocalDevice {
    /// Checks what `info` promises and that the way can be gone here.
    pub(super) fn new(
        path: &Path,
        file: OwnedFd,
        way: Way,
        info: DeviceInfo,
        options: &OpenOptions,
    ) -> Result<Self, OpenError> {
        let DeviceInfo { capacity, block, .. } = info;
        if !block.is_power_of_two() || !(512..=4096).contains(&block) {
            return Err(OpenError::Block {
                path: path.to_owned(),
                block,
            });
        }
        if capacity == 0 || !capacity.is_multiple_of(u64::from(block)) {
            return Err(OpenError::Size {
                path: path.to_owned(),
                size: capacity,
                block,
            });
        }
        if way != Way::Memory {
            ring::support().map_err(|source| OpenError::Ring {
                path: path.to_owned(),
                source,
            })?;
        }
        let status = rustix::fs::fstat(&file).map_err(os_error(path, "reading its kind"))?;
        Ok(Self {
            file: Arc::new(file),
            info,
            way,
            limit: options.limit,
            is_file: FileType::from_raw_mode(status.st_mode) == FileType::RegularFile,
        })
    }

    /// The device, where it has exactly `size` bytes.
    pub(super) fn with_capacity(self, path: &Path, size: u64) -> Result<Self, OpenError> {
        if self.info.capacity == size {
            return Ok(self);
        }
        Err(OpenError::Size {
            path: path.to_owned(),
            size,
            block: self.info.block,
        })
    }

    fn fits(&self, place: &Place) -> bool {
        let block = u64::from(self.info.block);
        let inside = place
            .at
            .checked_add(place.len)
            .is_some_and(|end| end <= self.info.capacity);
        let aligned = place.at.is_multiple_of(block) && place.len.is_multiple_of(block);
        inside
            && aligned
            && (self.way != Way::Direct || place.memory.is_multiple_of(self.info.block as usize))
    }

    fn start_on_ring(&self, request: Request) -> Started {
        let (at, work) = match request {
            Request::Read { at, buf } => return self.start_read(at, buf),
            Request::Write { at, data, fua } => (at, Work::Write { data, fua }),
            Request::Flush => (0, Work::Flush),
            Request::Zero { range, unmap } => {
                let by = if unmap {
                    Zeroing::Unmapping
                } else {
                    Zeroing::Keeping
                };
                (range.start(), Work::Zero { len: range.len(), by })
            }
        };
        ring::start(Operation::new(self.file.clone(), at, work), Some(self.limit))
    }

    fn start_read(&self, at: u64, mut buf: IoBuf) -> Started {
        let mut done = 0;
        if self.way == Way::PageCache {
            done = inline::read_cached(&self.file, at, buf.as_mut_slice());
            if done == buf.len() {
                return Started::Done(Completion {
                    result: Ok(()),
                    buf: Some(buf),
                });
            }
        }
        let mut operation = Operation::new(self.file.clone(), at, Work::Read(buf));
        operation.done = done as u64;
        ring::start(operation, Some(self.limit))
    }
}

impl Device for LocalDevice {
    fn info(&self) -> DeviceInfo {
        self.info
    }

    fn length(&self) -> Option<u64> {
        let status = self.is_file.then(|| rustix::fs::fstat(&self.file))?;
        // A file whose length cannot be told has none.
        Some(status.map_or(0, |status| u64::try_from(status.st_size).unwrap_or(0)))
    }

    fn submit(&self, request: Request) -> Started {
        match Place::of(&request) {
            Some(place) if !self.fits(&place) => {
                let result = Err(DeviceError::Os(Errno::INVAL.raw_os_error()));
                Started::Done(Completion {
                    result,
                    buf: request.into_buf(),
                })
            }
            Some(Place { len: 0, .. }) => Started::Done(inline::run(&self.file, request)),
            _ if self.way == Way::Memory => Started::Done(inline::run(&self.file, request)),
            _ => self.start_on_ring(request),
        }
    }
}

/// Where on the device and in memory a request works.
struct Place {
    at: u64,
    len: u64,
    /// Address of the memory; 0 where there is none.
    memory: usize,
}

impl Place {
    fn of(request: &Request) -> Option<Self> {
        match request {
            Request::Read { at, buf } => Some(Self::new(*at, buf.as_slice())),
            Request::Write { at, data, .. } => Some(Self::new(*at, data.as_slice())),
            Request::Zero { range, .. } => Some(Self {
                at: range.start(),
                len: range.len(),
                memory: 0,
            }),
            Request::Flush => None,
        }
    }

    fn new(at: u64, memory: &[u8]) -> Self {
        Self {
            at,
            len: memory.len() as u64,
            memory: memory.as_ptr().addr(),
        }
    }
}

/// The status of what is at `path`, where that is of `kind`. It is not opened: for some files that alone does
/// something.
pub(super) fn expect_kind(path: &Path, kind: FileType, wanted: &'static str) -> Result<Stat, OpenError> {
    let status = rustix::fs::stat(path).map_err(os_error(path, "opening"))?;
    if FileType::from_raw_mode(status.st_mode) == kind {
        return Ok(status);
    }
    Err(OpenError::WrongKind {
        path: path.to_owned(),
        wanted,
    })
}

/// Takes the file for this process alone, as long as it is open.
pub(super) fn lock(path: &Path, file: &OwnedFd) -> Result<(), OpenError> {
    patiently(|| rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive))
        .map_err(os_error(path, "locking"))
}

/// Tries for a while to get what somebody else has.
///
/// The kernel ends the rings of a killed process a moment after the process itself, and until then they hold its files
/// and their locks: so a restart waits a little before it calls a file in use.
pub(super) fn patiently<T>(mut get: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    let mut tries_left = LOCK_TRIES;
    loop {
        match get() {
            Err(Errno::WOULDBLOCK | Errno::BUSY) if tries_left > 0 => tries_left -= 1,
            got => return got,
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "opening blocks, and nothing tells when another process ends"
        )]
        std::thread::sleep(LOCK_PAUSE);
    }
}

/// Lets the file's data pass by the page cache, and returns what offsets, lengths and memory must be multiples of.
pub(super) fn make_direct(path: &Path, file: &OwnedFd) -> Result<u32, OpenError> {
    let flags = rustix::fs::fcntl_getfl(file).map_err(os_error(path, "reading its flags"))?;
    rustix::fs::fcntl_setfl(file, flags | OFlags::DIRECT)
        .map_err(|_| OpenError::NoDirect(path.to_owned()))?;
    let status = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        .map_err(os_error(path, "reading its alignment"))?;
    let told = StatxFlags::from_bits_retain(status.stx_mask).contains(StatxFlags::DIOALIGN);
    match (told, status.stx_dio_offset_align.max(status.stx_dio_mem_align)) {
        (true, 0) => Err(OpenError::NoDirect(path.to_owned())),
        (true, align) => Ok(align.max(512)),
        (false, _) => probe_alignment(path, file),
    }
}

/// The smallest block that the file system reads directly, where it does not tell.
fn probe_alignment(path: &Path, file: &OwnedFd) -> Result<u32, OpenError> {
    let mut buf = IoBuf::new(PAGE);
    for block in [512, 4096] {
        match rustix::io::pread(file, &mut buf.as_mut_slice()[..block], 0) {
            Ok(_) => return Ok(if block == 512 { 512 } else { 4096 }),
            Err(Errno::INVAL) => {}
            Err(errno) => return Err(os_error(path, "reading its first block")(errno)),
        }
    }
    Err(OpenError::NoDirect(path.to_owned()))
}

#[cfg(test)]
mod tests;
