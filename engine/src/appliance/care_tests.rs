use std::sync::Arc;

use super::spare_tests::{mark, members, seconds, spare_of, state_of, told};
use super::tests::{Bench, GROUP, MIB, device_id, flush, read, run, write};
use super::*;
use crate::device::memory::Power;
use crate::device::{DeviceHandle, ErrorCounts};
use crate::event::EventKind;
use crate::raid::{GroupState, Level, MemberStatus};
use crate::types::ByteRange;

/// A group of three devices with 4 MiB written, and a shared spare, device 3.
async fn with_spare(bench: &Bench, level: Level) -> Appliance {
    let appliance = bench.create(level, 3).await;
    mark(bench, &appliance, 3, SpareFor::All).await;
    for at in 0..4 {
        write(&appliance, 0, at * MIB, 7, 1 << 20).await.unwrap();
    }
    flush(&appliance, 0).await;
    appliance
}

async fn check_data(appliance: &Appliance) {
    for at in 0..4 {
        assert_eq!(
            read(appliance, 0, at * MIB, 1 << 20).await,
            vec![7; 1 << 20],
            "{at}"
        );
    }
}

fn took_over(appliance: &Appliance) -> Vec<EventKind> {
    let mut events = told(appliance);
    events.retain(|kind| matches!(kind, EventKind::SpareTookOver { .. }));
    events
}

async fn is_member(appliance: &Appliance, device: usize) -> bool {
    let members = members(appliance, GROUP).await;
    members.iter().any(|(member, _)| *member == device_id(device))
}

fn handle(appliance: &Appliance, device: usize) -> Arc<DeviceHandle> {
    appliance.ledger.device(device_id(device)).unwrap()
}

/// Every place of a member's data that is read from now on cannot be.
async fn spoil(bench: &Bench, appliance: &Appliance, member: usize) {
    let record = appliance.find_group(GROUP).await.unwrap().record;
    let data = ByteRange::new(record.members[member].data_start, record.layout.member_len);
    bench.devices[member].spoil(data.unwrap());
}

#[test]
fn a_spare_takes_the_place_of_a_member_that_fails_while_hosts_work_and_gets_all_data() {
    for level in [Level::Raid1, Level::Raid5] {
        run(async {
            let bench = Bench::new(4);
            let appliance = with_spare(&bench, level).await;
            bench.devices[1].fail_everything(true);
            for at in 0..4 {
                write(&appliance, 0, at * MIB, 7, 1 << 20).await.unwrap();
            }
            seconds(20).await;
            assert_eq!(state_of(&appliance, GROUP).await, Some(GroupState::Optimal));
            let expected = EventKind::SpareTookOver {
                group: GROUP,
                old: device_id(1),
                new: device_id(3),
            };
            assert_eq!(took_over(&appliance), [expected]);
            assert_eq!(spare_of(&appliance, 3).await, None);
            // What the new member holds counts: another one may fail now.
            bench.devices[0].fail_everything(true);
            check_data(&appliance).await;
        });
    }
}

#[test]
fn an_idle_group_whose_member_is_found_dead_gets_the_spare_too() {
    run(async {
        let bench = Bench::new(4);
        let appliance = with_spare(&bench, Level::Raid5).await;
        seconds(20).await;
        handle(&appliance, 2).fail("it broke");
        seconds(20).await;
        assert!(is_member(&appliance, 3).await);
        assert_eq!(state_of(&appliance, GROUP).await, Some(GroupState::Optimal));
    });
}

#[test]
fn a_member_that_is_absent_at_a_start_is_waited_for_a_minute() {
    run(async {
        let bench = Bench::new(4);
        drop(with_spare(&bench, Level::Raid5).await);
        let appliance = bench.open(&[1, 2, 3]).await;
        seconds(55).await;
        assert!(is_member(&appliance, 0).await);
        assert_eq!(took_over(&appliance), []);
        seconds(20).await;
        assert!(is_member(&appliance, 3).await);
        check_data(&appliance).await;
    });
}

#[test]
fn a_member_that_came_back_in_time_is_not_replaced_and_the_next_time_counts_anew() {
    run(async {
        let bench = Bench::new(4);
        drop(with_spare(&bench, Level::Raid5).await);
        let appliance = bench.open(&[1, 2, 3]).await;
        seconds(50).await;
        let back = appliance.return_device(bench.op(), bench.device(0));
        back.await.unwrap();
        seconds(60).await;
        assert_eq!(state_of(&appliance, GROUP).await, Some(GroupState::Optimal));
        assert_eq!(spare_of(&appliance, 3).await, Some(SpareFor::All));
        assert_eq!(took_over(&appliance), []);
    });
}

