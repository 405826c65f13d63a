//! Garbage, cut-off requests, unknown exports, half-open and very many connections: an error or a closed connection
//! for the one who sent them, nothing for anybody else. And devices that an appliance must not be made of.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use ashlar_tests::appliance::{Appliance, MIB, Server, Setup, Store, folder};
use ashlar_tests::binaries;
use ashlar_tests::bystander::Bystander;
use ashlar_tests::nbd::{
    CMD_DISC, CMD_READ, CMD_WRITE, Client, EINVAL, Endpoint, OPT_GO, REP_ACK, REP_ERR_UNKNOWN, REP_ERR_UNSUP,
    Raw, request,
};
use ashlar_tests::process::{command, run, run_refused};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Where the tests write; the bystander works far below.
const PLACE: u64 = 32 * MIB;

/// Serves a mirror, and a bystander that must never be disturbed by what `test` does.
fn beside_a_bystander(test: impl Fn(&Server, &Bystander)) {
    let appliance = Appliance::create(&Setup::new(1));
    let server = appliance.serve(&[]);
    let bystander = Bystander::start(&server.unix());
    bystander.is_served();
    test(&server, &bystander);
    bystander.finish();
    server.stop();
}

fn attach(endpoint: &Endpoint) -> Client {
    Client::attach(endpoint, "vol0").expect("the volume is served")
}

fn greeted(endpoint: &Endpoint) -> Raw {
    Raw::greeted(endpoint).expect("the server greets")
}

/// The connection, after its client was attached.
fn transmission(endpoint: &Endpoint) -> Raw {
    attach(endpoint).into_raw()
}

