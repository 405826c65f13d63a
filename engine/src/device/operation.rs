//! One operation on a ring: which entry it sends next, and what the kernel's answer makes of it.
//!
//! Invariants: the memory that an entry points to belongs to its [`Operation`] and does not move with it. An
//! operation ends once, after as many entries as it takes: the rest after a short transfer, another way of zeroing
//! where one is not supported.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;

use io_uring::{opcode, squeue, types};
use rustix::fs::FallocateFlags;
use rustix::io::{Errno, ReadWriteFlags};

use super::DeviceError;
use crate::io::{BufSlice, IoBuf};

/// Most bytes that one entry moves; the kernel takes no more than 2 GiB - 4096.
const MAX_ENTRY: usize = 1 << 30;
/// Zeros that are written at a time where a device cannot zero a range by itself.
const ZERO_CHUNK: usize = 1 << 20;
/// How often in a row an operation is sent again after EAGAIN or EINTR.
const MAX_RETRIES: u8 = 100;

#[derive(Debug)]
pub(super) enum Work {
    Read(IoBuf),
    Write { data: BufSlice, fua: bool },
    Zero { len: u64, by: Zeroing },
    Flush,
}

/// How a range becomes zeros. Each way is followed by the next where it is not supported.
#[derive(Debug)]
pub(super) enum Zeroing {
    /// Gives the space back.
    Unmapping,
    /// Keeps the space.
    Keeping,
    /// Writes this piece of zeros over and over.
    Writing(BufSlice),
}

#[derive(Debug)]
pub(super) struct Operation {
    /// Keeps the file open until the kernel has answered.
    pub(super) file: Arc<OwnedFd>,
    pub(super) at: u64,
    /// Bytes from `at` that are already transferred.
    pub(super) done: u64,
    pub(super) work: Work,
    retries: u8,
}

impl Operation {
    pub(super) fn new(file: Arc<OwnedFd>, at: u64, work: Work) -> Self {
        Self {
            file,
            at,
            done: 0,
            work,
            retries: 0,
        }
    }

    /// The entry for what is left to do.
    pub(super) fn entry(&mut self) -> squeue::Entry {
        let fd = types::Fd(self.file.as_raw_fd());
        let at = self.at + self.done;
        let done = usize::try_from(self.done).expect("no more was done than a buffer holds");
        match &mut self.work {
            Work::Read(buf) => {
                let rest = &mut buf.as_mut_slice()[done..];
                opcode::Read::new(fd, rest.as_mut_ptr(), entry_len(rest.len()))
                    .offset(at)
                    .build()
            }
            Work::Write { data, fua } => {
                let rest = &data.as_slice()[done..];
                let flags = if *fua {
                    ReadWriteFlags::DSYNC
                } else {
                    ReadWriteFlags::empty()
                };
                let flags = i32::try_from(flags.bits()).expect("the flag is a small number");
                opcode::Write::new(fd, rest.as_ptr(), entry_len(rest.len()))
                    .offset(at)
                    .rw_flags(flags)
                    .build()
            }
            Work::Zero {
                len,
                by: Zeroing::Writing(zeros),
            } => {
                let len = usize::try_from(*len - self.done).map_or(zeros.len(), |left| left.min(zeros.len()));
                opcode::Write::new(fd, zeros.as_slice().as_ptr(), entry_len(len))
                    .offset(at)
                    .build()
            }
            Work::Zero { len, by } => {
                let mode = match by {
                    Zeroing::Unmapping => FallocateFlags::PUNCH_HOLE,
                    Zeroing::Keeping | Zeroing::Writing(_) => FallocateFlags::ZERO_RANGE,
                } | FallocateFlags::KEEP_SIZE;
                let mode = i32::try_from(mode.bits()).expect("the flags are small numbers");
                opcode::Fallocate::new(fd, *len).offset(at).mode(mode).build()
            }
            Work::Flush => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
        }
    }

    /// Takes the kernel's `answer` to the last entry in. `None` where the operation goes on with another entry.
    pub(super) fn answered(&mut self, answer: i32) -> Option<Result<(), DeviceError>> {
        let Ok(bytes) = u64::try_from(answer) else {
            return self.refused(Errno::from_raw_os_error(-answer));
        };
        self.retries = 0;
        let Some(len) = self.transfer_len() else {
            return Some(Ok(()));
        };
        self.done += bytes;
        match bytes {
            _ if self.done >= len => Some(Ok(())),
            0 => Some(Err(DeviceError::Short)),
            _ => None,
        }
    }

    fn refused(&mut self, errno: Errno) -> Option<Result<(), DeviceError>> {
        let again = matches!(errno, Errno::AGAIN | Errno::INTR) && self.retries < MAX_RETRIES;
        if again {
            self.retries += 1;
            return None;
        }
        if errno == Errno::OPNOTSUPP
            && let Work::Zero { by, .. } = &mut self.work
        {
            match by {
                Zeroing::Unmapping => *by = Zeroing::Keeping,
                Zeroing::Keeping => *by = Zeroing::Writing(IoBuf::zeroed(ZERO_CHUNK).into_slice()),
                Zeroing::Writing(_) => return Some(Err(device_error(errno, false))),
            }
            return None;
        }
        // A direct file that ended in the middle of a block leaves a rest that the kernel calls misaligned.
        if errno == Errno::INVAL && self.done > 0 {
            return Some(Err(DeviceError::Short));
        }
        Some(Err(device_error(errno, matches!(self.work, Work::Read(_)))))
    }

