//! What RAID levels cost: parity beside plain stripes, a missing member beside none, checksums and the journal, rebuilds.
//!
//! In process, without a protocol: requests to a volume, on a thread like a data thread. Over files in memory, where time
//! is the processor's; over such that answer like disks of `DISK_MB` MB/s each; and, with `DISK_DIR`, over files there
//! without the page cache. Everything takes turns within one run. `SECS` and `REPS` are the seconds of a measurement and
//! how many turns there are; arguments name the parts that are to be measured.

mod bed;
mod checksums;
mod counting;
mod degraded;
mod load;
mod pace;
mod rebuild;
mod report;
mod writes;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ashlar_engine::device::slots;
use ashlar_engine::raid::Level;

use crate::bed::{Bed, Site};
use crate::load::{Clock, Load, Outcome, Until};

pub(crate) struct Settings {
    /// Of one measurement.
    pub(crate) time: Duration,
    pub(crate) turns: usize,
    /// The parts to be measured; all where none is named.
    parts: Vec<String>,
}

impl Settings {
    fn from_environment() -> Self {
        // Cargo says `--bench` besides.
        let parts = std::env::args().skip(1).filter(|part| !part.starts_with('-'));
        Self {
            time: Duration::from_secs_f64(setting("SECS", 2.0)),
            turns: setting("REPS", 3),
            parts: parts.collect(),
        }
    }

    fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|wanted| wanted == part)
    }

    /// One turn of a load on both.
    pub(crate) async fn beside(&self, ours: &Bed, other: &Bed, load: Load) -> (Outcome, Outcome) {
        let until = || Until::Elapsed(self.time);
        (
            load::run(ours, load, until()).await,
            load::run(other, load, until()).await,
        )
    }
}

fn setting<T: FromStr>(name: &str, otherwise: T) -> T {
    let Ok(told) = std::env::var(name) else {
        return otherwise;
    };
    told.parse().ok().unwrap_or_else(|| panic!("{name} is a number"))
}

pub(crate) fn members_of(level: Level) -> usize {
    match level {
        Level::Raid0 => 1,
        Level::Raid1 => 2,
        Level::Raid10 => 4,
        Level::Raid3 | Level::Raid5 => 5,
        Level::Raid6 => 6,
    }
}

pub(crate) fn name_of(level: Level) -> String {
    let members = members_of(level);
    match level {
        Level::Raid0 => format!("RAID 0 of {members}"),
        Level::Raid1 => format!("RAID 1 of {members}"),
        Level::Raid10 => format!("RAID 10 of {members}"),
        Level::Raid3 => "RAID 3 (4+1)".into(),
        Level::Raid5 => "RAID 5 (4+1)".into(),
        Level::Raid6 => "RAID 6 (4+2)".into(),
    }
}

async fn measure(site: &Site, settings: &Settings) {
    // As on a data thread.
    let clock = tokio::task::spawn_local(async {
        let mut interval = tokio::time::interval(slots::TICK);
        loop {
            interval.tick().await;
            slots::tick();
        }
    });
    let answers = tokio::task::spawn_local(pace::answer());
    println!("\n{}", site.name);
    if settings.wants("writes") {
        writes::measure(site, settings).await;
    }
    if settings.wants("degraded") {
        degraded::measure(site, settings).await;
    }
    if settings.wants("checksums") {
        checksums::measure(site, settings).await;
    }
    if settings.wants("rebuild") {
        rebuild::measure(site, settings).await;
    }
    clock.abort();
    answers.abort();
}

/// Where files are to lie.
fn sites() -> Vec<Site> {
    let rate: f64 = setting("DISK_MB", 150.0);
    let memory = Site {
        name: "Files in memory, by time of the processor".into(),
        folder: "/dev/shm".into(),
        direct: false,
        pace: None,
        clock: Clock::Processor,
    };
    let paced = Site {
        name: format!("Files in memory that answer like disks of {rate} MB/s each"),
        folder: "/dev/shm".into(),
        direct: false,
        pace: Some(rate * 1e6),
        clock: Clock::OfTheDay,
    };
    let disk = std::env::var_os("DISK_DIR").map(|folder| Site {
        name: format!("Files in {}, direct, all on one disk", folder.display()),
        folder: PathBuf::from(folder),
        direct: true,
        pace: None,
        clock: Clock::OfTheDay,
    });
    if disk.is_none() {
        println!("Not on a disk: DISK_DIR would name a folder there.");
    }
    [memory, paced].into_iter().chain(disk).collect()
}

fn main() {
    let settings = Settings::from_environment();
    for site in sites() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the system gives an event queue");
        tokio::task::LocalSet::new().block_on(&runtime, measure(&site, &settings));
    }
}
