use std::sync::Arc;

use uuid::Uuid;

use super::devices::label_new;
use super::operation::{Answers, DeviceMade};
use super::records::{Record, Truth};
use super::tests::{APPLIANCE, Bench, GROUP, MIB, VOLUME, device_id, flush, group, read, run, volume, write};
use super::*;
use crate::device::memory::MemoryDevice;
use crate::event::{Event, EventKind};
use crate::map::{Layout, Placement};
use crate::metadata::{State as _, Store};
use crate::raid::{GroupState, Level, MemberStatus};
use crate::types::{ByteRange, DeviceNumber, OperationId, VolumeId};

/// A verb with its input, to be asked for several times.
type Ask = Box<dyn AsyncAsk>;

trait AsyncAsk {
    fn ask<'a>(
        &'a self,
        appliance: &'a Appliance,
        operation: OperationId,
    ) -> std::pin::Pin<Box<dyn Future<Output = Answer> + 'a>>;
}

macro_rules! ask {
    ($made:expr, |$appliance:ident, $operation:ident| $verb:expr) => {{
        struct This;
        impl AsyncAsk for This {
            fn ask<'a>(
                &'a self,
                $appliance: &'a Appliance,
                $operation: OperationId,
            ) -> std::pin::Pin<Box<dyn Future<Output = Answer> + 'a>> {
                Box::pin(async move { $made($verb.await.unwrap()) })
            }
        }
        Box::new(This) as Ask
    }};
}

fn done((): ()) -> Answer {
    Answer::Done
}

fn partial() -> NewVolume {
    NewVolume {
        id: Some(VolumeId(Uuid::from_u128(0xf001))),
        rest: None,
        placements: vec![Placement {
            range: ByteRange::new(0, MIB).unwrap(),
            group: GROUP,
        }],
        ..volume("part", 8 * MIB)
    }
}

fn more() -> NewPlacements {
    NewPlacements {
        placements: vec![Placement {
            range: ByteRange::new(4 << 20, MIB).unwrap(),
            group: GROUP,
        }],
        layout: Layout::Aligned,
        exact: false,
    }
}

/// Verbs in an order in which each is possible, on an appliance with a mirror of two of three devices.
fn verbs() -> Vec<Ask> {
    vec![
        ask!(Answer::Volume, |it, op| it.create_volume(op, &partial())),
        ask!(Answer::Volume, |it, op| it.place_more(
            op,
            partial().id.unwrap(),
            &more()
        )),
        ask!(Answer::Volume, |it, op| it.expand_volume(
            op,
            VOLUME,
            7 * MIB,
            Some(GROUP)
        )),
        ask!(done, |it, op| it.rename_volume(op, VOLUME, "renamed")),
        ask!(done, |it, op| it.rename_group(op, GROUP, Some("mirror"))),
        ask!(done, |it, op| it.rename_device(op, device_id(2), Some("spare"))),
        ask!(done, |it, op| it.change_settings(
            op,
            SettingsChange {
                number: Some(7),
                ..SettingsChange::default()
            }
        )),
        ask!(done, |it, op| it.delete_volume(op, VOLUME)),
        ask!(done, |it, op| it.replace_member(
            op,
            GROUP,
            device_id(0),
            device_id(2)
        )),
        ask!(done, |it, op| it.remove_device(op, device_id(0))),
        ask!(done, |it, op| it.delete_volume(op, partial().id.unwrap())),
        ask!(done, |it, op| it.delete_group(op, GROUP)),
        ask!(Answer::Group, |it, op| it.create_group(
            op,
            &NewGroupRequest {
                members: vec![device_id(2)],
                ..group(Level::Raid0, 0)
            }
        )),
    ]
}

