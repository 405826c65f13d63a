use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::spare_tests::{OTHER, members, second_mirror, seconds, state_of, told};
use super::tests::{Bench, GROUP, MIB, VOLUME, device_id, flush, read, run, volume, write};
use super::*;
use crate::device::memory::Power;
use crate::device::{Device, DeviceError};
use crate::event::EventKind;
use crate::io::target::Target as _;
use crate::raid::{GroupState, Level, MemberStatus};

const IN_SYNC: MemberStatus = MemberStatus::InSync;

/// A group with 4 MiB written, and a volume on it.
async fn with_data(bench: &Bench, level: Level, members: usize) -> Appliance {
    let appliance = bench.create(level, members).await;
    for at in 0..4 {
        write(&appliance, 0, at * MIB, 7, 1 << 20).await.unwrap();
    }
    flush(&appliance, 0).await;
    appliance
}

async fn check_data(appliance: &Appliance) {
    for at in 0..4 {
        let found = read(appliance, 0, at * MIB, 1 << 20).await;
        assert_eq!(found, vec![7; 1 << 20], "{at}");
    }
}

fn fail(bench: &Bench, devices: impl IntoIterator<Item = usize>, fails: bool) {
    for device in devices {
        bench.devices[device].fail_everything(fails);
    }
}

/// Has the group stop because these fail.
async fn stop(bench: &Bench, appliance: &Appliance, devices: impl IntoIterator<Item = usize>) {
    fail(bench, devices, true);
    write(appliance, 0, 0, 7, 1 << 20).await.unwrap_err();
    assert_eq!(state_of(appliance, GROUP).await, Some(GroupState::Failed));
}

async fn statuses(appliance: &Appliance) -> Vec<MemberStatus> {
    let members = members(appliance, GROUP).await.into_iter();
    members.map(|(_, status)| status).collect()
}

/// The states that a group was told to have come to.
fn states(appliance: &Appliance, id: GroupId) -> Vec<GroupState> {
    let state = |kind| match kind {
        EventKind::GroupStateChanged { group, to, .. } if group == id => Some(to),
        _ => None,
    };
    told(appliance).into_iter().filter_map(state).collect()
}

/// What the volume tells its hosts of.
fn losses(appliance: &Appliance) -> u64 {
    appliance.volume(VolumeNumber(0)).unwrap().losses()
}

#[test]
fn a_group_whose_members_all_failed_resumes_when_they_answer_again_with_all_data() {
    for (level, count) in [(Level::Raid0, 2), (Level::Raid1, 2), (Level::Raid5, 3)] {
        run(async {
            let bench = Bench::new(count);
            let appliance = with_data(&bench, level, count).await;
            // The metadata has no other holders.
            stop(&bench, &appliance, 0..count).await;
            seconds(120).await;
            assert_eq!(state_of(&appliance, GROUP).await, Some(GroupState::Failed));
            fail(&bench, 0..count, false);
            seconds(6).await;
            check_data(&appliance).await;
            seconds(20).await;
            assert_eq!(state_of(&appliance, GROUP).await, Some(GroupState::Optimal));
            assert_eq!(statuses(&appliance).await, vec![IN_SYNC; count]);
            // They are open as they were.
            assert_eq!(losses(&appliance), 0);
            write(&appliance, 0, 5 * MIB, 9, 1 << 20).await.unwrap();
            flush(&appliance, 0).await;
            let events = told(&appliance);
            assert!(events.contains(&EventKind::VolumeNotServing { volume: VOLUME }));
            assert!(events.contains(&EventKind::VolumeServing { volume: VOLUME }));
            let states = states(&appliance, GROUP);
            assert_eq!(states.first(), Some(&GroupState::Failed));
            assert_eq!(states.last(), Some(&GroupState::Optimal));
            // Whose space is whose is known as before.
            let later = volume("later", MIB);
            let made = appliance.create_volume(bench.op(), &later).await.unwrap();
            let later = made.number.0;
            assert_eq!(read(&appliance, later, 0, 1 << 20).await, vec![0; 1 << 20]);
            drop(appliance);
            let appliance = bench.open(&(0..count).collect::<Vec<_>>()).await;
            check_data(&appliance).await;
            assert_eq!(read(&appliance, 0, 5 * MIB, 1 << 20).await, vec![9; 1 << 20]);
        });
    }
}

#[test]
fn a_group_resumes_without_a_member_that_stays_away_and_takes_it_in_when_it_is_returned() {
    for (level, count) in [(Level::Raid1, 2), (Level::Raid5, 3)] {
        run(async {
            let bench = Bench::new(5);
            let appliance = with_data(&bench, level, count).await;
            stop(&bench, &appliance, 0..count).await;
            fail(&bench, 1..count, false);
            seconds(12).await;
            assert_eq!(state_of(&appliance, GROUP).await, Some(GroupState::Degraded));
            assert_eq!(statuses(&appliance).await[0], MemberStatus::Out);
            check_data(&appliance).await;
            write(&appliance, 0, 0, 8, 1 << 20).await.unwrap();
            fail(&bench, [0], false);
            let back = appliance.return_device(bench.op(), bench.device(0));
            back.await.unwrap();
            seconds(20).await;
            assert_eq!(state_of(&appliance, GROUP).await, Some(GroupState::Optimal));
            appliance.fail_device(bench.op(), device_id(1)).await.unwrap();
            assert_eq!(read(&appliance, 0, 0, 1 << 20).await, vec![8; 1 << 20]);
        });
    }
}

