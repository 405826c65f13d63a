//! What is written down about a group: its shape, who belongs to it, who is in sync, and the line of descent of these
//! facts. It stands in the metadata and, for each member in sync, in that member's superblock.
//!
//! Invariant: every change of `status` makes a new `generation` and `id`, and is durable on all members that are in
//! sync afterwards, before anything relies on it. So whoever sees all members in sync of *some* record sees the newest.

use serde::{Deserialize, Serialize};

use super::checks::{self, checks_len};
use super::layout::Layout;
use super::parity;
use super::region_log::LogShape;
use crate::types::sealed::COUNTERS_END;
use crate::types::{ByteRange, CommitId, DeviceId, GroupId, GroupNumber, IdSource, LogicalDeviceNumber};

/// How many former memberships a record remembers, to recognise members that come back.
const HISTORY: usize = 256;
/// Most members of a group: bounds the superblock.
pub const MAX_MEMBERS: usize = 64;
/// Smallest granule, and most regions that a stored record may claim: they bound what is held in memory per group.
const SMALLEST_GRANULE: u64 = 4096;
const MOST_REGIONS: u64 = 1 << 20;
/// Longest stripe unit of a group with sums: its rows are held in memory.
const LONGEST_UNIT: u64 = 1 << 20;
/// Greatest capacity that a stored record may claim: the region log can number its blocks up to there.
const MOST_CAPACITY: u64 = 1 << 56;

/// Where a group's line of descent stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    pub generation: u64,
    pub id: CommitId,
}

/// Whether a member's content counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberStatus {
    /// Holds everything that was acknowledged.
    InSync,
    /// Missed writes: what it missed is marked in the region log of the members in sync.
    Out,
    /// Never held anything of this group, or its place was taken by another device: all written space is marked.
    Blank,
}

/// One member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    pub device: DeviceId,
    pub status: MemberStatus,
    /// The region log's place on the device; with sums the journal's behind it, and with checksums theirs behind that.
    pub log: ByteRange,
    /// Where the data begins on the device.
    pub data_start: u64,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    pub id: GroupId,
    pub number: GroupNumber,
    pub layout: Layout,
    /// Unit of *never written*: a power of two. With sums, bytes of each member.
    pub granule: u64,
    /// Unit of write intent: a multiple of `granule`, and like it bytes of each member with sums.
    pub region: u64,
    /// Length of a logical device.
    pub slice: u64,
    pub first_logical_device: LogicalDeviceNumber,
    /// Whether what the members hold has checksums.
    pub checksums: bool,
    pub members: Vec<MemberRecord>,
    pub membership: Membership,
    history: Vec<Membership>,
}

/// Everything that a new group is made of.
#[derive(Debug, Clone)]
pub struct NewGroup {
    pub id: GroupId,
    pub number: GroupNumber,
    pub layout: Layout,
    pub granule: u64,
    pub region: u64,
    pub slice: u64,
    pub first_logical_device: LogicalDeviceNumber,
    pub checksums: bool,
    pub members: Vec<MemberRecord>,
}

/// Bytes that a group needs on each member beside its data: the region log, with sums the journal, with checksums those.
pub fn log_len(layout: &Layout, granule: u64, region: u64, checksums: bool) -> u64 {
    let checks = if checksums { checks_len(layout) } else { 0 };
    LogShape::new(layout.known_space(), granule, region).len() + parity::journal_len(layout) + checks
}

impl GroupRecord {
    pub fn new(new: NewGroup, ids: &IdSource) -> Self {
        let NewGroup {
            id,
            number,
            layout,
            granule,
            region,
            slice,
            first_logical_device,
            checksums,
            members,
        } = new;
        let membership = Membership {
            generation: 1,
            id: CommitId::random(ids),
        };
        Self {
            id,
            number,
            layout,
            granule,
            region,
            slice,
            first_logical_device,
            checksums,
            members,
            membership,
            history: vec![membership],
        }
    }