#[test]
fn an_operation_is_done_once_and_answered_alike_before_and_after_a_restart() {
    run(async {
        let bench = Bench::new(3);
        let mut appliance = bench.create(Level::Raid1, 2).await;
        for (number, verb) in (0..).zip(verbs()) {
            let operation = OperationId(Uuid::from_u128(number));
            assert_eq!(appliance.answered(operation).await, None);
            let first = verb.ask(&appliance, operation).await;
            let generation = appliance.ledger.store.generation().await;
            assert_eq!(verb.ask(&appliance, operation).await, first, "verb {number}");
            assert_eq!(
                appliance.ledger.store.generation().await,
                generation,
                "verb {number}"
            );
            drop(appliance);
            appliance = bench.open(&[0, 1, 2]).await;
            assert_eq!(verb.ask(&appliance, operation).await, first, "verb {number}");
            assert_eq!(appliance.answered(operation).await, Some(first));
            tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        }
    });
}

#[test]
fn an_operation_that_was_something_else_is_refused() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create(Level::Raid1, 2).await;
        let operation = bench.op();
        appliance.rename_volume(operation, VOLUME, "other").await.unwrap();
        let reused = appliance.create_volume(operation, &volume("next", MIB)).await;
        assert!(matches!(reused, Err(VerbError::OperationReused(it)) if it == operation));
    });
}

#[test]
fn a_refused_operation_is_not_remembered() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create(Level::Raid1, 2).await;
        let operation = bench.op();
        let refused = appliance.create_volume(operation, &volume("big", 1 << 40)).await;
        assert!(refused.is_err());
        assert_eq!(appliance.answered(operation).await, None);
        let second = appliance.create_volume(operation, &volume("small", MIB)).await;
        assert_eq!(second.unwrap().number, VolumeNumber(1));
    });
}

#[test]
fn the_oldest_answers_are_forgotten_first() {
    let mut answers = Answers::default();
    for number in 0..1025 {
        answers.note(OperationId(Uuid::from_u128(number)), Answer::Done);
    }
    assert_eq!(answers.get(OperationId(Uuid::from_u128(0))), None);
    assert_eq!(answers.get(OperationId(Uuid::from_u128(1))), Some(&Answer::Done));
    assert_eq!(answers.iter().count(), 1024);
}

