use std::sync::Arc;

use super::devices::label_new;
use super::operation::DeviceMade;
use super::records::Truth;
use super::tests::{APPLIANCE, Bench, GROUP, VOLUME, device_id, flush, group, read, run, write};
use super::*;
use crate::device::memory::MemoryDevice;
use crate::event::{Event, EventKind};
use crate::metadata::Store;
use crate::raid::{GroupState, Level, MemberStatus};
use crate::types::DeviceNumber;
use uuid::Uuid;

fn kinds(events: &[Event]) -> Vec<EventKind> {
    events.iter().map(|event| event.kind.clone()).collect()
}

#[test]
fn a_device_whose_addition_was_cut_off_is_left_alone_at_a_start_and_then_taken() {
    run(async {
        let bench = Bench::new(2);
        drop(bench.create(Level::Raid1, 2).await);
        let device = MemoryDevice::new(32 << 20);
        let new = NewDevice::new(Arc::clone(&device) as Arc<_>);
        let cut_off = DeviceMade {
            number: DeviceNumber(2),
            id: device_id(7),
        };
        label_new(&new, APPLIANCE, &cut_off, |_| None).await.unwrap();
        let devices = vec![bench.device(0), bench.device(1), Arc::clone(&device) as Arc<_>];
        let options = OpenOptions::default();
        let opened = Appliance::open(devices, &options, bench.ids.clone());
        let appliance = opened.await.unwrap();
        assert_eq!(appliance.devices().await.len(), 2);
        let chosen = NewDevice {
            id: Some(device_id(2)),
            number: Some(DeviceNumber(9)),
            name: Some("spare".into()),
            ..new
        };
        let made = appliance.add_device(bench.op(), chosen.clone()).await.unwrap();
        assert_eq!((made.number, made.id), (DeviceNumber(9), device_id(2)));
        let again = appliance.add_device(
            bench.op(),
            NewDevice {
                id: None,
                number: None,
                name: None,
                force: true,
                ..chosen
            },
        );
        assert!(matches!(
            again.await,
            Err(VerbError::DeviceKnown(DeviceNumber(9)))
        ));
        assert_eq!(appliance.devices().await[2].name.as_deref(), Some("spare"));
    });
}

#[test]
fn an_appliance_whose_making_was_cut_off_is_made_and_one_that_was_made_is_not_made_again() {
    run(async {
        let bench = Bench::new(2);
        let new = bench.new_appliance();
        let mut areas = Vec::new();
        for (index, device) in (0..).zip(&new.devices) {
            let made = DeviceMade {
                number: DeviceNumber(index),
                id: device_id(9),
            };
            let (handle, superblock) = label_new(device, APPLIANCE, &made, |_| None).await.unwrap();
            areas.push((handle, superblock.layout.metadata));
        }
        drop(
            Store::<Truth>::create(vec![areas.remove(0)], bench.ids.clone())
                .await
                .unwrap(),
        );
        let options = OpenOptions::default();
        let opened = Appliance::open(vec![bench.device(0)], &options, bench.ids.clone());
        assert!(matches!(opened.await, Err(OpenError::Unfinished(APPLIANCE))));
        let operation = bench.op();
        drop(
            Appliance::create(operation, new, bench.ids.clone())
                .await
                .unwrap(),
        );
        let mut forced = bench.new_appliance();
        forced.devices.iter_mut().for_each(|device| device.force = true);
        let again = Appliance::create(operation, forced, bench.ids.clone()).await;
        assert!(matches!(again, Err(VerbError::ApplianceMade(APPLIANCE))));
        let first = DeviceMade {
            number: DeviceNumber(0),
            id: device_id(0),
        };
        let opened = bench.open(&[0, 1]).await;
        assert_eq!(opened.answered(operation).await, Some(Answer::Device(first)));
    });
}

#[test]
fn a_removed_device_holds_no_metadata_and_is_blank() {
    run(async {
        let bench = Bench::new(3);
        let appliance = bench.create(Level::Raid1, 2).await;
        assert!(appliance.metadata_holders().await.contains(&device_id(2)));
        let refused = appliance.remove_device(bench.op(), device_id(0)).await;
        let (device, group) = (DeviceNumber(0), GroupNumber(0));
        assert!(
            matches!(refused, Err(VerbError::DeviceInUse { device: d, group: g }) if (d, g) == (device, group))
        );
        appliance.remove_device(bench.op(), device_id(2)).await.unwrap();
        assert_eq!(appliance.metadata_holders().await, [device_id(0), device_id(1)]);
        assert_eq!(appliance.devices().await.len(), 2);
        assert!(examine(bench.device(2)).await.unwrap().is_none());
        drop(appliance);
        let appliance = bench.open(&[0, 1]).await;
        assert!(appliance.volume(VolumeNumber(0)).is_some());
        let added = appliance
            .add_device(bench.op(), NewDevice::new(bench.device(2)))
            .await;
        assert_eq!(added.unwrap().number, DeviceNumber(2));
    });
}

