//! Writing to levels 5 and 6 beside level 0 on as many devices: whole rows one after the other, for the first time and
//! over what stands there, and 4 KiB anywhere. And what that asks of the devices, journal and checksums by themselves.

use ashlar_engine::raid::Level;
use ashlar_engine::types::bytes::MIB;

use crate::bed::{Bed, Plan, Site};
use crate::counting::Area;
use crate::load::{self, Load, Outcome, Until};
use crate::report::{self, Wanted};
use crate::{Settings, members_of, name_of};

const VOLUME: u64 = 512 * MIB;
/// Of the share of the members that carry data.
const WANTED_OF_WHOLE_ROWS: f64 = 0.75;

/// Something that a load's outcome counts.
type Count = fn(&Outcome) -> u64;

/// Of the level, and of level 0.
type Turn = (Outcome, Outcome);

/// What was measured.
#[derive(Default)]
struct Measured {
    first: Vec<Turn>,
    over: Vec<Turn>,
    random: Vec<Turn>,
}

pub(crate) async fn measure(site: &Site, settings: &Settings) {
    for level in [Level::Raid5, Level::Raid6] {
        let plan = Plan {
            level,
            members: members_of(level),
            spares: 0,
            checksums: true,
            volume: VOLUME,
        };
        let ours = Bed::make(site, plan).await;
        let level_0 = Plan {
            level: Level::Raid0,
            ..plan
        };
        let beside = Bed::make(site, level_0).await;
        let mut measured = Measured::default();
        for _ in 0..settings.turns {
            measured
                .first
                .push((write_first(&ours).await, write_first(&beside).await));
            let load = Load::sequential_write();
            measured.over.push(settings.beside(&ours, &beside, load).await);
            let load = Load::random_write(16);
            measured.random.push(settings.beside(&ours, &beside, load).await);
        }
        tell(level, &measured);
        ours.end().await;
        beside.end().await;
    }
}

async fn write_first(bed: &Bed) -> Outcome {
    bed.forget().await;
    load::run(bed, Load::sequential_write(), Until::Through).await
}

fn tell(level: Level, measured: &Measured) {
    let members = members_of(level);
    report::heading(&format!("{} beside RAID 0 of {members}", name_of(level)));
    let data = (members - level.sums()) as f64 / members as f64;
    let wanted = Wanted::AtLeast(WANTED_OF_WHOLE_ROWS * data);
    let Measured { first, over, random } = measured;
    let load = Load::sequential_write().name();
    let rates: fn(&[Turn]) -> Vec<(f64, f64)> = |turns| figures(turns, Outcome::bytes_per_second).collect();
    let unit = report::bytes_per_second;
    report::compare(&format!("{load}, first time"), unit, &rates(first), wanted);
    report::compare(&format!("{load}, over"), unit, &rates(over), wanted);
    let requests: Vec<_> = figures(random, Outcome::requests_per_second).collect();
    let load = Load::random_write(16).name();
    report::compare(&load, report::per_second, &requests, Wanted::Nothing);
    let both = || rates(over).into_iter().zip(rates(first));
    let ours: Vec<_> = both().map(|(over, first)| (over.0, first.0)).collect();
    let what = "over, with the journal, beside first time, without";
    report::compare(what, unit, &ours, Wanted::Nothing);
    let of_level_0: Vec<_> = both().map(|(over, first)| (over.1, first.1)).collect();
    let what = "  the same of RAID 0, which has no journal";
    report::compare(what, unit, &of_level_0, Wanted::Nothing);
    tell_requests(level, random);
    tell_bytes(measured);
}

fn figures(turns: &[Turn], figure: fn(&Outcome) -> f64) -> impl Iterator<Item = (f64, f64)> {
    turns.iter().map(move |turn| (figure(&turn.0), figure(&turn.1)))
}

/// Requests to devices for a random write of 4 KiB.
fn tell_requests(level: Level, turns: &[Turn]) {
    let each = |count: Count| turns.iter().map(move |turn| turn.0.per_request(count(&turn.0)));
    let most = Wanted::AtMost(2.0 * (1 + level.sums()) as f64);
    report::figure(
        "per random write: I/Os of data and sums",
        each(|of| of.counts.of(Area::Data).requests()),
        most,
    );
    let lines: [(&str, Count); 8] = [
        ("reads among them", |of| of.counts.of(Area::Data).reads),
        ("I/Os of the journal and the region log", |of| {
            of.counts.of(Area::Log).requests()
        }),
        ("their bytes written", |of| of.counts.of(Area::Log).written_bytes),
        ("I/Os of checksums", |of| of.counts.of(Area::Checksums).requests()),
        ("their bytes written", |of| {
            of.counts.of(Area::Checksums).written_bytes
        }),
        ("their bytes read", |of| of.counts.of(Area::Checksums).read_bytes),
        ("other I/Os", |of| of.counts.of(Area::Other).requests()),
        ("flushes of devices", |of| of.counts.flushes),
    ];
    for (what, count) in lines {
        report::figure(&format!("  {what}"), each(count), Wanted::Nothing);
    }
}

/// Bytes written to devices per byte of the host.
fn tell_bytes(measured: &Measured) {
    let kinds = [
        ("first time", &measured.first),
        ("over", &measured.over),
        ("random", &measured.random),
    ];
    for (kind, turns) in kinds {
        let each = |bytes: Count| {
            turns
                .iter()
                .map(move |turn| bytes(&turn.0) as f64 / turn.0.bytes as f64)
        };
        let lines: [(&str, Count); 4] = [
            ("all", |of| of.counts.written_bytes()),
            ("data and sums", |of| of.counts.of(Area::Data).written_bytes),
            ("journal and region log", |of| {
                of.counts.of(Area::Log).written_bytes
            }),
            ("checksums", |of| of.counts.of(Area::Checksums).written_bytes),
        ];
        for (what, bytes) in lines {
            let what = format!("written per byte of the host, {kind}: {what}");
            report::figure(&what, each(bytes), Wanted::Nothing);
        }
    }
}
