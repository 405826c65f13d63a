//! Reading members' data, and comparing it with its checksums.

use smallvec::SmallVec;

use super::cache::Compared;
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
    /// The blocks at these member addresses do not fit their checksums; `blocks` is what was read.
    Unfit {
        at: SmallVec<[u64; 2]>,
        blocks: IoBuf,
    },
}

impl Unread {
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
        let at = self.unfit_blocks(read.member, read.blocks.start(), &buf).await;
        match at {
            Err(error) => Err(Unread::Failed(error)),
            Ok(at) if !at.is_empty() => Err(Unread::Unfit { at, blocks: buf }),
            Ok(_) if read.blocks == read.range => Ok(buf),
            Ok(_) => {
                let skip =
                    usize::try_from(read.range.start() - read.blocks.start()).expect("less than a block");
                let len = usize::try_from(read.range.len()).expect("a request fits memory");
                Ok(IoBuf::from_slice(&buf.as_slice()[skip..skip + len]))
            }
        }
    }

    /// The blocks, by member address, of what was read from `at` on that do not fit.
    async fn unfit_blocks(
        &self,
        member: usize,
        at: u64,
        data: &IoBuf,
    ) -> Result<SmallVec<[u64; 2]>, DeviceError> {
        let Some(checked) = self
            .checked(member)
            .filter(|_| !planted::is(Planted::NoVerification))
        else {
            return Ok(SmallVec::new());
        };
        let values = checked.checks.formula().values(at, data.as_slice());
        loop {
            match checked.checks.compare(at, &values) {
                Compared::Unfit(blocks) => return Ok(blocks),
                Compared::Unknown(page) => checked.read_page(page).await?,
            }
        }
    }
}

/// Whether `range` is whole blocks.
pub(in crate::raid) fn is_blocks(range: ByteRange) -> bool {
    range.is_aligned(BLOCK)
}
