//! Hosts while the API is asked, and while it is not, in turns: at the pace of much automation, and as fast as sixteen
//! clients can.
//!
//! Host and clients run on the appliance's own machine here, and take processor from it that they would not take in life.
//! All have the usual priority: clients that stood back would not keep the API busy. So what is seen is whether the server
//! gives way, and the clients' part of the processor counts against it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ashlar_tests::appliance::{Store, folder};
use ashlar_tests::nbd::Endpoint;
use ashlar_tests::process::{command, fio_report};
use ashlar_tests::server::Home;
use serde_json::json;

use crate::load::{self, Make};
use crate::signed_in::SignedIn;
use crate::table::Row;
use crate::table::Wanted::{AtLeast, Nothing};
use crate::usage;

const CONNECTIONS: u64 = 16;
/// Of each connection: together they ask 200 times a second.
const EVERY: Duration = Duration::from_millis(80);
/// What the host uses, and what the API's clients do besides.
const VOLUME: u64 = 512 << 20;
const SMALL: u64 = 64;

/// One measurement.
struct Turn {
    iops: f64,
    p99_ms: f64,
    /// Of the API; none where it was not asked.
    api: Option<Api>,
}

/// How the API answered.
struct Api {
    a_second: f64,
    p99_ms: f64,
}

pub(crate) fn measure() -> Vec<Row> {
    let mut rows = Vec::new();
    for (store, name) in [(Store::Memory, "memory"), (Store::Direct, "a disk")] {
        let devices = folder(store);
        let ours = SignedIn::start(Home::on(store));
        ours.mirror(store, devices.path(), VOLUME + (SMALL << 20));
        ours.fill(SMALL);
        ours.volume(SMALL, VOLUME);
        let export = json!({"volume": crate::floor::id(SMALL)});
        ours.api().post("/exports", &export).granted();
        // So that what is read is there.
        fio(&ours, &["--rw=write", "--bs=1m", "--iodepth=8"]);
        for workload in ["randread", "randwrite"] {
            rows.extend(beside_idle(&ours, name, workload));
        }
    }
    rows
}

/// The mix of what clients ask: mostly reads, some changes.
fn mix(ours: &SignedIn) -> Make {
    let of: [Make; 4] = [
        ours.read_volume(SMALL),
        ours.read_page(),
        ours.rename_webhook(),
        ours.rename_volume(SMALL),
    ];
    let parts = [0, 0, 0, 0, 0, 0, 1, 1, 2, 3];
    std::sync::Arc::new(move |n| {
        let part = usize::try_from(n % 10).expect("less than ten");
        of[parts[part]](n)
    })
}

fn fio(ours: &SignedIn, options: &[&str]) -> serde_json::Value {
    let Endpoint::Tcp(address) = ours.server.nbd() else {
        unreachable!("hosts attach over TCP")
    };
    let uri = format!("--uri=nbd://{address}/volume-{SMALL}");
    let mut fio = command(
        "fio",
        ["--name=host", "--ioengine=nbd", "--thread", "--norandommap"],
    );
    fio_report(fio.arg(uri).args(options))
}

/// How the API is asked.
#[derive(Clone, Copy)]
struct Asked<'a> {
    make: &'a Make,
    /// None: as fast as it answers.
    every: Option<Duration>,
}

/// A run of the host, while the API is asked or is not.
fn one(ours: &SignedIn, workload: &str, asked: Option<Asked<'_>>) -> Turn {
    let (rw, runs) = (format!("--rw={workload}"), crate::seconds().as_secs());
    let runs = format!("--runtime={runs}");
    let options = [&rw, "--bs=4k", "--iodepth=16", "--time_based", &runs];
    let (end, address) = (AtomicBool::new(false), ours.address());
    let (report, api) = std::thread::scope(|scope| {
        let clients = asked.map(|asked| {
            let end = &end;
            scope.spawn(move || {
                let begun = Instant::now();
                let Asked { make, every } = asked;
                let answers = load::run_until(address, CONNECTIONS, make, every, end);
                Api {
                    a_second: answers.count() as f64 / begun.elapsed().as_secs_f64(),
                    p99_ms: answers.quantile_ms(0.99),
                }
            })
        });
        let report = fio(ours, &options);
        end.store(true, Ordering::Relaxed);
        let api = clients.map(|clients| clients.join().expect("clients do not panic"));
        (report, api)
    });
    let side = &report["jobs"][0][if workload == "randread" { "read" } else { "write" }];
    let p99_ns = side["clat_ns"]["percentile"]["99.000000"].as_f64();
    Turn {
        iops: side["iops"].as_f64().expect("fio counts"),
        p99_ms: p99_ns.expect("fio counts") / 1e6,
        api,
    }
}

fn beside_idle(ours: &SignedIn, store: &str, workload: &str) -> Vec<Row> {
    let (pid, lasts, make) = (ours.server.pid(), crate::seconds(), mix(ours));
    let name = |what: &str| format!("hosts on {store}, {workload} 4 KiB, depth 16: {what}");
    let mut rows = Vec::new();
    let [paced, fast] = [Some(EVERY), None].map(|every| Asked { make: &make, every });
    let turns = in_turns(pid, ours, workload, paced);
    rows.push(Row::beside(
        name("IOPS, API asked 200 times a second beside idle"),
        &turns.iops,
        AtLeast(0.9),
    ));
    rows.push(Row::beside(name("p99 ms, the same"), &turns.p99_ms, Nothing));
    let p99_ms = turns.api.iter().map(|api| api.p99_ms).collect();
    rows.push(Row::alone(
        name("p99 ms of the API's answers, the same"),
        crate::table::median(p99_ms),
        Nothing,
    ));
    let turns = in_turns(pid, ours, workload, fast);
    rows.push(Row::beside(
        name("IOPS, API as busy as can be beside idle"),
        &turns.iops,
        Nothing,
    ));
    rows.push(Row::beside(name("p99 ms, the same"), &turns.p99_ms, Nothing));
    let alone = usage::quietly(pid, || {
        load::run(ours.address(), CONNECTIONS, lasts, &make).count()
    });
    let alone = alone.of as f64 / lasts.as_secs_f64();
    let answers: Vec<_> = turns.api.iter().map(|api| (api.a_second, alone)).collect();
    rows.push(Row::beside(
        name("answers of the API a second, beside no host"),
        &answers,
        Nothing,
    ));
    rows
}

/// Ours beside the same without the API being asked.
type Beside = Vec<(f64, f64)>;

#[derive(Default)]
struct Turns {
    iops: Beside,
    p99_ms: Beside,
    api: Vec<Api>,
}

fn in_turns(pid: u32, ours: &SignedIn, workload: &str, asked: Asked<'_>) -> Turns {
    let mut turns = Turns::default();
    for repetition in 0..crate::number("REPS", 3) {
        let measure = |asked| usage::quietly(pid, || one(ours, workload, asked)).of;
        let (busy, idle) = if repetition % 2 == 0 {
            let busy = measure(Some(asked));
            (busy, measure(None))
        } else {
            let idle = measure(None);
            (measure(Some(asked)), idle)
        };
        turns.iops.push((busy.iops, idle.iops));
        turns.p99_ms.push((busy.p99_ms, idle.p99_ms));
        turns.api.extend(busy.api);
    }
    turns
}
