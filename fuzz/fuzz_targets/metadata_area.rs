//! Whatever the frames of metadata copies say, with right checksums or without, the copies are read, one is elected or
//! none, and a store that opens on it takes its holders and changes.
#![no_main]

use std::sync::{Arc, LazyLock};

use ashlar_engine::appliance::DeviceRecord;
use ashlar_engine::appliance::records::{Record, Truth};
use ashlar_engine::device::{Device, DeviceHandle};
use ashlar_engine::metadata::elect::elect;
use ashlar_engine::metadata::{HolderCopy, Store, StoreError};
use ashlar_engine::types::{ByteRange, DeviceId, DeviceNumber, IdSource};
use ashlar_fuzz::{Disk, Edit, bench};
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

const AREA: u64 = 128 << 10;
const ADDED: DeviceNumber = DeviceNumber(77);

type Holders = Vec<(Arc<DeviceHandle>, ByteRange)>;

/// `clone`: two of the disks say that they are the same.
fn holders(disks: &[Arc<Disk>], clone: bool) -> Holders {
    let number = |index: usize| if clone && index == 2 { 1 } else { index };
    let handle = |(index, disk): (usize, &Arc<Disk>)| {
        let id = DeviceId(Uuid::from_u128(number(index) as u128));
        let handle = DeviceHandle::new(id, Arc::clone(disk) as Arc<dyn Device>);
        (Arc::new(handle), ByteRange::between(0, AREA))
    };
    disks.iter().enumerate().map(handle).collect()
}

fn device(number: DeviceNumber) -> Record {
    Record::Device(DeviceRecord {
        number,
        id: DeviceId(Uuid::max()),
        capacity: 1 << 30,
    })
}

static MADE: LazyLock<Vec<Arc<Disk>>> = LazyLock::new(|| {
    let disks: Vec<_> = (0..3).map(|_| Disk::new(AREA)).collect();
    bench::run(async {
        let store = Store::<Truth>::create(holders(&disks, false), IdSource::from_seed(1)).await;
        let store = store.ok().expect("blank disks");
        for number in 0..4 {
            store
                .commit(vec![device(DeviceNumber(number))])
                .await
                .expect("there is room");
        }
    });
    assert!(disks.iter().all(|disk| disk.records().len() > 4));
    disks
});

async fn open(disks: &[Arc<Disk>], clone: bool) -> Option<Store<Truth>> {
    let mut copies = Vec::new();
    for (handle, area) in holders(disks, clone) {
        copies.push(HolderCopy::read(handle, area).await.ok()?);
    }
    let elected = elect(&copies, None)?;
    Store::open(&copies, &elected, IdSource::from_seed(2)).await.ok()
}

fuzz_target!(|input: (u8, Vec<(u8, Edit)>, u16, &[u8])| {
    let (choice, edits, at, raw) = input;
    let clone = choice & 1 != 0;
    let disks: Vec<_> = MADE.iter().map(|disk| disk.copy()).collect();
    for (number, edit) in &edits {
        let disk = &disks[usize::from(*number) % disks.len()];
        edit.apply(disk, &disk.records());
    }
    disks[0].poke(u64::from(at), raw);
    bench::run(async {
        let Some(store) = open(&disks, clone).await else {
            return;
        };
        // Such holders are refused before they are taken.
        if clone {
            return;
        }
        let taken = store.take_holders(holders(&disks, clone), choice & 2 != 0).await;
        if taken.is_err() {
            return;
        }
        match store.commit(vec![device(ADDED)]).await {
            Ok(()) => {}
            // What was found takes the room.
            Err(StoreError::Full(_)) => return,
            Err(error) => panic!("{error}"),
        }
        assert!(store.read(|truth| truth.devices.contains(ADDED)).await);
        // A forged commit with a true one's id cannot be told from it: what comes of it is not asked here.
        open(&disks, false).await;
    });
});