    /// The record after `change`, one generation later.
    pub fn changed(&self, ids: &IdSource, change: impl FnOnce(&mut Vec<MemberRecord>)) -> Self {
        let mut next = self.clone();
        change(&mut next.members);
        next.membership = Membership {
            generation: self.membership.generation + 1,
            id: CommitId::random(ids),
        };
        if next.history.len() == HISTORY {
            next.history.remove(0);
        }
        next.history.push(next.membership);
        next
    }

    /// Whether `membership` is in this record's line of descent.
    pub fn descends_from(&self, membership: Membership) -> bool {
        self.history.contains(&membership)
    }

    pub fn member(&self, device: DeviceId) -> Option<usize> {
        self.members.iter().position(|member| member.device == device)
    }

    pub fn in_sync(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.members
            .iter()
            .filter(|member| member.status == MemberStatus::InSync)
            .map(|member| member.device)
    }

    /// Whether the numbers agree with each other and every member's areas lie within `payload` of its device, where
    /// that is known. A stored record is only a claim until this was asked: what serves a group relies on it.
    pub fn is_sound(&self, payload: impl Fn(DeviceId) -> Option<ByteRange>) -> bool {
        self.has_sound_shape()
            && self.members.iter().enumerate().all(|(index, member)| {
                let first = self.member(member.device) == Some(index);
                let data = ByteRange::new(member.data_start, self.layout.member_len);
                let apart = data.filter(|data| !data.overlaps(member.log));
                let within = |data| {
                    payload(member.device).is_none_or(|all| all.covers(data) && all.covers(member.log))
                };
                first && member.log.len() >= self.log_len() && apart.is_some_and(within)
            })
            && self.membership.generation < COUNTERS_END
            && self.history.len() <= HISTORY
    }

    fn has_sound_shape(&self) -> bool {
        let Layout {
            level,
            members,
            unit,
            member_len,
        } = self.layout;
        self.members.len() == members as usize
            && (level.min_members()..=MAX_MEMBERS).contains(&self.members.len())
            && self.members.len().is_multiple_of(level.member_step())
            && unit.is_power_of_two()
            && member_len > 0
            && member_len.is_multiple_of(unit)
            && member_len.checked_mul(u64::from(members)).is_some()
            && self.layout.capacity() <= MOST_CAPACITY
            && self.granule.is_power_of_two()
            && self.granule >= SMALLEST_GRANULE
            && self.region >= self.granule
            && self.region.is_multiple_of(self.granule)
            && self.layout.known_space().div_ceil(self.region) <= MOST_REGIONS
            && (level.sums() == 0 || self.has_sound_rows())
            && (!self.checksums || unit.is_multiple_of(checks::BLOCK))
            && self.slice > 0
    }

    /// Of a group with sums: rows that its journal and its updates can be of.
    fn has_sound_rows(&self) -> bool {
        let is_aligned = |at: u64| at.is_multiple_of(SMALLEST_GRANULE);
        let mut places = self.members.iter();
        self.layout.unit <= LONGEST_UNIT
            && self.layout.unit.is_multiple_of(self.granule)
            && places.all(|member| is_aligned(member.data_start) && is_aligned(member.log.start()))
    }

    pub(super) fn shape_of_log(&self) -> LogShape {
        LogShape::new(self.layout.known_space(), self.granule, self.region)
    }

    /// Where the checksums of a member stand on its device, where there are any.
    pub fn checksums_of(&self, member: usize) -> Option<ByteRange> {
        let end = self.members[member].log.start() + self.log_len();
        self.checksums
            .then(|| ByteRange::between(end - checks_len(&self.layout), end))
    }

    /// Where the data of a member stands on its device.
    pub fn data_of(&self, member: usize) -> ByteRange {
        let start = self.members[member].data_start;
        ByteRange::between(start, start + self.layout.member_len)
    }

    pub(super) fn log_len(&self) -> u64 {
        log_len(&self.layout, self.granule, self.region, self.checksums)
    }

    /// Slices that fit the group.
    pub fn slices(&self) -> u64 {
        self.layout.capacity() / self.slice
    }
}
