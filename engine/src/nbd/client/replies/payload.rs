//! Payloads of structured chunks: how long each kind may be, and what errors and block status say.

use super::super::numbers::{be16, be32, be64};
use super::{Body, Chunk, Dialect, Extent, ReplyError, RequestError};
use crate::nbd::wire;

/// Bytes of an error's payload before its message.
const ERROR_HEAD: usize = 6;
/// Bytes that an error of a kind unknown here may carry after its message.
const ERROR_TAIL: usize = 64;
/// Extents in one chunk of block status. Larger answers are refused; servers end their answer earlier.
const MAX_EXTENTS: usize = 1 << 20;

/// The payload length of `chunk`, where a chunk of its kind may have it in answer to such a request.
pub(super) fn checked_len(chunk: &Chunk, body: &Body, dialect: Dialect) -> Result<usize, ReplyError> {
    let bad_length = ReplyError::ChunkLength {
        kind: chunk.kind,
        len: chunk.len,
    };
    let len = usize::try_from(chunk.len).map_err(|_| bad_length.clone())?;
    let allowed = match (chunk.kind, body, dialect) {
        (wire::REPLY_NONE, ..) => len == 0 && chunk.done,
        (wire::REPLY_OFFSET_DATA, Body::Read { buf, .. }, _) => (9..=8 + buf.len()).contains(&len),
        (wire::REPLY_OFFSET_HOLE, Body::Read { .. }, _) => len == 12,
        (wire::REPLY_BLOCK_STATUS, Body::Status { .. }, Dialect::Structured) => {
            (12..=4 + 8 * MAX_EXTENTS).contains(&len) && (len - 4).is_multiple_of(8)
        }
        (wire::REPLY_BLOCK_STATUS_EXT, Body::Status { .. }, Dialect::Extended) => {
            (24..=8 + 16 * MAX_EXTENTS).contains(&len) && (len - 8).is_multiple_of(16)
        }
        (kind, ..) if is_error(kind) => {
            (ERROR_HEAD..=ERROR_HEAD + wire::MAX_STRING + ERROR_TAIL).contains(&len)
        }
        (kind, ..) => return Err(ReplyError::ChunkKind(kind)),
    };
    if allowed { Ok(len) } else { Err(bad_length) }
}

pub(super) fn is_error(kind: u16) -> bool {
    kind & (1 << 15) != 0
}

/// The error that a chunk of an error kind carries.
pub(super) fn error(kind: u16, payload: &[u8]) -> Result<RequestError, ReplyError> {
    let malformed = ReplyError::ErrorPayload;
    let errno = be32(payload, 0);
    let rest = &payload[ERROR_HEAD..];
    let (message, tail) = rest
        .split_at_checked(be16(payload, 4).into())
        .ok_or(malformed.clone())?;
    let tail_fits = match kind {
        wire::REPLY_ERROR => tail.is_empty(),
        wire::REPLY_ERROR_OFFSET => tail.len() == 8,
        _ => true,
    };
    if errno == 0 || !tail_fits {
        return Err(malformed);
    }
    Ok(RequestError::Refused {
        errno,
        message: String::from_utf8_lossy(message).into_owned(),
    })
}

/// The extents of a chunk of block status about `context`, cut to the `asked` bytes.
pub(super) fn extents(
    kind: u16,
    payload: &[u8],
    context: Option<u32>,
    asked: u64,
) -> Result<Vec<Extent>, ReplyError> {
    if context != Some(be32(payload, 0)) {
        return Err(ReplyError::Status("it is about a context that was not asked for"));
    }
    let runs: Vec<(u64, u64)> = if kind == wire::REPLY_BLOCK_STATUS_EXT {
        let runs = payload[8..]
            .chunks_exact(16)
            .map(|run| (be64(run, 0), be64(run, 8)));
        if u32::try_from(runs.len()) != Ok(be32(payload, 4)) {
            return Err(ReplyError::Status("it counts its extents wrongly"));
        }
        runs.collect()
    } else {
        payload[4..]
            .chunks_exact(8)
            .map(|run| (be32(run, 0).into(), be32(run, 4).into()))
            .collect()
    };
    let mut left = asked;
    let mut extents = Vec::with_capacity(runs.len());
    for (len, flags) in runs {
        if len == 0 || left == 0 {
            return Err(ReplyError::Status(
                "an extent is empty or lies outside the request",
            ));
        }
        let len = len.min(left);
        left -= len;
        let has = |flag: u32| flags & u64::from(flag) != 0;
        extents.push(Extent {
            len,
            hole: has(wire::STATE_HOLE),
            zero: has(wire::STATE_ZERO),
        });
    }
    Ok(extents)
}
