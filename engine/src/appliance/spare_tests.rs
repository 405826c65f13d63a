use std::time::Duration;

use super::records::{Record, Truth};
use super::tests::{Bench, GROUP, device_id, group, run};
use super::*;
use crate::device::memory::MemoryDevice;
use crate::event::EventKind;
use crate::metadata::State as _;
use crate::raid::{GroupState, Level, MemberStatus};
use crate::types::DeviceNumber;
use uuid::Uuid;

pub(super) const OTHER: GroupId = GroupId(Uuid::from_u128(0x9001));

pub(super) async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

pub(super) async fn mark(bench: &Bench, appliance: &Appliance, device: usize, spare: SpareFor) {
    let marked = appliance.set_spare(bench.op(), device_id(device), Some(spare));
    marked.await.unwrap();
}

/// The devices of a group, and how their contents count.
pub(super) async fn members(appliance: &Appliance, id: GroupId) -> Vec<(DeviceId, MemberStatus)> {
    let record = appliance.find_group(id).await.unwrap().record;
    let members = record.members.iter();
    members.map(|member| (member.device, member.status)).collect()
}

pub(super) async fn state_of(appliance: &Appliance, id: GroupId) -> Option<GroupState> {
    appliance.find_group(id).await.unwrap().state
}

pub(super) async fn spare_of(appliance: &Appliance, device: usize) -> Option<SpareFor> {
    appliance.find_device(device_id(device)).await.unwrap().spare
}

pub(super) fn told(appliance: &Appliance) -> Vec<EventKind> {
    let (events, _) = appliance.events().since(0);
    events.into_iter().map(|event| event.kind).collect()
}

/// Why no spare fitted, as it was told.
pub(super) fn told_why(appliance: &Appliance) -> Vec<String> {
    let why = |kind| match kind {
        EventKind::NoSpareFits { why, .. } => Some(why),
        _ => None,
    };
    told(appliance).into_iter().filter_map(why).collect()
}

/// A mirror of devices 2 and 3 beside the usual one.
pub(super) async fn second_mirror(bench: &Bench, appliance: &Appliance) {
    let request = NewGroupRequest {
        id: Some(OTHER),
        members: vec![device_id(2), device_id(3)],
        ..group(Level::Raid1, 0)
    };
    appliance.create_group(bench.op(), &request).await.unwrap();
}

#[test]
fn only_a_free_device_that_is_there_and_fits_becomes_a_spare() {
    run(async {
        let mut bench = Bench::new(2);
        bench.devices.push(MemoryDevice::new(32 << 20));
        bench.devices.push(MemoryDevice::new(24 << 20));
        bench.devices.push(MemoryDevice::with_block(32 << 20, 4096));
        let appliance = bench.create(Level::Raid1, 2).await;
        let ask = async |device, spare| appliance.set_spare(bench.op(), device, Some(spare)).await;
        let own = SpareFor::Group(GROUP);
        let refused = ask(device_id(0), own).await;
        assert!(matches!(
            refused,
            Err(VerbError::DeviceInUse {
                device: DeviceNumber(0),
                ..
            })
        ));
        let refused = ask(device_id(3), own).await;
        assert!(
            matches!(refused, Err(VerbError::MemberTooSmall { .. })),
            "{refused:?}"
        );
        let refused = ask(device_id(4), own).await;
        assert!(
            matches!(refused, Err(VerbError::MemberBlock { block: 4096, .. })),
            "{refused:?}"
        );
        let refused = ask(device_id(2), SpareFor::Group(OTHER)).await;
        assert!(matches!(refused, Err(VerbError::NoSuchGroup(OTHER))));
        let refused = ask(device_id(9), SpareFor::All).await;
        assert!(matches!(refused, Err(VerbError::NoSuchDevice(_))));
        ask(device_id(3), SpareFor::All).await.unwrap();
        bench.devices[2].fail_everything(true);
        let refused = ask(device_id(2), own).await;
        assert!(matches!(refused, Err(VerbError::Device(_))), "{refused:?}");
        assert_eq!(spare_of(&appliance, 2).await, None);
    });
}

