use std::sync::Arc;

use super::records::ApplianceSettings;
use super::*;
use crate::device::Device;
use crate::device::memory::MemoryDevice;
use crate::io::target::{Target as _, ZeroOptions};
use crate::io::{IoBuf, IoError, copy_segments};
use crate::logical_device::SliceLength;
use crate::map::{Layout, Placement};
use crate::raid::{GroupState, Level};
use crate::types::{ByteRange, DeviceId, DeviceNumber, EmulationType, GroupId, OperationId, VolumeId};
use uuid::Uuid;

pub(super) const MIB: u64 = 1 << 20;
pub(super) const APPLIANCE: ApplianceId = ApplianceId(Uuid::from_u128(0xa));
pub(super) const GROUP: GroupId = GroupId(Uuid::from_u128(0x9000));
pub(super) const VOLUME: VolumeId = VolumeId(Uuid::from_u128(0xf000));

pub(super) struct Bench {
    pub(super) ids: IdSource,
    pub(super) devices: Vec<Arc<MemoryDevice>>,
}

impl Bench {
    pub(super) fn new(count: usize) -> Self {
        let devices = (0..count).map(|_| MemoryDevice::new(32 << 20)).collect();
        Self {
            ids: IdSource::from_seed(5),
            devices,
        }
    }

    pub(super) fn device(&self, index: usize) -> Arc<dyn Device> {
        Arc::clone(&self.devices[index]) as Arc<dyn Device>
    }

    fn all(&self) -> Vec<Arc<dyn Device>> {
        (0..self.devices.len()).map(|index| self.device(index)).collect()
    }

    pub(super) fn op(&self) -> OperationId {
        OperationId::random(&self.ids)
    }

    /// What is to be made of all devices, which get the identities of [`device_id`].
    pub(super) fn new_appliance(&self) -> NewAppliance {
        let device = |(index, device): (usize, Arc<dyn Device>)| NewDevice {
            id: Some(device_id(index)),
            ..NewDevice::new(device)
        };
        NewAppliance {
            registry: Default::default(),
            id: APPLIANCE,
            settings: ApplianceSettings {
                smallest_volume: 0,
                ..ApplianceSettings::default()
            },
            devices: self.all().into_iter().enumerate().map(device).collect(),
        }
    }

    pub(super) async fn create_empty(&self) -> Appliance {
        let made = Appliance::create(self.op(), self.new_appliance(), self.ids.clone());
        made.await.unwrap()
    }

    pub(super) async fn create(&self, level: Level, members: usize) -> Appliance {
        let appliance = self.create_empty().await;
        let request = group(level, members);
        appliance.create_group(self.op(), &request).await.unwrap();
        let vol0 = volume("vol0", 6 * MIB);
        appliance.create_volume(self.op(), &vol0).await.unwrap();
        appliance
    }

    pub(super) async fn open(&self, present: &[usize]) -> Appliance {
        self.open_with(present, &OpenOptions::default()).await
    }

    pub(super) async fn open_with(&self, present: &[usize], options: &OpenOptions) -> Appliance {
        let devices = present.iter().map(|&index| self.device(index)).collect();
        Appliance::open(devices, options, self.ids.clone()).await.unwrap()
    }
}

pub(super) fn device_id(index: usize) -> DeviceId {
    DeviceId(Uuid::from_u128(0xd000 + index as u128))
}

/// Makes the group that [`volume`] uses.
pub(super) fn group(level: Level, members: usize) -> NewGroupRequest {
    NewGroupRequest {
        id: Some(GROUP),
        number: None,
        name: None,
        level,
        members: (0..members).map(device_id).collect(),
        slice: SliceLength::new(MIB, MIB).unwrap(),
        unit: 64 << 10,
        checksums: true,
    }
}

/// The first one has the identity [`VOLUME`].
pub(super) fn volume(name: &str, capacity: u64) -> NewVolume {
    NewVolume {
        id: (name == "vol0").then_some(VOLUME),
        number: None,
        name: name.into(),
        emulation: "open".parse::<EmulationType>().unwrap(),
        capacity: Some(capacity),
        placements: Vec::new(),
        rest: Some(GROUP),
        layout: Layout::Aligned,
        exact: false,
    }
}

/// Runs a test as the data thread would.
pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

pub(super) async fn write(
    appliance: &Appliance,
    number: u32,
    at: u64,
    fill: u8,
    len: usize,
) -> Result<(), IoError> {
    let volume = appliance.volume(VolumeNumber(number)).unwrap();
    volume
        .write(at, IoBuf::from_slice(&vec![fill; len]).into_slice(), false)
        .await
}

