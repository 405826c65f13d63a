//! What is measured: an appliance on files, with one group and one volume on it that is written from end to end.
//!
//! The files are sparse and large, so that a group's journal is as long as on a disk. What is used of them has its blocks
//! before anything is measured: neither side waits for a file system that looks for some.

use std::path::PathBuf;
use std::sync::Arc;

use ashlar_engine::appliance::{
    Appliance, ApplianceSettings, NewAppliance, NewDevice, NewGroupRequest, NewVolume,
};
use ashlar_engine::device::{self, CachePolicy, Device, OpenOptions, Request, file};
use ashlar_engine::io::IoBuf;
use ashlar_engine::io::target::{Target as _, ZeroOptions};
use ashlar_engine::logical_device::SliceLength;
use ashlar_engine::map::Layout;
use ashlar_engine::raid::{Group, Level};
use ashlar_engine::types::bytes::{GIB, MIB};
use ashlar_engine::types::{ApplianceId, ByteRange, DeviceId, IdSource, OperationId};
use ashlar_engine::volume::Volume;
use tempfile::TempDir;

use crate::counting::{Counting, Counts, Places};
use crate::load::{self, Clock, Load, Until};
use crate::pace::Pace;

/// A sixty-fourth of a member is journal, 64 MiB at the most.
const DEVICE: u64 = 5 * GIB;
const SLICE: u64 = 64 * MIB;
pub(crate) const UNIT: u64 = 64 << 10;

/// Where the files lie.
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) direct: bool,
    /// Bytes per second of each device, where it is to be as slow as a disk.
    pub(crate) pace: Option<f64>,
    pub(crate) clock: Clock,
}

#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) level: Level,
    pub(crate) members: usize,
    /// Devices that are in no group.
    pub(crate) spares: usize,
    pub(crate) checksums: bool,
    /// Bytes of the volume.
    pub(crate) volume: u64,
}

pub(crate) struct Bed {
    pub(crate) appliance: Appliance,
    pub(crate) group: Arc<Group>,
    pub(crate) volume: Arc<Volume>,
    pub(crate) bytes: u64,
    pub(crate) ids: IdSource,
    pub(crate) clock: Clock,
    /// By the number that the appliance gave them.
    pub(crate) devices: Vec<(DeviceId, Arc<Counting>)>,
    _files: TempDir,
}

impl Bed {
    pub(crate) async fn make(site: &Site, plan: Plan) -> Self {
        let files = tempfile::tempdir_in(&site.folder).expect("files can be made there");
        let options = OpenOptions {
            cache: site.direct.then_some(CachePolicy::Direct),
            ..OpenOptions::default()
        };
        let create = |number| {
            let path = files.path().join(format!("device-{number}"));
            let device = file::create(&path, DEVICE, &options).expect("the folder is new");
            Arc::new(Counting::new(device, site.pace.map(Pace::new)))
        };
        let counting: Vec<Arc<Counting>> = (0..plan.members + plan.spares).map(create).collect();
        let ids = IdSource::from_system();
        let appliance = make_appliance(&counting, &ids).await;
        let known = appliance.devices().await;
        let devices: Vec<_> = known
            .iter()
            .map(|device| device.record.id)
            .zip(counting)
            .collect();
        let group = make_group(&appliance, plan, &devices, &ids).await;
        let volume = make_volume(&appliance, plan, &group, &ids).await;
        let bed = Self {
            appliance,
            group,
            volume,
            bytes: plan.volume,
            ids,
            clock: site.clock,
            devices,
            _files: files,
        };
        bed.prepare().await;
        bed
    }

    /// Has the files take their blocks, the devices count, and the volume written.
    async fn prepare(&self) {
        let record = self.group.record();
        let places = Places::of(&record, 0);
        let used = ByteRange::between(record.members[0].log.start(), self.used_data().end());
        for (_, device) in &self.devices {
            write_what_is_there(device, used).await;
            // The devices are alike: whichever becomes a member has everything at the same place.
            device.set_places(places);
        }
        load::run(self, Load::sequential_write(), Until::Through).await;
    }

