//! Which copy of the metadata counts when an appliance starts (R6).
//!
//! Pure but for the scan: given the copies that were found, the newest is the one with the highest generation whose
//! line of descent contains every other. It has a quorum where more than half of the holders that it names are there.
//! A commit that a crash left on so few holders that nobody can have relied on it is a *stray*, not a divergence:
//! its holder simply gets the newest copy. A *damaged* copy has commits that cannot be reached. Where the newest copy has
//! them too it is merely outdated; otherwise there is no quorum, for they may have been acknowledged.

use std::sync::Arc;

use super::area::{self, Scanned};
use super::frame::{Named, Tip};
use crate::device::{DeviceError, DeviceHandle};
use crate::types::{ByteRange, DeviceId};

/// A device that may hold a copy, after it was looked at.
#[derive(Debug, Clone)]
pub struct HolderCopy {
    pub device: Arc<DeviceHandle>,
    /// The device's metadata area.
    pub area: ByteRange,
    pub(super) scanned: Option<Scanned>,
}

impl HolderCopy {
    pub async fn read(device: Arc<DeviceHandle>, area: ByteRange) -> Result<Self, DeviceError> {
        let scanned = area::scan(&device, area).await?;
        Ok(Self {
            device,
            area,
            scanned,
        })
    }

    /// The newest commit that the device holds and that can be reached.
    pub fn tip(&self) -> Option<Tip> {
        self.scanned.as_ref().map(|scanned| scanned.tip)
    }

    /// Whether commits stand behind the newest that can be reached.
    pub fn is_damaged(&self) -> bool {
        let hidden = self.scanned.as_ref().map(|scanned| &scanned.beyond);
        hidden.is_some_and(Option::is_some)
    }
}

/// The outcome of looking at all copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elected {
    /// Whose copy counts: an index into the copies.
    pub newest: usize,
    pub tip: Tip,
    /// The holders that the newest commit names.
    pub named: Vec<DeviceId>,
    /// More than half of the named holders are there, none diverged, and nothing is lost to damage.
    pub quorum: bool,
    /// Named, but not there.
    pub missing: Vec<DeviceId>,
    /// There, but not in the newest copy's line of descent.
    pub diverged: Vec<DeviceId>,
    /// There, but damaged, with newer commits that the newest readable copy lacks.
    pub damaged: Vec<DeviceId>,
}

/// Chooses the copy that counts; `None` where no device holds one. With `prefer`, that device's copy counts, whatever
/// the others say: the user's word after a divergence.
pub fn elect(copies: &[HolderCopy], prefer: Option<DeviceId>) -> Option<Elected> {
    let held: Vec<Held<'_>> = copies
        .iter()
        .enumerate()
        .filter_map(|(index, copy)| {
            Some(Held {
                index,
                id: copy.device.id(),
                scanned: copy.scanned.as_ref()?,
            })
        })
        .collect();
    held.iter()
        .map(|candidate| (judge(candidate, &held), candidate))
        .max_by_key(|(elected, candidate)| {
            (
                prefer == Some(candidate.id),
                elected.quorum,
                elected.diverged.is_empty(),
                elected.damaged.is_empty(),
                elected.tip.generation,
                candidate.scanned.beyond.is_none(),
            )
        })
        .map(|(elected, _)| elected)
}

struct Held<'a> {
    index: usize,
    id: DeviceId,
    scanned: &'a Scanned,
}

impl Held<'_> {
    fn has(&self, tip: Tip) -> bool {
        self.scanned.history.contains(tip) == Some(true)
    }

    /// The newest commit, also where it cannot be reached.
    fn last(&self) -> Tip {
        let hidden = self.scanned.beyond.as_ref();
        hidden.map_or(self.scanned.tip, |beyond| beyond.tip)
    }

    fn lacks(&self, tip: Tip) -> bool {
        self.scanned.history.contains(tip) == Some(false)
    }
}

/// Whether anybody can have relied on a commit that `candidate` lacks and that is the last one of the copies that are
/// there and have it. Holders that are there prove that nobody did; one that is there several times is one, for copies of
/// a disk prove nothing.
///
/// It was acknowledged only where every holder that it names had it (one that fails is first named no more), and half of
/// those that its parent named. It was built on, by a start or by the next commit, only where at least half of the
/// holders that it names got more: those that are there and end with it, or lack it, did not.
fn may_be_relied_on(tip: Tip, named: &Named, candidate: &Held<'_>, all: &[Held<'_>]) -> bool {
    let Named { holders, before } = named;
    // A damaged one proves something only where it is known to have gone the candidate's way.
    let is_without = |other: &Held<'_>| {
        let hidden = other.scanned.beyond.as_ref();
        !other.has(tip) && hidden.is_none_or(|beyond| candidate.has(beyond.tip))
    };
    let is_last = |other: &Held<'_>| other.last() == tip;
    let count = |list: &[DeviceId], is_so: &dyn Fn(&Held<'_>) -> bool| {
        let holds = |id: &&DeviceId| all.iter().any(|other| other.id == **id && is_so(other));
        list.iter().filter(holds).count()
    };
    let acknowledged = count(holders, &is_without) == 0 && count(before, &is_without) * 2 <= before.len();
    let stopped = count(holders, &|other| is_without(other) || is_last(other));
    acknowledged || stopped * 2 <= holders.len()
}

/// What it would mean if `candidate` counted.
fn judge(candidate: &Held<'_>, all: &[Held<'_>]) -> Elected {
    let Scanned {
        tip,
        named: Named { holders: named, .. },
        ..
    } = candidate.scanned;
    let diverged: Vec<DeviceId> = all
        .iter()
        .filter(|other| candidate.lacks(other.scanned.tip))
        .filter(|other| may_be_relied_on(other.scanned.tip, &other.scanned.named, candidate, all))
        .map(|other| other.id)
        .collect();
    let hides_more = |other: &&Held<'_>| {
        let hidden = other.scanned.beyond.as_ref();
        hidden.is_some_and(|beyond| {
            candidate.lacks(beyond.tip) && may_be_relied_on(beyond.tip, &beyond.named, candidate, all)
        })
    };
    let damaged: Vec<DeviceId> = all.iter().filter(hides_more).map(|other| other.id).collect();
    let missing: Vec<DeviceId> = named
        .iter()
        .filter(|named| !all.iter().any(|held| held.id == **named))
        .copied()
        .collect();
    let majority = (named.len() - missing.len()) * 2 > named.len();
    Elected {
        newest: candidate.index,
        tip: *tip,
        named: named.clone(),
        quorum: majority && diverged.is_empty() && damaged.is_empty(),
        missing,
        diverged,
        damaged,
    }
}
