//! Random reads of 4 KiB with members missing beside the same with none.

use ashlar_engine::raid::Level;
use ashlar_engine::types::bytes::MIB;

use crate::bed::{Bed, Plan, Site};
use crate::counting::Area;
use crate::load::Load;
use crate::report::{self, Wanted};
use crate::{Settings, members_of, name_of};

const VOLUME: u64 = 256 * MIB;

pub(crate) async fn measure(site: &Site, settings: &Settings) {
    report::heading("Members missing beside none");
    for level in [Level::Raid5, Level::Raid6] {
        let plan = Plan {
            level,
            members: members_of(level),
            spares: 0,
            checksums: true,
            volume: VOLUME,
        };
        let (degraded, whole) = (Bed::make(site, plan).await, Bed::make(site, plan).await);
        for missing in 1..=level.sums() {
            degraded.fail(missing - 1).await;
            measure_reads(
                &format!("{}, {missing} missing", name_of(level)),
                &degraded,
                &whole,
                settings,
            )
            .await;
        }
        degraded.end().await;
        whole.end().await;
    }
}

async fn measure_reads(name: &str, degraded: &Bed, whole: &Bed, settings: &Settings) {
    let load = Load::random_read(16);
    let mut turns = Vec::new();
    for _ in 0..settings.turns {
        turns.push(settings.beside(degraded, whole, load).await);
    }
    let rates = turns
        .iter()
        .map(|turn| (turn.0.requests_per_second(), turn.1.requests_per_second()));
    let what = format!("{name}: {}", load.name());
    report::compare(
        &what,
        report::per_second,
        &rates.collect::<Vec<_>>(),
        Wanted::Nothing,
    );
    for (what, area) in [("data and sums", Area::Data), ("checksums", Area::Checksums)] {
        let reads = turns
            .iter()
            .map(|turn| turn.0.per_request(turn.0.counts.of(area).reads));
        report::figure(
            &format!("  device reads per read: {what}"),
            reads,
            Wanted::Nothing,
        );
    }
}
