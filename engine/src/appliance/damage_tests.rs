use super::records::{GroupSlices, Record};
use super::tests::{Bench, MIB, VOLUME, device_id, flush, group, read, run, volume, write};
use super::*;
use crate::export::Polling;
use crate::export::access::Protection;
use crate::logical_device::Slices;
use crate::raid::{GroupRecord, Level};
use crate::types::{ByteRange, ExportId, OperationId};
use uuid::Uuid;

#[test]
fn damaged_metadata_that_nobody_else_has_keeps_the_groups_waiting_until_the_user_forces_them() {
    run(async {
        let bench = Bench::new(1);
        let appliance = bench.create(Level::Raid0, 1).await;
        write(&appliance, 0, 0, 1, 4096).await.unwrap();
        flush(&appliance, 0).await;
        for name in ["vol1", "vol2", "vol3"] {
            appliance
                .create_volume(bench.op(), &volume(name, MIB))
                .await
                .unwrap();
        }
        drop(appliance);
        let metadata = examine(bench.device(0))
            .await
            .unwrap()
            .unwrap()
            .superblock
            .layout
            .metadata;
        let start = usize::try_from(metadata.start()).unwrap();
        let last = (start..start + (1 << 20))
            .step_by(4096)
            .rfind(|&at| bench.devices[0].content(at, 8) == b"ASHLRmet")
            .unwrap();
        bench.devices[0].scribble(last - 4096 + 30, &[0xff; 8]);
        assert!(
            examine(bench.device(0))
                .await
                .unwrap()
                .unwrap()
                .metadata_is_damaged
        );

        let waiting = bench.open(&[0]).await;
        assert!(waiting.volume(VolumeNumber(0)).is_none());
        let why = waiting.group_statuses().await.remove(0).waiting.unwrap().why;
        assert_eq!(why, "the newest metadata is damaged on the devices that are here");
        drop(waiting);
        let forced = bench
            .open_with(
                &[0],
                &OpenOptions {
                    force: true,
                    ..OpenOptions::default()
                },
            )
            .await;
        assert_eq!(read(&forced, 0, 0, 4096).await, vec![1; 4096]);
        let names: Vec<String> = forced
            .volume_statuses()
            .await
            .into_iter()
            .map(|it| it.record.name)
            .collect();
        assert_eq!(names, ["vol0", "vol1"]);
        drop(forced);
        assert!(bench.open(&[0]).await.volume(VolumeNumber(1)).is_some());
    });
}

/// Where frames stand in a device's metadata area.
async fn frames(bench: &Bench, index: usize) -> Vec<usize> {
    let examined = examine(bench.device(index)).await.unwrap().unwrap();
    let area = examined.superblock.layout.metadata;
    let at = |at| usize::try_from(at).unwrap();
    (at(area.start())..at(area.end()))
        .step_by(4096)
        .filter(|&at| bench.devices[index].content(at, 8) == b"ASHLRmet")
        .collect()
}

/// An appliance of four devices, of which the first three held the metadata and the second is a group. A start with the
/// last three has the fourth take the first one's place, and the power fails when only the third knows of that.
async fn cut_off_when_one_of_three_names_a_fourth() -> Bench {
    let bench = Bench::new(4);
    let appliance = bench.create_empty().await;
    let plain = NewGroupRequest {
        members: vec![device_id(1)],
        ..group(Level::Raid0, 1)
    };
    appliance.create_group(bench.op(), &plain).await.unwrap();
    drop(appliance);
    let appliance = bench.open(&[0, 1, 2, 3]).await;
    assert_eq!(appliance.metadata_holders().await, [0, 1, 2].map(device_id));
    drop(appliance);
    let before = frames(&bench, 1).await.len();
    drop(bench.open(&[1, 2, 3]).await);
    let commits = frames(&bench, 1).await.len() - before;
    // The first repeats the list that was, the second names the fourth as well.
    for (index, kept) in [(1, 1), (2, 2), (3, 1)] {
        for &at in frames(&bench, index).await.iter().rev().take(commits - kept) {
            bench.devices[index].scribble(at, &[0; 4096]);
        }
    }
    bench
}

#[test]
fn a_start_after_one_that_was_cut_off_counts_on_every_holder_that_is_there_when_one_takes_no_writes() {
    run(async {
        let bench = cut_off_when_one_of_three_names_a_fourth().await;
        bench.devices[0].fill_up();
        let appliance = bench.open(&[0, 1, 3, 2]).await;
        assert!(appliance.group(GroupNumber(0)).is_some());
        assert_eq!(appliance.metadata_holders().await, [1, 2, 3].map(device_id));
    });
}

