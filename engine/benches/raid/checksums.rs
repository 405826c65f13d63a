//! What checksums cost: the same group with them beside one without.

use ashlar_engine::raid::Level;
use ashlar_engine::types::bytes::MIB;

use crate::bed::{Bed, Plan, Site};
use crate::load::Load;
use crate::report::{self, Wanted};
use crate::{Settings, members_of, name_of};

const VOLUME: u64 = 256 * MIB;

pub(crate) async fn measure(site: &Site, settings: &Settings) {
    report::heading("With checksums beside without");
    for level in [Level::Raid0, Level::Raid1, Level::Raid5] {
        let without = Plan {
            level,
            members: members_of(level),
            spares: 0,
            checksums: false,
            volume: VOLUME,
        };
        let with = Plan {
            checksums: true,
            ..without
        };
        let (with, without) = (Bed::make(site, with).await, Bed::make(site, without).await);
        let loads = [
            Load::random_read(16),
            Load::sequential_read(),
            Load::random_write(16),
            Load::sequential_write(),
        ];
        for load in loads {
            measure_load(level, &with, &without, load, settings).await;
        }
        with.end().await;
        without.end().await;
    }
}

async fn measure_load(level: Level, with: &Bed, without: &Bed, load: Load, settings: &Settings) {
    let (mut rates, mut processor) = (Vec::new(), Vec::new());
    for _ in 0..settings.turns {
        let (with, without) = settings.beside(with, without, load).await;
        rates.push(match load.random {
            true => (with.requests_per_second(), without.requests_per_second()),
            false => (with.bytes_per_second(), without.bytes_per_second()),
        });
        processor.push((with.processor_per_request(), without.processor_per_request()));
    }
    let unit = match load.random {
        true => report::per_second,
        false => report::bytes_per_second,
    };
    let what = format!("{}: {}", name_of(level), load.name());
    report::compare(&what, unit, &rates, Wanted::Nothing);
    report::compare(
        "  time of the processor for each",
        report::micros,
        &processor,
        Wanted::Nothing,
    );
}
