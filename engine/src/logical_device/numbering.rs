//! Logical device numbers: serial in the appliance, arithmetic to translate.
//!
//! Invariants ([`Numbering::invariant`]): every group owns one contiguous range of numbers, from its first slice on;
//! ranges of two groups never overlap and never reach beyond `u32`. A new group takes the lowest contiguous range that
//! is free; a deleted group's range is free again. Translation costs O(log groups).

use std::collections::BTreeMap;

use crate::types::{GroupNumber, LogicalDeviceNumber};

use super::slices::Slices;

/// Which numbers belong to which group.
#[derive(Debug, Clone, Default)]
pub struct Numbering {
    /// First number → the group and how many numbers it owns (at least one).
    by_first: BTreeMap<u32, (GroupNumber, u32)>,
    by_group: BTreeMap<GroupNumber, u32>,
}

/// Why a group cannot have numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NumberingError {
    #[error("RAID group {0} already has logical devices")]
    Known(GroupNumber),
    #[error("RAID group {0} has no room for a single logical device")]
    NoSlices(GroupNumber),
    #[error("no {count} adjacent logical device numbers are free")]
    Exhausted { count: u32 },
    #[error("logical devices {numbers} of RAID group {group} overlap those of RAID group {other}")]
    Overlap {
        group: GroupNumber,
        numbers: Slices,
        other: GroupNumber,
    },
}

impl Numbering {
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a new group the lowest free range of `count` numbers; answers its first number.
    pub fn add(&mut self, group: GroupNumber, count: u32) -> Result<LogicalDeviceNumber, NumberingError> {
        let mut first = 0u32;
        for (&taken, &(_, len)) in &self.by_first {
            if taken - first >= count {
                break;
            }
            first = taken + len;
        }
        self.restore(group, LogicalDeviceNumber(first), count)?;
        Ok(LogicalDeviceNumber(first))
    }

    /// Gives a group the range that it had before a restart.
    pub fn restore(
        &mut self,
        group: GroupNumber,
        first: LogicalDeviceNumber,
        count: u32,
    ) -> Result<(), NumberingError> {
        let numbers = Slices {
            first: first.0,
            count,
        };
        if self.by_group.contains_key(&group) {
            return Err(NumberingError::Known(group));
        }
        if count == 0 {
            return Err(NumberingError::NoSlices(group));
        }
        let end = numbers.checked_end().ok_or(NumberingError::Exhausted { count })?;
        if let Some((&other_first, &(other, other_count))) = self.by_first.range(..end).next_back()
            && other_first + other_count > first.0
        {
            return Err(NumberingError::Overlap {
                group,
                numbers,
                other,
            });
        }
        self.by_first.insert(first.0, (group, count));
        self.by_group.insert(group, first.0);
        Ok(())
    }

    /// Frees the numbers of a deleted group; one without numbers is no matter.
    pub fn remove(&mut self, group: GroupNumber) {
        if let Some(first) = self.by_group.remove(&group) {
            self.by_first.remove(&first);
        }
    }

    /// The first number of a group.
    pub fn first(&self, group: GroupNumber) -> Option<LogicalDeviceNumber> {
        self.by_group.get(&group).map(|first| LogicalDeviceNumber(*first))
    }

    /// The number of a group's slice; `None` where there is no such group or slice.
    pub fn number(&self, group: GroupNumber, slice: u32) -> Option<LogicalDeviceNumber> {
        let first = *self.by_group.get(&group)?;
        let (_, count) = self.by_first.get(&first)?;
        (slice < *count).then(|| LogicalDeviceNumber(first + slice))
    }

    /// The group and slice of a number; `None` where no group owns it.
    pub fn locate(&self, number: LogicalDeviceNumber) -> Option<(GroupNumber, u32)> {
        let (&first, &(group, count)) = self.by_first.range(..=number.0).next_back()?;
        let slice = number.0 - first;
        (slice < count).then_some((group, slice))
    }

    /// Whether both indexes agree and no number has two owners. Always true; tests ask after every step.
    pub fn invariant(&self) -> bool {
        let ends = self
            .by_first
            .iter()
            .map(|(first, (_, count))| first.checked_add(*count));
        let apart = ends
            .zip(self.by_first.keys().skip(1))
            .all(|(end, next)| end.is_some_and(|end| end <= *next));
        let indexed = self
            .by_first
            .iter()
            .all(|(first, (group, _))| self.by_group.get(group) == Some(first));
        apart && indexed && self.by_first.len() == self.by_group.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_new_group_takes_the_lowest_range_that_is_long_enough() {
        let mut numbering = Numbering::new();
        assert_eq!(numbering.add(GroupNumber(0), 10), Ok(LogicalDeviceNumber(0)));
        assert_eq!(numbering.add(GroupNumber(1), 5), Ok(LogicalDeviceNumber(10)));
        numbering.remove(GroupNumber(0));
        assert_eq!(numbering.add(GroupNumber(2), 11), Ok(LogicalDeviceNumber(15)));
        assert_eq!(numbering.add(GroupNumber(3), 10), Ok(LogicalDeviceNumber(0)));
    }

    #[test]
    fn groups_that_cannot_have_numbers_are_refused() {
        let mut numbering = Numbering::new();
        numbering.add(GroupNumber(0), 10).unwrap();
        assert_eq!(
            numbering.add(GroupNumber(0), 1),
            Err(NumberingError::Known(GroupNumber(0)))
        );
        assert_eq!(
            numbering.add(GroupNumber(1), 0),
            Err(NumberingError::NoSlices(GroupNumber(1)))
        );
        assert_eq!(
            numbering.add(GroupNumber(1), u32::MAX),
            Err(NumberingError::Exhausted { count: u32::MAX })
        );
        assert!(matches!(
            numbering.restore(GroupNumber(1), LogicalDeviceNumber(9), 5),
            Err(NumberingError::Overlap {
                other: GroupNumber(0),
                ..
            })
        ));
        assert!(numbering.invariant());
    }

    proptest! {
        #[test]
        fn numbers_and_slices_translate_into_each_other(
            steps in proptest::collection::vec((0u32..6, 0u32..8, any::<bool>()), 1..30),
        ) {
            let mut numbering = Numbering::new();
            let mut counts = BTreeMap::new();
            for (group, count, add) in steps {
                let group = GroupNumber(group);
                if !add {
                    numbering.remove(group);
                    counts.remove(&group);
                } else if numbering.add(group, count).is_ok() {
                    counts.insert(group, count);
                }
                prop_assert!(numbering.invariant());
            }
            let mut owned = 0;
            for (&group, &count) in &counts {
                for slice in 0..count {
                    let number = numbering.number(group, slice).unwrap();
                    prop_assert_eq!(numbering.locate(number), Some((group, slice)));
                    owned += 1;
                }
                prop_assert_eq!(numbering.number(group, count), None);
            }
            let located = (0..100).filter(|n| numbering.locate(LogicalDeviceNumber(*n)).is_some()).count();
            prop_assert_eq!(located, owned);
        }
    }
}