#[test]
fn a_group_without_redundancy_gets_no_spare_of_its_own() {
    run(async {
        let bench = Bench::new(3);
        let appliance = bench.create(Level::Raid0, 2).await;
        let refused = appliance
            .set_spare(bench.op(), device_id(2), Some(SpareFor::Group(GROUP)))
            .await;
        assert!(matches!(refused, Err(VerbError::NoRedundancy(GroupNumber(0)))));
    });
}

#[test]
fn a_spare_is_kept_for_whom_it_is_over_a_restart_until_it_is_none_any_more() {
    run(async {
        let bench = Bench::new(6);
        let appliance = bench.create(Level::Raid1, 2).await;
        second_mirror(&bench, &appliance).await;
        mark(&bench, &appliance, 4, SpareFor::Group(GROUP)).await;
        mark(&bench, &appliance, 5, SpareFor::All).await;
        drop(appliance);
        let appliance = bench.open(&[0, 1, 2, 3, 4, 5]).await;
        assert_eq!(spare_of(&appliance, 4).await, Some(SpareFor::Group(GROUP)));
        let spares = appliance.find_group(OTHER).await.unwrap().spares;
        assert_eq!(spares, [(device_id(5), SpareFor::All)]);
        let refused = appliance.replace_member(bench.op(), OTHER, device_id(2), device_id(4));
        assert!(matches!(
            refused.await,
            Err(VerbError::DeviceIsSpare(DeviceNumber(4)))
        ));
        let request = NewGroupRequest {
            id: None,
            members: vec![device_id(5)],
            ..group(Level::Raid0, 0)
        };
        let refused = appliance.create_group(bench.op(), &request).await;
        assert!(matches!(refused, Err(VerbError::DeviceIsSpare(DeviceNumber(5)))));
        appliance.set_spare(bench.op(), device_id(5), None).await.unwrap();
        assert_eq!(spare_of(&appliance, 5).await, None);
        appliance.create_group(bench.op(), &request).await.unwrap();
        appliance.remove_device(bench.op(), device_id(4)).await.unwrap();
        appliance
            .ledger
            .store
            .read(|truth| assert!(truth.spares.is_empty() && truth.invariant()))
            .await;
    });
}

#[test]
fn a_shared_spare_that_is_put_in_by_hand_is_none_any_more() {
    run(async {
        let bench = Bench::new(3);
        let appliance = bench.create(Level::Raid1, 2).await;
        mark(&bench, &appliance, 2, SpareFor::All).await;
        let replaced = appliance.replace_member(bench.op(), GROUP, device_id(0), device_id(2));
        replaced.await.unwrap();
        assert_eq!(spare_of(&appliance, 2).await, None);
        let old = appliance.find_device(device_id(0)).await.unwrap();
        assert_eq!((old.member, old.former), (None, Some(GROUP)));
    });
}

#[test]
fn settings_of_care_are_kept_and_go_with_their_group() {
    run(async {
        let bench = Bench::new(3);
        let appliance = bench.create(Level::Raid1, 2).await;
        let care = appliance.find_group(GROUP).await.unwrap().care;
        assert_eq!(care, CareSettings::default());
        mark(&bench, &appliance, 2, SpareFor::Group(GROUP)).await;
        let change = GroupChange {
            spare_after: Some(Some(7)),
            replace_suspect: Some(true),
            suspect_after: Some(3),
            ..GroupChange::default()
        };
        appliance.change_group(bench.op(), GROUP, change).await.unwrap();
        let wanted = CareSettings {
            spare_after: Some(7),
            replace_suspect: true,
            suspect_after: 3,
        };
        drop(appliance);
        let appliance = bench.open(&[0, 1, 2]).await;
        assert_eq!(appliance.find_group(GROUP).await.unwrap().care, wanted);
        let mut truth = Truth::default();
        let store = &appliance.ledger.store;
        store
            .read(|known| known.snapshot().for_each(|record| truth.apply(record)))
            .await;
        assert_eq!(truth.care.get(&GROUP), Some(&wanted));
        assert_eq!(truth.spares.get(&device_id(2)), Some(&SpareFor::Group(GROUP)));
        truth.apply(Record::RemoveVolume(VolumeNumber(0)));
        truth.apply(Record::RemoveGroup(GroupNumber(0)));
        assert!(truth.care.is_empty() && truth.spares.is_empty() && truth.invariant());
    });
}