    /// Bytes that the operation moves; `None` where its answer is not a count of bytes.
    fn transfer_len(&self) -> Option<u64> {
        match &self.work {
            Work::Read(buf) => Some(buf.len() as u64),
            Work::Write { data, .. } => Some(data.len() as u64),
            Work::Zero {
                len,
                by: Zeroing::Writing(_),
            } => Some(*len),
            Work::Zero { .. } | Work::Flush => None,
        }
    }

    /// The buffer of a read, once the kernel has answered.
    pub(super) fn into_buf(self) -> Option<IoBuf> {
        match self.work {
            Work::Read(buf) => Some(buf),
            Work::Write { .. } | Work::Zero { .. } | Work::Flush => None,
        }
    }
}

fn entry_len(len: usize) -> u32 {
    u32::try_from(len.min(MAX_ENTRY)).expect("MAX_ENTRY fits")
}

/// What an error of the operating system says about a device.
pub(super) fn device_error(errno: Errno, reading: bool) -> DeviceError {
    match errno {
        Errno::NOSPC | Errno::DQUOT => DeviceError::NoSpace,
        Errno::NODEV | Errno::NXIO | Errno::NOMEDIUM | Errno::CANCELED => {
            DeviceError::Gone(errno.to_string())
        }
        Errno::TIMEDOUT => DeviceError::Timeout,
        // What the block layer makes of a failed read, of a medium error and of a checksum that does not match.
        Errno::IO | Errno::NODATA | Errno::ILSEQ | Errno::BADMSG if reading => DeviceError::Medium,
        _ => DeviceError::Os(errno.raw_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(work: Work) -> Operation {
        let file = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        Operation::new(file, 4096, work)
    }

    fn errno(errno: Errno) -> i32 {
        -errno.raw_os_error()
    }

    #[test]
    fn a_short_transfer_goes_on_until_all_is_done() {
        let mut read = operation(Work::Read(IoBuf::new(8192)));
        assert_eq!(read.answered(4096), None);
        assert_eq!(read.answered(1000), None);
        assert_eq!(read.done, 5096);
        assert_eq!(read.answered(3096), Some(Ok(())));
        assert_eq!(read.into_buf().unwrap().len(), 8192);
    }

    #[test]
    fn a_transfer_of_nothing_is_short() {
        let mut read = operation(Work::Read(IoBuf::new(8192)));
        assert_eq!(read.answered(4096), None);
        assert_eq!(read.answered(0), Some(Err(DeviceError::Short)));
        let mut direct = operation(Work::Read(IoBuf::new(8192)));
        assert_eq!(direct.answered(100), None);
        assert_eq!(
            direct.answered(errno(Errno::INVAL)),
            Some(Err(DeviceError::Short))
        );
    }

    #[test]
    fn zeroing_falls_back_to_writing_zeros() {
        let len = 2 * ZERO_CHUNK as u64 + 4096;
        let mut zero = operation(Work::Zero {
            len,
            by: Zeroing::Unmapping,
        });
        assert_eq!(zero.answered(errno(Errno::OPNOTSUPP)), None);
        assert_eq!(zero.answered(errno(Errno::OPNOTSUPP)), None);
        let chunk = i32::try_from(ZERO_CHUNK).unwrap();
        assert_eq!(zero.answered(chunk), None);
        assert_eq!(zero.answered(chunk), None);
        assert_eq!(zero.answered(4096), Some(Ok(())));
        let mut unwritable = operation(Work::Zero {
            len,
            by: Zeroing::Writing(IoBuf::zeroed(512).into_slice()),
        });
        assert_eq!(
            unwritable.answered(errno(Errno::OPNOTSUPP)),
            Some(Err(DeviceError::Os(95)))
        );
    }

    #[test]
    fn an_interruption_is_sent_again_but_not_for_ever() {
        let mut flush = operation(Work::Flush);
        for _ in 0..MAX_RETRIES {
            assert_eq!(flush.answered(errno(Errno::AGAIN)), None);
        }
        assert_eq!(
            flush.answered(errno(Errno::AGAIN)),
            Some(Err(DeviceError::Os(11)))
        );
    }

    #[test]
    fn errors_are_told_apart() {
        assert_eq!(device_error(Errno::IO, true), DeviceError::Medium);
        assert_eq!(device_error(Errno::IO, false), DeviceError::Os(5));
        assert_eq!(device_error(Errno::NOSPC, false), DeviceError::NoSpace);
        assert!(matches!(device_error(Errno::NODEV, true), DeviceError::Gone(_)));
        assert!(matches!(device_error(Errno::NXIO, false), DeviceError::Gone(_)));
    }
}
