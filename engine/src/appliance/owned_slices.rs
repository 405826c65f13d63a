//! Whose the slices of every group are, as the metadata tells: also those of groups that wait.
//!
//! Kept as runs, by group and first slice; what is in no run is free. The runs are a claim: a group may have fewer
//! slices, and runs that contradict each other may overlap.

use std::collections::BTreeMap;

use super::records::GroupSlices;
use crate::logical_device::Slices;
use crate::types::{GroupNumber, VolumeNumber};

/// To whom slices belong that are not free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Volume(VolumeNumber),
    /// Nobody any more; their content is not gone yet.
    Clearing,
}

/// The owner of every slice that is not free.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnedSlices(BTreeMap<(GroupNumber, u32), (u32, Owner)>);

impl OwnedSlices {
    pub fn set(&mut self, owned: GroupSlices, owner: Owner) {
        if owned.slices.count > 0 {
            let key = (owned.group, owned.slices.first);
            self.0.insert(key, (owned.slices.count, owner));
        }
    }

    /// These slices, as they were given, are free.
    pub fn free(&mut self, owned: GroupSlices) {
        self.0.remove(&(owned.group, owned.slices.first));
    }

    pub fn remove_group(&mut self, group: GroupNumber) {
        let gone = self.0.range((group, 0)..=(group, u32::MAX));
        let gone: Vec<_> = gone.map(|(key, _)| *key).collect();
        for key in gone {
            self.0.remove(&key);
        }
    }

    /// Slices `from` up to `end` of a group as runs of one owner each, free ones (`None`) included, in order.
    pub fn runs(
        &self,
        group: GroupNumber,
        from: u32,
        end: u32,
    ) -> impl Iterator<Item = (Slices, Option<Owner>)> {
        let before = self.0.range((group, 0)..(group, from)).next_back();
        let mut rest = before
            .into_iter()
            .chain(self.0.range((group, from)..=(group, u32::MAX)))
            .map(move |(&(_, first), &(count, owner))| (first, first.saturating_add(count).min(end), owner))
            .peekable();
        let mut at = from;
        std::iter::from_fn(move || {
            while rest.next_if(|(_, run_end, _)| *run_end <= at).is_some() {}
            if at >= end {
                return None;
            }
            let (run_end, owner) = match rest.peek() {
                Some((first, run_end, owner)) if *first <= at => (*run_end, Some(*owner)),
                Some((first, ..)) => ((*first).min(end), None),
                None => (end, None),
            };
            let slices = Slices::between(at, run_end);
            at = run_end;
            Some((slices, owner))
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = (GroupSlices, Owner)> {
        self.0.iter().map(|(&(group, first), &(count, owner))| {
            let slices = Slices { first, count };
            (GroupSlices { group, slices }, owner)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_agree_with_an_owner_per_slice_also_where_they_contradict_each_other(
            runs in proptest::collection::vec((0u32..40, 0u32..10, 0u32..3), 0..12),
            from in 0u32..40,
            end in 0u32..40,
            disjoint in any::<bool>(),
        ) {
            let group = GroupNumber(1);
            let mut owned = OwnedSlices::default();
            let mut oracle = [None; 60];
            for (first, count, volume) in runs {
                let (slices, volume) = (Slices { first, count }, VolumeNumber(volume));
                let places = first as usize..slices.end() as usize;
                if disjoint && oracle[places.clone()].iter().any(Option::is_some) {
                    continue;
                }
                owned.set(GroupSlices { group, slices }, Owner::Volume(volume));
                owned.set(GroupSlices { group: GroupNumber(0), slices }, Owner::Clearing);
                oracle[places].fill(Some(Owner::Volume(volume)));
            }
            let mut at = from;
            for (slices, owner) in owned.runs(group, from, end) {
                prop_assert!(slices.first == at && slices.count > 0);
                at = slices.end();
                if disjoint {
                    prop_assert!(oracle[slices.first as usize..at as usize].iter().all(|o| *o == owner));
                }
            }
            prop_assert_eq!(at, from.max(end));
        }
    }
}
