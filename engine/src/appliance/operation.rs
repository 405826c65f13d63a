//! Who asked for a change, and what the first answer was (R10).
//!
//! Invariants: the answer stands in the same commit as the change that it tells of, so that a retry after a crash finds
//! both or neither. The last [`KEPT`] answers are kept, and none grows with what was asked for: see
//! `docs/decisions/0008-answers-are-bounded.md`.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Appliance;
use super::error::VerbError;
use super::groups::Waste;
use super::records::Record;
use crate::map::Planned;
use crate::planted::{self, Planted};
use crate::types::{
    ByteRange, DeviceId, DeviceNumber, ExportId, GroupId, GroupNumber, OperationId, VolumeId, VolumeNumber,
};

/// How many answers are kept.
const KEPT: usize = 1024;

/// A device that was added or has come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMade {
    pub number: DeviceNumber,
    pub id: DeviceId,
}

/// A group that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMade {
    pub number: GroupNumber,
    pub id: GroupId,
    pub waste: Vec<Waste>,
}

/// A volume that was given space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMade {
    pub number: VolumeNumber,
    pub id: VolumeId,
    /// What hosts can reach now and could not before: in order, ranges that touch are one. The first
    /// [`LISTED`](Self::LISTED) of them; the volume's map tells all.
    pub mapped: Vec<ByteRange>,
    /// Placements, by their place in the request, of which a part lies in an earlier one's rounding. The first
    /// [`LISTED`](Self::LISTED) of them; a preview tells all.
    pub trimmed: Vec<u32>,
}

impl VolumeMade {
    /// Most entries of a list: an answer is kept, and its retry gets the same.
    pub const LISTED: usize = 4096;

    pub(super) fn new(number: VolumeNumber, id: VolumeId, planned: &Planned) -> Self {
        Self {
            number,
            id,
            mapped: planned.mapped.iter().take(Self::LISTED).collect(),
            trimmed: planned.trimmed().take(Self::LISTED).collect(),
        }
    }
}

/// An export that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportMade {
    pub id: ExportId,
}

/// The answer to a verb. The order of the variants is part of the format of the metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Device(DeviceMade),
    Group(GroupMade),
    Volume(VolumeMade),
    Export(ExportMade),
    Done,
}

/// What verbs answer: one kind of [`Answer`].
pub(super) trait Made: Clone {
    fn into_answer(self) -> Answer;
    /// `None` where the answer is of another kind.
    fn from_answer(answer: Answer) -> Option<Self>;
}

macro_rules! made {
    ($($variant:ident $made:ty),*) => {
        $(impl Made for $made {
            fn into_answer(self) -> Answer {
                Answer::$variant(self)
            }

            fn from_answer(answer: Answer) -> Option<Self> {
                match answer {
                    Answer::$variant(made) => Some(made),
                    _ => None,
                }
            }
        })*
    };
}

made!(Device DeviceMade, Group GroupMade, Volume VolumeMade, Export ExportMade);

impl Made for () {
    fn into_answer(self) -> Answer {
        Answer::Done
    }

    fn from_answer(answer: Answer) -> Option<Self> {
        (answer == Answer::Done).then_some(())
    }
}

/// The last answers, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers(VecDeque<(OperationId, Answer)>);

impl Answers {
    pub(super) fn note(&mut self, operation: OperationId, answer: Answer) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((operation, answer));
    }

    pub fn get(&self, operation: OperationId) -> Option<&Answer> {
        let found = self.0.iter().find(|(known, _)| *known == operation);
        found.map(|(_, answer)| answer)
    }

    /// The one that was done last.
    pub(super) fn newest(&self) -> Option<OperationId> {
        self.0.back().map(|(operation, _)| *operation)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(OperationId, Answer)> {
        self.0.iter()
    }
}

/// The record of an answer.
pub(super) fn answered(operation: OperationId, made: &impl Made) -> Record {
    let answer = made.clone().into_answer();
    Record::Answered { operation, answer }
}

impl Appliance {
    /// The answer that this operation got, where it was done and is not too long ago.
    pub async fn answered(&self, operation: OperationId) -> Option<Answer> {
        let known = self
            .ledger
            .store
            .read(|truth| truth.answers.get(operation).cloned());
        known.await
    }

    /// The operation that was done last.
    pub async fn newest_operation(&self) -> Option<OperationId> {
        self.ledger.store.read(|truth| truth.answers.newest()).await
    }

    /// Runs a verb when no other one runs: once, for an operation that is known gets its first answer. The verb itself
    /// stores its answer together with what it changes.
    pub(super) async fn once<A: Made>(
        &self,
        operation: OperationId,
        verb: impl AsyncFnOnce() -> Result<A, VerbError>,
    ) -> Result<A, VerbError> {
        let _turn = self.turn.lock().await;
        if let Some(answer) = self.answered(operation).await
            && !planted::is(Planted::RepeatVerbs)
        {
            self.ledger.store.check_taken().await?;
            return A::from_answer(answer).ok_or(VerbError::OperationReused(operation));
        }
        let before = self.ledger.store.check_usable().await;
        let done = verb().await;
        self.watch.look();
        match (done, before) {
            (Err(VerbError::Store(_) | VerbError::Membership(_)), Err(unusable)) => {
                Err(VerbError::MetadataUnavailable(unusable))
            }
            (done, _) => done,
        }
    }

    /// Whether a change can be made durable at all.
    pub async fn check_changeable(&self) -> Result<(), VerbError> {
        let usable = self.ledger.store.check_usable().await;
        usable.map_err(VerbError::MetadataUnavailable)
    }
}
