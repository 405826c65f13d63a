//! Whatever a superblock says, with a right checksum or without one, the device is examined without a panic; one that
//! is accepted fits its device, so that it can be written again.
#![no_main]

use std::sync::{Arc, LazyLock};

use ashlar_engine::appliance::examine;
use ashlar_engine::device::superblock::{self, DeviceLayout, MIN_CAPACITY, MemberLabel, Superblock};
use ashlar_engine::device::{Device, DeviceHandle};
use ashlar_engine::types::{ApplianceId, DeviceId, DeviceNumber, GroupId};
use ashlar_fuzz::{Disk, Edit, bench};
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

fn handle(disk: &Arc<Disk>) -> DeviceHandle {
    DeviceHandle::new(DeviceId(Uuid::nil()), Arc::clone(disk) as Arc<dyn Device>)
}

static LABELLED: LazyLock<Arc<Disk>> = LazyLock::new(|| {
    let disk = Disk::new(MIN_CAPACITY);
    let superblock = Superblock {
        device: DeviceId(Uuid::max()),
        appliance: ApplianceId(Uuid::max()),
        number: DeviceNumber(1),
        sequence: 1,
        layout: DeviceLayout::for_capacity(MIN_CAPACITY).expect("large enough"),
        member: Some(MemberLabel {
            group: GroupId(Uuid::max()),
            record: vec![0; 100],
        }),
    };
    bench::run(superblock::write(&handle(&disk), &superblock)).expect("a disk in memory can be written");
    assert_eq!(disk.records().len(), 2, "both copies");
    disk
});

fuzz_target!(|input: (Vec<Edit>, u16, &[u8])| {
    let (edits, at, raw) = input;
    let disk = LABELLED.copy();
    let places = disk.records();
    edits.iter().for_each(|edit| edit.apply(&disk, &places));
    disk.poke(places[0].0 + u64::from(at) % 32768, raw);
    bench::run(async {
        let Ok(Some(examined)) = examine(Arc::clone(&disk) as Arc<dyn Device>).await else {
            return;
        };
        let handle = handle(&disk);
        let written = superblock::write(&handle, &examined.superblock).await;
        assert_eq!(written, Ok(()));
        let again = superblock::read(&handle).await;
        assert_eq!(again, Ok(Some(examined.superblock)));
    });
});
