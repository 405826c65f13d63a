//! The fault atlas: what may be hurt now, so that a failing run is always a bug.
//!
//! Invariants: of every group, members that hold everything between them are in sync, present and intact at any time. A disk is hurt only when
//! the program has dealt with the one hurt before, so that most holders of its metadata are well (R6). A group without
//! redundancy is never hurt; disks may only be missing at a start.

use super::device::SimDevice;
use super::dice::Dice;
use super::fault::Fault;
use super::shape::Level;
use super::world::GroupHealth;

/// How the program is, as far as it matters here.
pub struct Situation {
    pub groups: Vec<(Level, GroupHealth)>,
    /// Disks that hold its metadata.
    pub holders: Vec<usize>,
}

impl Situation {
    fn relies_on(&self, disk: usize) -> bool {
        let in_sync = |(_, group): &(Level, GroupHealth)| group.in_sync.contains(&disk);
        self.holders.contains(&disk) || self.groups.iter().any(in_sync)
    }

    /// Whether the program still relies on a disk that fails it.
    pub fn is_unnoticed(&self, disks: &[SimDevice]) -> bool {
        for disk in disks.iter().filter(|disk| !self.relies_on(disk.index())) {
            disk.noticed();
        }
        let unsettled = |(_, group): &(Level, GroupHealth)| group.serving && !group.settled;
        let failing = |disk: &SimDevice| disk.fails() && self.relies_on(disk.index());
        self.groups.iter().any(unsettled) || disks.iter().any(failing)
    }

    /// A fault for one member of one of the groups: the disk and what happens to it. `None` where none may be hurt.
    pub fn draw(&self, disks: &[SimDevice], dice: &mut Dice) -> Option<(usize, Fault)> {
        if self.is_unnoticed(disks) {
            return None;
        }
        let hurtable = |(level, group): &(Level, GroupHealth)| {
            let members = group.members.iter().copied();
            members
                .filter(|&disk| may_hurt(*level, group, disks, disk))
                .collect::<Vec<_>>()
        };
        let choices: Vec<usize> = self.groups.iter().flat_map(hurtable).collect();
        let fault = draw_fault(dice);
        (!choices.is_empty()).then(|| (dice.pick(&choices), fault))
    }
}

/// Whether `disk`, of a group in this state, may be hurt.
pub fn may_hurt(level: Level, group: &GroupHealth, disks: &[SimDevice], disk: usize) -> bool {
    let members = &group.members;
    let spared = |place: usize| {
        let member = members[place];
        member != disk && disks[member].intact() && group.in_sync.contains(&member)
    };
    group.serving && level.bears(members.len(), spared)
}

/// Whether `disk` may be missing at the next start of a group, of which `needed` may be in sync: never the only one
/// that is intact.
pub fn may_be_absent(needed: &[usize], disks: &[SimDevice], disk: usize) -> bool {
    !disks[disk].intact() || needed.iter().all(|&member| disks[member].intact())
}

fn draw_fault(dice: &mut Dice) -> Fault {
    let count = u32::try_from(dice.between(1..=4)).expect("small");
    dice.pick(&[
        Fault::Death,
        Fault::Death,
        Fault::Stall,
        Fault::Full,
        Fault::WriteErrors(count),
        Fault::FlushError,
        Fault::BadSectors(count),
        Fault::BadSectors(count),
        Fault::LostWrite,
        Fault::MisdirectedWrite,
        Fault::BitFlip,
        Fault::BitFlip,
    ])
}