pub(super) async fn flush(appliance: &Appliance, number: u32) {
    appliance
        .volume(VolumeNumber(number))
        .unwrap()
        .flush()
        .await
        .unwrap();
}

pub(super) async fn read(appliance: &Appliance, number: u32, at: u64, len: usize) -> Vec<u8> {
    let range = ByteRange::new(at, len as u64).unwrap();
    let segments = appliance
        .volume(VolumeNumber(number))
        .unwrap()
        .read(range)
        .await
        .unwrap();
    let mut out = vec![0xaa; len];
    copy_segments(&segments, &mut out);
    out
}

#[test]
fn what_was_flushed_is_there_after_a_restart_and_after_an_orderly_stop_nothing_is_marked() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create(Level::Raid1, 2).await;
        write(&appliance, 0, 4096, 7, 8192).await.unwrap();
        flush(&appliance, 0).await;
        drop(appliance);
        let appliance = bench.open(&[0, 1]).await;
        assert_eq!(read(&appliance, 0, 4096, 8192).await, vec![7; 8192]);
        while appliance.group(GroupNumber(0)).unwrap().regions_to_sync() > 0 {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        appliance.stop().await;
        let appliance = bench.open(&[1, 0]).await;
        assert_eq!(appliance.group(GroupNumber(0)).unwrap().marked_regions(), 0);
        assert_eq!(read(&appliance, 0, 4096, 8192).await, vec![7; 8192]);
    });
}

#[test]
fn formatting_leaves_nothing_of_what_stood_in_free_space_and_all_of_what_is_mapped() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create(Level::Raid1, 2).await;
        write(&appliance, 0, 0, 7, 1 << 20).await.unwrap();
        flush(&appliance, 0).await;
        let group = appliance.group(GroupNumber(0)).unwrap();
        let start = usize::try_from(group.record().members[0].data_start).unwrap();
        let capacity = usize::try_from(group.capacity()).unwrap();
        let mapped = usize::try_from(6 * MIB).unwrap();
        // What an earlier use of the devices has left.
        for device in &bench.devices {
            device.scribble(start + mapped, &vec![0xab; capacity - mapped]);
        }
        let before = bench.devices[0].content(start, mapped);
        let (mut at, mut done) = (0, 0);
        while let Some(range) = appliance.format_free(GROUP, at, 3 * MIB).await.unwrap() {
            assert!(range.len() <= 3 * MIB && range.start() >= 6 * MIB);
            (at, done) = (range.end(), done + range.len());
        }
        let free = appliance.find_group(GROUP).await.unwrap().free_slices;
        assert_eq!(done, u64::from(free) * MIB);
        let used = mapped + usize::try_from(done).unwrap();
        for device in &bench.devices {
            assert_eq!(device.content(start, mapped), before);
            assert_eq!(
                device.content(start + mapped, used - mapped),
                vec![0; used - mapped]
            );
        }
        assert_eq!(read(&appliance, 0, 0, 1 << 20).await, vec![7; 1 << 20]);
        let later = appliance
            .create_volume(bench.op(), &volume("later", MIB))
            .await
            .unwrap();
        assert_eq!(read(&appliance, later.number.0, 0, 4096).await, vec![0; 4096]);
    });
}

#[test]
fn one_of_two_devices_waits_until_the_other_comes_or_the_user_forces_it() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create(Level::Raid1, 2).await;
        write(&appliance, 0, 0, 1, 4096).await.unwrap();
        flush(&appliance, 0).await;
        drop(appliance);
        let waiting = bench.open(&[1]).await;
        assert!(waiting.volume(VolumeNumber(0)).is_none());
        assert!(waiting.group_statuses().await[0].waiting.is_some());
        drop(waiting);
        let forced = bench
            .open_with(
                &[1],
                &OpenOptions {
                    force: true,
                    ..OpenOptions::default()
                },
            )
            .await;
        write(&forced, 0, 0, 2, 4096).await.unwrap();
        flush(&forced, 0).await;
        drop(forced);
        let both = bench.open(&[0, 1]).await;
        assert_eq!(read(&both, 0, 0, 4096).await, vec![2; 4096]);
    });
}