#[test]
fn garbage_closes_that_connection_only() {
    let noise: Vec<u8> = (0..200_000_u32)
        .map(|index| index.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    beside_a_bystander(|server, bystander| {
        for endpoint in [server.tcp(), server.unix()] {
            let connections = [
                (
                    "instead of the greeting's answer",
                    Raw::connect(&endpoint).expect("the server listens"),
                ),
                ("instead of an option", greeted(&endpoint)),
                ("instead of a request", transmission(&endpoint)),
            ];
            for (when, mut raw) in connections {
                // The server may close before it was sent all.
                let _ = raw.send(&noise);
                assert!(
                    raw.is_closed_by_server(),
                    "noise {when} does not close the connection"
                );
                bystander.is_served();
            }
        }
    });
}

#[test]
fn unknown_options_and_exports_are_refused_and_the_connection_lives() {
    beside_a_bystander(|server, _| {
        let mut raw = greeted(&server.tcp());
        for data in [&b""[..], &[0xff; 4000]] {
            raw.send_option(0x1234_5678, data).expect("the connection lives");
            assert_eq!(raw.option_reply().expect("an answer").0, REP_ERR_UNSUP);
        }
        assert_eq!(
            raw.go("nothing").expect("the connection lives").0,
            REP_ERR_UNKNOWN
        );
        for name in ["vol0\u{0}", "../vol0", "\u{1f4be}", &"x".repeat(4096)] {
            let (reply, _) = raw.go(name).expect("the connection lives");
            assert!(reply & (1 << 31) != 0, "export {name:?}: {reply:#x}");
        }
        let (reply, size) = raw.go("vol0").expect("the connection lives");
        assert_eq!((reply, size), (REP_ACK, 256 * MIB));
    });
}

#[test]
fn malformed_options_are_answered_or_close_the_connection_and_harm_nobody() {
    beside_a_bystander(|server, bystander| {
        let (go, huge) = (OPT_GO.to_be_bytes(), u32::MAX.to_be_bytes());
        let malformed = [
            // A name that is longer than the option, no name at all, more information requests than there are.
            [&huge[..], b"vol0", &[0, 0]].concat(),
            Vec::new(),
            [&4_u32.to_be_bytes()[..], b"vol0", &[0xff, 0xff]].concat(),
        ];
        for bytes in malformed {
            let mut raw = greeted(&server.tcp());
            raw.send_option(OPT_GO, &bytes).expect("the server listens");
            if let Ok((reply, _)) = raw.option_reply() {
                assert!(reply & (1 << 31) != 0, "accepted: {bytes:x?}");
            }
            bystander.is_served();
        }
        // An option of four gigabytes is not waited for.
        let mut raw = greeted(&server.tcp());
        raw.send(&[&b"IHAVEOPT"[..], &go, &huge].concat())
            .expect("the server listens");
        assert!(
            raw.option_reply()
                .map_or(true, |(reply, _)| reply & (1 << 31) != 0)
        );
    });
}

#[test]
fn impossible_requests_get_an_error_and_the_connection_lives() {
    beside_a_bystander(|server, _| {
        let end = 256 * MIB;
        let page = [0x5a; 4096];
        let mut raw = transmission(&server.tcp());
        let mut cookie = 0;
        let mut answer = |command, at, len, payload: &[u8]| {
            cookie += 1;
            raw.send_request(command, cookie, at, len, payload)
                .expect("the connection lives");
            let (error, answered) = raw.simple_reply().expect("the connection lives");
            assert_eq!(answered, cookie);
            error
        };
        for (at, len) in [
            (end, 4096),
            (end - 512, 1024),
            (u64::MAX - 511, 512),
            (1 << 63, 512),
        ] {
            assert_eq!(answer(CMD_READ, at, len, &[]), EINVAL, "read of {len} at {at}");
        }
        assert_ne!(answer(CMD_WRITE, end, 4096, &page), 0, "write at the end");
        assert_ne!(answer(CMD_WRITE, end - 512, 4096, &page), 0, "write over the end");
        for (at, len) in [(1, 512), (0, 511), (512, 513)] {
            assert_eq!(
                answer(CMD_READ, at, len, &[]),
                EINVAL,
                "misaligned read of {len} at {at}"
            );
        }
        assert_eq!(
            answer(CMD_WRITE, PLACE + 1, 512, &page[..512]),
            EINVAL,
            "misaligned write"
        );
        assert_ne!(
            answer(CMD_READ, 0, u32::MAX - 511, &[]),
            0,
            "a read of four gigabytes"
        );
        assert_eq!(answer(99, 0, 512, &[]), EINVAL, "unknown command");
        assert_eq!(
            answer(CMD_WRITE, PLACE, 4096, &page),
            0,
            "a good write after all that"
        );
        let mut other = attach(&server.unix());
        assert_eq!(other.read(PLACE, 4096).expect("a read succeeds"), page);
        assert_eq!(
            other.read(end - 512, 512).expect("a read succeeds"),
            [0; 512],
            "nothing was written at the end"
        );
    });
}

#[test]
fn cut_off_requests_write_nothing() {
    beside_a_bystander(|server, bystander| {
        let before = vec![0x11; 256 << 10];
        attach(&server.tcp())
            .write(PLACE, &before)
            .expect("a write succeeds");
        let len = u32::try_from(before.len()).expect("a quarter of a megabyte");
        for endpoint in [server.tcp(), server.unix()] {
            for sent in [1, 27, 28, 29, 28 + 4096, 28 + before.len() - 1] {
                let mut whole = request(CMD_WRITE, 1, PLACE, len);
                whole.resize(28 + before.len(), 0x22);
                let mut raw = transmission(&endpoint);
                raw.send(&whole[..sent]).expect("the server listens");
                drop(raw);
                bystander.is_served();
                let found = attach(&endpoint)
                    .read(PLACE, before.len())
                    .expect("a read succeeds");
                assert!(
                    found == before,
                    "a write that was cut off after {sent} bytes changed something"
                );
            }
        }
    });
}

#[test]
fn a_client_that_leaves_answers_unread_holds_up_nobody() {
    beside_a_bystander(|server, bystander| {
        let mut raw = transmission(&server.tcp());
        for cookie in 0..64 {
            raw.send_request(CMD_READ, cookie, 0, 1 << 20, &[])
                .expect("the server listens");
        }
        bystander.is_served();
        // Its last words; the answers stay unread.
        raw.send_request(CMD_DISC, 99, 0, 0, &[])
            .expect("the server listens");
        bystander.is_served();
    });
}

/// As many descriptors as may be had, for this process and the server that it starts.
fn raise_descriptor_limit() -> u64 {
    const WANTED: u64 = 10_000 + 1_000;
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit {
        current: Some(WANTED),
        maximum: Some(hard.max(WANTED)),
    };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        return WANTED;
    }
    let allowed = hard.min(WANTED);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(allowed),
            ..limit
        },
    )
    .expect("up to the hard limit is allowed");
    allowed
}

#[test]
fn ten_thousand_half_open_connections_leave_others_unaffected() {
    let connections = raise_descriptor_limit() - 1_000;
    beside_a_bystander(|server, bystander| {
        let mut held = Vec::new();
        for index in 0..connections {
            // Some wait to be greeted, some of those answer by half; a server that is full may close.
            let Ok(mut raw) = Raw::connect(&server.tcp()) else {
                continue;
            };
            if index % 16 == 0 {
                match raw.receive(18) {
                    Ok(_) => drop(raw.send(&[0, 0])),
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => continue,
                    Err(error) => panic!("connection {index} is neither greeted nor closed: {error}"),
                }
            }
            held.push(raw);
            if index % 1000 == 0 {
                bystander.is_served();
            }
        }
        println!("{} of {connections} connections are open", held.len());
        assert!(
            held.len() as u64 >= connections / 2,
            "only {} connections could be opened",
            held.len()
        );
        bystander.is_served();
        drop(held);
        assert_eq!(attach(&server.tcp()).size(), 256 * MIB, "a new client is served");
    });
}