#[test]
fn a_start_after_one_that_was_cut_off_comes_back_to_an_odd_number_of_holders() {
    run(async {
        let bench = cut_off_when_one_of_three_names_a_fourth().await;
        let appliance = bench.open(&[0, 1, 2, 3]).await;
        assert!(appliance.group(GroupNumber(0)).is_some());
        assert_eq!(appliance.metadata_holders().await.len(), 3);
    });
}

/// What stands in the metadata of an appliance with one mirrored and one plain group, changed by `records`, which get the
/// mirrored group's record; then the appliance is started again.
async fn reopened_with(records: impl FnOnce(GroupRecord) -> Vec<Record>) -> Appliance {
    let bench = Bench::new(3);
    let appliance = bench.create(Level::Raid1, 2).await;
    let plain = NewGroupRequest {
        id: None,
        members: vec![device_id(2)],
        ..group(Level::Raid0, 1)
    };
    appliance.create_group(bench.op(), &plain).await.unwrap();
    let record = appliance.group(GroupNumber(0)).unwrap().record();
    appliance.ledger.store.commit(records(record)).await.unwrap();
    drop(appliance);
    bench.open(&[0, 1, 2]).await
}

#[test]
fn a_group_whose_stored_record_is_unsound_waits_and_the_others_serve() {
    let unsound: [fn(&mut GroupRecord); 16] = [
        |record| record.layout.members = 0,
        |record| record.layout.members = 3,
        |record| record.members.clear(),
        |record| record.members[1] = record.members[0],
        |record| record.layout.unit = 0,
        |record| record.layout.member_len = u64::MAX,
        |record| record.layout.member_len = 0,
        |record| record.granule = 0,
        |record| record.granule = 512,
        |record| record.region = 0,
        |record| record.region = 4096,
        |record| record.slice = 0,
        |record| record.membership.generation = u64::MAX,
        |record| record.members[0].log = ByteRange::between(0, 64),
        |record| record.members[0].data_start = u64::MAX,
        |record| record.members[1].data_start = 20 << 20,
    ];
    for (number, change) in unsound.into_iter().enumerate() {
        run(async {
            let appliance = reopened_with(|mut record| {
                change(&mut record);
                vec![Record::Group(record)]
            })
            .await;
            assert!(appliance.group(GroupNumber(0)).is_none(), "change {number}");
            assert!(appliance.group_statuses().await[0].waiting.is_some());
            assert!(appliance.group(GroupNumber(1)).is_some(), "change {number}");
        });
    }
}

#[test]
fn a_volume_mapped_beyond_its_group_does_not_serve() {
    run(async {
        let appliance = reopened_with(|record| {
            let beyond = crate::map::Run {
                volume_start: 6 << 20,
                len: 1 << 20,
                group: record.number,
                group_start: record.layout.capacity(),
            };
            vec![Record::AddRuns {
                volume: VolumeNumber(0),
                runs: vec![beyond],
            }]
        })
        .await;
        assert!(appliance.volume(VolumeNumber(0)).is_none());
    });
}

#[test]
fn stored_exports_that_contradict_each_other_and_a_worn_out_epoch_do_not_hinder_a_start() {
    run(async {
        let export = |id, client: &str| {
            Record::Export(ExportRecord {
                id: ExportId(Uuid::from_u128(id)),
                name: "e".into(),
                volume: VOLUME,
                read_only: false,
                clients: vec![client.into()],
                protection: Protection::Plain,
                exclusive: false,
                polling: Polling::Never,
                enabled: true,
            })
        };
        let appliance = reopened_with(|_| {
            let exports = [export(1, "nobody"), export(2, "::1"), export(3, "::1")];
            exports.into_iter().chain([Record::Epoch(u64::MAX)]).collect()
        })
        .await;
        assert_eq!(appliance.registry().attached("e"), Some(0));
        assert_eq!(appliance.epoch().await, u64::MAX);
    });
}

#[test]
fn slices_that_a_group_does_not_have_are_neither_cleared_nor_given_out() {
    run(async {
        let beyond = GroupSlices {
            group: GroupNumber(0),
            slices: Slices { first: 100, count: 5 },
        };
        let appliance = reopened_with(|_| {
            vec![
                Record::ToClear(beyond),
                Record::AddSlices {
                    volume: VolumeNumber(0),
                    slices: vec![beyond],
                },
            ]
        })
        .await;
        assert!(
            appliance
                .create_volume(OperationId(Uuid::max()), &volume("more", 2 * MIB))
                .await
                .is_err()
        );
        appliance
            .delete_volume(OperationId(Uuid::nil()), VOLUME)
            .await
            .unwrap();
    });
}
