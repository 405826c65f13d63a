//! Which slices of one RAID group are free, whose the others are, and what they are formatted for.
//!
//! Invariants ([`Allocator::invariant`]): every slice is free or belongs to exactly one volume; `free_runs` lists the
//! free runs and nothing else; a slice in use is formatted for its volume's type. All is kept as runs, so it grows with
//! fragmentation, not with the number of slices.
//!
//! A freed slice loses its format: whoever takes it next formats it, and so never shows its old content.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::types::{EmulationType, VolumeNumber};

use super::run_map::RunMap;
use super::slices::{SliceLength, Slices};

/// The slices of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocator {
    slice: SliceLength,
    owners: RunMap<Option<VolumeNumber>>,
    formats: RunMap<Option<EmulationType>>,
    /// Count and first slice of every free run: ordered for best fit, lowest first among equals.
    free_runs: BTreeSet<(u32, u32)>,
    free: u32,
}

/// A run of slices that are alike: the durable form of an [`Allocator`] is these, in order, without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceState {
    pub slices: Slices,
    /// `None`: free.
    pub owner: Option<VolumeNumber>,
    /// `None`: to be formatted before use, whatever for.
    pub formatted_for: Option<EmulationType>,
}

/// Slices that were just taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub slices: Slices,
    /// They are not formatted for the type they were taken for; the taker does it before use.
    pub needs_format: bool,
}

/// A request that does not fit the slices' state. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    #[error("slices {slices} reach beyond the group's {total}")]
    OutOfBounds { slices: Slices, total: u32 },
    #[error("slices {slices} are not all in use by volume {volume}")]
    NotOwned { slices: Slices, volume: VolumeNumber },
    #[error("slices {slices} are not all free")]
    InUse { slices: Slices },
    #[error("stored slices {slices} do not follow slice {expected}")]
    NotInOrder { slices: Slices, expected: u32 },
    #[error("stored slices {slices} are in use by volume {volume} but not formatted")]
    Unformatted { slices: Slices, volume: VolumeNumber },
}

impl Allocator {
    /// A new group: all slices free, none formatted.
    pub fn new(slice: SliceLength, total: u32) -> Self {
        let mut free_runs = BTreeSet::new();
        if total > 0 {
            free_runs.insert((total, 0));
        }
        Self {
            slice,
            owners: RunMap::new(total, None),
            formats: RunMap::new(total, None),
            free_runs,
            free: total,
        }
    }

    /// A group as its stored `states` tell: in order, without gaps, up to its last slice.
    pub fn restore(slice: SliceLength, states: &[SliceState]) -> Result<Self, SliceError> {
        let mut total = 0u32;
        for &SliceState {
            slices,
            owner,
            formatted_for,
        } in states
        {
            if let (Some(volume), None) = (owner, formatted_for) {
                return Err(SliceError::Unformatted { slices, volume });
            }
            let end = slices.checked_end().filter(|_| slices.first == total);
            total = end.ok_or(SliceError::NotInOrder {
                slices,
                expected: total,
            })?;
        }
        let owners = RunMap::from_runs(states.iter().map(|state| (state.slices, state.owner)));
        let formats = RunMap::from_runs(states.iter().map(|state| (state.slices, state.formatted_for)));
        let free_runs: BTreeSet<(u32, u32)> = free_runs(&owners).collect();
        Ok(Self {
            slice,
            owners,
            formats,
            free: free_runs.iter().map(|(count, _)| count).sum(),
            free_runs,
        })
    }

    /// The durable form: runs of slices with equal owner and format, in order, without gaps.
    pub fn states(&self) -> impl Iterator<Item = SliceState> {
        self.owners.iter().flat_map(|(run, owner)| {
            self.formats
                .within(run)
                .map(move |(slices, formatted_for)| SliceState {
                    slices,
                    owner,
                    formatted_for,
                })
        })
    }

    pub fn slice_length(&self) -> SliceLength {
        self.slice
    }

    pub fn total(&self) -> u32 {
        self.owners.total()
    }

    pub fn free_count(&self) -> u32 {
        self.free
    }

    /// Whose this slice is; `None` where it is free or not there.
    pub fn owner(&self, slice: u32) -> Option<VolumeNumber> {
        self.owners.run_at(slice).and_then(|(_, owner)| owner)
    }

    /// The slices of a volume, in order.
    pub fn owned_by(&self, volume: VolumeNumber) -> impl Iterator<Item = Slices> {
        self.owners
            .iter()
            .filter(move |(_, owner)| *owner == Some(volume))
            .map(|(slices, _)| slices)
    }

    /// Free slices that are not formatted for `emulation`: the work of a formatting job.
    pub fn to_format(&self, emulation: EmulationType) -> impl Iterator<Item = Slices> {
        let unlike =
            move |state: &SliceState| state.owner.is_none() && state.formatted_for != Some(emulation);
        self.states().filter(unlike).map(|state| state.slices)
    }

    /// Notes that free slices were formatted ahead of time.
    pub fn set_formatted(&mut self, slices: Slices, emulation: EmulationType) -> Result<(), SliceError> {
        self.check(slices)?;
        if self.owners.within(slices).any(|(_, owner)| owner.is_some()) {
            return Err(SliceError::InUse { slices });
        }
        self.formats.set(slices, Some(emulation));
        Ok(())
    }