#[test]
fn the_time_that_is_set_holds_for_a_failed_member_too() {
    run(async {
        let bench = Bench::new(4);
        let appliance = with_spare(&bench, Level::Raid5).await;
        let change = GroupChange {
            spare_after: Some(Some(300)),
            ..GroupChange::default()
        };
        appliance.change_group(bench.op(), GROUP, change).await.unwrap();
        appliance.fail_device(bench.op(), device_id(0)).await.unwrap();
        seconds(290).await;
        assert!(is_member(&appliance, 0).await);
        seconds(20).await;
        assert!(is_member(&appliance, 3).await);
    });
}

#[test]
fn a_member_that_was_replaced_and_comes_back_is_a_former_one_and_not_taken_in() {
    run(async {
        let bench = Bench::new(4);
        let appliance = with_spare(&bench, Level::Raid5).await;
        appliance.fail_device(bench.op(), device_id(0)).await.unwrap();
        seconds(20).await;
        assert!(is_member(&appliance, 3).await);
        let back = appliance.return_device(bench.op(), bench.device(0));
        back.await.unwrap();
        for _start in 0..2 {
            let state = appliance.find_device(device_id(0)).await.unwrap();
            assert_eq!((state.member, state.former), (None, Some(GROUP)));
            assert!(!is_member(&appliance, 0).await);
        }
        drop(appliance);
        let appliance = bench.open(&[0, 1, 2, 3]).await;
        seconds(60).await;
        let state = appliance.find_device(device_id(0)).await.unwrap();
        assert_eq!((state.member, state.former), (None, Some(GROUP)));
        assert_eq!(state_of(&appliance, GROUP).await, Some(GroupState::Optimal));
        check_data(&appliance).await;
    });
}

/// Whether the spare is where it must be, wherever a crash cut its taking over off: marked, or a member, not both.
async fn is_once(appliance: &Appliance) -> bool {
    let marked = spare_of(appliance, 3).await.is_some();
    appliance
        .ledger
        .store
        .read(|truth| assert!(truth.invariant()))
        .await;
    marked != is_member(appliance, 3).await
}

#[test]
fn a_crash_at_any_step_neither_loses_a_spare_nor_uses_it_twice() {
    let mut changes = 0;
    loop {
        let power = Power::for_changes(changes);
        run(async {
            let bench = Bench::new(4);
            let appliance = with_spare(&bench, Level::Raid5).await;
            seconds(20).await;
            for device in &bench.devices {
                device.feed(Some(power.clone()));
            }
            bench.devices[0].fail_everything(true);
            handle(&appliance, 0).fail("it broke");
            seconds(2).await;
            drop(appliance);
            for device in &bench.devices {
                device.feed(None);
            }
            let appliance = bench.open(&[1, 2, 3]).await;
            assert!(is_once(&appliance).await, "cut off after {changes} changes");
            seconds(120).await;
            assert!(is_once(&appliance).await, "cut off after {changes} changes");
            assert!(is_member(&appliance, 3).await, "cut off after {changes} changes");
            let state = state_of(&appliance, GROUP).await;
            assert_eq!(
                state,
                Some(GroupState::Optimal),
                "cut off after {changes} changes"
            );
            check_data(&appliance).await;
        });
        if !power.is_gone() {
            break;
        }
        changes += 1;
    }
    assert!(changes > 10, "it was cut off in its midst {changes} times");
}

#[test]
fn a_device_with_too_many_lost_places_is_suspect_and_gives_its_place_to_a_spare() {
    run(async {
        let bench = Bench::new(4);
        let appliance = with_spare(&bench, Level::Raid5).await;
        let replace = GroupChange {
            replace_suspect: Some(true),
            ..GroupChange::default()
        };
        appliance.change_group(bench.op(), GROUP, replace).await.unwrap();
        spoil(&bench, &appliance, 1).await;
        check_data(&appliance).await;
        let state = appliance.find_device(device_id(1)).await.unwrap();
        assert!(
            state.errors.medium > 10 && state.errors.mended > 10,
            "{:?}",
            state.errors
        );
        assert_eq!(state.failure, None);
        seconds(20).await;
        let state = appliance.find_device(device_id(1)).await.unwrap();
        assert_eq!(
            (state.health, state.member, state.former),
            (Health::Suspect, None, Some(GROUP))
        );
        let suspects = |kind: &EventKind| matches!(kind, EventKind::DeviceSuspect { device, lost_places } if (*device, *lost_places > 10) == (device_id(1), true));
        assert_eq!(told(&appliance).iter().filter(|kind| suspects(kind)).count(), 1);
        assert_eq!(
            members(&appliance, GROUP).await[1],
            (device_id(3), MemberStatus::InSync)
        );
        let refused = appliance.set_spare(bench.op(), device_id(1), Some(SpareFor::All));
        assert!(matches!(refused.await, Err(VerbError::DeviceSuspect(_))));
        check_data(&appliance).await;
    });
}

