//! Operations that take more than one request: what is larger than the server allows, zeros that it cannot make, and
//! durable writes that it does not know.
//!
//! Invariant: an operation ends only when every request that it sent has been answered, also after a failure, so that
//! nothing of it can take effect later than its answer.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::lane::Token;
use super::plan::{Plan, ZERO_AT_ONCE, fault};
use crate::device::{Completion, DeviceError, Request};
use crate::io::{BufSlice, IoBuf};
use crate::nbd::client::{Command, Connection, Reply};
use crate::types::ByteRange;

/// Requests of one operation in flight together.
const AT_ONCE: usize = 4;
/// Bytes of zeros written at once where the server makes none itself.
const ZEROS_WRITTEN: usize = 1 << 20;

pub(super) async fn carry_out(connection: &Connection<Token>, plan: &Plan, request: Request) -> Completion {
    match request {
        Request::Read { at, buf } => read(connection, plan, at, buf).await,
        Request::Write { at, data, fua } => {
            let result = write(connection, plan, at, &data, fua).await;
            Completion { result, buf: None }
        }
        Request::Flush => Completion {
            result: flush(connection).await,
            buf: None,
        },
        Request::Zero { range, unmap } => {
            let result = zero(connection, plan, range, unmap).await;
            Completion { result, buf: None }
        }
    }
}

async fn read(connection: &Connection<Token>, plan: &Plan, at: u64, mut buf: IoBuf) -> Completion {
    let pieces = pieces(at, buf.len(), plan.maximum.into()).map(|(offset, piece)| {
        (
            offset,
            Command::Read {
                at: piece.start(),
                buf: IoBuf::new(size(piece)),
            },
        )
    });
    let fill = |offset: usize, reply: Reply| {
        if let Reply::Read(part) = reply {
            buf.as_mut_slice()[offset..offset + part.len()].copy_from_slice(part.as_slice());
        }
    };
    let result = all(connection, pieces, true, fill).await;
    Completion {
        result,
        buf: Some(buf),
    }
}

async fn write(
    connection: &Connection<Token>,
    plan: &Plan,
    at: u64,
    data: &BufSlice,
    fua: bool,
) -> Result<(), DeviceError> {
    let pieces = pieces(at, data.len(), plan.maximum.into()).map(|(offset, piece)| {
        let data = data.cut(offset, size(piece));
        (
            offset,
            Command::Write {
                at: piece.start(),
                data,
                fua: fua && plan.fua,
            },
        )
    });
    all(connection, pieces, false, |_, _| ()).await?;
    if fua && plan.emulates_fua() {
        flush(connection).await
    } else {
        Ok(())
    }
}

async fn zero(
    connection: &Connection<Token>,
    plan: &Plan,
    range: ByteRange,
    unmap: bool,
) -> Result<(), DeviceError> {
    if plan.zeroes {
        let pieces = range
            .split_at_multiples(ZERO_AT_ONCE)
            .map(|range| (0, Command::Zero { range, unmap }));
        return all(connection, pieces, false, |_, _| ()).await;
    }
    let maximum = u64::from(plan.maximum).min(ZEROS_WRITTEN as u64);
    let zeros = IoBuf::zeroed(ZEROS_WRITTEN).into_slice();
    let pieces = range.split_at_multiples(maximum).map(|piece| {
        (
            0,
            Command::Write {
                at: piece.start(),
                data: zeros.cut(0, size(piece)),
                fua: false,
            },
        )
    });
    all(connection, pieces, false, |_, _| ()).await
}

async fn flush(connection: &Connection<Token>) -> Result<(), DeviceError> {
    connection
        .call(Command::Flush)
        .await
        .map(|_| ())
        .map_err(|error| fault(&error, false))
}

/// `len` bytes from `at`, cut to what is at most `maximum`, with each piece's offset in the whole.
fn pieces(at: u64, len: usize, maximum: u64) -> impl Iterator<Item = (usize, ByteRange)> {
    let whole = ByteRange::new(at, len as u64).expect("the device checked the range");
    let mut offset = 0;
    whole.split_at_multiples(maximum).map(move |piece| {
        let here = offset;
        offset += size(piece);
        (here, piece)
    })
}

fn size(piece: ByteRange) -> usize {
    usize::try_from(piece.len()).expect("a piece lies in a buffer")
}

/// Sends all commands, a few at a time, and gives each reply to `done` under its command's offset. After a failure
/// it sends no more, and returns when those under way are answered.
async fn all(
    connection: &Connection<Token>,
    mut commands: impl Iterator<Item = (usize, Command)>,
    reading: bool,
    mut done: impl FnMut(usize, Reply),
) -> Result<(), DeviceError> {
    let mut running = FuturesUnordered::new();
    let mut result = Ok(());
    loop {
        while result.is_ok() && running.len() < AT_ONCE {
            let Some((offset, command)) = commands.next() else {
                break;
            };
            let call = connection.call(command);
            running.push(async move { (offset, call.await) });
        }
        match running.next().await {
            None => return result,
            Some((offset, Ok(reply))) => done(offset, reply),
            Some((_, Err(error))) => result = result.and(Err(fault(&error, reading))),
        }
    }
}
