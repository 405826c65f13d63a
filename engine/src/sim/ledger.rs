//! Which volumes there must be, from life to life, with their oracles.
//!
//! Invariants: a volume that was made is there after every start that can see its group, until its deletion begins;
//! one whose deletion was answered never comes back; a creation that a crash cut off has happened once or not at all, and
//! when it is asked for again, it is that volume that is answered, or a first one is made.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::medium::CrashKind;
use super::oracle::Oracle;
use super::world::OpenVolume;
use crate::export::Target;
use crate::types::VolumeId;

/// What is known of one volume.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Number in this run.
    pub number: u32,
    pub oracle: Rc<RefCell<Oracle>>,
    group: usize,
    deleting: bool,
    /// Bytes it has at least.
    capacity: u64,
}

#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<VolumeId, Entry>,
    /// Creations begun and not answered, by group.
    creating: BTreeMap<usize, usize>,
    /// Volumes that such creations have made, by group.
    unanswered: BTreeMap<usize, BTreeSet<VolumeId>>,
    next: u32,
}

impl Ledger {
    /// The volumes that were made before the first life.
    pub fn adopt<T: Target>(&mut self, made: &[OpenVolume<T>]) {
        for volume in made {
            self.add(volume.id, volume.group, volume.target.info().capacity);
        }
    }

    pub fn begin_create(&mut self, group: usize) {
        *self.creating.entry(group).or_default() += 1;
    }

    /// The creation was answered: with an id, or refused.
    ///
    /// # Panics
    /// Where a volume was made and another one, or none, is answered.
    pub fn end_create(&mut self, group: usize, made: Option<(VolumeId, u64)>) {
        let begun = self.creating.get_mut(&group).filter(|count| **count > 0);
        let begun = begun.expect("a creation ends once");
        *begun -= 1;
        let begun = *begun;
        let unanswered = self.unanswered.entry(group).or_default();
        let is_new = made.filter(|(id, _)| !unanswered.remove(id));
        assert!(unanswered.len() <= begun, "made and not answered: {unanswered:?}");
        if let Some((id, capacity)) = is_new {
            self.add(id, group, capacity);
        }
    }

    pub fn begin_delete(&mut self, id: VolumeId) {
        // It is not known any more where a deletion is asked for again.
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.deleting = true;
        }
    }

    pub fn end_delete(&mut self, id: VolumeId) {
        self.entries.remove(&id);
    }

    pub fn grown(&mut self, id: VolumeId, capacity: u64) {
        let entry = self.entries.get_mut(&id).expect("a known volume grows");
        entry.capacity = entry.capacity.max(capacity);
    }

    pub fn get(&self, id: VolumeId) -> Entry {
        self.entries[&id].clone()
    }

    pub fn crash(&self, kind: CrashKind) {
        for entry in self.entries.values() {
            entry.oracle.borrow_mut().crash(kind);
        }
    }

    /// Compares what there is after a start with what must be. `serving` tells which groups can be seen.
    ///
    /// # Panics
    /// Where a volume is missing, has come back, is too small, or was made twice.
    pub fn reconcile<T: Target>(&mut self, found: &[OpenVolume<T>], serving: &[bool]) {
        for volume in found {
            let capacity = volume.target.info().capacity;
            if let Some(entry) = self.entries.get_mut(&volume.id) {
                assert!(
                    capacity >= entry.capacity,
                    "{} shrank to {capacity}: {entry:?}",
                    volume.id
                );
                entry.capacity = capacity;
                entry.deleting = false;
                continue;
            }
            let begun = self.creating.get(&volume.group).copied().unwrap_or(0);
            let unanswered = self.unanswered.entry(volume.group).or_default();
            unanswered.insert(volume.id);
            assert!(unanswered.len() <= begun, "{} is of nobody's making", volume.id);
            self.add(volume.id, volume.group, capacity);
        }
        self.entries.retain(|id, entry| {
            let there = found.iter().any(|volume| volume.id == *id);
            assert!(
                there || entry.deleting || !serving[entry.group],
                "{id} is missing: {entry:?}"
            );
            there || !entry.deleting || !serving[entry.group]
        });
    }

    fn add(&mut self, id: VolumeId, group: usize, capacity: u64) {
        let oracle = Rc::new(RefCell::new(Oracle::new(self.next)));
        let entry = Entry {
            number: self.next,
            oracle,
            group,
            deleting: false,
            capacity,
        };
        assert!(self.entries.insert(id, entry).is_none(), "{id} was made twice");
        self.next += 1;
    }
}
