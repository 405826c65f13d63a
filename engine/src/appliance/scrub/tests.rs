use std::sync::Arc;
use std::time::Duration;

use crate::appliance::tests::{Bench, GROUP, MIB, flush, run, write};
use crate::appliance::{Appliance, GroupChange, ScrubSchedule, ScrubStatus, VerbError};
use crate::event::EventKind;
use crate::raid::{Group, Level, ScrubMode};
use crate::types::{GroupNumber, OperationId};

const HOUR: u64 = 3600;
const NOON: u64 = 1_800_000_000;

/// A mirror with 6 MiB written, and one bit of its second member flipped in the middle and one at the end.
async fn flipped(bench: &Bench) -> (Appliance, Arc<Group>) {
    let appliance = bench.create(Level::Raid1, 2).await;
    for at in 0..6 {
        write(&appliance, 0, at * MIB, 7, 1 << 20).await.unwrap();
    }
    flush(&appliance, 0).await;
    let group = appliance.group(GroupNumber(0)).unwrap();
    let start = group.record().members[1].data_start;
    for at in [3 * MIB, 6 * MIB - 1] {
        bench.devices[1].scribble(usize::try_from(start + at).unwrap(), &[6]);
    }
    (appliance, group)
}

async fn status(appliance: &Appliance) -> ScrubStatus {
    appliance.find_group(GROUP).await.unwrap().scrub
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

async fn start(appliance: &Appliance, bench: &Bench, mode: ScrubMode, limit: Option<u64>) -> OperationId {
    let id = bench.op();
    appliance.start_scrub(id, GROUP, mode, limit).await.unwrap();
    id
}

async fn schedule(appliance: &Appliance, bench: &Bench, every_hours: Option<u32>) {
    let mode = ScrubMode::Check;
    let change = GroupChange {
        scrub_schedule: Some(every_hours.map(|every_hours| ScrubSchedule { every_hours, mode })),
        ..GroupChange::default()
    };
    appliance.change_group(bench.op(), GROUP, change).await.unwrap();
}

#[test]
fn a_scrub_runs_to_its_end_and_what_it_found_is_kept_over_starts() {
    run(async {
        let bench = Bench::new(2);
        let (appliance, group) = flipped(&bench).await;
        appliance.tell_time(NOON);
        let id = start(&appliance, &bench, ScrubMode::Check, None).await;
        seconds(1).await;
        let check = status(&appliance).await;
        let last = check.last.clone().unwrap();
        assert!(check.running.is_none());
        assert_eq!(
            (last.id, last.mode, last.cancelled),
            (id, ScrubMode::Check, false)
        );
        assert_eq!((last.begun_at, last.ended_at), (Some(NOON), Some(NOON)));
        assert_eq!((last.findings.mismatched, last.findings.done), (2, 6 * MIB));
        drop(group);
        appliance.stop().await;
        let appliance = bench.open(&[0, 1]).await;
        assert_eq!(status(&appliance).await.last, Some(last));
        seconds(10).await;
        start(&appliance, &bench, ScrubMode::Repair, None).await;
        seconds(1).await;
        let repair = status(&appliance).await.last.unwrap();
        assert_eq!((repair.findings.mismatched, repair.findings.repaired), (2, 2));
        start(&appliance, &bench, ScrubMode::Check, None).await;
        seconds(1).await;
        let after = status(&appliance).await.last.unwrap();
        assert_eq!(
            (after.findings.mismatched, after.findings.checked),
            (0, 6 * MIB / 4096)
        );
    });
}

#[test]
fn an_operation_that_is_repeated_begins_one_scrub_and_another_one_is_refused() {
    run(async {
        let bench = Bench::new(2);
        let (appliance, _group) = flipped(&bench).await;
        let id = start(&appliance, &bench, ScrubMode::Check, Some(MIB)).await;
        let again = appliance.start_scrub(id, GROUP, ScrubMode::Check, None);
        again.await.unwrap();
        let other = appliance.start_scrub(bench.op(), GROUP, ScrubMode::Repair, None);
        assert!(matches!(other.await, Err(VerbError::ScrubRuns(GroupNumber(0)))));
        seconds(20).await;
        appliance
            .start_scrub(id, GROUP, ScrubMode::Check, None)
            .await
            .unwrap();
        assert!(status(&appliance).await.running.is_none(), "it is over");
    });
}

#[test]
fn a_scrub_keeps_to_its_limit_and_to_a_pause() {
    run(async {
        let bench = Bench::new(2);
        let (appliance, group) = flipped(&bench).await;
        drop(group);
        let id = start(&appliance, &bench, ScrubMode::Check, Some(MIB)).await;
        seconds(2).await;
        let at = status(&appliance).await.running.unwrap().findings.done;
        assert!((2 * MIB..3 * MIB).contains(&at), "{at}");
        appliance.hold_scrub(GROUP, id, true, Some(MIB)).await.unwrap();
        seconds(60).await;
        let paused_at = status(&appliance).await.running.unwrap().findings.done;
        assert!(paused_at <= at + (256 << 10));
        assert!(status(&appliance).await.running.unwrap().paused);
        drop(appliance);
        let appliance = bench.open(&[0, 1]).await;
        seconds(60).await;
        let running = status(&appliance).await.running.unwrap();
        assert!(
            running.paused && running.findings.done <= paused_at,
            "{running:?}"
        );
        // Of another scrub.
        appliance
            .hold_scrub(GROUP, bench.op(), false, None)
            .await
            .unwrap();
        assert!(status(&appliance).await.running.unwrap().paused);
        appliance.hold_scrub(GROUP, id, false, None).await.unwrap();
        seconds(1).await;
        assert_eq!(status(&appliance).await.last.unwrap().findings.done, 6 * MIB);
    });
}

#[test]
fn the_limit_of_everything_that_a_group_copies_bounds_its_scrubs() {
    run(async {
        let bench = Bench::new(2);
        let (appliance, group) = flipped(&bench).await;
        group.set_standing_copy_limit(Some(MIB));
        start(&appliance, &bench, ScrubMode::Check, None).await;
        seconds(2).await;
        let at = status(&appliance).await.running.unwrap().findings.done;
        assert!((2 * MIB..3 * MIB).contains(&at), "{at}");
        group.set_standing_copy_limit(None);
        seconds(1).await;
        assert!(status(&appliance).await.running.is_none());
    });
}

#[test]
fn a_scrub_goes_on_where_it_stood_after_an_end_and_after_a_crash() {
    run(async {
        let bench = Bench::new(2);
        let (appliance, group) = flipped(&bench).await;
        let id = start(&appliance, &bench, ScrubMode::Check, Some(MIB)).await;
        seconds(2).await;
        drop(group);
        appliance.stop().await;
        let appliance = bench.open(&[0, 1]).await;
        let stood = status(&appliance).await.running.unwrap();
        assert_eq!((stood.id, stood.limit), (id, Some(MIB)));
        assert!((2 * MIB..3 * MIB).contains(&stood.at), "{stood:?}");
        assert_eq!(stood.findings.done, stood.at);
        seconds(2).await;
        // As a crash leaves it: each hundredth was written down.
        drop(appliance);
        let appliance = bench.open(&[0, 1]).await;
        let crashed = status(&appliance).await.running.unwrap();
        assert!(crashed.at >= stood.at + MIB, "{crashed:?}");
        seconds(60).await;
        let findings = status(&appliance).await.last.unwrap().findings;
        assert_eq!((findings.done, findings.mismatched), (6 * MIB, 2));
    });
}

#[test]
fn a_scrub_that_is_cancelled_keeps_what_it_found_and_stays_ended() {
    run(async {
        let bench = Bench::new(2);
        let (appliance, _group) = flipped(&bench).await;
        let id = start(&appliance, &bench, ScrubMode::Check, Some(MIB)).await;
        seconds(4).await;
        // Of another scrub.
        appliance.cancel_scrub(GROUP, bench.op()).await.unwrap();
        assert!(status(&appliance).await.running.is_some());
        appliance.cancel_scrub(GROUP, id).await.unwrap();
        appliance.cancel_scrub(GROUP, id).await.unwrap();
        let last = status(&appliance).await.last.unwrap();
        assert!(last.cancelled && last.findings.mismatched == 1, "{last:?}");
        seconds(60).await;
        drop(appliance);
        let appliance = bench.open(&[0, 1]).await;
        seconds(60).await;
        let status = status(&appliance).await;
        assert_eq!((status.running, status.last), (None, Some(last)));
    });
}

#[test]
fn by_its_schedule_a_group_is_scrubbed_again_and_again_once_the_time_is_known() {
    run(async {
        let bench = Bench::new(2);
        let (appliance, group) = flipped(&bench).await;
        appliance.tell_time(NOON);
        schedule(&appliance, &bench, Some(2)).await;
        assert_eq!(status(&appliance).await.due, Some(NOON + 2 * HOUR));
        seconds(2 * HOUR - 60).await;
        assert!(status(&appliance).await.last.is_none());
        seconds(120).await;
        let first = status(&appliance).await.last.unwrap();
        assert_eq!(first.findings.mismatched, 2);
        let begun = first.begun_at.unwrap();
        assert!(
            (NOON + 2 * HOUR..NOON + 2 * HOUR + 60).contains(&begun),
            "{begun}"
        );
        drop((group, appliance));

        let appliance = bench.open(&[0, 1]).await;
        assert_eq!(status(&appliance).await.due, Some(begun + 2 * HOUR));
        seconds(10 * HOUR).await;
        assert_eq!(
            status(&appliance).await.last,
            Some(first),
            "the time is not known"
        );
        appliance.tell_time(begun + 2 * HOUR);
        seconds(60).await;
        assert_eq!(
            status(&appliance).await.last.unwrap().begun_at.unwrap() / 60,
            (begun + 2 * HOUR) / 60
        );
        schedule(&appliance, &bench, None).await;
        let last = status(&appliance).await.last;
        seconds(10 * HOUR).await;
        let status = status(&appliance).await;
        assert_eq!((status.last, status.due), (last, None));
    });
}

#[test]
fn a_group_that_is_deleted_takes_its_scrub_and_its_schedule_with_it() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create_empty().await;
        let request = crate::appliance::tests::group(Level::Raid1, 2);
        appliance.create_group(bench.op(), &request).await.unwrap();
        schedule(&appliance, &bench, Some(1)).await;
        start(&appliance, &bench, ScrubMode::Check, None).await;
        appliance.delete_group(bench.op(), GROUP).await.unwrap();
        appliance.create_group(bench.op(), &request).await.unwrap();
        let scrub = status(&appliance).await;
        assert!(scrub.running.is_none() && scrub.last.is_none() && scrub.schedule.is_none());
    });
}

#[test]
fn it_is_told_when_a_scrub_begins_finds_something_and_ends() {
    run(async {
        let bench = Bench::new(2);
        let (appliance, _group) = flipped(&bench).await;
        start(&appliance, &bench, ScrubMode::Check, None).await;
        seconds(1).await;
        let (events, _) = appliance.events().since(0);
        let kinds: Vec<EventKind> = events.into_iter().map(|event| event.kind).collect();
        let [
            EventKind::ScrubStarted { group: GROUP, .. },
            EventKind::ScrubMismatch { findings: first, .. },
            EventKind::ScrubFinished {
                cancelled: false,
                findings: all,
                ..
            },
        ] = &kinds[..]
        else {
            panic!("{kinds:?}");
        };
        assert_eq!((first.mismatched, all.mismatched), (1, 2));
    });
}
