//! The slices of all RAID groups, taken all or nothing.

use std::collections::BTreeMap;

use crate::types::{EmulationType, GroupNumber, VolumeNumber};

use super::allocator::{Allocator, Taken};

/// One allocator per group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allocators(BTreeMap<GroupNumber, Allocator>);

/// Slices wanted from one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceRequest {
    pub group: GroupNumber,
    pub count: u64,
    /// Best right after this slice.
    pub after: Option<u32>,
}

/// A group that has too few free slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    pub group: GroupNumber,
    pub needed: u64,
    pub free: u32,
    /// Length of one, in bytes.
    pub slice: u64,
}

/// Why slices were not taken. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocatorsError {
    #[error("there is no RAID group {0}")]
    NoSuchGroup(GroupNumber),
    #[error("too few free logical devices: {}", listed(.0))]
    NoSpace(Vec<Shortage>),
}

fn listed(shortages: &[Shortage]) -> String {
    let one = |s: &Shortage| {
        format!(
            "RAID group {} lacks {} (needed {}, free {})",
            s.group,
            s.missing(),
            s.needed,
            s.free
        )
    };
    shortages.iter().map(one).collect::<Vec<_>>().join("; ")
}

impl Shortage {
    /// How many slices more would have been enough.
    pub fn missing(self) -> u64 {
        self.needed - u64::from(self.free)
    }
}

impl Allocators {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a group's slices; answers those it had under that number before.
    pub fn insert(&mut self, group: GroupNumber, allocator: Allocator) -> Option<Allocator> {
        self.0.insert(group, allocator)
    }

    pub fn remove(&mut self, group: GroupNumber) -> Option<Allocator> {
        self.0.remove(&group)
    }

    pub fn get(&self, group: GroupNumber) -> Option<&Allocator> {
        self.0.get(&group)
    }

    pub fn get_mut(&mut self, group: GroupNumber) -> Option<&mut Allocator> {
        self.0.get_mut(&group)
    }

    /// The allocator of a group that a request names.
    pub fn known(&self, group: GroupNumber) -> Result<&Allocator, AllocatorsError> {
        self.get(group).ok_or(AllocatorsError::NoSuchGroup(group))
    }

    pub fn iter(&self) -> impl Iterator<Item = (GroupNumber, &Allocator)> {
        self.0.iter().map(|(&group, allocator)| (group, allocator))
    }

    /// Takes what all `requests` ask for, one after the other, or nothing. Answers one list per request, each in the
    /// order in which its slices are to be used.
    pub fn take(
        &mut self,
        volume: VolumeNumber,
        emulation: EmulationType,
        requests: &[SliceRequest],
    ) -> Result<Vec<Vec<Taken>>, AllocatorsError> {
        self.check(requests)?;
        let take = |request: &SliceRequest| {
            let count = u32::try_from(request.count).ok()?;
            self.get_mut(request.group)?
                .take(volume, emulation, count, request.after)
        };
        Ok(requests
            .iter()
            .map(take)
            .map(|taken| taken.expect("every group was found to have enough"))
            .collect())
    }

    /// Whether all `requests` together can be met.
    fn check(&self, requests: &[SliceRequest]) -> Result<(), AllocatorsError> {
        let mut needs: BTreeMap<GroupNumber, u64> = BTreeMap::new();
        for request in requests {
            let needed = needs.entry(request.group).or_default();
            *needed = needed.saturating_add(request.count);
        }
        let mut shortages = Vec::new();
        for (group, needed) in needs {
            let allocator = self.known(group)?;
            let free = allocator.free_count();
            let slice = allocator.slice_length().bytes();
            if u64::from(free) < needed {
                shortages.push(Shortage {
                    group,
                    needed,
                    free,
                    slice,
                });
            }
        }
        if shortages.is_empty() {
            Ok(())
        } else {
            Err(AllocatorsError::NoSpace(shortages))
        }
    }

    /// Frees everything that a volume has in any group. Its space must be made *never written* before it is used
    /// again.
    pub fn free_all(&mut self, volume: VolumeNumber) -> Vec<(GroupNumber, Vec<super::Slices>)> {
        let freed = self
            .0
            .iter_mut()
            .map(|(&group, allocator)| (group, allocator.free_all(volume)));
        freed.filter(|(_, slices)| !slices.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logical_device::{SliceLength, Slices};
    use crate::types::geometry::OpenBlock;

    const OPEN: EmulationType = EmulationType::Open(OpenBlock::B4096);
    const VOLUME: VolumeNumber = VolumeNumber(7);

    fn two_groups() -> Allocators {
        let mut groups = Allocators::new();
        groups.insert(GroupNumber(0), Allocator::new(SliceLength::DEFAULT, 4));
        groups.insert(GroupNumber(1), Allocator::new(SliceLength::DEFAULT, 2));
        groups
    }

    fn want(group: u32, count: u64) -> SliceRequest {
        SliceRequest {
            group: GroupNumber(group),
            count,
            after: None,
        }
    }

    #[test]
    fn several_groups_give_what_all_requests_ask() {
        let mut groups = two_groups();
        let taken = groups
            .take(VOLUME, OPEN, &[want(0, 1), want(1, 2), want(0, 3)])
            .unwrap();
        let slices = |first, count| {
            vec![Taken {
                slices: Slices { first, count },
                needs_format: true,
            }]
        };
        assert_eq!(taken, [slices(0, 1), slices(0, 2), slices(1, 3)]);
        let freed = groups.free_all(VOLUME);
        assert_eq!(freed.len(), 2);
        assert_eq!(groups, two_groups());
    }

    #[test]
    fn a_shortage_names_every_group_that_lacks_slices_and_changes_nothing() {
        let mut groups = two_groups();
        let refusal = groups.take(
            VOLUME,
            OPEN,
            &[want(0, 3), want(0, 3), want(1, u64::MAX), want(1, 1)],
        );
        assert_eq!(
            refusal.unwrap_err().to_string(),
            "too few free logical devices: RAID group 0 lacks 2 (needed 6, free 4); \
             RAID group 1 lacks 18446744073709551613 (needed 18446744073709551615, free 2)"
        );
        assert_eq!(groups, two_groups());
    }

    #[test]
    fn an_unknown_group_is_refused_and_nothing_is_taken() {
        let mut groups = two_groups();
        let refusal = groups.take(VOLUME, OPEN, &[want(0, 1), want(9, 1)]);
        assert_eq!(refusal, Err(AllocatorsError::NoSuchGroup(GroupNumber(9))));
        assert_eq!(groups, two_groups());
    }
}
