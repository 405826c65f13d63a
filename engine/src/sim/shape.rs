//! What a run begins with: disks, RAID groups on them, volumes.

use super::dice::Dice;
use super::image::Background;
use crate::types::ByteRange;

/// One simulated disk.
#[derive(Debug, Clone, Copy)]
pub struct DiskShape {
    /// Bytes.
    pub capacity: u64,
    /// 512 or 4096.
    pub block: u32,
    /// How many operations in a hundred are answered at once.
    pub inline_percent: u64,
    pub zeroes_fast: bool,
    pub volatile_cache: bool,
    pub background: Background,
    /// Where silent faults may strike: what the program checks and has elsewhere too.
    pub checked: Option<ByteRange>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// RAID 0.
    Stripe,
    /// RAID 1.
    Mirror,
    /// RAID 10: pairs, in the order of the members.
    StripedMirrors,
    /// RAID 3.
    SumOnOne,
    /// RAID 5.
    Sum,
    /// RAID 6.
    TwoSums,
}

impl Level {
    /// Whether nothing is lost where of so many members only those `there` are left.
    pub fn bears(self, members: usize, there: impl Fn(usize) -> bool) -> bool {
        let mut all = 0..members;
        match self {
            Self::Stripe => all.all(there),
            Self::Mirror => all.any(there),
            Self::StripedMirrors => all.step_by(2).all(|first| there(first) || there(first + 1)),
            Self::SumOnOne | Self::Sum => all.filter(|&member| !there(member)).count() <= 1,
            Self::TwoSums => all.filter(|&member| !there(member)).count() <= 2,
        }
    }
}

#[derive(Debug, Clone)]
pub struct GroupShape {
    pub level: Level,
    /// Indexes of disks.
    pub members: Vec<usize>,
    /// Bytes; of stripes.
    pub stripe_unit: u64,
    pub checksums: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct VolumeShape {
    /// Index of its group.
    pub group: usize,
    /// Bytes.
    pub capacity: u64,
    /// 512 or 4096.
    pub block: u32,
}

#[derive(Debug, Clone)]
pub struct Shape {
    /// Those in no group are spares.
    pub disks: Vec<DiskShape>,
    pub groups: Vec<GroupShape>,
    /// Bytes of a logical device.
    pub slice: u64,
    pub volumes: Vec<VolumeShape>,
    /// Whether members may fail within redundancy while the program runs.
    pub faults: bool,
    /// Whether disks may be missing at a start.
    pub absences: bool,
}

/// Bytes of a logical device in every random shape: the smallest there is, so that volumes have many edges.
const SLICE: u64 = 1 << 20;

impl Shape {
    /// A shape of one to three groups. Each disk has `reserved` bytes more than its share of logical devices, and
    /// silent faults may strike in its `checked` range.
    pub fn random(dice: &mut Dice, reserved: u64, checked: Option<ByteRange>) -> Self {
        let mut shape = Self::empty();
        for _ in 0..dice.pick(&[1, 1, 1, 2, 3]) {
            let level = dice.pick(&[
                Level::Mirror,
                Level::Mirror,
                Level::Stripe,
                Level::StripedMirrors,
                Level::SumOnOne,
                Level::Sum,
                Level::Sum,
                Level::TwoSums,
                Level::TwoSums,
            ]);
            let members = match level {
                Level::Mirror => dice.pick(&[2, 2, 2, 3, 3, 4]),
                Level::Stripe => dice.pick(&[1, 2, 3]),
                Level::StripedMirrors => dice.pick(&[4, 4, 6]),
                Level::SumOnOne | Level::Sum => dice.pick(&[3, 3, 4, 5]),
                Level::TwoSums => dice.pick(&[4, 4, 5, 6]),
            };
            shape.add_group(dice, level, members, reserved, checked);
        }
        for _ in 0..dice.below(3) {
            let slices = dice.between(4..=8);
            shape
                .disks
                .push(disk(dice, 4096, reserved + slices * SLICE, checked));
        }
        shape
    }

    /// One mirror of `copies` disks and nothing else; disks may be missing at a start, and no other fault.
    pub fn mirror(dice: &mut Dice, copies: usize, reserved: u64) -> Self {
        let mut shape = Self::empty();
        shape.add_group(dice, Level::Mirror, copies, reserved, None);
        Self {
            faults: false,
            ..shape
        }
    }

    fn empty() -> Self {
        let (disks, groups, volumes) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            disks,
            groups,
            slice: SLICE,
            volumes,
            faults: true,
            absences: true,
        }
    }

    fn add_group(
        &mut self,
        dice: &mut Dice,
        level: Level,
        members: usize,
        reserved: u64,
        checked: Option<ByteRange>,
    ) {
        let first = self.disks.len();
        let slices = dice.between(4..=8);
        let block = dice.pick(&[512, 512, 4096]);
        for _ in 0..members {
            let extra = if dice.chance(20) { SLICE / 2 } else { 0 };
            self.disks
                .push(disk(dice, block, reserved + slices * SLICE + extra, checked));
        }
        let group = self.groups.len();
        let stripe_unit = dice.pick(&[4096, 65536]);
        self.groups.push(GroupShape {
            level,
            members: (first..first + members).collect(),
            stripe_unit,
            checksums: dice.chance(70),
        });
        for _ in 0..dice.between(1..=2) {
            let capacity = dice.between(1..=2 * SLICE / 4096) * 4096;
            let volume_block = if block == 4096 {
                4096
            } else {
                dice.pick(&[512, 4096])
            };
            self.volumes.push(VolumeShape {
                group,
                capacity,
                block: volume_block,
            });
        }
    }
}

fn disk(dice: &mut Dice, block: u32, capacity: u64, checked: Option<ByteRange>) -> DiskShape {
    DiskShape {
        capacity,
        block,
        inline_percent: dice.pick(&[0, 0, 0, 30, 100]),
        zeroes_fast: dice.chance(60),
        volatile_cache: dice.chance(85),
        background: if dice.chance(60) {
            Background::Garbage(dice.number())
        } else {
            Background::Zeros
        },
        checked,
    }
}
