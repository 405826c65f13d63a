//! What a large appliance costs to start: a million logical devices and ten thousand volumes come up in less than three
//! seconds and 300 MiB.
//!
//! The appliance lies on two sparse files in memory. It is made verb by verb as users would, stopped, and opened by a
//! fresh process, so that its time and its peak of memory are those of a start and of nothing else. Once with the
//! volumes as they come, one run of slices each; once grown slice by slice in turns, so that no two neighbouring
//! slices belong to one volume and the maps have a million runs in all.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ashlar_engine::appliance::{
    Appliance, ApplianceSettings, NewAppliance, NewDevice, NewGroupRequest, NewVolume, OpenOptions,
};
use ashlar_engine::device::superblock::DeviceLayout;
use ashlar_engine::device::{self, Device, DeviceInfo, LocalDevice, Request, Started, file};
use ashlar_engine::logical_device::SliceLength;
use ashlar_engine::map::Layout;
use ashlar_engine::raid::Level;
use ashlar_engine::types::bytes::{GIB, MIB, TIB};
use ashlar_engine::types::{ApplianceId, IdSource, OperationId};
use tokio::time::Instant;

const VOLUMES: u32 = 10_000;
const SLICES_PER_VOLUME: u64 = 100;
/// The group holds a million slices of 1 MiB, and a little more.
const DEVICE: u64 = TIB + GIB;
const MEMBERS: [&str; 2] = ["member-0", "member-1"];

/// Counts what is read.
struct Metered {
    device: LocalDevice,
    read: Arc<AtomicU64>,
}

impl Device for Metered {
    fn info(&self) -> DeviceInfo {
        self.device.info()
    }

    fn submit(&self, request: Request) -> Started {
        if let Request::Read { buf, .. } = &request {
            self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        }
        self.device.submit(request)
    }
}

fn run<T>(task: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the system gives an event queue");
    tokio::task::LocalSet::new().block_on(&runtime, task)
}

/// Makes the appliance and prints how fast. Volumes get so many slices at first, the others one by one in turns.
async fn make(folder: &Path, at_first: u64) {
    let options = device::OpenOptions::default();
    let create = |name| file::create(&folder.join(name), DEVICE, &options).expect("the folder is new");
    let devices = MEMBERS.map(|name| Arc::new(create(name)) as Arc<dyn Device>);
    let ids = IdSource::from_system();
    let operation = || OperationId::random(&ids);
    let new = NewAppliance {
        registry: Default::default(),
        id: ApplianceId::random(&ids),
        settings: ApplianceSettings {
            smallest_volume: 0,
            ..ApplianceSettings::default()
        },
        devices: devices.into_iter().map(NewDevice::new).collect(),
    };
    let appliance = Appliance::create(operation(), new, ids.clone())
        .await
        .expect("the devices are blank");
    let devices = appliance.devices().await;
    let group = NewGroupRequest {
        id: None,
        number: None,
        name: None,
        level: Level::Raid1,
        members: devices.iter().map(|device| device.record.id).collect(),
        slice: SliceLength::new(MIB, MIB).expect("the smallest slice"),
        unit: 64 << 10,
        checksums: true,
    };
    let group = appliance
        .create_group(operation(), &group)
        .await
        .expect("the devices are free");
    let start = Instant::now();
    let mut volumes = Vec::new();
    for number in 0..VOLUMES {
        let volume = NewVolume {
            id: None,
            number: None,
            name: format!("volume-{number}"),
            emulation: "open".parse().expect("a known type"),
            capacity: Some(at_first * MIB),
            placements: Vec::new(),
            rest: Some(group.id),
            layout: Layout::Aligned,
            exact: false,
        };
        let made = appliance.create_volume(operation(), &volume).await;
        volumes.push(made.expect("there is space").id);
    }
    report_verbs("create", VOLUMES.into(), start);
    let start = Instant::now();
    let mut verbs = 0;
    for slices in at_first + 1..=SLICES_PER_VOLUME {
        for volume in &volumes {
            let grown = appliance.expand_volume(operation(), *volume, slices * MIB, Some(group.id));
            grown.await.expect("there is space");
            verbs += 1;
        }
    }
    report_verbs("expand", verbs, start);
    appliance.stop().await;
}