#[test]
fn a_device_that_was_removed_while_it_was_absent_is_taken_again_unless_it_may_hold_data() {
    run(async {
        let bench = Bench::new(4);
        let appliance = bench.create(Level::Raid1, 2).await;
        let plain = NewGroupRequest {
            id: None,
            members: vec![device_id(3)],
            ..group(Level::Raid0, 0)
        };
        let plain = appliance.create_group(bench.op(), &plain).await.unwrap();
        let labelled = bench.devices[3].content(0, 1 << 20);
        appliance.delete_group(bench.op(), plain.id).await.unwrap();
        drop(appliance);
        let appliance = bench.open(&[0, 1]).await;
        for index in [2, 3] {
            appliance
                .remove_device(bench.op(), device_id(index))
                .await
                .unwrap();
        }
        let blank = appliance
            .add_device(bench.op(), NewDevice::new(bench.device(2)))
            .await;
        assert_eq!(blank.unwrap().number, DeviceNumber(2));
        let was_member = MemoryDevice::new(32 << 20);
        was_member.scribble(0, &labelled);
        let new = NewDevice::new(was_member as Arc<_>);
        let refused = appliance.add_device(bench.op(), new.clone()).await;
        assert!(matches!(refused, Err(VerbError::DeviceWasMember(id)) if id == plain.id));
        let forced = NewDevice { force: true, ..new };
        assert!(appliance.add_device(bench.op(), forced).await.is_ok());
    });
}

#[test]
fn the_last_device_cannot_be_removed() {
    run(async {
        let bench = Bench::new(1);
        let appliance = bench.create_empty().await;
        let refused = appliance.remove_device(bench.op(), device_id(0)).await;
        assert!(matches!(refused, Err(VerbError::LastDevice(DeviceNumber(0)))));
        let refused = appliance.fail_device(bench.op(), device_id(0)).await;
        assert!(matches!(refused, Err(VerbError::LastDevice(DeviceNumber(0)))));
    });
}

#[test]
fn a_device_is_taken_out_on_purpose_only_where_its_group_can_go_on_and_events_tell_of_it() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create(Level::Raid1, 2).await;
        let operation = bench.op();
        appliance.fail_device(operation, device_id(0)).await.unwrap();
        appliance.fail_device(operation, device_id(0)).await.unwrap();
        write(&appliance, 0, 0, 3, 4096).await.unwrap();
        flush(&appliance, 0).await;
        let state = appliance.find_device(device_id(0)).await.unwrap();
        assert!(state.failure.is_some());
        let member = state.member.unwrap();
        assert_eq!(
            (member.group, member.role, member.status),
            (GROUP, 0, MemberStatus::Out)
        );
        let refused = appliance.fail_device(bench.op(), device_id(1)).await;
        assert!(matches!(
            refused,
            Err(VerbError::NotRedundant {
                device: DeviceNumber(1),
                ..
            })
        ));
        assert_eq!(read(&appliance, 0, 0, 4096).await, vec![3; 4096]);
        let returned = appliance.return_device(bench.op(), bench.device(0)).await;
        assert_eq!(returned.unwrap().number, DeviceNumber(0));
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        let (events, lost) = appliance.events().since(0);
        assert!(!lost);
        let change = |from, to| EventKind::GroupStateChanged {
            group: GROUP,
            from: Some(from),
            to,
        };
        let expected = [
            EventKind::DeviceFailed {
                device: device_id(0),
                why: "taken out of service by an administrator".into(),
            },
            change(GroupState::Optimal, GroupState::Degraded),
            EventKind::DeviceReturned { device: device_id(0) },
            change(GroupState::Degraded, GroupState::Rebuilding),
            change(GroupState::Rebuilding, GroupState::Optimal),
        ];
        assert_eq!(kinds(&events), expected);
    });
}