#[test]
fn a_stopped_group_that_lacks_too_many_members_is_read_where_it_can_be_and_stays_stopped() {
    run(async {
        let bench = Bench::new(4);
        let appliance = with_data(&bench, Level::Raid0, 2).await;
        stop(&bench, &appliance, [0]).await;
        seconds(60).await;
        assert_eq!(state_of(&appliance, GROUP).await, Some(GroupState::Failed));
        // Stripe units of 64 KiB, in turn.
        let unit = read(&appliance, 0, 64 << 10, 64 << 10).await;
        assert_eq!(unit, vec![7; 64 << 10]);
        write(&appliance, 0, 64 << 10, 9, 4096).await.unwrap_err();
        assert_eq!(statuses(&appliance).await, [IN_SYNC; 2]);
    });
}

#[test]
fn a_member_that_missed_writes_before_the_group_stopped_is_copied_to_and_not_read() {
    run(async {
        let bench = Bench::new(5);
        let appliance = with_data(&bench, Level::Raid1, 2).await;
        fail(&bench, [0], true);
        write(&appliance, 0, MIB, 9, 1 << 20).await.unwrap();
        flush(&appliance, 0).await;
        stop(&bench, &appliance, [1]).await;
        fail(&bench, [0], false);
        seconds(60).await;
        assert_eq!(state_of(&appliance, GROUP).await, Some(GroupState::Failed));
        fail(&bench, [1], false);
        seconds(7).await;
        assert_eq!(read(&appliance, 0, MIB, 1 << 20).await, vec![9; 1 << 20]);
        seconds(20).await;
        assert_eq!(statuses(&appliance).await, [IN_SYNC; 2]);
        appliance.fail_device(bench.op(), device_id(1)).await.unwrap();
        assert_eq!(read(&appliance, 0, MIB, 1 << 20).await, vec![9; 1 << 20]);
    });
}

#[test]
fn a_device_that_was_taken_out_by_hand_is_left_out() {
    run(async {
        let bench = Bench::new(5);
        let appliance = with_data(&bench, Level::Raid1, 2).await;
        appliance.fail_device(bench.op(), device_id(0)).await.unwrap();
        stop(&bench, &appliance, [1]).await;
        fail(&bench, [1], false);
        seconds(30).await;
        assert_eq!(state_of(&appliance, GROUP).await, Some(GroupState::Degraded));
        assert_eq!(statuses(&appliance).await, [MemberStatus::Out, IN_SYNC]);
        check_data(&appliance).await;
    });
}

#[test]
fn a_device_that_could_not_flush_comes_back_only_when_somebody_returns_it() {
    run(async {
        let bench = Bench::new(5);
        let appliance = with_data(&bench, Level::Raid0, 2).await;
        fail(&bench, [0], true);
        let volume = appliance.volume(VolumeNumber(0)).unwrap();
        volume.flush().await.unwrap_err();
        fail(&bench, [0], false);
        seconds(60).await;
        assert_eq!(state_of(&appliance, GROUP).await, Some(GroupState::Failed));
        let back = appliance.return_device(bench.op(), bench.device(0));
        back.await.unwrap();
        seconds(1).await;
        assert_eq!(state_of(&appliance, GROUP).await, Some(GroupState::Optimal));
        assert_eq!(losses(&appliance), 1);
        check_data(&appliance).await;
    });
}

#[test]
fn a_member_that_hangs_holds_up_neither_verbs_nor_the_other_group() {
    run(async {
        let bench = Bench::new(5);
        let appliance = with_data(&bench, Level::Raid1, 2).await;
        second_mirror(&bench, &appliance).await;
        let on_other = NewVolume {
            rest: Some(OTHER),
            ..volume("other", MIB)
        };
        let other = appliance.create_volume(bench.op(), &on_other).await.unwrap();
        stop(&bench, &appliance, 0..4).await;
        write(&appliance, other.number.0, 0, 7, 4096).await.unwrap_err();
        fail(&bench, 0..4, false);
        (0..2).for_each(|device| bench.devices[device].hold_reads());
        seconds(60).await;
        assert_eq!(state_of(&appliance, GROUP).await, Some(GroupState::Failed));
        assert_eq!(state_of(&appliance, OTHER).await, Some(GroupState::Optimal));
        write(&appliance, other.number.0, 0, 7, 4096).await.unwrap();
        let change = GroupChange {
            name: Some(Some("hangs".into())),
            ..GroupChange::default()
        };
        appliance.change_group(bench.op(), GROUP, change).await.unwrap();
        (0..2).for_each(|device| bench.devices[device].release_reads());
        seconds(30).await;
        assert_eq!(state_of(&appliance, GROUP).await, Some(GroupState::Optimal));
        check_data(&appliance).await;
    });
}

