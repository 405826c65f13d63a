//! Frames of the metadata log: what they say and how they stand on a device.
//!
//! A frame is a sealed record padded with zeros to whole [`FRAME_UNIT`]s, so that no write of one frame touches
//! another's sectors. A head (of a snapshot or a commit) carries the line of descent and the log that it stands in;
//! records follow in the same body.

use std::collections::VecDeque;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::io::{BufSlice, IoBuf};
use crate::types::sealed::{self, COUNTERS_END, Kind};
use crate::types::{CommitId, DeviceId, LogId};

/// Frames begin and end at multiples of this.
pub(super) const FRAME_UNIT: u64 = 4096;
pub(super) const KIND: Kind = Kind {
    magic: *b"ASHLRmet",
    version: 1,
};
/// How many ancestors a snapshot names. A copy that is older than that cannot be told from a foreign one.
const HISTORY: usize = 1024;

/// A place in the line of descent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tip {
    pub generation: u64,
    pub id: CommitId,
}

/// The last commits, newest last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct History(VecDeque<Tip>);

impl History {
    pub(super) fn push(&mut self, tip: Tip) {
        while self.0.len() >= HISTORY {
            self.0.pop_front();
        }
        self.0.push_back(tip);
    }

    /// Whether `tip` is in the line of descent; `None` where it is too old to tell.
    pub(super) fn contains(&self, tip: Tip) -> Option<bool> {
        let oldest = self.0.front()?;
        if tip.generation < oldest.generation {
            return None;
        }
        Some(self.0.contains(&tip))
    }
}

/// The holders from a commit on. It is acknowledged only once half of both lists have it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Named {
    pub(super) holders: Vec<DeviceId>,
    /// The holders that its parent named.
    pub(super) before: Vec<DeviceId>,
}

/// A commit, the same for every holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Commit {
    pub(super) tip: Tip,
    pub(super) parent: CommitId,
    pub(super) named: Named,
}

/// What a frame is; its records follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Head {
    /// The first frame of a snapshot of the state at `tip`.
    SnapshotStart {
        log: LogId,
        tip: Tip,
        named: Named,
        history: History,
    },
    SnapshotPart {
        tip: Tip,
        number: u32,
    },
    /// Makes the snapshot valid: it has so many parts.
    SnapshotEnd {
        tip: Tip,
        parts: u32,
    },
    /// Counts only in the log that it was written to: what an earlier use of the half left is none of it.
    Commit {
        log: LogId,
        commit: Commit,
    },
}

/// A frame ready to be written.
pub(super) fn encode<R: Serialize>(head: &Head, records: &[R]) -> BufSlice {
    let sealed = sealed::seal(KIND, &(head, records));
    let padded = u64::try_from(sealed.len())
        .expect("fits memory")
        .next_multiple_of(FRAME_UNIT);
    let mut buf = IoBuf::new(usize::try_from(padded).expect("fits memory"));
    let (body, rest) = buf.as_mut_slice().split_at_mut(sealed.len());
    body.copy_from_slice(&sealed);
    rest.fill(0);
    buf.into_slice()
}

impl Commit {
    pub(super) fn follows(&self, tip: Tip) -> bool {
        self.parent == tip.id && self.tip.generation == tip.generation + 1
    }
}

impl Head {
    fn tip(&self) -> Tip {
        match self {
            Self::SnapshotStart { tip, .. }
            | Self::SnapshotPart { tip, .. }
            | Self::SnapshotEnd { tip, .. } => *tip,
            Self::Commit { commit, .. } => commit.tip,
        }
    }
}

/// The head of a checked body, and the undecoded records behind it.
pub(super) fn decode_head(body: &[u8]) -> Option<(Head, &[u8])> {
    let (head, records): (Head, _) = postcard::take_from_bytes(body).ok()?;
    (head.tip().generation < COUNTERS_END).then_some((head, records))
}

pub(super) fn decode_records<R: DeserializeOwned>(bytes: &[u8]) -> Option<Vec<R>> {
    postcard::from_bytes(bytes).ok()
}
