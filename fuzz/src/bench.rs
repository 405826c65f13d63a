//! An appliance on four disks, to be changed beneath it and started again: a mirrored group and a striped one, with a
//! volume on each.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ashlar_engine::appliance::{
    Appliance, ApplianceSettings, LogicalDeviceFilter, NewAppliance, NewDevice, NewGroupRequest, NewVolume,
    On, OpenOptions,
};
use ashlar_engine::device::Device;
use ashlar_engine::io::IoBuf;
use ashlar_engine::io::target::Target as _;
use ashlar_engine::logical_device::SliceLength;
use ashlar_engine::map::Layout;
use ashlar_engine::raid::Level;
use ashlar_engine::types::{ApplianceId, ByteRange, EmulationType, GroupId, IdSource, OperationId, VolumeId};
use ashlar_engine::volume::Volume;

use crate::{Disk, Edit};

const MIB: u64 = 1 << 20;
const CAPACITY: u64 = 16 * MIB;

/// Records of these kinds stand on the disks, whichever they are.
const KINDS: [&[u8; 8]; 3] = [b"ASHLRsup", b"ASHLRmet", b"ASHLRlog"];

static MADE: LazyLock<Vec<Arc<Disk>>> = LazyLock::new(|| {
    let disks: Vec<_> = (0..4).map(|_| Disk::new(CAPACITY)).collect();
    run(make(&disks));
    for kind in KINDS {
        let found = disks
            .iter()
            .flat_map(|disk| disk.records())
            .any(|(_, magic)| magic == *kind);
        assert!(found, "no {} to change", String::from_utf8_lossy(kind));
    }
    disks
});

/// Runs a future as a data thread would, with time that passes only while nothing else happens.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O can be built");
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

fn devices(disks: &[Arc<Disk>]) -> Vec<Arc<dyn Device>> {
    let device = |disk: &Arc<Disk>| Arc::clone(disk) as Arc<dyn Device>;
    disks.iter().map(device).collect()
}

async fn make(disks: &[Arc<Disk>]) {
    let ids = IdSource::from_seed(1);
    let operation = || OperationId::random(&ids);
    let new = NewAppliance {
        id: ApplianceId::random(&ids),
        settings: ApplianceSettings {
            smallest_volume: MIB,
            ..ApplianceSettings::default()
        },
        devices: devices(disks).into_iter().map(NewDevice::new).collect(),
        registry: Arc::default(),
    };
    let made = Appliance::create(operation(), new, ids.clone());
    let appliance = made.await.expect("blank disks");
    let members: Vec<_> = (appliance.devices().await.iter())
        .map(|device| device.record.id)
        .collect();
    for (number, level) in [(0, Level::Raid1), (1, Level::Raid0)] {
        let request = NewGroupRequest {
            id: Some(GroupId::random(&ids)),
            number: None,
            name: Some(format!("group{number}")),
            level,
            members: members[2 * number..][..2].to_vec(),
            slice: SliceLength::try_from(MIB).expect("a power of two"),
            unit: 64 << 10,
            checksums: true,
        };
        let group = appliance.create_group(operation(), &request).await;
        let new = NewVolume {
            id: Some(VolumeId::random(&ids)),
            number: None,
            name: format!("vol{number}"),
            emulation: "open".parse::<EmulationType>().expect("known"),
            capacity: Some(3 * MIB),
            placements: Vec::new(),
            rest: Some(group.expect("free disks").id),
            layout: Layout::Aligned,
            exact: false,
        };
        let volume = appliance.create_volume(operation(), &new).await;
        volume.expect("free slices");
    }
    for volume in appliance.volumes() {
        use_volume(&volume).await;
    }
    // As after a crash: marks are left.
}

/// Starts the appliance after the edits and works with whatever of it serves. Edits change records whose magic is in
/// `kinds`; each begins with the number of its disk.
pub fn start_after(edits: &[(u8, Edit)], kinds: &[&[u8; 8]]) {
    let disks: Vec<_> = MADE.iter().map(|disk| disk.copy()).collect();
    for (number, edit) in edits {
        let disk = &disks[usize::from(*number) % disks.len()];
        let mut places = disk.records();
        places.retain(|(_, magic)| kinds.contains(&magic));
        edit.apply(disk, &places);
    }
    run(async {
        let options = OpenOptions {
            force: edits.len() % 2 == 1,
            ..OpenOptions::default()
        };
        let Ok(appliance) = Appliance::open(devices(&disks), &options, IdSource::from_seed(2)).await else {
            return;
        };
        appliance.group_statuses().await;
        appliance.volume_statuses().await;
        appliance.devices().await;
        look_up(&appliance).await;
        for volume in appliance.volumes() {
            use_volume(&volume).await;
        }
        // Copies are made equal and marks taken back meanwhile.
        tokio::time::sleep(Duration::from_secs(11)).await;
        appliance.stop().await;
    });
}

/// Looks at everything that is told page by page.
async fn look_up(appliance: &Appliance) {
    let everything = LogicalDeviceFilter::default();
    appliance.logical_devices(&everything, 0, 1000).await;
    for status in appliance.volume_statuses().await {
        let id = status.record.id;
        appliance.volume_map(id, 0, u64::MAX, 1000).await;
        for group in appliance.group_statuses().await {
            let members = group
                .record
                .members
                .iter()
                .map(|member| On::Device(member.device));
            for on in members.chain([On::Group(group.record.id), On::LogicalDevice(0)]) {
                appliance.ranges_on(id, &on, 0, 1000).await;
            }
        }
    }
}

/// Reads and writes at both ends of a volume. What comes of it is the volume's matter: it may have lost its disks.
async fn use_volume(volume: &Arc<Volume>) {
    let capacity = volume.info().capacity;
    for at in [0, capacity.saturating_sub(8192)] {
        let data = IoBuf::from_slice(&[7; 8192]).into_slice();
        let _ = volume.write(at, data, false).await;
        if let Some(range) = ByteRange::new(at, 4096) {
            let _ = volume.read(range).await;
            let _ = volume.block_status(range, 8);
        }
    }
    let _ = volume.flush().await;
}