#[test]
fn a_survivor_starts_alone_and_the_one_left_behind_does_not() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create(Level::Raid1, 2).await;
        write(&appliance, 0, 0, 1, 4096).await.unwrap();
        flush(&appliance, 0).await;
        bench.devices[0].fail_everything(true);
        write(&appliance, 0, 0, 2, 4096).await.unwrap();
        flush(&appliance, 0).await;
        drop(appliance);
        bench.devices[0].fail_everything(false);
        let old = bench.open(&[0]).await;
        assert!(old.volume(VolumeNumber(0)).is_none());
        drop(old);
        let survivor = bench.open(&[1]).await;
        assert_eq!(read(&survivor, 0, 0, 4096).await, vec![2; 4096]);
        drop(survivor);
        let both = bench.open(&[0, 1]).await;
        assert_eq!(read(&both, 0, 0, 4096).await, vec![2; 4096]);
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        assert_eq!(both.group(GroupNumber(0)).unwrap().state(), GroupState::Optimal);
        drop(both);
        let returned = bench
            .open_with(
                &[0],
                &OpenOptions {
                    force: true,
                    ..OpenOptions::default()
                },
            )
            .await;
        assert_eq!(read(&returned, 0, 0, 4096).await, vec![2; 4096]);
    });
}

#[test]
fn a_third_small_holder_lets_either_member_start_alone_with_it() {
    run(async {
        let bench = Bench::new(3);
        let appliance = bench.create(Level::Raid1, 2).await;
        write(&appliance, 0, 0, 1, 4096).await.unwrap();
        flush(&appliance, 0).await;
        drop(appliance);
        let appliance = bench.open(&[1, 2]).await;
        assert_eq!(read(&appliance, 0, 0, 4096).await, vec![1; 4096]);
        write(&appliance, 0, 0, 2, 4096).await.unwrap();
        flush(&appliance, 0).await;
        drop(appliance);
        let other = bench.open(&[0, 2]).await;
        assert!(
            other.volume(VolumeNumber(0)).is_none(),
            "the holder knows that the member missed a write"
        );
        drop(other);
        assert_eq!(read(&bench.open(&[0, 1]).await, 0, 0, 4096).await, vec![2; 4096]);
    });
}

#[test]
fn a_deleted_volumes_space_reads_zeros_to_the_next_owner() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create(Level::Raid1, 2).await;
        write(&appliance, 0, 0, 9, 6 << 20).await.unwrap();
        flush(&appliance, 0).await;
        appliance.delete_volume(bench.op(), VOLUME).await.unwrap();
        appliance
            .create_volume(bench.op(), &volume("next", 6 * MIB))
            .await
            .unwrap();
        assert_eq!(read(&appliance, 0, 0, 6 << 20).await, vec![0; 6 << 20]);
        write(&appliance, 0, 512, 1, 512).await.unwrap();
        flush(&appliance, 0).await;
        drop(appliance);
        let appliance = bench.open(&[0, 1]).await;
        let mut expected = vec![0; 64 << 10];
        expected[512..1024].fill(1);
        assert_eq!(read(&appliance, 0, 0, 64 << 10).await, expected);
    });
}

#[test]
fn a_volume_grows_in_use_and_after_a_restart_has_its_new_size() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create(Level::Raid0, 2).await;
        write(&appliance, 0, 5 << 20, 3, 1 << 20).await.unwrap();
        appliance
            .expand_volume(bench.op(), VOLUME, 9 * MIB, Some(GROUP))
            .await
            .unwrap();
        write(&appliance, 0, (6 << 20) - 4096, 4, 8192).await.unwrap();
        flush(&appliance, 0).await;
        drop(appliance);
        let appliance = bench.open(&[0, 1]).await;
        assert_eq!(
            appliance.volume(VolumeNumber(0)).unwrap().info().capacity,
            9 << 20
        );
        assert_eq!(read(&appliance, 0, (6 << 20) - 4096, 8192).await, vec![4; 8192]);
        assert_eq!(read(&appliance, 0, 5 << 20, 4096).await, vec![3; 4096]);
    });
}

#[test]
fn a_partial_volume_answers_with_an_error_outside_its_ranges() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create(Level::Raid1, 2).await;
        let placements = vec![Placement {
            range: ByteRange::new(2 << 20, 1 << 20).unwrap(),
            group: GROUP,
        }];
        let partial = NewVolume {
            placements,
            rest: None,
            ..volume("part", 8 * MIB)
        };
        let made = appliance.create_volume(bench.op(), &partial).await.unwrap();
        assert_eq!(made.number, VolumeNumber(1));
        write(&appliance, 1, 2 << 20, 1, 4096).await.unwrap();
        let volume = appliance.volume(VolumeNumber(1)).unwrap();
        let outside = ByteRange::new((3 << 20) - 4096, 8192).unwrap();
        assert!(matches!(
            volume.read(outside).await,
            Err(IoError::Unmapped { .. })
        ));
        assert!(matches!(
            volume.zero(outside, ZeroOptions::default()).await,
            Err(IoError::Unmapped { .. })
        ));
        let data = IoBuf::from_slice(&[5; 8192]).into_slice();
        assert!(matches!(
            volume.write(outside.start(), data, false).await,
            Err(IoError::Unmapped { .. })
        ));
        assert_eq!(
            read(&appliance, 1, (3 << 20) - 4096, 4096).await,
            vec![0; 4096],
            "nothing of it happened"
        );
        let status = volume
            .block_status(ByteRange::new(0, 8 << 20).unwrap(), 16)
            .unwrap();
        assert_eq!(
            status.first().map(|run| (run.len, run.hole, run.zero)),
            Some((2 << 20, true, false))
        );
    });
}

