//! Where a group address lies on the members: pure arithmetic.
//!
//! ```text
//! level 0, 3 members, unit u      level 1, 2 copies      level 10, 4 members, unit u
//!   m0   m1   m2                    m0   m1                m0   m1   m2   m3
//!   0    1    2                     0    0                 0    0    1    1
//!   3    4    5                     1    1                 2    2    3    3
//!
//! level 3, 4 members              level 5, 4 members              level 6, 5 members
//!   m0   m1   m2   m3               m0   m1   m2   m3               m0   m1   m2   m3   m4
//!   0    1    2    P                0    1    2    P                1    2    P    Q    0
//!   3    4    5    P                4    5    P    3                ...
//!   6    7    8    P                8    P    6    7
//! ```
//! A *row* is one unit on every member, at the same place. Its *columns* are numbered: those of data first, then P, then
//! Q. From row to row they move on by a member (but at level 3), so that sums and data are spread evenly; the columns of a
//! row follow each other, so that reading on from address to address asks all members in turn.

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
    /// Stripes and their sum, always on the last member.
    Raid3,
    /// Stripes and their sum, on each member in turn.
    Raid5,
    /// Stripes and two sums.
    Raid6,
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
            Self::Raid3 | Self::Raid5 => 3,
            Self::Raid6 => 4,
        }
    }

    /// Columns of each row that are computed from the others.
    pub fn sums(self) -> usize {
        match self {
            Self::Raid0 | Self::Raid1 | Self::Raid10 => 0,
            Self::Raid3 | Self::Raid5 => 1,
            Self::Raid6 => 2,
        }
    }

    /// The number of members is a multiple of this.
    pub fn member_step(self) -> usize {
        match self {
            Self::Raid10 => PAIR,
            _ => 1,
        }
    }

    /// Whether a block can be had though its member is missing.
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

impl Piece {
    /// The addresses on each of them.
    pub fn member_range(&self) -> ByteRange {
        ByteRange::between(self.member_at, self.member_at + self.range.len())
    }
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
            Level::Raid1 => self.members as usize,
            Level::Raid10 => PAIR,
            _ => 1,
        }
    }

    pub fn sums(&self) -> usize {
        self.level.sums()
    }

    /// Columns of data.
    pub fn columns(&self) -> u64 {
        u64::from(self.members) / self.copies() as u64 - self.sums() as u64
    }

    /// Addresses of the group in one row.
    pub fn row_len(&self) -> u64 {
        self.unit * self.columns()
    }

    /// Where what is known of the group's space is kept by: addresses of the group, or with sums those of its members.
    pub fn known_space(&self) -> u64 {
        if self.sums() > 0 {
            self.member_len
        } else {
            self.capacity()
        }
    }

    /// The member with column 0 of a row; those that follow have the next ones, and the first ones follow on the last.
    fn first_of_row(&self, row: u64) -> u64 {
        let members = u64::from(self.members);
        match self.level {
            Level::Raid5 | Level::Raid6 => (members - row % members + self.sums() as u64 - 1) % members,
            _ => 0,
        }
    }

    /// The member with a column of a row; of several with the same, the first.
    pub fn member_of(&self, row: u64, column: usize) -> usize {
        let at = self.first_of_row(row) + column as u64 * self.copies() as u64;
        member_number(at % u64::from(self.members))
    }

    /// The column of a row that a member has, with sums.
    pub fn column_of(&self, row: u64, member: usize) -> usize {
        let members = u64::from(self.members);
        member_number((member as u64 + members - self.first_of_row(row)) % members)
    }

    /// Whether members that are `there` hold everything between them.
    pub fn is_complete(&self, there: impl Fn(usize) -> bool) -> bool {
        let members = 0..self.members as usize;
        if self.sums() > 0 {
            return members.filter(|&member| !there(member)).count() <= self.sums();
        }
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
            let row = number / columns;
            Piece {
                range,
                first_member: layout.member_of(row, member_number(number % columns)),
                member_at: row * unit + range.start() % unit,
            }
        })
    }
}

fn member_number(number: u64) -> usize {
    usize::try_from(number).expect("below the member count")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn layouts() -> impl Strategy<Value = Layout> {
        let level = proptest::sample::select(vec![
            Level::Raid0,
            Level::Raid1,
            Level::Raid10,
            Level::Raid3,
            Level::Raid5,
            Level::Raid6,
        ]);
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
            let sums = layout.sums();
            let data = usize::try_from(layout.columns()).unwrap();
            for row in 0..layout.member_len / layout.unit {
                for sum in data..data + sums {
                    let member = layout.member_of(row, sum);
                    for offset in row * layout.unit..(row + 1) * layout.unit {
                        prop_assert_eq!(places.insert((member, offset), u64::MAX), None);
                    }
                }
            }
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
            let lost = |piece: &Piece| !layout.column_members(piece.first_member).any(|member| there[member]);
            let missing = (0..layout.members as usize).filter(|&member| !there[member]).count();
            let all = match layout.sums() {
                0 => !layout.pieces(whole).any(|piece| lost(&piece)),
                sums => missing <= sums,
            };
            prop_assert_eq!(layout.is_complete(|member| there[member]), all);
        }

        #[test]
        fn a_member_has_one_column_of_each_row_and_every_column_equally_often(layout in layouts()) {
            prop_assume!(layout.sums() > 0);
            let members = layout.members as usize;
            let mut sums = vec![0; members];
            for row in 0..u64::from(layout.members) {
                for column in 0..members {
                    let member = layout.member_of(row, column);
                    prop_assert_eq!(layout.column_of(row, member), column);
                    sums[member] += usize::from(column as u64 >= layout.columns());
                }
            }
            if layout.level != Level::Raid3 {
                prop_assert_eq!(sums, vec![layout.sums(); members]);
            }
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