#[test]
fn a_group_does_not_resume_on_devices_that_another_program_has_gone_on_with() {
    run(async {
        let bench = Bench::new(2);
        let appliance = with_data(&bench, Level::Raid1, 2).await;
        stop(&bench, &appliance, 0..2).await;
        fail(&bench, 0..2, false);
        let elsewhere = bench.open(&[0, 1]).await;
        write(&elsewhere, 0, 0, 9, 1 << 20).await.unwrap();
        flush(&elsewhere, 0).await;
        drop(elsewhere);
        seconds(60).await;
        assert_eq!(state_of(&appliance, GROUP).await, Some(GroupState::Failed));
        drop(appliance);
        let appliance = bench.open(&[0, 1]).await;
        assert_eq!(read(&appliance, 0, 0, 1 << 20).await, vec![9; 1 << 20]);
    });
}

/// Opens the devices of a bench, and counts.
struct ByNumber {
    devices: Vec<Arc<dyn Device>>,
    opened: AtomicU64,
}

impl Opener for ByNumber {
    fn open(&self, device: DeviceId) -> Opening {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let index = (0..self.devices.len()).find(|&index| device_id(index) == device);
        let device = index.map(|index| Arc::clone(&self.devices[index]));
        Box::pin(async move { device.ok_or_else(|| "unknown".to_owned()) })
    }
}

#[test]
fn a_member_that_does_not_answer_as_it_is_open_is_opened_anew() {
    run(async {
        let mut bench = Bench::new(5);
        let appliance = with_data(&bench, Level::Raid1, 2).await;
        stop(&bench, &appliance, 0..2).await;
        // Another opening of the same device: what the first one is asked fails for ever.
        let moved: Vec<_> = bench
            .devices
            .iter()
            .map(|device| device.another_opening())
            .collect();
        bench.devices = moved;
        let devices = (0..5).map(|index| bench.device(index)).collect();
        let opener = Arc::new(ByNumber {
            devices,
            opened: AtomicU64::new(0),
        });
        appliance.set_opener(Arc::clone(&opener) as Arc<dyn Opener>);
        seconds(30).await;
        assert_eq!(state_of(&appliance, GROUP).await, Some(GroupState::Optimal));
        assert_eq!(opener.opened.load(Ordering::Relaxed), 2);
        check_data(&appliance).await;
        // What it had not made durable may be missing: hosts are told.
        assert_eq!(losses(&appliance), 1);
        let there = appliance.ledger.device(device_id(0)).unwrap().device();
        assert!(Arc::ptr_eq(&there, &bench.device(0)));
    });
}

#[test]
fn a_device_that_left_something_unanswered_is_taken_only_where_it_is_opened_anew() {
    run(async {
        let bench = Bench::new(5);
        let appliance = with_data(&bench, Level::Raid0, 2).await;
        bench.devices[0].fail_with(Some(DeviceError::Timeout));
        write(&appliance, 0, 0, 7, 4096).await.unwrap_err();
        bench.devices[0].fail_with(None);
        seconds(60).await;
        assert_eq!(state_of(&appliance, GROUP).await, Some(GroupState::Failed));
        // It is still the same opening.
        let back = appliance.return_device(bench.op(), bench.device(0));
        back.await.unwrap();
        seconds(60).await;
        assert_eq!(state_of(&appliance, GROUP).await, Some(GroupState::Failed));
        let anew = bench.devices[0].another_opening() as Arc<dyn Device>;
        let opener = ByNumber {
            devices: vec![anew],
            opened: AtomicU64::new(0),
        };
        appliance.set_opener(Arc::new(opener));
        seconds(20).await;
        assert_eq!(state_of(&appliance, GROUP).await, Some(GroupState::Optimal));
        check_data(&appliance).await;
    });
}

#[test]
fn a_crash_at_any_step_of_resuming_loses_nothing() {
    for level in [Level::Raid1, Level::Raid5] {
        let mut changes = 0;
        loop {
            let power = Power::for_changes(changes);
            run(async {
                let bench = Bench::new(4);
                let appliance = with_data(&bench, level, 3 - usize::from(level == Level::Raid1)).await;
                stop(&bench, &appliance, 0..3).await;
                for device in &bench.devices {
                    device.feed(Some(power.clone()));
                }
                // One stays away at first, so that the record changes.
                fail(&bench, 1..3, false);
                seconds(12).await;
                drop(appliance);
                for device in &bench.devices {
                    device.feed(None);
                }
                fail(&bench, [0], false);
                let appliance = bench.open(&[0, 1, 2, 3]).await;
                seconds(30).await;
                let state = state_of(&appliance, GROUP).await;
                assert_eq!(
                    state,
                    Some(GroupState::Optimal),
                    "{level:?} after {changes} changes"
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
}
