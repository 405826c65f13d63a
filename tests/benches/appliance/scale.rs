//! A large appliance: how it starts, what it holds in memory, and how it answers lists.
//!
//! It lies on two sparse files in memory, and is made by the engine itself, in a process of its own: a hundred thousand
//! requests would take minutes, and leave the same. Then a server with an empty catalog imports it, which fills the
//! catalog.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ashlar_engine::appliance::{
    Appliance, ApplianceSettings, NewAppliance, NewDevice, NewGroupRequest, NewVolume,
};
use ashlar_engine::device::{self, Device, file};
use ashlar_engine::logical_device::SliceLength;
use ashlar_engine::map::Layout;
use ashlar_engine::raid::Level;
use ashlar_engine::types::bytes::{GIB, MIB};
use ashlar_engine::types::{ApplianceId, IdSource, OperationId, VolumeId};
use ashlar_tests::server::Home;
use serde_json::{Value, json};

use crate::load::{self, Connection, Latencies};
use crate::signed_in::SignedIn;
use crate::table::Wanted::{AtMost, Nothing};
use crate::table::{Row, median};
use crate::usage;

/// Logical devices of each volume, in one run.
pub(crate) const SLICES: u64 = 100;
const MEMBERS: [&str; 2] = ["member-0", "member-1"];
/// How often each page is asked for.
const ASKED: usize = 50;

fn volumes() -> u64 {
    crate::number("VOLUMES", 100_000)
}

/// Makes the appliance's devices in a folder.
pub(crate) fn make(folder: &Path) {
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the system gives an event queue");
    tokio::task::LocalSet::new().block_on(&runtime, make_all(folder));
    eprintln!(
        "{} volumes made by the engine in {:.1?}",
        volumes(),
        begun.elapsed()
    );
}

async fn make_all(folder: &Path) {
    let (options, size) = (device::OpenOptions::default(), volumes() * SLICES * MIB + GIB);
    let create = |name| file::create(&folder.join(name), size, &options).expect("the folder is new");
    let devices = MEMBERS.map(|name| Arc::new(create(name)) as Arc<dyn Device>);
    let ids = IdSource::from_system();
    let operation = || OperationId::random(&ids);
    let new = NewAppliance {
        registry: Arc::default(),
        id: ApplianceId::random(&ids),
        settings: ApplianceSettings {
            smallest_volume: 0,
            ..ApplianceSettings::default()
        },
        devices: devices.into_iter().map(NewDevice::new).collect(),
    };
    let created = Appliance::create(operation(), new, ids.clone()).await;
    let appliance = created.expect("the devices are blank");
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
    let group = appliance.create_group(operation(), &group).await;
    let group = group.expect("the devices are free");
    for number in 0..volumes() {
        let volume = NewVolume {
            id: Some(VolumeId(crate::floor::id(number))),
            number: None,
            name: format!("volume-{number}"),
            emulation: "open".parse().expect("a known type"),
            capacity: Some(SLICES * MIB),
            placements: Vec::new(),
            rest: Some(group.id),
            layout: Layout::Aligned,
            exact: false,
        };
        let made = appliance.create_volume(operation(), &volume).await;
        made.expect("there is space");
    }
    appliance.stop().await;
}

