//! Operations that the calling thread does by itself, because they do not wait for a medium: everything on a file in
//! memory, and reads that the page cache can answer.

use std::io::IoSliceMut;
use std::os::fd::OwnedFd;

use rustix::fs::FallocateFlags;
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};

use super::operation::device_error;
use super::{Completion, DeviceError, Request};
use crate::types::ByteRange;

/// Does `request` on a file in memory. A flush has nothing to do there.
pub(super) fn run(file: &OwnedFd, request: Request) -> Completion {
    let (result, buf) = match request {
        Request::Read { at, mut buf } => (read(file, at, buf.as_mut_slice()), Some(buf)),
        Request::Write { at, data, .. } => (write(file, at, data.as_slice()), None),
        Request::Flush => (Ok(()), None),
        Request::Zero { range, unmap } => (zero(file, range, unmap), None),
    };
    Completion { result, buf }
}

/// Fills `buf` from `at` as far as that goes without waiting, and returns how many bytes are filled.
pub(super) fn read_cached(file: &OwnedFd, at: u64, buf: &mut [u8]) -> usize {
    let mut slices = [IoSliceMut::new(buf)];
    // Whatever the error is, the ring meets it again or does not.
    rustix::io::preadv2(file, &mut slices, at, ReadWriteFlags::NOWAIT).unwrap_or(0)
}

fn read(file: &OwnedFd, at: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
    let mut done = 0;
    while done < buf.len() {
        match retry_on_intr(|| rustix::io::pread(file, &mut buf[done..], at + done as u64)) {
            Ok(0) => return Err(DeviceError::Short),
            Ok(count) => done += count,
            Err(errno) => return Err(device_error(errno, true)),
        }
    }
    Ok(())
}

fn write(file: &OwnedFd, at: u64, data: &[u8]) -> Result<(), DeviceError> {
    let mut done = 0;
    while done < data.len() {
        match retry_on_intr(|| rustix::io::pwrite(file, &data[done..], at + done as u64)) {
            Ok(0) => return Err(DeviceError::Short),
            Ok(count) => done += count,
            Err(errno) => return Err(device_error(errno, false)),
        }
    }
    Ok(())
}

/// Memory file systems punch holes but do not zero ranges in place: space that is to be kept is taken again.
fn zero(file: &OwnedFd, range: ByteRange, unmap: bool) -> Result<(), DeviceError> {
    let change = |mode: FallocateFlags| {
        retry_on_intr(|| rustix::fs::fallocate(file, mode, range.start(), range.len()))
            .map_err(|errno: Errno| device_error(errno, false))
    };
    if range.is_empty() {
        return Ok(());
    }
    change(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE)?;
    if unmap {
        Ok(())
    } else {
        change(FallocateFlags::KEEP_SIZE)
    }
}
