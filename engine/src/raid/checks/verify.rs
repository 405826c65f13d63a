//! Reading members' data, and comparing it with its checksums.

use super::cache::{Compared, Unfit};
use super::{BLOCK, round_to_blocks};
use crate::device::{Completion, DeviceError, DeviceHandle, Io, Request};
use crate::io::IoBuf;
use crate::planted::{self, Planted};
use crate::raid::membership::Members;
use crate::types::ByteRange;

/// A read of a member's data that was begun: of whole blocks where there are checksums.
pub(in crate::raid) struct Read {
    pub(in crate::raid) member: usize,
    /// What was asked for, and what is read: member addresses.
    range: ByteRange,
    blocks: ByteRange,
    io: Io,
}

/// Why a read gave nothing.
#[derive(Debug)]
pub(in crate::raid) enum Unread {
    Failed(DeviceError),
    /// Some blocks of what was read do not fit.
    Unfit {
        unfit: Unfit,
        blocks: IoBuf,
    },
}

impl Unread {
    /// Whether something in `range`, member addresses, was not given.
    pub(in crate::raid) fn is_of(&self, range: ByteRange) -> bool {
        match self {
            Self::Failed(_) => true,
            Self::Unfit { unfit, .. } => {
                let mut blocks = unfit.at.iter().map(|&at| ByteRange::between(at, at + BLOCK));
                blocks.any(|block| block.overlaps(range))
            }
        }
    }

    pub(in crate::raid) fn why(&self) -> String {
        match self {
            Self::Failed(error) => error.to_string(),
            Self::Unfit { .. } => "what it holds does not fit its checksum".into(),
        }
    }
}

impl Members {
    /// Begins to read `range`, addresses of a member that is read.
    pub(in crate::raid) fn start_read(&self, member: usize, device: &DeviceHandle, range: ByteRange) -> Read {
        let blocks = match self.list[member].checks {
            Some(_) => round_to_blocks(range),
            None => range,
        };
        let at = self.record.members[member].data_start + blocks.start();
        let buf = IoBuf::new(usize::try_from(blocks.len()).expect("a request fits memory"));
        Read {
            member,
            range,
            blocks,
            io: device.start(Request::Read { at, buf }),
        }
    }

    /// Waits for a read that was begun under these members. Where a write to the same blocks may run, they may not fit
    /// for that reason only.
    pub(in crate::raid) async fn end_read(&self, read: &mut Read) -> Result<IoBuf, Unread> {
        let device = self.list[read.member]
            .device
            .as_ref()
            .expect("the read was started on it");
        let completion = (&mut read.io).await;
        let buf = match device.settle(&read.io, completion) {
            Completion { result: Ok(()), buf } => buf.expect("a read that succeeded returns its buffer"),
            Completion {
                result: Err(error), ..
            } => return Err(Unread::Failed(error)),
        };
        let unfit = self.unfit_blocks(read.member, read.blocks.start(), &buf).await;
        match unfit {
            Err(error) => Err(Unread::Failed(error)),
            Ok(unfit) if !unfit.at.is_empty() => Err(Unread::Unfit { unfit, blocks: buf }),
            Ok(_) if read.blocks == read.range => Ok(buf),
            Ok(_) => {
                let skip =
                    usize::try_from(read.range.start() - read.blocks.start()).expect("less than a block");
                let len = usize::try_from(read.range.len()).expect("a request fits memory");
                Ok(IoBuf::from_slice(&buf.as_slice()[skip..skip + len]))
            }
        }
    }

    /// The blocks of what was read from `at` on that do not fit.
    async fn unfit_blocks(&self, member: usize, at: u64, data: &IoBuf) -> Result<Unfit, DeviceError> {
        let Some(checked) = self
            .checked(member)
            .filter(|_| !planted::is(Planted::NoVerification))
        else {
            return Ok(Unfit::default());
        };
        let values = checked.checks.formula().values(at, data.as_slice());
        loop {
            match checked.checks.compare(at, &values) {
                Compared::Unfit(unfit) => return Ok(unfit),
                Compared::Unknown(page) => checked.read_page(page).await?,
            }
        }
    }
}

/// Whether `range` is whole blocks.
pub(in crate::raid) fn is_blocks(range: ByteRange) -> bool {
    range.is_aligned(BLOCK)
}