fn report_verbs(what: &str, verbs: u64, start: Instant) {
    if let Some(each) = start.elapsed().as_nanos().checked_div(u128::from(verbs)) {
        println!("  {verbs} × {what}: {:.1} µs each", each as f64 / 1e3);
    }
}

/// Starts the appliance in this process and prints what that cost.
async fn start(folder: &Path) {
    let begin = Instant::now();
    let read = Arc::new(AtomicU64::new(0));
    let options = device::OpenOptions::default();
    let open = |name| Metered {
        device: file::adopt(&folder.join(name), &options).expect("the file was made"),
        read: Arc::clone(&read),
    };
    let devices = MEMBERS.map(|name| Arc::new(open(name)) as Arc<dyn Device>);
    let appliance = Appliance::open(devices.to_vec(), &OpenOptions::default(), IdSource::from_system())
        .await
        .expect("all devices are there");
    let (took, on_processor) = (begin.elapsed(), time_on_processor());
    let volumes = appliance.volumes();
    let runs: usize = volumes.iter().map(|volume| volume.shape().map.run_count()).sum();
    assert_eq!(volumes.len(), VOLUMES as usize, "every volume serves");
    println!(
        "  start: {} volumes, {runs} runs: {} ms ({} ms on the processor), peak of memory {} MiB, {} MiB read",
        volumes.len(),
        took.as_millis(),
        on_processor.as_millis(),
        peak_of_memory() / MIB,
        read.load(Ordering::Relaxed) / MIB,
    );
    appliance.stop().await;
}

/// What this process, which has one thread, used of its processor: what counts on a machine that does other things too.
fn time_on_processor() -> Duration {
    let told = std::fs::read_to_string("/proc/self/schedstat").expect("proc is mounted");
    let nanoseconds = told.split(' ').next().and_then(|told| told.parse().ok());
    Duration::from_nanos(nanoseconds.expect("the kernel says so"))
}

/// The highest resident set that this process ever had, in bytes.
fn peak_of_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok())
        .expect("the kernel says so")
        << 10
}

/// Bytes of pages in a member's metadata area that are not blank: snapshots and commits of both halves.
async fn metadata_bytes(folder: &Path) -> u64 {
    let options = device::OpenOptions::default();
    let device = file::adopt(&folder.join(MEMBERS[0]), &options).expect("the file was made");
    let area = DeviceLayout::for_capacity(DEVICE).expect("large enough").metadata;
    let mut used = 0;
    for at in (area.start()..area.end()).step_by(4096) {
        let buf = ashlar_engine::io::IoBuf::new(4096);
        let page = device::start(&device, Request::Read { at, buf })
            .await
            .buf
            .expect("was read");
        used += if page.as_slice().iter().any(|&byte| byte != 0) {
            4096
        } else {
            0
        };
    }
    used
}

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|verb| verb == "start") {
        let folder = arguments.next().expect("a folder is given");
        return run(start(Path::new(&folder)));
    }
    for at_first in [SLICES_PER_VOLUME, 1] {
        println!(
            "{VOLUMES} volumes of {SLICES_PER_VOLUME} logical devices, {at_first} of them given at once"
        );
        let folder = tempfile::tempdir_in("/dev/shm").expect("files can be made in memory");
        run(make(folder.path(), at_first));
        println!(
            "  metadata on each holder: {} MiB",
            run(metadata_bytes(folder.path())) / MIB
        );
        for _restart in 0..2 {
            let program = std::env::current_exe().expect("the program's own file");
            let ended = Command::new(program).arg("start").arg(folder.path()).status();
            assert!(
                ended.expect("it can be started").success(),
                "the appliance did not start"
            );
        }
    }
}