#[test]
fn verbs_with_wrong_input_say_so_and_change_nothing() {
    run(async {
        let bench = Bench::new(3);
        let appliance = bench.create(Level::Raid1, 2).await;
        let again = appliance
            .create_group(
                bench.op(),
                &NewGroupRequest {
                    id: None,
                    ..group(Level::Raid1, 2)
                },
            )
            .await;
        assert!(matches!(
            again,
            Err(VerbError::DeviceInUse {
                device: DeviceNumber(0),
                group: GroupNumber(0)
            })
        ));
        let few = NewGroupRequest {
            members: vec![device_id(2)],
            ..group(Level::Raid1, 2)
        };
        assert!(matches!(
            appliance.create_group(bench.op(), &few).await,
            Err(VerbError::TooFewMembers { needed: 2, given: 1 })
        ));
        let odd = NewGroupRequest {
            members: (0..5).map(device_id).collect(),
            ..group(Level::Raid10, 4)
        };
        assert!(matches!(
            appliance.create_group(bench.op(), &odd).await,
            Err(VerbError::OddMembers { step: 2, given: 5 })
        ));
        let twice = NewGroupRequest {
            members: vec![device_id(2); 2],
            ..group(Level::Raid0, 2)
        };
        assert!(matches!(
            appliance.create_group(bench.op(), &twice).await,
            Err(VerbError::DeviceTwice(DeviceNumber(2)))
        ));
        assert!(matches!(
            appliance
                .create_volume(
                    bench.op(),
                    &NewVolume {
                        id: None,
                        ..volume("vol0", MIB)
                    }
                )
                .await,
            Err(VerbError::NameTaken(_))
        ));
        assert!(matches!(
            appliance.create_volume(bench.op(), &volume("/", MIB)).await,
            Err(VerbError::Name(_))
        ));
        assert!(matches!(
            appliance.create_volume(bench.op(), &volume("big", 1 << 40)).await,
            Err(VerbError::Placement(_))
        ));
        assert!(matches!(
            appliance.delete_group(bench.op(), GROUP).await,
            Err(VerbError::GroupInUse { volumes: 1, .. })
        ));
        assert_eq!(appliance.volume_statuses().await.len(), 1);
        assert_eq!(appliance.group_statuses().await.len(), 1);
    });
}

#[test]
fn a_replaced_member_gets_everything_and_serves_alone_afterwards() {
    run(async {
        let bench = Bench::new(3);
        let appliance = bench.create(Level::Raid1, 2).await;
        write(&appliance, 0, 1 << 20, 6, 2 << 20).await.unwrap();
        flush(&appliance, 0).await;
        appliance
            .replace_member(bench.op(), GROUP, device_id(0), device_id(2))
            .await
            .unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        assert_eq!(
            appliance.group(GroupNumber(0)).unwrap().state(),
            GroupState::Optimal
        );
        bench.devices[1].fail_everything(true);
        assert_eq!(read(&appliance, 0, 1 << 20, 2 << 20).await, vec![6; 2 << 20]);
        appliance.stop().await;
        let appliance = bench.open(&[2]).await;
        assert!(
            appliance.volume(VolumeNumber(0)).is_none()
                || !read(&appliance, 0, 1 << 20, 512).await.is_empty()
        );
    });
}

#[test]
fn a_copy_of_a_device_beside_it_is_refused() {
    run(async {
        let bench = Bench::new(2);
        drop(bench.create(Level::Raid1, 2).await);
        let copy = MemoryDevice::new(32 << 20);
        copy.scribble(0, &bench.devices[1].content(0, 32 << 20));
        let mut devices = bench.all();
        devices.push(copy);
        let opened = Appliance::open(devices, &OpenOptions::default(), bench.ids.clone()).await;
        assert!(matches!(opened, Err(OpenError::DeviceTwice(DeviceNumber(1)))));
    });
}
