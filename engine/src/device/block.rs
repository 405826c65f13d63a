//! Block devices (`/dev/...`) as storage devices.
//!
//! Invariants: an open device is held exclusively, so that one that is mounted, a member of something else or open in
//! another appliance is refused. Whether it has a volatile cache is what its kernel driver says (R27); where that is
//! not known it has one. Opening blocks: it is not for a data thread.

use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, SeekFrom, Stat};

use super::DeviceInfo;
use super::local::{self, CachePolicy, LocalDevice, OpenError, OpenOptions, Way, os_error};

/// Opens the block device at `path`.
pub fn open(path: &Path, options: &OpenOptions) -> Result<LocalDevice, OpenError> {
    let status = local::expect_kind(path, FileType::BlockDevice, "block device")?;
    let flags = OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    let file = local::patiently(|| rustix::fs::open(path, flags, Mode::empty()))
        .map_err(os_error(path, "opening"))?;
    let size = rustix::fs::seek(&file, SeekFrom::End(0)).map_err(os_error(path, "reading its size"))?;
    let sector = rustix::fs::ioctl_blksszget(&file).map_err(os_error(path, "reading its sector size"))?;
    let (way, block) = match options.cache.unwrap_or(CachePolicy::Direct) {
        CachePolicy::Direct => (Way::Direct, local::make_direct(path, &file)?.max(sector)),
        CachePolicy::Buffered => (Way::PageCache, sector),
    };
    let queue = queue_folder(&status);
    let info = DeviceInfo {
        capacity: size - size % u64::from(block.max(1)),
        block,
        zeroes_fast: attribute(&queue, "write_zeroes_max_bytes").is_some_and(|bytes| bytes != "0"),
        volatile_cache: way == Way::PageCache
            || attribute(&queue, "write_cache").is_none_or(|kind| kind != "write through"),
    };
    LocalDevice::new(path, file, way, info, options)
}

/// Where the kernel shows the properties of the device, or of the whole disk of a partition.
fn queue_folder(status: &Stat) -> PathBuf {
    let (major, minor) = (
        rustix::fs::major(status.st_rdev),
        rustix::fs::minor(status.st_rdev),
    );
    let device = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let own = device.join("queue");
    if own.exists() {
        own
    } else {
        device.join("../queue")
    }
}

fn attribute(folder: &Path, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(folder.join(name)).ok()?;
    Some(text.trim().to_owned())
}