#[test]
fn a_suspect_member_stays_where_that_is_wanted_or_the_group_is_not_whole() {
    run(async {
        let bench = Bench::new(4);
        let appliance = with_spare(&bench, Level::Raid5).await;
        let change = |replace, after| GroupChange {
            replace_suspect: Some(replace),
            suspect_after: Some(after),
            ..GroupChange::default()
        };
        let kept = appliance.change_group(bench.op(), GROUP, change(false, 0));
        kept.await.unwrap();
        spoil(&bench, &appliance, 1).await;
        check_data(&appliance).await;
        seconds(20).await;
        let health = async |appliance: &Appliance| appliance.find_device(device_id(1)).await.unwrap().health;
        assert_eq!(health(&appliance).await, Health::Suspect);
        assert!(is_member(&appliance, 1).await);
        // More errors are borne: it is none any more.
        let borne = appliance.change_group(bench.op(), GROUP, change(true, 100_000));
        borne.await.unwrap();
        seconds(20).await;
        assert_eq!(health(&appliance).await, Health::Healthy);
        // A group that lacks a member needs every one that it has.
        appliance.set_spare(bench.op(), device_id(3), None).await.unwrap();
        appliance.fail_device(bench.op(), device_id(0)).await.unwrap();
        let suspect = appliance.change_group(bench.op(), GROUP, change(true, 0));
        suspect.await.unwrap();
        seconds(20).await;
        assert_eq!(health(&appliance).await, Health::Suspect);
        mark(&bench, &appliance, 3, SpareFor::All).await;
        seconds(1).await;
        let now = members(&appliance, GROUP).await;
        assert_eq!(
            now.iter().map(|(device, _)| *device).collect::<Vec<_>>(),
            [device_id(3), device_id(1), device_id(2)]
        );
    });
}

#[test]
fn what_failed_on_a_device_is_counted_over_restarts_and_stored_once_a_minute_at_the_most() {
    run(async {
        let bench = Bench::new(4);
        let appliance = with_spare(&bench, Level::Raid5).await;
        appliance.set_spare(bench.op(), device_id(3), None).await.unwrap();
        seconds(120).await;
        let generation = appliance.ledger.store.generation().await;
        seconds(600).await;
        assert_eq!(
            appliance.ledger.store.generation().await,
            generation,
            "nothing is new"
        );
        let one = ErrorCounts {
            medium: 1,
            ..ErrorCounts::default()
        };
        for _second in 0..120 {
            handle(&appliance, 3).carry_on(one);
            seconds(1).await;
        }
        let stored = appliance.ledger.store.generation().await - generation;
        assert!((1..=3).contains(&stored), "{stored} commits in two minutes");
        handle(&appliance, 3).carry_on(one);
        appliance.stop().await;
        let appliance = bench.open(&[0, 1, 2, 3]).await;
        let counted = async |appliance: &Appliance| appliance.find_device(device_id(3)).await.unwrap();
        assert_eq!(counted(&appliance).await.errors.medium, 121);
        assert_eq!(counted(&appliance).await.health, Health::Suspect);
        drop(appliance);
        let appliance = bench.open(&[0, 1, 2]).await;
        assert_eq!(counted(&appliance).await.errors.medium, 121);
        let back = appliance.return_device(bench.op(), bench.device(3));
        back.await.unwrap();
        assert_eq!(counted(&appliance).await.errors.medium, 121);
    });
}

#[test]
fn a_spare_that_cannot_be_read_any_more_is_told_of_before_it_is_needed() {
    run(async {
        let bench = Bench::new(4);
        let appliance = with_spare(&bench, Level::Raid5).await;
        bench.devices[3].spoil(ByteRange::between(0, 32 << 20));
        seconds(1300).await;
        let expected = EventKind::SpareUnreadable {
            device: device_id(3),
            why: "medium error".into(),
        };
        let events = told(&appliance);
        let unreadable = events.iter().filter(|kind| **kind == expected);
        assert_eq!(unreadable.count(), 1, "{events:?}");
        assert!(handle(&appliance, 3).errors().medium >= 2);
    });
}
