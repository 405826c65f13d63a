//! Where a group address lies on the members: pure arithmetic.
//!
//! ```text
//! level 0, 3 members, unit u      level 1, 2 copies      level 10, 4 members, unit u
//!   m0   m1   m2                    m0   m1                m0   m1   m2   m3
//!   0    1    2                     0    0                 0    0    1    1
//!   3    4    5                     1    1                 2    2    3    3
//! ```

use serde::{Deserialize, Serialize};

use crate::types::ByteRange;

/// A RAID level. The order is part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Level {
    /// Stripes, no redundancy. One member: a plain disk.
    Raid0,
    /// Every member holds everything.
    Raid1,
    /// Stripes over pairs of members that hold the same.
    Raid10,
}

/// Members of a pair at level 10.
const PAIR: usize = 2;

impl Level {
    /// Fewest members.
    pub fn min_members(self) -> usize {
        match self {
            Self::Raid0 => 1,
            Self::Raid1 => 2,
            Self::Raid10 => 2 * PAIR,
        }
    }

    /// The number of members is a multiple of this.
    pub fn member_step(self) -> usize {
        match self {
            Self::Raid0 | Self::Raid1 => 1,
            Self::Raid10 => PAIR,
        }
    }

    /// Whether a block stands on more than one member.
    pub fn is_redundant(self) -> bool {
        self != Self::Raid0
    }
}

/// A part of a request that lies on one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Group addresses.
    pub range: ByteRange,
    /// First member of the column; its copies are the [`Layout::copies`] members from here.
    pub first_member: usize,
    /// Address on each of them, from the start of its data area.
    pub member_at: u64,
}

/// The shape of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    pub level: Level,
    pub members: u32,
    /// Stripe unit in bytes; without stripes the whole member is one unit.
    pub unit: u64,
    /// Bytes of each member that carry data: a multiple of `unit`.
    pub member_len: u64,
}

impl Layout {
    /// Members that hold the same bytes.
    pub fn copies(&self) -> usize {
        match self.level {
            Level::Raid0 => 1,
            Level::Raid1 => self.members as usize,
            Level::Raid10 => PAIR,
        }
    }

    fn columns(&self) -> u64 {
        u64::from(self.members) / self.copies() as u64
    }

    /// Whether members that are `there` hold everything between them.
    pub fn is_complete(&self, there: impl Fn(usize) -> bool) -> bool {
        let members = 0..self.members as usize;
        members
            .step_by(self.copies())
            .all(|first| self.column_members(first).any(&there))
    }

    /// Bytes of the group's address space.
    pub fn capacity(&self) -> u64 {
        self.member_len * self.columns()
    }

    /// The members that hold copies of the column that begins with `first_member`.
    pub fn column_members(&self, first_member: usize) -> std::ops::Range<usize> {
        first_member..first_member + self.copies()
    }

    /// The parts of `range` on their columns, in address order. Allocates nothing.
    pub fn pieces(&self, range: ByteRange) -> impl Iterator<Item = Piece> + use<> {
        let layout = *self;
        let columns = layout.columns();
        let unit = if columns == 1 { u64::MAX } else { layout.unit };
        range.split_at_multiples(unit).map(move |range| {
            if columns == 1 {
                return Piece {
                    range,
                    first_member: 0,
                    member_at: range.start(),
                };
            }
            let number = range.start() / unit;
            let column =
                usize::try_from(number % columns).expect("a column number is below the member count");
            Piece {
                range,
                first_member: column * layout.copies(),
                member_at: number / columns * unit + range.start() % unit,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn layouts() -> impl Strategy<Value = Layout> {
        let level = prop_oneof![Just(Level::Raid0), Just(Level::Raid1), Just(Level::Raid10)];
        (level, 0u32..5, 1u64..5, 1u64..6).prop_map(|(level, more, unit, rows)| {
            let [least, step] =
                [level.min_members(), level.member_step()].map(|it| u32::try_from(it).unwrap());
            let members = least + more * step;
            Layout {
                level,
                members,
                unit,
                member_len: unit * rows,
            }
        })
    }

    proptest! {
        #[test]
        fn every_address_has_its_own_place_and_every_place_an_address(layout in layouts()) {
            let mut places = BTreeMap::new();
            let whole = ByteRange::new(0, layout.capacity()).unwrap();
            for piece in layout.pieces(whole) {
                for offset in 0..piece.range.len() {
                    for member in layout.column_members(piece.first_member) {
                        let place = (member, piece.member_at + offset);
                        prop_assert!(place.1 < layout.member_len);
                        prop_assert_eq!(places.insert(place, piece.range.start() + offset), None);
                    }
                }
            }
            prop_assert_eq!(places.len() as u64, u64::from(layout.members) * layout.member_len);
        }

        #[test]
        fn members_are_enough_if_and_only_if_every_address_is_on_one_of_them(layout in layouts(), there: [bool; 16]) {
            let whole = ByteRange::new(0, layout.capacity()).unwrap();
            let all = layout
                .pieces(whole)
                .all(|piece| layout.column_members(piece.first_member).any(|member| there[member]));
            prop_assert_eq!(layout.is_complete(|member| there[member]), all);
        }

        #[test]
        fn a_part_of_a_range_lies_where_the_whole_puts_it(layout in layouts(), start in 0u64..40, len in 1u64..40) {
            let capacity = layout.capacity();
            let start = start % capacity;
            let range = ByteRange::between(start, (start + len).min(capacity));
            let mut at = range.start();
            for piece in layout.pieces(range) {
                prop_assert_eq!(piece.range.start(), at);
                at = piece.range.end();
                let byte = ByteRange::new(piece.range.end() - 1, 1).unwrap();
                let alone = layout.pieces(byte).next().unwrap();
                prop_assert_eq!(alone.first_member, piece.first_member);
                prop_assert_eq!(alone.member_at, piece.member_at + piece.range.len() - 1);
            }
            prop_assert_eq!(at, range.end());
        }
    }
}