    /// Takes `count` slices for a volume, in as few runs as possible: first those right after slice `after`, then the
    /// smallest free run that holds all the rest, else the largest runs first. They come in the order in which they
    /// are to be used. `None`, and nothing changed, where fewer are free.
    pub fn take(
        &mut self,
        volume: VolumeNumber,
        emulation: EmulationType,
        count: u32,
        after: Option<u32>,
    ) -> Option<Vec<Taken>> {
        let mut missing = count;
        let mut taken = Vec::new();
        if self.free < count {
            return None;
        }
        if let Some(next) = after.and_then(|after| after.checked_add(1))
            && let Some((run, None)) = self.owners.run_at(next)
        {
            let slices = Slices {
                first: next,
                count: missing.min(run.end() - next),
            };
            self.claim(slices, volume, emulation, &mut taken);
            missing -= slices.count;
        }
        while missing > 0 {
            let slices = self
                .best_run(missing)
                .expect("free slices are listed in free_runs");
            self.claim(slices, volume, emulation, &mut taken);
            missing -= slices.count;
        }
        Some(taken)
    }

    /// Frees slices of a volume. Their space must be made *never written* before it is used again.
    pub fn free(&mut self, volume: VolumeNumber, slices: Slices) -> Result<(), SliceError> {
        self.check(slices)?;
        if self.owners.within(slices).any(|(_, owner)| owner != Some(volume)) {
            return Err(SliceError::NotOwned { slices, volume });
        }
        self.release(slices);
        Ok(())
    }

    /// Frees everything that a volume has here, and answers what that was.
    pub fn free_all(&mut self, volume: VolumeNumber) -> Vec<Slices> {
        let owned: Vec<Slices> = self.owned_by(volume).collect();
        for slices in &owned {
            self.release(*slices);
        }
        owned
    }

    /// Whether all is as the module's text says. Always true; tests ask after every step.
    pub fn invariant(&self) -> bool {
        let free: BTreeSet<(u32, u32)> = free_runs(&self.owners).collect();
        let counted: u32 = free.iter().map(|(count, _)| count).sum();
        let formatted = self
            .states()
            .all(|state| state.owner.is_none() || state.formatted_for.is_some());
        self.owners.invariant()
            && self.formats.invariant()
            && formatted
            && free == self.free_runs
            && counted == self.free
    }

    fn check(&self, slices: Slices) -> Result<(), SliceError> {
        let total = self.total();
        match slices.checked_end() {
            Some(end) if end <= total => Ok(()),
            _ => Err(SliceError::OutOfBounds { slices, total }),
        }
    }

    /// The smallest free run that holds `count` slices, cut to it; else the largest one.
    fn best_run(&self, count: u32) -> Option<Slices> {
        let fitting = self.free_runs.range((count, 0)..).next();
        let largest = || {
            let (longest, _) = self.free_runs.last()?;
            self.free_runs.range((*longest, 0)..).next()
        };
        let (len, first) = fitting.or_else(largest)?;
        Some(Slices {
            first: *first,
            count: count.min(*len),
        })
    }

    fn claim(
        &mut self,
        slices: Slices,
        volume: VolumeNumber,
        emulation: EmulationType,
        taken: &mut Vec<Taken>,
    ) {
        if slices.count == 0 {
            return;
        }
        for (slices, format) in self.formats.within(slices) {
            let needs_format = format != Some(emulation);
            match taken.last_mut() {
                Some(last) if last.slices.end() == slices.first && last.needs_format == needs_format => {
                    last.slices.count += slices.count;
                }
                _ => taken.push(Taken { slices, needs_format }),
            }
        }
        self.use_up(slices);
        self.owners.set(slices, Some(volume));
        self.formats.set(slices, Some(emulation));
    }

    /// Takes `slices`, which lie in one free run, out of the list of free runs.
    fn use_up(&mut self, slices: Slices) {
        let Some((run, None)) = self.owners.run_at(slices.first) else {
            return;
        };
        self.free_runs.remove(&(run.count, run.first));
        for left in [
            Slices::between(run.first, slices.first),
            Slices::between(slices.end(), run.end()),
        ] {
            if left.count > 0 {
                self.free_runs.insert((left.count, left.first));
            }
        }
        self.free -= slices.count;
    }

    /// Makes `slices`, which are in use, free and unformatted.
    fn release(&mut self, slices: Slices) {
        if slices.count == 0 {
            return;
        }
        let neighbours = [slices.first.checked_sub(1), Some(slices.end())];
        for (run, owner) in neighbours
            .into_iter()
            .flatten()
            .filter_map(|at| self.owners.run_at(at))
        {
            if owner.is_none() {
                self.free_runs.remove(&(run.count, run.first));
            }
        }
        self.owners.set(slices, None);
        self.formats.set(slices, None);
        let (run, _) = self
            .owners
            .run_at(slices.first)
            .expect("the slices were just in use");
        self.free_runs.insert((run.count, run.first));
        self.free += slices.count;
    }
}

/// Count and first slice of every free run.
fn free_runs(owners: &RunMap<Option<VolumeNumber>>) -> impl Iterator<Item = (u32, u32)> {
    let free = owners.iter().filter(|(_, owner)| owner.is_none());
    free.map(|(run, _)| (run.count, run.first))
}

#[cfg(test)]
mod tests;
