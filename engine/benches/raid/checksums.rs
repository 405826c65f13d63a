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
            let (rates, processor) = measure_load(&with, &without, load, settings).await;
            tell(&format!("{}: {}", name_of(level), load.name()), load, &rates);
            // Devices that are held back keep the processor busy.
            if site.pace.is_none() {
                let what = "  time of the processor for each";
                report::compare(what, report::micros, &processor, Wanted::Nothing);
            }
        }
        with.end().await;
        without.end().await;
    }
}

/// Something with checksums and without, in turns.
type Turns = Vec<(f64, f64)>;

/// Rates, and time of the processor for each request.
async fn measure_load(with: &Bed, without: &Bed, load: Load, settings: &Settings) -> (Turns, Turns) {
    let (mut rates, mut processor) = (Turns::new(), Turns::new());
    for _ in 0..settings.turns {
        let (with, without) = settings.beside(with, without, load).await;
        rates.push(match load.random {
            true => (with.requests_per_second(), without.requests_per_second()),
            false => (with.bytes_per_second(), without.bytes_per_second()),
        });
        processor.push((with.processor_per_request(), without.processor_per_request()));
    }
    (rates, processor)
}

fn tell(what: &str, load: Load, rates: &[(f64, f64)]) {
    let unit = match load.random {
        true => report::per_second,
        false => report::bytes_per_second,
    };
    report::compare(what, unit, rates, Wanted::Nothing);
}
