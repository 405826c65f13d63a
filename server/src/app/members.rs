//! Members of RAID groups and their spares, as the contract has them.

use ashlar_engine::appliance::{Appliance, DeviceState, GroupStatus, Health, SpareFor};
use ashlar_engine::raid::membership::Serving;
use ashlar_engine::raid::{Level, MemberStatus};
use ashlar_openapi::Natural;
use ashlar_openapi::raid_groups::{GroupSpare, Member, MemberCondition, MemberHolds};

use super::devices::{count, errors, member_state};

/// The spares of a group: its own first.
pub(super) async fn spares(appliance: &Appliance, status: &GroupStatus) -> Vec<GroupSpare> {
    let mut found = Vec::new();
    for (device, spare) in &status.spares {
        if let Some(state) = appliance.find_device(*device).await {
            found.push(GroupSpare {
                device: device.0,
                device_number: Natural(state.record.number.0),
                shared: *spare == SpareFor::All,
            });
        }
    }
    found.sort_by_key(|spare| (spare.shared, spare.device_number.0));
    found
}

/// The members of a group in the order of their roles, with what is known of their devices.
pub(super) fn view(status: &GroupStatus, devices: &[Option<DeviceState>]) -> Vec<Member> {
    let record = &status.record;
    let member = |(role, member): (usize, &ashlar_engine::raid::MemberRecord)| {
        let device = devices.get(role).and_then(Option::as_ref);
        let serving = status.serving.get(role).copied().unwrap_or(Serving::Out);
        Member {
            role: count(role),
            holds: holds(record.layout.level, role, record.members.len()),
            device: member.device.0,
            device_number: device.map(|device| Natural(device.record.number.0)),
            state: member_state(member.status),
            serving: serving != Serving::Out && member.status == MemberStatus::InSync,
            condition: condition(serving, device),
            errors: device.map(|device| errors(device.errors)).unwrap_or_default(),
        }
    };
    record.members.iter().enumerate().map(member).collect()
}

fn holds(level: Level, role: usize, members: usize) -> MemberHolds {
    match level {
        Level::Raid1 | Level::Raid10 => MemberHolds::Copy,
        Level::Raid3 if role + 1 == members => MemberHolds::Parity,
        Level::Raid0 | Level::Raid3 => MemberHolds::Data,
        Level::Raid5 | Level::Raid6 => MemberHolds::Rotating,
    }
}

fn condition(serving: Serving, device: Option<&DeviceState>) -> MemberCondition {
    let health = device.map_or(Health::Healthy, |device| device.health);
    let failed = device.is_some_and(|device| device.failure.is_some());
    match serving {
        // Its group notices with the next operation.
        _ if failed => MemberCondition::Failed,
        Serving::InSync if health == Health::Suspect => MemberCondition::Suspect,
        Serving::InSync => MemberCondition::InSync,
        Serving::Joining => MemberCondition::Rebuilding,
        Serving::Out => MemberCondition::Missing,
    }
}