    /// Addresses of each device whose data the volume lies on.
    pub(crate) fn used_data(&self) -> ByteRange {
        let record = self.group.record();
        let start = record.data_of(0).start();
        let len = self.bytes.div_ceil(record.layout.columns());
        ByteRange::between(start, start + len.next_multiple_of(UNIT))
    }

    pub(crate) fn operation(&self) -> OperationId {
        OperationId::random(&self.ids)
    }

    pub(crate) fn counts(&self) -> Counts {
        let all = self.devices.iter().map(|(_, device)| device.counts());
        all.fold(Counts::default(), |sum, counts| sum + counts)
    }

    /// Makes what was asked durable and in place, so that its whole cost is counted.
    pub(crate) async fn finish_writes(&self) {
        self.volume.flush().await.expect("the files do not fail");
        self.group.empty_journal().await.expect("the files do not fail");
    }

    /// Makes the whole volume *never written* again; the files keep their blocks.
    pub(crate) async fn forget(&self) {
        let all = ByteRange::between(0, self.bytes);
        let zeroed = self.volume.zero(all, ZeroOptions::default()).await;
        zeroed.expect("the files do not fail");
        self.finish_writes().await;
    }

    pub(crate) async fn fail(&self, member: usize) {
        let failed = self
            .appliance
            .fail_device(self.operation(), self.devices[member].0);
        failed.await.expect("the group has redundancy left");
    }

    /// The device with this identity.
    pub(crate) fn device(&self, id: DeviceId) -> &Arc<Counting> {
        let found = self.devices.iter().find(|(known, _)| *known == id);
        &found.expect("a device of the bed").1
    }

    pub(crate) async fn end(self) {
        self.appliance.stop().await;
    }
}

async fn make_appliance(devices: &[Arc<Counting>], ids: &IdSource) -> Appliance {
    let device = |device: &Arc<Counting>| NewDevice::new(Arc::clone(device) as Arc<dyn Device>);
    let new = NewAppliance {
        registry: Default::default(),
        id: ApplianceId::random(ids),
        settings: ApplianceSettings::default(),
        devices: devices.iter().map(device).collect(),
    };
    let made = Appliance::create(OperationId::random(ids), new, ids.clone()).await;
    made.expect("the devices are blank")
}

async fn make_group(
    appliance: &Appliance,
    plan: Plan,
    devices: &[(DeviceId, Arc<Counting>)],
    ids: &IdSource,
) -> Arc<Group> {
    let request = NewGroupRequest {
        id: None,
        number: None,
        name: None,
        level: plan.level,
        members: devices[..plan.members].iter().map(|(id, _)| *id).collect(),
        slice: SliceLength::new(SLICE, SLICE).expect("a power of two"),
        unit: UNIT,
        checksums: plan.checksums,
    };
    let made = appliance.create_group(OperationId::random(ids), &request).await;
    let number = made.expect("the devices are free").number;
    appliance.group(number).expect("it serves")
}

async fn make_volume(appliance: &Appliance, plan: Plan, group: &Group, ids: &IdSource) -> Arc<Volume> {
    let new = NewVolume {
        id: None,
        number: None,
        name: "volume".into(),
        emulation: "open".parse().expect("a known type"),
        capacity: Some(plan.volume),
        placements: Vec::new(),
        rest: Some(group.id()),
        layout: Layout::Aligned,
        exact: false,
    };
    let made = appliance.create_volume(OperationId::random(ids), &new).await;
    let number = made.expect("there is space").number;
    appliance.volume(number).expect("it serves")
}

async fn write_what_is_there(device: &Counting, range: ByteRange) {
    for piece in range.split_at_multiples(MIB) {
        let buf = IoBuf::new(usize::try_from(piece.len()).expect("at most 1 MiB"));
        let at = piece.start();
        let read = device::start(device, Request::Read { at, buf }).await;
        let data = read.buf.expect("was read").into_slice();
        let written = device::start(device, Request::Write { at, data, fua: false }).await;
        written.result.expect("the files do not fail");
    }
    let flushed = device::start(device, Request::Flush).await;
    flushed.result.expect("the files do not fail");
}
