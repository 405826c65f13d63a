//! Regular files as storage devices.
//!
//! Invariants: an open file is locked, so that two appliances cannot use it at once; a file that could not be made
//! into a device is not left behind. Opening blocks: it is not for a data thread.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FallocateFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::DeviceInfo;
use super::local::{self, CachePolicy, LocalDevice, OpenError, OpenOptions, Way, os_error};

/// Magic numbers of file systems that keep files in memory.
const TMPFS_MAGIC: u64 = 0x0102_1994;
const RAMFS_MAGIC: u64 = 0x8584_58f6;
/// Smallest block of a device that does not need a larger one.
const MIN_BLOCK: u32 = 512;

/// Creates a sparse file of `size` bytes, durably.
///
/// # Errors
/// [`OpenError::Exists`] where there is one already; [`OpenError::Size`] where `size` is not whole blocks.
pub fn create(path: &Path, size: u64, options: &OpenOptions) -> Result<LocalDevice, OpenError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(os_error(path, "creating"))?;
    let device = size_and_sync(path, &file, size)
        .and_then(|()| attach(path, file, size, options))
        .and_then(|device| device.with_capacity(path, size));
    if device.is_err() {
        let _ = std::fs::remove_file(path);
    }
    device
}

/// Opens an existing file as it is. Bytes after the last whole block are not used.
pub fn adopt(path: &Path, options: &OpenOptions) -> Result<LocalDevice, OpenError> {
    local::expect_kind(path, FileType::RegularFile, "regular file")?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(os_error(path, "opening"))?;
    let status = rustix::fs::fstat(&file).map_err(os_error(path, "reading its size"))?;
    let size =
        u64::try_from(status.st_size).map_err(|_| os_error(path, "reading its size")(Errno::OVERFLOW))?;
    attach(path, file, size, options)
}

fn size_and_sync(path: &Path, file: &OwnedFd, size: u64) -> Result<(), OpenError> {
    rustix::fs::ftruncate(file, size).map_err(os_error(path, "setting its size"))?;
    rustix::fs::fsync(file).map_err(os_error(path, "storing its size"))?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| {
            os_error(path, "storing its name")(Errno::from_io_error(&error).unwrap_or(Errno::IO))
        })
}

fn attach(path: &Path, file: OwnedFd, size: u64, options: &OpenOptions) -> Result<LocalDevice, OpenError> {
    local::lock(path, &file)?;
    let (way, block) = if is_in_memory(path, &file)? {
        (Way::Memory, MIN_BLOCK)
    } else if options.cache == Some(CachePolicy::Direct) {
        (Way::Direct, local::make_direct(path, &file)?)
    } else {
        (Way::PageCache, MIN_BLOCK)
    };
    let info = DeviceInfo {
        capacity: size - size % u64::from(block),
        block,
        zeroes_fast: punches_holes(&file, size),
        volatile_cache: true,
    };
    LocalDevice::new(path, file, way, info, options)
}

fn is_in_memory(path: &Path, file: &OwnedFd) -> Result<bool, OpenError> {
    let status = rustix::fs::fstatfs(file).map_err(os_error(path, "reading its file system's kind"))?;
    Ok(u64::try_from(status.f_type).is_ok_and(|magic| magic == TMPFS_MAGIC || magic == RAMFS_MAGIC))
}

/// Tries it behind the end of the file, where there is nothing to lose.
fn punches_holes(file: &OwnedFd, size: u64) -> bool {
    let Some(behind) = size.checked_next_multiple_of(4096) else {
        return false;
    };
    rustix::fs::fallocate(
        file,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        behind,
        4096,
    )
    .is_ok()
}
