//! Requests per second, their time and their cost, beside the floor.

use std::sync::Arc;

use ashlar_tests::appliance::Store;
use ashlar_tests::server::Home;
use serde_json::{Value, json};

use crate::floor::{Floor, id};
use crate::load::{self, Make};
use crate::signed_in::{SignedIn, WEBHOOKS};
use crate::table::Wanted::{AtLeast, AtMost, Nothing};
use crate::table::{Row, Wanted, figure, median};
use crate::usage;

const VOLUMES: u64 = 1000;

/// Who is asked.
struct Peer {
    name: &'static str,
    server: (u32, std::net::SocketAddr),
    make: Make,
}

/// The same question to everybody.
struct Case {
    name: &'static str,
    /// Ours first.
    peers: Vec<Peer>,
    /// Of our requests per second with 16 connections, to those of each peer.
    wanted: Vec<Wanted>,
}

/// One measurement.
struct Turn {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Microseconds of the server and of its Postgres for a request.
    server_us: f64,
    postgres_us: f64,
}

impl Peer {
    fn measure(&self, connections: u64) -> Turn {
        let lasts = crate::seconds();
        let (pid, address) = self.server;
        let measured = usage::quietly(pid, || load::run(address, connections, lasts, &self.make));
        let latencies = measured.of;
        let each = 1e6 / latencies.count() as f64;
        Turn {
            per_second: latencies.count() as f64 / lasts.as_secs_f64(),
            p50_ms: latencies.quantile_ms(0.5),
            p99_ms: latencies.quantile_ms(0.99),
            server_us: measured.spent.server.as_secs_f64() * each,
            postgres_us: measured.spent.postgres.as_secs_f64() * each,
        }
    }
}

fn cases(ours: &SignedIn, floor: &Floor) -> Vec<Case> {
    let of_ours = |make| Peer {
        name: "ashlar",
        server: (ours.server.pid(), ours.address()),
        make,
    };
    let of_floor = |name, method: &'static str, of: fn(u64) -> (String, Value)| Peer {
        name,
        server: (floor.pid(), floor.address),
        make: Arc::new(move |n| {
            let (path, body) = of(n);
            load::request(method, &path, &[], &body)
        }),
    };
    let note = || {
        of_floor("floor", "POST", |n| {
            ("/notes".into(), json!({"name": format!("note-{n}")}))
        })
    };
    vec![
        Case {
            name: "GET a volume",
            peers: vec![
                of_ours(ours.read_volume(VOLUMES)),
                of_floor("floor", "GET", |n| {
                    (format!("/volumes/{}", id(n % VOLUMES)), Value::Null)
                }),
            ],
            wanted: vec![AtLeast(0.4)],
        },
        Case {
            name: "GET a page of 100 volumes",
            peers: vec![
                of_ours(ours.read_page()),
                of_floor("floor", "GET", |_| {
                    ("/volumes?after=-1&limit=100".into(), Value::Null)
                }),
            ],
            wanted: vec![AtLeast(0.4)],
        },
        Case {
            name: "PATCH a webhook (catalog)",
            peers: vec![
                of_ours(ours.rename_webhook()),
                note(),
                of_floor("floor, same rows", "POST", |n| {
                    let path = format!("/whole/webhooks/{}", id(n % WEBHOOKS));
                    (path, json!({"name": format!("webhook-{n}")}))
                }),
            ],
            wanted: vec![Nothing, AtLeast(0.5)],
        },
        Case {
            name: "PATCH a volume (engine)",
            peers: vec![
                of_ours(ours.rename_volume(VOLUMES)),
                note(),
                of_floor("floor, same rows", "POST", |n| {
                    let path = format!("/whole/volumes/{}", id(n % VOLUMES));
                    (path, json!({"name": format!("renamed-{n}")}))
                }),
            ],
            wanted: vec![Nothing, AtLeast(0.5)],
        },
    ]
}

pub(crate) fn measure() -> Vec<Row> {
    let ours = SignedIn::start(Home::new());
    let folder = ours.home.devices();
    ours.mirror(Store::Memory, &folder, VOLUMES << 20);
    ours.fill(VOLUMES);
    let floor = Floor::start(VOLUMES);
    println!("\n## Requests beside the floor\n\n{HEAD}");
    let mut rows = Vec::new();
    for case in cases(&ours, &floor) {
        for connections in [1, 16] {
            rows.extend(measure_case(&case, connections));
        }
    }
    rows
}

const HEAD: &str = "| | connections | who | a second | p50 ms | p99 ms | server µs | Postgres µs |\n\
                    |---|---:|---|---:|---:|---:|---:|---:|";

/// Everybody in turns, each time beginning with another one.
fn measure_case(case: &Case, connections: u64) -> Vec<Row> {
    let mut turns: Vec<Vec<Turn>> = case.peers.iter().map(|_| Vec::new()).collect();
    let repetitions = usize::try_from(crate::number("REPS", 3)).expect("a small number");
    for repetition in 0..repetitions {
        for turn in 0..case.peers.len() {
            let who = (repetition + turn) % case.peers.len();
            turns[who].push(case.peers[who].measure(connections));
        }
    }
    for (peer, turns) in case.peers.iter().zip(&turns) {
        let of = |field: fn(&Turn) -> f64| figure(median(turns.iter().map(field).collect()));
        println!(
            "| {} | {connections} | {} | {} | {} | {} | {} | {} |",
            case.name,
            peer.name,
            of(|turn| turn.per_second),
            of(|turn| turn.p50_ms),
            of(|turn| turn.p99_ms),
            of(|turn| turn.server_us),
            of(|turn| turn.postgres_us),
        );
    }
    let beside = |peer: usize, field: fn(&Turn) -> f64| -> Vec<(f64, f64)> {
        let both = turns[0].iter().zip(&turns[peer]);
        both.map(|(ours, theirs)| (field(ours), field(theirs))).collect()
    };
    let mut rows = Vec::new();
    for (at, (peer, wanted)) in case.peers.iter().skip(1).zip(&case.wanted).enumerate() {
        let what = format!("{}, {connections} at once, beside {}", case.name, peer.name);
        let wanted = if connections == 1 { Nothing } else { *wanted };
        rows.push(Row::beside(
            format!("{what}: a second"),
            &beside(at + 1, |turn| turn.per_second),
            wanted,
        ));
        let wanted = match wanted {
            AtLeast(part) => AtMost(1.0 / part),
            other => other,
        };
        rows.push(Row::beside(
            format!("{what}: p99 ms"),
            &beside(at + 1, |turn| turn.p99_ms),
            wanted,
        ));
    }
    rows
}