#[test]
fn a_groups_own_spare_goes_before_a_shared_one_and_a_small_one_before_a_large_one() {
    run(async {
        let mut bench = Bench::new(3);
        for mib in [40, 36, 34, 24] {
            bench.devices.push(MemoryDevice::new(mib << 20));
        }
        let appliance = bench.create(Level::Raid1, 3).await;
        mark(&bench, &appliance, 6, SpareFor::All).await;
        mark(&bench, &appliance, 5, SpareFor::All).await;
        mark(&bench, &appliance, 3, SpareFor::Group(GROUP)).await;
        mark(&bench, &appliance, 4, SpareFor::Group(GROUP)).await;
        for (lost, new) in [(0, 4), (1, 3), (2, 5)] {
            appliance.fail_device(bench.op(), device_id(lost)).await.unwrap();
            seconds(20).await;
            let expected = (device_id(new), MemberStatus::InSync);
            assert_eq!(members(&appliance, GROUP).await[lost], expected);
        }
        assert_eq!(spare_of(&appliance, 6).await, Some(SpareFor::All), "too small");
    });
}

#[test]
fn where_no_spare_fits_it_is_told_once_and_why_and_one_that_is_marked_later_is_used() {
    run(async {
        let mut bench = Bench::new(2);
        bench.devices.push(MemoryDevice::new(24 << 20));
        bench.devices.push(MemoryDevice::new(32 << 20));
        let appliance = bench.create(Level::Raid1, 2).await;
        appliance.fail_device(bench.op(), device_id(0)).await.unwrap();
        seconds(20).await;
        assert_eq!(told_why(&appliance), ["no device is a spare for it"]);
        mark(&bench, &appliance, 2, SpareFor::All).await;
        seconds(20).await;
        let why = told_why(&appliance);
        assert_eq!(why.len(), 2);
        assert!(why[1].starts_with("the new device offers"), "{why:?}");
        mark(&bench, &appliance, 3, SpareFor::All).await;
        seconds(20).await;
        assert_eq!(state_of(&appliance, GROUP).await, Some(GroupState::Optimal));
        assert_eq!(told_why(&appliance).len(), 2);
    });
}

#[test]
fn of_two_groups_that_lose_a_member_at_once_one_gets_the_spare_that_they_share() {
    run(async {
        let bench = Bench::new(5);
        let appliance = bench.create(Level::Raid1, 2).await;
        second_mirror(&bench, &appliance).await;
        mark(&bench, &appliance, 4, SpareFor::All).await;
        for index in [0, 2] {
            appliance
                .ledger
                .device(device_id(index))
                .unwrap()
                .fail("it broke");
        }
        seconds(20).await;
        let (one, other) = (members(&appliance, GROUP).await, members(&appliance, OTHER).await);
        let has =
            |members: &[(DeviceId, MemberStatus)]| members.contains(&(device_id(4), MemberStatus::InSync));
        assert!(has(&one) != has(&other), "{one:?} {other:?}");
        assert_eq!(told_why(&appliance), ["no device is a spare for it"]);
        let took_over = |kind: &EventKind| matches!(kind, EventKind::SpareTookOver { .. });
        assert_eq!(told(&appliance).iter().filter(|kind| took_over(kind)).count(), 1);
    });
}
