//! One entry of a volume's map.
//!
//! Invariant: neither end overflows `u64` and `len` is not 0 ([`Run::is_sound`]; a map accepts no other).

use serde::{Deserialize, Serialize};

use crate::types::{ByteRange, GroupNumber};

/// `len` bytes of a volume from `volume_start`, which lie in `group` from `group_start` on. All in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub volume_start: u64,
    pub len: u64,
    pub group: GroupNumber,
    pub group_start: u64,
}

impl Run {
    pub fn is_sound(self) -> bool {
        self.len > 0
            && self.volume_start.checked_add(self.len).is_some()
            && self.group_start.checked_add(self.len).is_some()
    }

    /// The run's addresses in the volume.
    pub fn volume_range(self) -> ByteRange {
        ByteRange::between(self.volume_start, self.volume_start + self.len)
    }

    /// The run's addresses in its group.
    pub fn group_range(self) -> ByteRange {
        ByteRange::between(self.group_start, self.group_start + self.len)
    }

    /// Whether `next` goes on where this run ends, in the volume and in the group.
    pub fn continues_with(self, next: Self) -> bool {
        self.group == next.group
            && self.volume_range().end() == next.volume_start
            && self.group_range().end() == next.group_start
    }

    /// The part of the run that maps addresses of `range`.
    pub fn within(self, range: ByteRange) -> Option<Self> {
        let part = self.volume_range().intersection(range)?;
        let group_start = self.group_start + (part.start() - self.volume_start);
        Some(Self {
            volume_start: part.start(),
            len: part.len(),
            group: self.group,
            group_start,
        })
    }
}