#[test]
fn a_start_with_too_few_members_is_told_in_events_and_does_not_count_as_a_start() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create(Level::Raid1, 2).await;
        assert_eq!(appliance.epoch().await, 1);
        drop(appliance);
        let waiting = bench.open(&[1]).await;
        assert_eq!(waiting.epoch().await, 1);
        let (events, _) = waiting.events().since(0);
        let why = waiting.group_statuses().await.remove(0).waiting.unwrap().why;
        let expected = [
            EventKind::DeviceFailed {
                device: device_id(0),
                why: "it is not there".into(),
            },
            EventKind::VolumeNotServing { volume: VOLUME },
            EventKind::GroupWaiting { group: GROUP, why },
        ];
        assert_eq!(kinds(&events), expected);
        drop(waiting);
        for epoch in 2..5 {
            let appliance = bench.open(&[0, 1]).await;
            assert_eq!(
                (appliance.epoch().await, appliance.events().epoch()),
                (epoch, epoch)
            );
        }
    });
}

#[test]
fn a_device_that_cannot_be_added_says_why_and_stays_what_it_is() {
    run(async {
        let bench = Bench::new(3);
        let appliance = bench.create(Level::Raid1, 2).await;
        let small = MemoryDevice::new(1 << 20);
        let refused = appliance.add_device(bench.op(), NewDevice::new(small)).await;
        assert!(matches!(refused, Err(VerbError::DeviceTooSmall { .. })));
        let known = appliance
            .add_device(bench.op(), NewDevice::new(bench.device(2)))
            .await;
        assert!(matches!(known, Err(VerbError::DeviceKnown(DeviceNumber(2)))));
        let other = NewAppliance {
            registry: Default::default(),
            id: ApplianceId(Uuid::from_u128(0xb)),
            ..bench.new_appliance()
        };
        let foreign = Appliance::create(bench.op(), other, bench.ids.clone()).await;
        assert!(matches!(foreign, Err(VerbError::ForeignAppliance(_))));
        assert_eq!(appliance.devices().await.len(), 3);
    });
}

#[test]
fn a_new_group_gets_no_numbers_of_logical_devices_of_a_group_that_waits() {
    run(async {
        let bench = Bench::new(4);
        let appliance = bench.create(Level::Raid1, 2).await;
        let plain = |member| NewGroupRequest {
            id: None,
            members: vec![device_id(member)],
            ..group(Level::Raid0, 0)
        };
        appliance.create_group(bench.op(), &plain(2)).await.unwrap();
        drop(appliance);
        let appliance = bench.open(&[0, 1, 3]).await;
        assert!(appliance.group(GroupNumber(1)).is_none());
        appliance.create_group(bench.op(), &plain(3)).await.unwrap();
        drop(appliance);
        let appliance = bench.open(&[0, 1, 2, 3]).await;
        assert!((0..3).all(|number| appliance.group(GroupNumber(number)).is_some()));
        let everything = LogicalDeviceFilter::default();
        let runs = appliance.logical_devices(&everything, 0, usize::MAX).await;
        let ends = runs.iter().map(|run| run.first + run.count);
        assert!(ends.zip(&runs[1..]).all(|(end, next)| end == next.first));
    });
}

/// Whether a device is out of service for an administrator took it out, and how it stands in its group.
async fn taken_out(appliance: &Appliance, index: usize) -> (bool, Option<String>, Option<MemberStatus>) {
    let state = appliance.find_device(device_id(index)).await.unwrap();
    (
        state.taken_out,
        state.failure,
        state.member.map(|member| member.status),
    )
}

fn out(status: Option<MemberStatus>) -> (bool, Option<String>, Option<MemberStatus>) {
    (
        true,
        Some("taken out of service by an administrator".into()),
        status,
    )
}

