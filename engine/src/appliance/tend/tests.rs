use std::sync::Arc;
use std::time::Duration;

use crate::appliance::tests::{Bench, GROUP, MIB, device_id, flush, read, run, write};
use crate::appliance::{Appliance, GroupChange};
use crate::raid::{Group, GroupState, Level};
use crate::types::{ByteRange, GroupNumber};

/// A mirror with 6 MiB written, of which one member was replaced while copying was paused.
async fn replaced(bench: &Bench) -> (Appliance, Arc<Group>) {
    let appliance = bench.create(Level::Raid1, 2).await;
    for at in 0..6 {
        write(&appliance, 0, at * MIB, 7, 1 << 20).await.unwrap();
    }
    flush(&appliance, 0).await;
    let group = appliance.group(GroupNumber(0)).unwrap();
    group.set_copy_paused(true);
    let replace = appliance.replace_member(bench.op(), GROUP, device_id(0), device_id(2));
    replace.await.unwrap();
    bench.devices[2].take_written();
    (appliance, group)
}

/// Bytes copied to the new member since the last call.
fn copied(bench: &Bench, group: &Group) -> u64 {
    let data = ByteRange::new(group.record().members[0].data_start, group.capacity()).unwrap();
    let written = bench.devices[2].take_written().into_iter();
    written
        .filter_map(|range| range.intersection(data))
        .map(ByteRange::len)
        .sum()
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

#[test]
fn a_paused_copy_copies_nothing_and_goes_on_when_it_is_resumed() {
    run(async {
        let bench = Bench::new(3);
        let (appliance, group) = replaced(&bench).await;
        seconds(60).await;
        assert_eq!(copied(&bench, &group), 0);
        let status = appliance.find_group(GROUP).await.unwrap();
        assert_eq!(status.state, Some(GroupState::Rebuilding));
        assert!(status.copy_paused);
        assert_eq!((status.copy.left, status.copy.done), (6 * MIB, 0));
        // It holds nothing that a host's request needs.
        write(&appliance, 0, 0, 8, 4096).await.unwrap();
        assert_eq!(read(&appliance, 0, 0, 4096).await, vec![8; 4096]);
        bench.devices[2].take_written();

        group.set_copy_paused(false);
        seconds(10).await;
        assert_eq!(copied(&bench, &group), 6 * MIB);
        assert_eq!(group.state(), GroupState::Optimal);
        let progress = group.copy_progress();
        assert_eq!((progress.left, progress.done), (0, 6 * MIB));
    });
}

#[test]
fn a_pause_in_the_middle_stops_after_the_chunk() {
    run(async {
        let bench = Bench::new(3);
        let (_appliance, group) = replaced(&bench).await;
        group.set_copy_limit(Some(MIB));
        group.set_copy_paused(false);
        seconds(2).await;
        group.set_copy_paused(true);
        copied(&bench, &group);
        seconds(60).await;
        assert_eq!(copied(&bench, &group), 0);
        let progress = group.copy_progress();
        assert!(progress.left > 0 && progress.done > 0, "{progress:?}");
        assert_eq!(progress.left + progress.done, 6 * MIB);
        group.set_copy_paused(false);
        seconds(60).await;
        assert_eq!(group.state(), GroupState::Optimal);
    });
}

/// A second's share, with what may come early and what was begun.
fn bounds(limit: u64) -> std::ops::RangeInclusive<u64> {
    limit - (256 << 10)..=limit + limit / 10 + (256 << 10)
}

#[test]
fn a_limit_bounds_what_is_copied_in_a_second_and_counts_at_once_when_it_is_changed() {
    run(async {
        let bench = Bench::new(3);
        let (_appliance, group) = replaced(&bench).await;
        group.set_copy_limit(Some(MIB));
        group.set_copy_paused(false);
        seconds(1).await;
        assert!(bounds(MIB).contains(&copied(&bench, &group)));
        seconds(1).await;
        assert!(bounds(MIB).contains(&copied(&bench, &group)));
        group.set_copy_limit(Some(2 * MIB));
        seconds(1).await;
        assert!(bounds(2 * MIB).contains(&copied(&bench, &group)));
        group.set_copy_limit(Some(1));
        seconds(100).await;
        assert!(copied(&bench, &group) <= 256 << 10);
        group.set_copy_limit(None);
        seconds(1).await;
        assert_eq!(group.state(), GroupState::Optimal);
    });
}

#[test]
fn the_limit_of_all_groups_holds_beside_a_groups_own_and_an_end_waits_for_no_turn() {
    run(async {
        let bench = Bench::new(3);
        let (appliance, group) = replaced(&bench).await;
        appliance.set_copy_limits(Some(MIB));
        group.set_copy_limit(Some(4 * MIB));
        group.set_copy_paused(false);
        seconds(1).await;
        assert!(bounds(MIB).contains(&copied(&bench, &group)));
        appliance.set_copy_limits(Some(0));
        seconds(5).await;
        assert!(copied(&bench, &group) <= 256 << 10);
        appliance.stop().await;
        assert!(group.copy_progress().left > 0);
    });
}

#[test]
fn a_groups_own_limit_holds_over_starts_and_at_once_when_it_is_changed_and_the_smallest_counts() {
    run(async {
        let bench = Bench::new(3);
        let (appliance, group) = replaced(&bench).await;
        let limit = async |appliance: &Appliance, limit| {
            let change = GroupChange {
                copy_limit: Some(limit),
                ..GroupChange::default()
            };
            appliance.change_group(bench.op(), GROUP, change).await.unwrap();
        };
        limit(&appliance, Some(MIB)).await;
        group.set_copy_paused(false);
        seconds(1).await;
        assert!(bounds(MIB).contains(&copied(&bench, &group)));
        // A job's limit, and its end.
        group.set_copy_limit(Some(MIB / 2));
        seconds(1).await;
        assert!(bounds(MIB / 2).contains(&copied(&bench, &group)));
        group.set_copy_limit(None);
        seconds(1).await;
        assert!(bounds(MIB).contains(&copied(&bench, &group)));
        drop((group, appliance));

        let appliance = bench.open(&[0, 1, 2]).await;
        let status = appliance.find_group(GROUP).await.unwrap();
        assert_eq!((status.standing_copy_limit, status.copy_limit), (Some(MIB), None));
        let group = appliance.group(GroupNumber(0)).unwrap();
        copied(&bench, &group);
        seconds(1).await;
        assert!(bounds(MIB).contains(&copied(&bench, &group)));
        limit(&appliance, None).await;
        seconds(2).await;
        assert_eq!(group.state(), GroupState::Optimal);
        drop((group, appliance));
        let appliance = bench.open(&[0, 1, 2]).await;
        let status = appliance.find_group(GROUP).await.unwrap();
        assert_eq!(status.standing_copy_limit, None);
    });
}

#[test]
fn a_read_that_finds_copies_different_after_a_crash_waits_for_no_paused_copy() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create(Level::Raid1, 2).await;
        write(&appliance, 0, 0, 1, 4096).await.unwrap();
        flush(&appliance, 0).await;
        let start = appliance.group(GroupNumber(0)).unwrap().record().members[1].data_start;
        drop(appliance);
        // As if a write had reached one member only.
        bench.devices[1].scribble(usize::try_from(start).unwrap(), &[9; 4096]);
        let appliance = bench.open(&[0, 1]).await;
        let group = appliance.group(GroupNumber(0)).unwrap();
        group.set_copy_paused(true);
        seconds(60).await;
        assert!(group.copy_progress().left > 0);
        let seen = read(&appliance, 0, 0, 4096).await;
        let start = usize::try_from(start).unwrap();
        for device in &bench.devices {
            assert_eq!(device.content(start, 4096), seen);
        }
    });
}
