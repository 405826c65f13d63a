//! The fault atlas: what may be hurt now, so that a failing run is always a bug.
//!
//! Invariants: of every group at least one member is in sync, present and intact at any time. A group without
//! redundancy is never hurt; disks may only be missing at a start.

use super::device::SimDevice;
use super::dice::Dice;
use super::fault::Fault;
use super::shape::Level;
use super::world::GroupHealth;

/// Whether `disk`, of a group in this state, may be hurt or taken away.
pub fn may_hurt(level: Level, group: &GroupHealth, disks: &[SimDevice], disk: usize) -> bool {
    let spared = |&&member: &&usize| member != disk && disks[member].intact();
    level == Level::Mirror && group.serving && group.in_sync.iter().filter(spared).count() > 0
}

/// Whether `disk` may be missing at the next start of a group, of which `needed` may be in sync: never the only one
/// that is intact.
pub fn may_be_absent(needed: &[usize], disks: &[SimDevice], disk: usize) -> bool {
    !disks[disk].intact() || needed.iter().all(|&member| disks[member].intact())
}

/// A fault for one member of one of the groups; `None` where none may be hurt.
pub fn draw(
    groups: &[(Level, GroupHealth)],
    disks: &[SimDevice],
    dice: &mut Dice,
) -> Option<(usize, usize, Fault)> {
    let mut choices = Vec::new();
    for (number, (level, group)) in groups.iter().enumerate() {
        for &member in &group.members {
            if !group.in_sync.contains(&member) {
                disks[member].noticed();
            }
            if may_hurt(*level, group, disks, member) {
                choices.push((number, member));
            }
        }
    }
    if choices.is_empty() {
        return None;
    }
    let (group, member) = dice.pick(&choices);
    Some((group, member, draw_fault(dice)))
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
    ])
}
