//! Rebuilding a member of level 5: how fast, beside plain writing to the same device; and how long requests of hosts take
//! meanwhile, beside without.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ashlar_engine::device::{self, Device, Request};
use ashlar_engine::raid::{GroupState, Level};
use ashlar_engine::types::bytes::MIB;
use ashlar_engine::types::{ByteRange, DeviceId};
use futures_util::future::join_all;

use crate::bed::{Bed, Plan, Site};
use crate::counting::Area;
use crate::load::{self, Load, Until};
use crate::report::{self, Wanted};
use crate::{Settings, members_of, name_of};

/// 512 MiB of each member.
const VOLUME: u64 = 2048 * MIB;
const LEVEL: Level = Level::Raid5;
/// How often it is looked whether a rebuild has ended.
const LOOK: Duration = Duration::from_millis(1);

pub(crate) async fn measure(site: &Site, settings: &Settings) {
    report::heading(&format!("Rebuilding a member of {}", name_of(LEVEL)));
    let plan = Plan {
        level: LEVEL,
        members: members_of(LEVEL),
        spares: 1,
        checksums: true,
        volume: VOLUME,
    };
    let bed = Bed::make(site, plan).await;
    let mut rates = Vec::new();
    for _ in 0..settings.turns {
        let plain = plain_rate(&bed).await;
        rates.push((rebuild(&bed).await, plain));
    }
    let unit = report::bytes_per_second;
    report::compare(
        "bytes to the new member, beside writing them plainly",
        unit,
        &rates,
        Wanted::AtLeast(0.8),
    );
    for load in [Load::random_read(4), Load::random_write(4)] {
        measure_beside_load(&bed, load, settings).await;
    }
    bed.end().await;
}

async fn measure_beside_load(bed: &Bed, load: Load, settings: &Settings) {
    let (mut p99, mut requests, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..settings.turns {
        let alone = load::run(bed, load, Until::Elapsed(settings.time)).await;
        let plain = plain_rate(bed).await;
        let is_over = Rc::new(Cell::new(false));
        let rebuilding = async {
            let rate = rebuild(bed).await;
            is_over.set(true);
            rate
        };
        let loaded = load::run(bed, load, Until::Told(Rc::clone(&is_over)));
        let (rate, meanwhile) = tokio::join!(rebuilding, loaded);
        p99.push((meanwhile.p99(), alone.p99()));
        requests.push((meanwhile.requests_per_second(), alone.requests_per_second()));
        rates.push((rate, plain));
    }
    let name = load.name();
    report::compare(
        &format!("{name}: p99 while rebuilding"),
        report::micros,
        &p99,
        Wanted::AtMost(2.0),
    );
    report::compare("  requests", report::per_second, &requests, Wanted::Nothing);
    report::compare(
        "  bytes to the new member",
        report::bytes_per_second,
        &rates,
        Wanted::Nothing,
    );
}

/// The device that is in no group, which is one.
fn spare(bed: &Bed) -> DeviceId {
    let record = bed.group.record();
    let mut devices = bed.devices.iter().map(|(id, _)| *id);
    let spare = devices.find(|id| record.member(*id).is_none());
    spare.expect("there is one more device than members")
}

/// Bytes per second of writing to the device that is in no group as much as a rebuild writes there.
async fn plain_rate(bed: &Bed) -> f64 {
    let (device, range) = (bed.device(spare(bed)), bed.used_data());
    let content = load::content(MIB);
    let begun = bed.clock.now();
    let pieces: Vec<ByteRange> = range.split_at_multiples(MIB).collect();
    for together in pieces.chunks(Load::sequential_write().depth) {
        let writes = together.iter().map(|piece| {
            let len = usize::try_from(piece.len()).expect("at most 1 MiB");
            let (at, data, fua) = (piece.start(), content.cut(0, len), false);
            device::start(&**device as &dyn Device, Request::Write { at, data, fua })
        });
        let written = join_all(writes).await;
        assert!(
            written.iter().all(|written| written.result.is_ok()),
            "the files do not fail"
        );
    }
    let flushed = device::start(&**device as &dyn Device, Request::Flush).await;
    flushed.result.expect("the files do not fail");
    range.len() as f64 / (bed.clock.now() - begun).as_secs_f64()
}

/// Puts the spare device in the first member's place, and returns the rate at which it is written until the group is whole.
async fn rebuild(bed: &Bed) -> f64 {
    let (old, new) = (bed.group.record().members[0].device, spare(bed));
    let device = Arc::clone(bed.device(new));
    let replaced = bed
        .appliance
        .replace_member(bed.operation(), bed.group.id(), old, new);
    replaced.await.expect("the device is free");
    let written = || device.counts().of(Area::Data).written_bytes;
    let (before, begun) = (written(), bed.clock.now());
    while bed.group.state() != GroupState::Optimal {
        tokio::time::sleep(LOOK).await;
    }
    (written() - before) as f64 / (bed.clock.now() - begun).as_secs_f64()
}