pub(crate) fn measure() -> Vec<Row> {
    let home = Home::new();
    let program = std::env::current_exe().expect("the program's own file");
    let made = Command::new(program)
        .arg("make")
        .arg(home.devices())
        .env("VOLUMES", volumes().to_string())
        .status();
    assert!(
        made.is_ok_and(|made| made.success()),
        "the appliance was not made"
    );
    let mut ours = SignedIn::start(home);
    let sources = MEMBERS.map(|name| json!({"kind": "file", "path": ours.home.device(name)}));
    let begun = Instant::now();
    ours.api()
        .post("/appliance/import", &json!({"sources": sources}))
        .granted();
    let imported = begun.elapsed();
    let (mut took, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..crate::number("REPS", 3) {
        ours = ours.start_again();
        took.push(ours.took.as_secs_f64());
        memory.push(usage::memory(ours.server.pid(), "VmHWM") as f64 / MIB as f64);
    }
    let name = |what: &str| {
        format!(
            "{} volumes, {} logical devices: {what}",
            volumes(),
            volumes() * SLICES
        )
    };
    let mut rows = vec![
        Row::alone(name("s to import"), imported.as_secs_f64(), Nothing),
        Row::alone(
            name("s from the program's start to ready"),
            median(took),
            AtMost(10.0),
        ),
        Row::alone(
            name("peak MiB of the server's memory at the start"),
            median(memory),
            AtMost(1024.0),
        ),
    ];
    rows.extend(
        load::clients(lists(&ours))
            .into_iter()
            .map(|(what, ms, wanted)| Row::alone(name(&what), ms, wanted)),
    );
    let memory = usage::memory(ours.server.pid(), "VmHWM") as f64 / MIB as f64;
    rows.push(Row::alone(name("peak MiB after that"), memory, AtMost(1024.0)));
    rows
}

/// Pages at the beginning, in the middle and at the end, of both sizes; metrics.
async fn lists(ours: &SignedIn) -> Vec<(String, f64, crate::table::Wanted)> {
    let mut connection = Connection::open(ours.address()).await;
    let begun = Instant::now();
    let cursors = walk(ours, &mut connection).await;
    let walked = begun.elapsed().as_secs_f64();
    let mut found = vec![(
        format!("s to walk all pages of 1,000, {}", cursors.len()),
        walked,
        Nothing,
    )];
    let middle = cursors[cursors.len() / 2].clone();
    let end = cursors.last().cloned().flatten();
    for limit in [100, 1000] {
        for (place, cursor) in [("first", None), ("middle", middle.clone()), ("last", end.clone())] {
            let took = ask_often(ours, &mut connection, &page("/volumes", limit, cursor.as_deref())).await;
            let what = format!("p99 ms of the {place} page of {limit}");
            found.push((what, took.quantile_ms(0.99), AtMost(50.0)));
        }
    }
    let took = ask_often(ours, &mut connection, &page("/logical-devices", 1000, None)).await;
    found.push((
        "p99 ms of a page of 1,000 runs of logical devices".into(),
        took.quantile_ms(0.99),
        AtMost(50.0),
    ));
    let begun = Instant::now();
    let bytes = connection.ask(ours.metrics()).await.len();
    let took = begun.elapsed().as_secs_f64() * 1e3;
    found.push((
        format!("ms of /metrics, {:.1} MiB", bytes as f64 / MIB as f64),
        took,
        Nothing,
    ));
    found
}

fn page(list: &str, limit: u32, cursor: Option<&str>) -> String {
    let cursor = cursor.map_or(String::new(), |cursor| format!("&cursor={cursor}"));
    format!("{list}?limit={limit}{cursor}")
}

/// Where each page begins.
async fn walk(ours: &SignedIn, connection: &mut Connection) -> Vec<Option<String>> {
    let (mut cursors, mut seen) = (vec![None], 0);
    loop {
        let cursor = cursors.last().cloned().flatten();
        let path = page("/volumes", 1000, cursor.as_deref());
        let answer = connection.ask(ours.request("GET", &path, &Value::Null)).await;
        let answer: Value = serde_json::from_slice(&answer).expect("answers are JSON");
        seen += answer["items"].as_array().map_or(0, Vec::len) as u64;
        match answer["next_cursor"].as_str() {
            Some(next) => cursors.push(Some(next.to_owned())),
            None => break,
        }
    }
    assert_eq!(seen, volumes(), "not every volume is in the list");
    cursors
}

async fn ask_often(ours: &SignedIn, connection: &mut Connection, path: &str) -> Latencies {
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..ASKED {
        let request = ours.request("GET", path, &Value::Null);
        let sent = Instant::now();
        connection.ask(request).await;
        took.push(sent.elapsed());
    }
    Latencies::of(took)
}