#[test]
fn half_open_connections_do_not_keep_the_server_from_stopping() {
    let appliance = Appliance::create(&Setup::new(0));
    let server = appliance.serve(&[]);
    let silent = Raw::connect(&server.tcp()).expect("the server listens");
    let negotiating = greeted(&server.unix());
    let mut within_a_request = transmission(&server.tcp());
    within_a_request
        .send(&request(CMD_WRITE, 1, 0, 4096))
        .expect("the server listens");
    server.stop();
    drop((silent, negotiating, within_a_request));
}

fn create(dir: &Path, member_size: u64) -> Command {
    create_sized(dir, member_size, 64 * MIB)
}

fn create_sized(dir: &Path, member_size: u64, size: u64) -> Command {
    let mut command = binaries::engine();
    command
        .arg("create")
        .arg("--dir")
        .arg(dir)
        .args(["--level", "1", "--cache", "buffered"]);
    command.args([
        "--member-size",
        &member_size.to_string(),
        "--size",
        &size.to_string(),
    ]);
    command
}

/// `create` must refuse, say one of `words`, and leave every file as it is.
fn assert_refused(dir: &Path, member_size: u64, words: &[&str]) {
    let checksums = "find . -type f -print0 | sort -z | xargs -0 -r sha256sum";
    let state = || run(command("bash", ["-c", checksums]).current_dir(dir)).stdout;
    let before = state();
    let said = run_refused(&mut create(dir, member_size)).output();
    assert!(
        words.iter().any(|word| said.to_lowercase().contains(word)),
        "says none of {words:?}: {said}"
    );
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(state(), before, "something was changed");
}

#[test]
fn a_device_that_is_too_small_is_refused_with_the_size_that_would_do() {
    let dir = folder(Store::Memory);
    assert_refused(dir.path(), 0, &["at least", "too small", "is none"]);
    for member_size in [4096, MIB] {
        assert_refused(dir.path(), member_size, &["at least", "too small", "is needed"]);
    }
}

#[test]
fn a_volume_that_does_not_fit_is_refused_with_what_is_missing() {
    let dir = folder(Store::Memory);
    let said = run_refused(&mut create_sized(dir.path(), 160 * MIB, 4096 * MIB)).output();
    assert!(said.contains("lacks"), "{said}");
}

#[test]
fn a_device_with_a_file_system_is_refused_and_unchanged() {
    let dir = folder(Store::Memory);
    let member = dir.path().join("member-0.img");
    fs::File::create(&member)
        .and_then(|file| file.set_len(160 * MIB))
        .expect("a file can be made");
    run(command("mkfs.ext4", ["-q", "-F"]).arg(&member));
    assert_refused(dir.path(), 160 * MIB, &["ext4", "ext2", "ext"]);
}

#[test]
fn another_appliances_member_is_refused_and_unchanged() {
    let (theirs, ours) = (folder(Store::Memory), folder(Store::Memory));
    run(&mut create(theirs.path(), 160 * MIB));
    fs::copy(
        theirs.path().join("member-0.img"),
        ours.path().join("member-1.img"),
    )
    .expect("a file can be copied");
    assert_refused(ours.path(), 160 * MIB, &["appliance"]);
}

#[test]
fn an_appliance_is_not_made_where_one_is() {
    let dir = folder(Store::Memory);
    run(&mut create(dir.path(), 160 * MIB));
    assert_refused(dir.path(), 160 * MIB, &["already", "exists"]);
}

#[test]
fn examine_tells_whose_a_device_is_and_changes_nothing() {
    let dir = folder(Store::Memory);
    run(&mut create(dir.path(), 160 * MIB));
    let member = dir.path().join("member-0.img");
    let before = fs::read(&member).expect("a file can be read");
    let said = run(binaries::engine().args(["examine", "--json"]).arg(&member)).stdout;
    assert!(
        serde_json::from_str::<serde_json::Value>(&said).is_ok(),
        "not JSON: {said}"
    );
    run(binaries::engine().arg("examine").arg(&member));
    assert!(
        fs::read(&member).expect("a file can be read") == before,
        "examine changed the device"
    );
}