#[test]
fn a_snapshot_brings_back_names_settings_epoch_and_answers() {
    run(async {
        let bench = Bench::new(3);
        let appliance = bench.create(Level::Raid1, 2).await;
        for (number, verb) in (0..).zip(verbs().into_iter().take(7)) {
            verb.ask(&appliance, OperationId(Uuid::from_u128(number))).await;
        }
        appliance
            .ledger
            .store
            .read(|truth| {
                let mut copy = Truth::default();
                truth.snapshot().for_each(|record| copy.apply(record));
                assert!(copy.snapshot().eq(truth.snapshot()));
                assert_eq!(copy.answers, truth.answers);
                assert_eq!((copy.settings.number, copy.epoch), (7, 1));
                assert_eq!(copy.device_names[&device_id(2)], "spare");
                assert_eq!(copy.group_names[&GROUP], "mirror");
            })
            .await;
    });
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
fn what_is_named_or_numbered_or_identified_alike_is_refused() {
    run(async {
        let bench = Bench::new(3);
        let appliance = bench.create(Level::Raid1, 2).await;
        let same_id = NewVolume {
            id: Some(VOLUME),
            ..volume("next", MIB)
        };
        let refused = appliance.create_volume(bench.op(), &same_id).await;
        assert!(matches!(refused, Err(VerbError::IdTaken(id)) if id == VOLUME.0));
        for number in [0, u32::MAX] {
            let same_number = NewVolume {
                number: Some(VolumeNumber(number)),
                ..volume("next", MIB)
            };
            let refused = appliance.create_volume(bench.op(), &same_number).await;
            assert!(matches!(refused, Err(VerbError::NumberTaken(it)) if it == number));
        }
        let same_group = NewGroupRequest {
            members: vec![device_id(2)],
            ..group(Level::Raid0, 0)
        };
        let refused = appliance.create_group(bench.op(), &same_group).await;
        assert!(matches!(refused, Err(VerbError::IdTaken(id)) if id == GROUP.0));
        appliance
            .rename_device(bench.op(), device_id(0), Some("a"))
            .await
            .unwrap();
        let refused = appliance.rename_device(bench.op(), device_id(1), Some("a")).await;
        assert!(matches!(refused, Err(VerbError::NameTaken(_))));
        appliance
            .rename_device(bench.op(), device_id(0), None)
            .await
            .unwrap();
        appliance
            .rename_device(bench.op(), device_id(1), Some("a"))
            .await
            .unwrap();
        let refused = appliance.rename_group(bench.op(), GROUP, Some("no name")).await;
        assert!(matches!(refused, Err(VerbError::Name(_))));
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

fn kinds(events: &[Event]) -> Vec<EventKind> {
    events.iter().map(|event| event.kind.clone()).collect()
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
                why: "taken out of service on purpose".into(),
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
fn a_preview_says_what_the_verb_then_does_and_changes_nothing() {
    run(async {
        let bench = Bench::new(3);
        let appliance = bench.create(Level::Raid1, 2).await;
        let generation = appliance.ledger.store.generation().await;
        let plain = NewGroupRequest {
            id: None,
            members: vec![device_id(2)],
            ..group(Level::Raid0, 0)
        };
        let group = appliance.preview_group(&plain).await.unwrap();
        let seen = appliance.preview_volume(&partial()).await.unwrap();
        let grown = appliance
            .preview_expand(VOLUME, 9 * MIB, Some(GROUP))
            .await
            .unwrap();
        let too_much = appliance.preview_expand(VOLUME, 1 << 40, Some(GROUP)).await;
        assert!(matches!(too_much, Err(VerbError::Placement(_))));
        assert_eq!(appliance.ledger.store.generation().await, generation);
        assert_eq!(appliance.find_group(GROUP).await.unwrap().free.len(), 1);

        let made = appliance.create_volume(bench.op(), &partial()).await.unwrap();
        assert_eq!(made.mapped, Vec::from(seen.mapped));
        let more_seen = appliance.preview_placements(made.id, &more()).await.unwrap();
        let placed = appliance.place_more(bench.op(), made.id, &more()).await.unwrap();
        assert_eq!(placed.mapped, Vec::from(more_seen.mapped));
        let done = appliance
            .expand_volume(bench.op(), VOLUME, 9 * MIB, Some(GROUP))
            .await;
        assert_eq!(done.unwrap().mapped, Vec::from(grown.mapped));
        let made = appliance.create_group(bench.op(), &plain).await.unwrap();
        let status = appliance.find_group(made.id).await.unwrap();
        assert_eq!(
            (status.free_slices, status.record.layout.capacity()),
            (group.slices, group.capacity)
        );
        assert_eq!(appliance.group_slices(GROUP).await.unwrap().len(), 4);
    });
}

#[test]
fn settings_are_kept_and_a_volume_below_the_smallest_is_refused() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create(Level::Raid1, 2).await;
        let change = SettingsChange {
            name: Some("north".into()),
            number: Some(4),
            smallest_volume: Some(2 * MIB),
        };
        appliance.change_settings(bench.op(), change).await.unwrap();
        let refused = appliance.create_volume(bench.op(), &volume("small", MIB)).await;
        assert!(matches!(refused, Err(VerbError::Capacity(_))));
        drop(appliance);
        let expected = ApplianceSettings {
            name: "north".into(),
            number: 4,
            smallest_volume: 2 * MIB,
        };
        assert_eq!(bench.open(&[0, 1]).await.settings().await, expected);
    });
}

#[test]
fn the_order_of_records_is_the_format() {
    let index = |record: &Record| postcard::to_stdvec(record).unwrap()[0];
    assert_eq!(
        index(&Record::ToClear(super::records::GroupSlices {
            group: GroupNumber(0),
            slices: crate::logical_device::Slices { first: 0, count: 1 },
        })),
        9
    );
    assert_eq!(index(&Record::RemoveDevice(DeviceNumber(0))), 10);
    assert_eq!(index(&Record::Epoch(1)), 17);
}