async fn settle(appliance: &Appliance) {
    while appliance.group(GroupNumber(0)).unwrap().state() != GroupState::Optimal {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}

#[test]
fn a_device_that_an_administrator_took_out_stays_out_over_starts_until_it_is_returned() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create(Level::Raid1, 2).await;
        appliance.fail_device(bench.op(), device_id(0)).await.unwrap();
        write(&appliance, 0, 0, 3, 4096).await.unwrap();
        flush(&appliance, 0).await;
        drop(appliance);
        // Whether it is there or not, and after an orderly end too.
        for present in [&[0, 1][..], &[1], &[0, 1]] {
            let appliance = bench.open(present).await;
            tokio::time::sleep(std::time::Duration::from_secs(60)).await;
            assert_eq!(taken_out(&appliance, 0).await, out(Some(MemberStatus::Out)));
            let group = appliance.group(GroupNumber(0)).unwrap();
            assert_eq!(group.state(), GroupState::Degraded);
            assert_eq!(appliance.metadata_holders().await, [device_id(1)]);
            let (events, _) = appliance.events().since(0);
            assert!(kinds(&events).contains(&EventKind::DeviceFailed {
                device: device_id(0),
                why: "taken out of service by an administrator".into(),
            }));
            drop(group);
            appliance.stop().await;
        }
        let appliance = bench.open(&[0, 1]).await;
        assert!(appliance.held_device(device_id(0)).is_some());
        let operation = bench.op();
        for _ in 0..2 {
            let returned = appliance.return_device(operation, bench.device(0)).await;
            assert_eq!(returned.unwrap().id, device_id(0));
        }
        settle(&appliance).await;
        assert_eq!(
            taken_out(&appliance, 0).await,
            (false, None, Some(MemberStatus::InSync))
        );
        drop(appliance);
        let appliance = bench.open(&[0, 1]).await;
        settle(&appliance).await;
        appliance.fail_device(bench.op(), device_id(1)).await.unwrap();
        assert_eq!(read(&appliance, 0, 0, 4096).await, vec![3; 4096]);
    });
}

#[test]
fn a_device_that_is_away_is_taken_out_and_does_not_come_back_by_itself() {
    run(async {
        let bench = Bench::new(5);
        drop(bench.create(Level::Raid1, 3).await);
        let appliance = bench.open(&[0, 1, 4]).await;
        for index in [2, 3] {
            appliance.fail_device(bench.op(), device_id(index)).await.unwrap();
        }
        assert_eq!(taken_out(&appliance, 2).await, out(Some(MemberStatus::Out)));
        assert_eq!(taken_out(&appliance, 3).await, out(None));
        drop(appliance);
        let appliance = bench.open(&[0, 1, 2, 3, 4]).await;
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        assert_eq!(taken_out(&appliance, 2).await, out(Some(MemberStatus::Out)));
        assert_eq!(taken_out(&appliance, 3).await, out(None));
        assert_eq!(appliance.metadata_holders().await, [0, 1, 4].map(device_id));
        let refused = appliance
            .replace_member(bench.op(), GROUP, device_id(2), device_id(3))
            .await;
        assert!(matches!(refused, Err(VerbError::DeviceTakenOut(DeviceNumber(3)))));
        for index in [2, 3] {
            let returned = appliance.return_device(bench.op(), bench.device(index)).await;
            returned.unwrap();
        }
        settle(&appliance).await;
        assert_eq!(taken_out(&appliance, 3).await, (false, None, None));
    });
}

#[test]
fn a_member_that_was_taken_out_and_replaced_stays_out_and_can_be_removed_and_added_anew() {
    run(async {
        let bench = Bench::new(3);
        let appliance = bench.create(Level::Raid1, 2).await;
        appliance.fail_device(bench.op(), device_id(0)).await.unwrap();
        let replaced = appliance.replace_member(bench.op(), GROUP, device_id(0), device_id(2));
        replaced.await.unwrap();
        settle(&appliance).await;
        drop(appliance);
        let appliance = bench.open(&[0, 1, 2]).await;
        settle(&appliance).await;
        assert_eq!(taken_out(&appliance, 0).await, out(None));
        appliance.remove_device(bench.op(), device_id(0)).await.unwrap();
        let new = NewDevice {
            id: Some(device_id(0)),
            force: true,
            ..NewDevice::new(bench.device(0))
        };
        appliance.add_device(bench.op(), new).await.unwrap();
        assert_eq!(taken_out(&appliance, 0).await, (false, None, None));
        drop(appliance);
        let appliance = bench.open(&[0, 1, 2]).await;
        assert_eq!(taken_out(&appliance, 0).await, (false, None, None));
    });
}

#[test]
fn a_device_whose_failure_its_group_has_not_noticed_can_be_returned() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create(Level::Raid1, 2).await;
        let group = appliance.group(GroupNumber(0)).unwrap();
        group.member_device(0).unwrap().fail("a write of metadata failed");
        assert_eq!(group.state(), GroupState::Optimal);
        let returned = appliance.return_device(bench.op(), bench.device(0)).await;
        returned.unwrap();
        assert_eq!(group.state(), GroupState::Rebuilding);
        settle(&appliance).await;
        assert_eq!(
            taken_out(&appliance, 0).await,
            (false, None, Some(MemberStatus::InSync))
        );
    });
}
