use uuid::Uuid;

use super::operation::Answers;
use super::records::{Record, Truth};
use super::tests::{Bench, GROUP, MIB, VOLUME, device_id, group, run, volume};
use super::*;
use crate::map::{Layout, Placement};
use crate::metadata::{State as _, StoreError};
use crate::raid::Level;
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

fn named(name: &str) -> GroupChange {
    GroupChange {
        name: Some(Some(name.into())),
        copy_limit: Some(Some(MIB)),
        spare_after: Some(Some(5)),
        ..GroupChange::default()
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
        ask!(done, |it, op| it.change_group(op, GROUP, named("mirror"))),
        ask!(done, |it, op| it.rename_device(op, device_id(2), Some("spare"))),
        ask!(done, |it, op| it.change_settings(
            op,
            SettingsChange {
                number: Some(7),
                ..SettingsChange::default()
            }
        )),
        ask!(done, |it, op| it.set_spare(
            op,
            device_id(2),
            Some(SpareFor::Group(GROUP))
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
        for (number, verb) in (0..).zip(verbs().into_iter().take(8)) {
            verb.ask(&appliance, OperationId(Uuid::from_u128(number))).await;
        }
        appliance
            .ledger
            .store
            .read(|truth| {
                let mut copy = Truth::default();
                truth.snapshot().for_each(|record| copy.apply(record));
                assert!(copy.snapshot().eq(truth.snapshot()));
                assert!(truth.invariant() && copy.invariant());
                assert_eq!(copy.answers, truth.answers);
                assert_eq!((copy.settings.number, copy.epoch), (7, 1));
                assert_eq!(copy.device_names.get(device_id(2)).unwrap(), "spare");
                assert_eq!(copy.group_names.get(GROUP).unwrap(), "mirror");
            })
            .await;
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
        let refused = appliance.change_group(bench.op(), GROUP, named("no name")).await;
        assert!(matches!(refused, Err(VerbError::Name(_))));
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
fn an_answer_that_too_few_devices_may_know_is_given_by_nobody() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create(Level::Raid1, 2).await;
        let operation = bench.op();
        appliance
            .rename_volume(operation, VOLUME, "renamed")
            .await
            .unwrap();
        drop(appliance);
        let waiting = bench.open(&[1]).await;
        let refused = waiting.rename_volume(operation, VOLUME, "renamed").await;
        assert!(matches!(refused, Err(VerbError::Store(StoreError::NotTaken))));
        drop(waiting);
        let appliance = bench.open(&[0, 1]).await;
        appliance
            .rename_volume(operation, VOLUME, "renamed")
            .await
            .unwrap();
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
    let taken_out = Record::DeviceTakenOut {
        device: super::tests::device_id(0),
        is_out: true,
    };
    assert_eq!(index(&taken_out), 18);
    let limit = Record::GroupCopyLimit {
        group: GROUP,
        limit: None,
    };
    assert_eq!(index(&limit), 19);
    let device = super::tests::device_id(0);
    assert_eq!(index(&Record::Spare { device, spare: None }), 24);
    let care = CareSettings::default();
    assert_eq!(index(&Record::GroupCare { group: GROUP, care }), 25);
    let errors = crate::device::ErrorCounts::default();
    assert_eq!(index(&Record::DeviceErrors { device, errors }), 26);
}

#[test]
fn an_answer_lists_no_more_than_it_may_and_the_map_tells_all() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create(Level::Raid1, 2).await;
        let count = VolumeMade::LISTED as u64 + 10;
        let pages = (0..count).map(|page| Placement {
            range: ByteRange::new(page * 8192, 4096).unwrap(),
            group: GROUP,
        });
        let scattered = NewVolume {
            capacity: Some(count * 8192),
            placements: pages.collect(),
            layout: Layout::Packed { granule: 4096 },
            ..partial()
        };
        let operation = bench.op();
        let made = appliance.create_volume(operation, &scattered).await.unwrap();
        assert_eq!(made.mapped.len(), VolumeMade::LISTED);
        assert_eq!(
            appliance.answered(operation).await,
            Some(Answer::Volume(made.clone()))
        );
        let map = appliance
            .volume_map(made.id, 0, u64::MAX, usize::MAX)
            .await
            .unwrap();
        let placed = map.iter().filter(|stretch| stretch.placed.is_some());
        assert_eq!(placed.count() as u64, count);
    });
}
