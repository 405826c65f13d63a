//! What a server's offer means for the device, and which operations are one request to it.

use super::ConnectError;
use crate::device::{Completion, DeviceError, DeviceInfo, Request};
use crate::io::IoBuf;
use crate::nbd::client::{Command, ExportInfo, Outcome, Reply, RequestError};
use crate::nbd::wire;

/// The two blocks that devices have.
const MIN_BLOCK: u32 = 512;
const MAX_BLOCK: u32 = 4096;
/// Zeroes asked for at once, where the server makes them itself: fits every dialect's length.
pub(super) const ZERO_AT_ONCE: u64 = 1 << 30;

/// How the device serves its operations; fixed by what the server offered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) info: DeviceInfo,
    /// Bytes of one read or write, a multiple of the block.
    pub(super) maximum: u32,
    pub(super) flush: bool,
    pub(super) fua: bool,
    pub(super) zeroes: bool,
    /// A flush on one connection covers the writes of all.
    pub(super) multi: bool,
}

/// What an operation takes.
pub(super) enum Steps {
    /// Nothing to ask the server; the buffer of a read that is empty.
    Nothing(Option<IoBuf>),
    One(Command),
    /// Several requests, or different ones.
    Many(Request),
}

impl Plan {
    pub(super) fn of(export: &ExportInfo, declared_durable: bool) -> Result<Self, ConnectError> {
        if export.has(wire::TX_READ_ONLY) {
            return Err(ConnectError::ReadOnly);
        }
        let flush = export.has(wire::TX_SEND_FLUSH);
        if !flush && !declared_durable {
            return Err(ConnectError::NoFlush);
        }
        let minimum = export.block.minimum;
        if minimum > MAX_BLOCK {
            return Err(ConnectError::Block { minimum });
        }
        let block = if minimum <= MIN_BLOCK {
            MIN_BLOCK
        } else {
            MAX_BLOCK
        };
        let maximum = export.block.maximum;
        if maximum < block {
            return Err(ConnectError::Maximum { maximum, block });
        }
        let capacity = export.size - export.size % u64::from(block);
        if capacity == 0 {
            return Err(ConnectError::TooSmall {
                size: export.size,
                block,
            });
        }
        let zeroes = export.has(wire::TX_SEND_WRITE_ZEROES);
        // That the server can refuse a slow zero is the only hint that it has fast ones.
        let zeroes_fast = zeroes && export.has(wire::TX_SEND_FAST_ZERO);
        Ok(Self {
            info: DeviceInfo {
                capacity,
                block,
                zeroes_fast,
                volatile_cache: flush,
            },
            maximum: maximum - maximum % block,
            flush,
            fua: export.has(wire::TX_SEND_FUA),
            zeroes,
            multi: export.has(wire::TX_CAN_MULTI_CONN),
        })
    }

    pub(super) fn steps(&self, request: Request) -> Steps {
        let fits = |len: usize| len as u64 <= u64::from(self.maximum);
        match request {
            Request::Read { buf, .. } if buf.is_empty() => Steps::Nothing(Some(buf)),
            Request::Read { at, buf } if fits(buf.len()) => Steps::One(Command::Read { at, buf }),
            Request::Write { data, .. } if data.is_empty() => Steps::Nothing(None),
            Request::Write { at, data, fua } if fits(data.len()) && !(fua && self.emulates_fua()) => {
                Steps::One(Command::Write {
                    at,
                    data,
                    fua: fua && self.fua,
                })
            }
            Request::Flush if self.flush => Steps::One(Command::Flush),
            Request::Flush => Steps::Nothing(None),
            Request::Zero { range, .. } if range.is_empty() => Steps::Nothing(None),
            Request::Zero { range, unmap } if self.zeroes && range.len() <= ZERO_AT_ONCE => {
                Steps::One(Command::Zero { range, unmap })
            }
            request => Steps::Many(request),
        }
    }

    /// Whether a durable write is a write and a flush after it.
    pub(super) fn emulates_fua(&self) -> bool {
        self.flush && !self.fua
    }
}

/// An outcome of a request as that of the operation that it stands for.
pub(super) fn completion(outcome: Outcome, reading: bool) -> Completion {
    match outcome {
        Ok(Reply::Read(buf)) => Completion {
            result: Ok(()),
            buf: Some(buf),
        },
        Ok(_) => Completion {
            result: Ok(()),
            buf: None,
        },
        Err(error) => Completion {
            result: Err(fault(&error, reading)),
            buf: None,
        },
    }
}

pub(super) fn fault(error: &RequestError, reading: bool) -> DeviceError {
    match error {
        RequestError::Gone(why) => DeviceError::Gone(why.to_string()),
        RequestError::Refused { errno: wire::EIO, .. } if reading => DeviceError::Medium,
        RequestError::Refused {
            errno: wire::ENOSPC, ..
        } => DeviceError::NoSpace,
        // NBD's error numbers are Linux's.
        RequestError::Refused { errno, .. } => DeviceError::Os(i32::try_from(*errno).unwrap_or(i32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nbd::client::Dialect;
    use crate::nbd::client::negotiation::BlockSizes;

    const ALL: u16 =
        wire::TX_HAS_FLAGS | wire::TX_SEND_FLUSH | wire::TX_SEND_FUA | wire::TX_SEND_WRITE_ZEROES;

    fn export(size: u64, flags: u16, minimum: u32, maximum: u32) -> ExportInfo {
        let block = BlockSizes {
            minimum,
            preferred: 4096,
            maximum,
        };
        ExportInfo {
            size,
            flags,
            block,
            dialect: Dialect::Simple,
            context: None,
        }
    }

    #[test]
    fn capacity_is_whole_blocks_and_blocks_are_512_or_4096() {
        let plan = |size, minimum, maximum| Plan::of(&export(size, ALL, minimum, maximum), false).unwrap();
        let small = plan(1_000_000, 1, 1 << 20);
        assert_eq!((small.info.capacity, small.info.block), (999_936, 512));
        let large = plan(1_000_000, 1024, 10_240);
        assert_eq!(
            (large.info.capacity, large.info.block, large.maximum),
            (999_424, 4096, 8192)
        );
    }

    #[test]
    fn a_server_that_cannot_flush_is_refused_unless_declared_durable() {
        let export = export(4096, ALL & !wire::TX_SEND_FLUSH, 1, 4096);
        assert!(matches!(Plan::of(&export, false), Err(ConnectError::NoFlush)));
        let plan = Plan::of(&export, true).unwrap();
        assert!(!plan.info.volatile_cache);
        assert!(matches!(plan.steps(Request::Flush), Steps::Nothing(None)));
    }

    #[test]
    fn exports_that_cannot_be_devices_are_refused() {
        let refused = |export: &ExportInfo| Plan::of(export, false).unwrap_err();
        let read_only = export(4096, ALL | wire::TX_READ_ONLY, 1, 4096);
        assert!(matches!(refused(&read_only), ConnectError::ReadOnly));
        assert!(matches!(
            refused(&export(511, ALL, 1, 4096)),
            ConnectError::TooSmall {
                size: 511,
                block: 512
            }
        ));
        assert!(matches!(
            refused(&export(1 << 20, ALL, 8192, 8192)),
            ConnectError::Block { minimum: 8192 }
        ));
        let narrow = export(1 << 20, ALL, 1, 256);
        assert!(matches!(
            refused(&narrow),
            ConnectError::Maximum {
                maximum: 256,
                block: 512
            }
        ));
    }
}
