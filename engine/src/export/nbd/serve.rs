//! One request, from the target's answer to the reply.
//!
//! Invariant: [`errno`] is the only place that knows how the engine's errors look to an NBD client.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::block_status::{MAX_EXTENTS, MetaContext, MetaContexts, allocation_extents};
use super::reply::{Answer, Reply};
use super::transmission::{Command, Request};
use crate::export::Target;
use crate::io::{IoError, Segments};
use crate::nbd::wire;
use crate::statistics::{Counters, Kind};
use crate::types::ByteRange;

/// What the requests of one connection have in common.
pub(super) struct Session<T> {
    pub(super) target: Arc<T>,
    pub(super) read_only: bool,
    pub(super) contexts: MetaContexts,
    pub(super) counters: Arc<Counters>,
    /// The target's losses that the client knows of.
    pub(super) losses: Cell<u64>,
}

/// A reply, and how much payload its request kept in memory.
pub(super) struct Served {
    pub(super) reply: Reply,
    pub(super) payload: u64,
}

/// The protocol's number for a failure. `modifying` tells whether the request would have changed content.
fn errno(error: &IoError, modifying: bool) -> u32 {
    match error {
        IoError::OutOfBounds { .. } if modifying => wire::ENOSPC,
        IoError::OutOfBounds { .. } | IoError::Misaligned { .. } => wire::EINVAL,
        IoError::ReadOnly => wire::EPERM,
        IoError::Unmapped { .. } | IoError::GroupUnavailable { .. } | IoError::Device(_) => wire::EIO,
        IoError::NoSpace => wire::ENOSPC,
        IoError::NotFast => wire::ENOTSUP,
        IoError::Stopping => wire::ESHUTDOWN,
    }
}

fn failed(error: &IoError, modifying: bool) -> Answer {
    Answer::Failed {
        errno: errno(error, modifying),
        why: error.to_string(),
    }
}

fn done(result: Result<(), IoError>, modifying: bool) -> Answer {
    result.map_or_else(|error| failed(&error, modifying), |()| Answer::Done)
}

/// Kind and bytes of a command that moves data or makes it durable.
fn counted_as(command: &Command) -> Option<(Kind, u64)> {
    match command {
        Command::Read { range, .. } => Some((Kind::Read, range.len())),
        Command::Write { data, .. } => Some((Kind::Write, data.len() as u64)),
        Command::Zero { range, .. } => Some((Kind::Zero, range.len())),
        Command::Flush => Some((Kind::Flush, 0)),
        Command::BlockStatus { .. } | Command::Refused { .. } | Command::Disconnect => None,
    }
}

/// Runs the request. `Disconnect` never gets here.
pub(super) async fn serve<T: Target>(session: Rc<Session<T>>, request: Request) -> Served {
    let payload = request.payload();
    let Request {
        cookie,
        offset,
        command,
    } = request;
    let target = &*session.target;
    let counted = counted_as(&command).map(|(kind, bytes)| session.counters.begin(kind, bytes));
    let answer = match command {
        Command::Read { range, dont_fragment } => data(target.read(range).await, range, dont_fragment),
        Command::Write { .. } | Command::Zero { .. } if session.read_only => failed(&IoError::ReadOnly, true),
        Command::Write { at, data, fua } => done(target.write(at, data, fua).await, true),
        Command::Zero { range, options } => done(target.zero(range, options).await, true),
        Command::Flush => done(flush(&session).await, false),
        Command::BlockStatus { range, one } => status(&session, range, one),
        Command::Refused { errno, why } => Answer::Failed {
            errno,
            why: why.into(),
        },
        Command::Disconnect => unreachable!("the connection ends before it is served"),
    };
    if let Some(counted) = counted
        && !matches!(answer, Answer::Failed { .. })
    {
        counted.succeeded();
    }
    Served {
        reply: Reply {
            cookie,
            offset,
            answer,
        },
        payload,
    }
}

/// Each loss fails one flush of each connection (R5).
async fn flush<T: Target>(session: &Session<T>) -> Result<(), IoError> {
    session.target.flush().await?;
    let losses = session.target.losses();
    if session.losses.replace(losses) == losses {
        return Ok(());
    }
    Err(IoError::Device(
        "what was acknowledged before it came back, and not flushed, may be lost".into(),
    ))
}

/// Checks the length, because a reply with another one would garble everything after it.
fn data(read: Result<Segments, IoError>, range: ByteRange, dont_fragment: bool) -> Answer {
    match read {
        Ok(segments) if segments.iter().map(crate::io::Segment::len).sum::<u64>() == range.len() => {
            Answer::Data {
                segments,
                dont_fragment,
            }
        }
        Ok(_) => failed(
            &IoError::Device("the answer has another length than the request".into()),
            false,
        ),
        Err(error) => failed(&error, false),
    }
}

fn status<T: Target>(session: &Session<T>, range: ByteRange, one: bool) -> Answer {
    if session.contexts.is_empty() {
        return Answer::Failed {
            errno: wire::EINVAL,
            why: "no metadata context was negotiated".into(),
        };
    }
    let limit = if one { 1 } else { MAX_EXTENTS };
    let extents = |context: &MetaContext| match context {
        MetaContext::BaseAllocation => {
            let runs = session.target.block_status(range, limit)?;
            Ok((context.id(), allocation_extents(&runs, range.len())))
        }
    };
    match session.contexts.iter().map(extents).collect() {
        Ok(contexts) => Answer::Status(contexts),
        Err(error) => failed(&error, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_end_is_no_space_for_a_write_and_invalid_for_a_read() {
        let range = ByteRange::new(10, 1).unwrap();
        let error = IoError::OutOfBounds { range, capacity: 10 };
        assert_eq!(errno(&error, true), wire::ENOSPC);
        assert_eq!(errno(&error, false), wire::EINVAL);
    }

    #[test]
    fn an_answer_of_another_length_than_asked_for_is_an_error() {
        let range = ByteRange::new(0, 512).unwrap();
        let short = data(
            Ok(Segments::from_elem(crate::io::Segment::Zero(511), 1)),
            range,
            false,
        );
        assert!(matches!(short, Answer::Failed { errno: wire::EIO, .. }));
    }
}
