//! Rows of blocks that hold version numbers. A sum's block holds the versions of all data blocks of its line, so any one
//! tells what each of the others should be: as a real sum does, for as many as are missing, and strictly for the rest.

use super::super::units::MemberSet;
use super::device::{Device, SECTOR};

pub(super) const ROWS: usize = 3;
/// Lines of a row: a line is 512 bytes of every member.
pub(super) const LINES: usize = 3;

#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) members: usize,
    pub(super) sums: usize,
}

/// What a line's data blocks hold.
pub(super) type Line = Vec<u64>;

/// New content for some columns of some lines of one row.
pub(super) struct Change {
    pub(super) row: usize,
    pub(super) lines: std::ops::Range<usize>,
    pub(super) columns: Vec<usize>,
    pub(super) version: u64,
}

impl Shape {
    pub(super) fn columns(self) -> usize {
        self.members - self.sums
    }

    /// The data column that stands on a member, `None` for a sum.
    fn column_on(self, line: usize, member: usize) -> Option<usize> {
        let column = (member + line / LINES) % self.members;
        (column < self.columns()).then_some(column)
    }

    pub(super) fn block(self, line: usize, member: usize, content: &Line) -> Vec<u8> {
        let versions = match self.column_on(line, member) {
            Some(column) => &content[column..=column],
            None => content,
        };
        let mut block: Vec<u8> = versions
            .iter()
            .flat_map(|version| version.to_le_bytes())
            .collect();
        block.resize(SECTOR, 0);
        block
    }

    /// What a change writes on a member: nothing where it does not concern it.
    pub(super) fn part(self, change: &Change, member: usize, lines: &[Line]) -> Option<Vec<u8>> {
        match self.column_on(change.lines.start, member) {
            Some(column) if !change.columns.contains(&column) => None,
            _ => {
                let blocks = change.lines.clone();
                Some(
                    blocks
                        .flat_map(|line| self.block(line, member, &lines[line]))
                        .collect(),
                )
            }
        }
    }

    /// The content of a line by the blocks of `there`, which have to agree.
    pub(super) fn read(
        self,
        line: usize,
        data_start: u64,
        devices: &[Device],
        there: MemberSet,
    ) -> Result<Line, String> {
        let mut content = vec![None; self.columns()];
        for member in there.iter() {
            let block = devices[member].read(data_start + address(line), SECTOR);
            let versions = block
                .chunks_exact(8)
                .map(|word| u64::from_le_bytes(word.try_into().unwrap()));
            let first = self.column_on(line, member);
            let held = if first.is_some() { 1 } else { self.columns() };
            for (column, version) in (first.unwrap_or(0)..).zip(versions.take(held)) {
                let known = *content[column].get_or_insert(version);
                if known != version {
                    return Err(format!(
                        "line {line}: column {column} is {known} and {version} by {member}"
                    ));
                }
            }
        }
        content
            .into_iter()
            .collect::<Option<Line>>()
            .ok_or_else(|| format!("line {line}: more is missing than there are sums"))
    }
}

/// The member address of a line.
pub(super) fn address(line: usize) -> u64 {
    (line * SECTOR) as u64
}
