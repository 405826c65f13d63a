//! What the engine itself adds to 4 KiB of a volume: the same device raw, in a group of one, in a mirror of two, and
//! with a hook that does nothing. And what the order among requests costs, whose gate a moment flips.
//!
//! The devices copy within memory that fits the processor's cache and answer at once, so that nothing hides the path.

use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError};

use ashlar_engine::appliance::{
    Appliance, ApplianceSettings, NewAppliance, NewDevice, NewGroupRequest, NewVolume,
};
use ashlar_engine::device::{self, Completion, Device, DeviceInfo, Request, Started};
use ashlar_engine::io::range_lock::{self, Mode, RangeLock};
use ashlar_engine::io::target::Target as _;
use ashlar_engine::io::{BufSlice, IoBuf};
use ashlar_engine::logical_device::SliceLength;
use ashlar_engine::map::Layout;
use ashlar_engine::raid::Level;
use ashlar_engine::types::bytes::MIB;
use ashlar_engine::types::{ApplianceId, ByteRange, IdSource, OperationId};
use ashlar_engine::volume::Volume;
use ashlar_engine::volume::hook::Hook;
use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::FutureExt as _;

const BLOCK: u64 = 4096;
/// The requests go round within so many bytes.
const SPAN: u64 = 256 << 10;
const DEVICE: u64 = 32 * MIB;

struct Memory(Mutex<Box<[u8]>>);

impl Memory {
    fn new() -> Self {
        let len = usize::try_from(DEVICE).expect("32 MiB");
        Self(Mutex::new(vec![0; len].into()))
    }
}

fn index(address: u64) -> usize {
    usize::try_from(address).expect("within the device")
}

impl Device for Memory {
    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            capacity: DEVICE,
            block: 512,
            zeroes_fast: true,
            volatile_cache: true,
        }
    }

    fn submit(&self, request: Request) -> Started {
        let mut content = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let buf = match request {
            Request::Read { at, mut buf } => {
                let end = index(at) + buf.len();
                buf.as_mut_slice().copy_from_slice(&content[index(at)..end]);
                Some(buf)
            }
            Request::Write { at, data, .. } => {
                content[index(at)..index(at) + data.len()].copy_from_slice(data.as_slice());
                None
            }
            Request::Zero { range, .. } => {
                content[index(range.start())..index(range.end())].fill(0);
                None
            }
            Request::Flush => None,
        };
        let result = Ok(());
        Started::Done(Completion { result, buf })
    }
}

struct NoOperation;

impl Hook for NoOperation {
    fn before_write(&self, range: ByteRange, epoch: u64) {
        black_box((range, epoch));
    }
}

/// Everything here answers at once.
fn done<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("devices in memory answer at once")
}

fn a_block() -> BufSlice {
    IoBuf::zeroed(index(BLOCK)).into_slice()
}

/// A volume of one run over a group of so many members, all of its first [`SPAN`] bytes written and flushed.
async fn a_volume(level: Level, members: u32) -> Arc<Volume> {
    let devices = (0..members).map(|_| Arc::new(Memory::new()) as Arc<dyn Device>);
    let ids = IdSource::from_seed(1);
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
        level,
        members: devices.iter().map(|device| device.record.id).collect(),
        slice: SliceLength::new(MIB, MIB).expect("the smallest slice"),
        unit: 64 << 10,
        checksums: true,
    };
    let group = appliance
        .create_group(operation(), &group)
        .await
        .expect("the devices are free");
    let volume = NewVolume {
        id: None,
        number: None,
        name: "volume".into(),
        emulation: "open".parse().expect("a known type"),
        capacity: Some(4 * MIB),
        placements: Vec::new(),
        rest: Some(group.id),
        layout: Layout::Aligned,
        exact: false,
    };
    let made = appliance
        .create_volume(operation(), &volume)
        .await
        .expect("there is space");
    let volume = appliance.volume(made.number).expect("it serves");
    for at in (0..SPAN).step_by(index(BLOCK)) {
        volume
            .write(at, a_block(), false)
            .await
            .expect("memory does not fail");
    }
    volume.flush().await.expect("memory does not fail");
    volume
}

fn made_volume(level: Level, members: u32) -> Arc<Volume> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the system gives an event queue");
    tokio::task::LocalSet::new().block_on(&runtime, a_volume(level, members))
}

fn addresses() -> impl FnMut() -> u64 {
    let mut at = 0;
    move || {
        at = (at + 5 * BLOCK) % SPAN;
        black_box(at)
    }
}

fn raw_device(criterion: &mut Criterion) {
    let (memory, data) = (Memory::new(), a_block());
    let mut address = addresses();
    criterion.bench_function("read 4 KiB, raw device", |bench| {
        bench.iter(|| {
            let (at, buf) = (address(), IoBuf::new(index(BLOCK)));
            done(device::start(&memory, Request::Read { at, buf }))
        });
    });
    criterion.bench_function("write 4 KiB, raw device", |bench| {
        bench.iter(|| {
            let (at, data, fua) = (address(), data.clone(), false);
            done(device::start(&memory, Request::Write { at, data, fua }))
        });
    });
}

fn volumes(criterion: &mut Criterion) {
    let data = a_block();
    let mut address = addresses();
    for (name, level, members) in [("RAID 0 of 1", Level::Raid0, 1), ("RAID 1 of 2", Level::Raid1, 2)] {
        let volume = made_volume(level, members);
        criterion.bench_function(&format!("read 4 KiB, {name}"), |bench| {
            bench.iter(|| {
                let at = address();
                done(volume.read(ByteRange::between(at, at + BLOCK))).expect("memory does not fail")
            });
        });
        for (hooks, hooked) in [(0, ""), (1, ", one no-op hook")] {
            volume.watch(
                (0..hooks)
                    .map(|_| Arc::new(NoOperation) as Arc<dyn Hook>)
                    .collect(),
            );
            criterion.bench_function(&format!("write 4 KiB, {name}{hooked}"), |bench| {
                bench.iter(|| {
                    done(volume.write(address(), data.clone(), false)).expect("memory does not fail");
                });
            });
        }
    }
}

fn block_at(index: u64) -> ByteRange {
    ByteRange::between(index * BLOCK, (index + 1) * BLOCK)
}

fn order(criterion: &mut Criterion) {
    for others in [0, 32, 512] {
        let lock = RangeLock::new();
        let _in_flight: Vec<_> = (1..=others)
            .map(|other| done(lock.claim(block_at(other), Mode::Exclusive)))
            .collect();
        criterion.bench_function(&format!("claim beside {others} claims"), |bench| {
            bench.iter(|| drop(done(lock.claim(black_box(block_at(0)), Mode::Exclusive))));
        });
        criterion.bench_function(&format!("pass beside {others} claims"), |bench| {
            bench.iter(|| done(lock.pass(black_box(block_at(0)))));
        });
    }
}

fn moments(criterion: &mut Criterion) {
    for volumes in [1, 16] {
        let locks: Vec<RangeLock> = (0..volumes).map(|_| RangeLock::new()).collect();
        let _in_flight: Vec<_> = locks
            .iter()
            .flat_map(|lock| (0..32).map(|at| done(lock.claim(block_at(at), Mode::Exclusive))))
            .collect();
        let locks: Vec<&RangeLock> = locks.iter().collect();
        criterion.bench_function(
            &format!("moment of {volumes} volumes, 32 writes on each"),
            |bench| {
                bench.iter(|| range_lock::flip(black_box(&locks)));
            },
        );
    }
}

criterion_group!(benches, raw_device, volumes, order, moments);
criterion_main!(benches);
