//! The clients that people use, against RAID 0 and RAID 1: libnbd's tools, QEMU's, fio, with and without TLS.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use ashlar_tests::appliance::{Appliance, MIB, Server, Setup, Store, folder};
use ashlar_tests::certificates::Certificates;
use ashlar_tests::nbd::Client;
use ashlar_tests::process::{command, fio_report, json, run, run_refused};
use serde_json::Value;

const SIZE: u64 = 256 * MIB;
const HOLE: Range<u64> = 40 * MIB..72 * MIB;

fn on_both_levels(test: impl Fn(&Appliance, &Server)) {
    for level in [0, 1] {
        let appliance = Appliance::create(&Setup::new(level));
        let server = appliance.serve(&[]);
        test(&appliance, &server);
        server.stop();
    }
}

/// A file of the volume's size with a hole and otherwise content of which no two aligned blocks are equal.
fn image(path: &Path) {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let words = (0..MIB / 8).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    let mut piece: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    let file = File::create(path).expect("a file can be made");
    file.set_len(SIZE).expect("a file can be extended");
    for at in (0..SIZE).step_by(piece.len()).filter(|at| !HOLE.contains(at)) {
        piece.rotate_left(4104);
        file.write_all_at(&piece, at).expect("a file can be written");
    }
}

fn assert_same(left: &Path, right: &Path) {
    run(Command::new("cmp").args([left, right]));
}

#[test]
fn nbdinfo_sees_the_size_and_everything_that_is_promised() {
    on_both_levels(|_, server| {
        for uri in [server.uri(), server.tcp_uri()] {
            let info = json(&mut command("nbdinfo", ["--json", uri]));
            let export = &info["exports"][0];
            assert_eq!(info["protocol"], "newstyle-fixed", "{info}");
            assert_eq!(info["structured"], true, "{info}");
            assert_eq!(export["export-size"], SIZE, "{info}");
            assert_eq!(export["is_read_only"], false, "{info}");
            for promise in [
                "can_flush",
                "can_fua",
                "can_trim",
                "can_zero",
                "can_fast_zero",
                "can_multi_conn",
                "can_df",
            ] {
                assert_eq!(export[promise], true, "{promise}: {info}");
            }
            assert_eq!(export["block_size_minimum"], 512, "{info}");
            let contexts = export["contexts"].as_array().expect("a list");
            assert!(contexts.contains(&"base:allocation".into()), "{info}");
        }
    });
}

#[test]
fn nbdinfo_lists_the_exports_and_refuses_one_that_is_not_there() {
    on_both_levels(|_, server| {
        let list = json(&mut command("nbdinfo", ["--json", "--list", server.tcp_uri()]));
        assert_eq!(list["exports"][0]["export-name"], "vol0", "{list}");
        let wrong = server.tcp_uri().replace("/vol0", "/nothing");
        run_refused(&mut command("nbdinfo", ["--json", &wrong]));
    });
}

#[test]
fn the_map_tells_what_was_written_from_what_was_not() {
    on_both_levels(|_, server| {
        let map = |uri| json(&mut command("nbdinfo", ["--map", "--json", uri]));
        let bytes = |map: &Value, zero: bool| -> u64 {
            let runs = map.as_array().expect("the map is a list").iter();
            let runs = runs.filter(|run| (run["type"].as_u64().expect("a number") & 2 != 0) == zero);
            runs.map(|run| run["length"].as_u64().expect("a number")).sum()
        };
        assert_eq!(bytes(&map(server.uri()), true), SIZE, "a new volume is zeros");
        run(&mut command(
            "qemu-io",
            [
                "-f",
                "raw",
                "-c",
                "write -P 0x11 64M 1M",
                "-c",
                "flush",
                server.uri(),
            ],
        ));
        let data = bytes(&map(server.uri()), false);
        assert!(
            (MIB..=SIZE / 4).contains(&data),
            "{data} bytes are data after 1 MiB was written"
        );
    });
}

#[test]
fn nbdcopy_brings_an_image_in_and_out_unchanged() {
    on_both_levels(|_, server| {
        let dir = folder(Store::Memory);
        let (source, target) = (dir.path().join("in"), dir.path().join("out"));
        image(&source);
        run(command("nbdcopy", ["--flush", "--connections=4"])
            .arg(&source)
            .arg(server.uri()));
        run(command("nbdcopy", ["--connections=4", server.tcp_uri()]).arg(&target));
        assert_same(&source, &target);
    });
}

#[test]
fn qemu_img_shows_converts_and_compares() {
    on_both_levels(|_, server| {
        let dir = folder(Store::Memory);
        let (source, target) = (dir.path().join("in"), dir.path().join("out"));
        image(&source);
        let info = json(&mut command("qemu-img", ["info", "--output=json", server.uri()]));
        assert_eq!(info["virtual-size"], SIZE, "{info}");
        let raw = ["-f", "raw", "-O", "raw"];
        run(command("qemu-img", ["convert", "-n"])
            .args(raw)
            .arg(&source)
            .arg(server.uri()));
        run(command("qemu-img", ["convert"])
            .args(raw)
            .arg(server.tcp_uri())
            .arg(&target));
        assert_same(&source, &target);
        let compare = || command("qemu-img", ["compare", "-f", "raw", "-F", "raw", server.uri()]);
        run(compare().arg(&source));
        run(&mut command(
            "qemu-io",
            ["-f", "raw", "-c", "write -P 0x33 4096 512", server.uri()],
        ));
        let differs = run_refused(compare().arg(&source));
        assert!(differs.output().contains("offset 4096"), "{}", differs.output());
    });
}

#[test]
fn qemu_io_reads_back_what_it_wrote_zeroed_and_discarded() {
    on_both_levels(|_, server| {
        let script = [
            "read -P 0 0 8M",
            "write -P 0xa5 1M 3M",
            "write -P 0x5a 2097664 512",
            "write -f -P 0x77 5M 64k",
            "flush",
            "read -P 0xa5 1M 1M",
            "read -P 0xa5 2M 512",
            "read -P 0x5a 2097664 512",
            "read -P 0xa5 2098176 4096",
            "write -z 1M 512k",
            "write -z -u 1536k 64k",
            "discard 3M 1M",
            "flush",
            "read -P 0 1M 576k",
            "read -P 0xa5 1600k 448k",
            "read -P 0 3M 1M",
            "read -P 0x77 5M 64k",
            "aio_write -P 0x21 128M 64k",
            "aio_write -P 0x22 192M 64k",
            "aio_flush",
            "read -P 0x21 128M 64k",
            "read -P 0x22 192M 64k",
        ];
        let mut qemu_io = command("qemu-io", ["-f", "raw", "-d", "unmap"]);
        qemu_io
            .args(script.iter().flat_map(|step| ["-c", step]))
            .arg(server.uri());
        let said = run(&mut qemu_io).output();
        assert!(!said.contains("failed"), "{said}");
        assert_eq!(
            said.matches("bytes at offset").count(),
            script.len() - 3,
            "every step did something\n{said}"
        );
    });
}

#[test]
fn a_graceful_restart_keeps_what_was_written() {
    for level in [0, 1] {
        let appliance = Appliance::create(&Setup {
            store: Store::Direct,
            ..Setup::new(level)
        });
        let server = appliance.serve(&[]);
        run(&mut command(
            "qemu-io",
            ["-f", "raw", "-c", "write -P 0x42 100M 1M", server.uri()],
        ));
        server.stop();
        let server = appliance.serve(&[]);
        let read = run(&mut command(
            "qemu-io",
            ["-f", "raw", "-c", "read -P 0x42 100M 1M", server.uri()],
        ))
        .output();
        assert!(!read.contains("failed"), "{read}");
        server.stop();
    }
}

#[test]
fn fio_verifies_its_checksums_over_eight_connections() {
    for store in [Store::Memory, Store::Direct] {
        for level in [0, 1] {
            let appliance = Appliance::create(&Setup {
                store,
                ..Setup::new(level)
            });
            let server = appliance.serve(&[]);
            for uri in [server.uri(), server.tcp_uri()] {
                let report = fio_report(&mut fio(uri));
                let jobs = report["jobs"].as_array().expect("fio lists its jobs");
                assert_eq!(jobs.len(), 8, "one job a connection");
                for job in jobs {
                    assert_eq!(job["error"], 0, "{report}");
                    assert_eq!(
                        job["read"]["total_ios"], job["write"]["total_ios"],
                        "all that was written was verified"
                    );
                }
            }
            server.stop();
        }
    }
}

/// Eight jobs, each on its eighth of the volume, which write in any order and then read all back.
fn fio(uri: &str) -> Command {
    let mut fio = command(
        "fio",
        [
            "--name=verify",
            "--ioengine=nbd",
            "--rw=randwrite",
            "--verify=crc32c",
        ],
    );
    fio.args([
        "--bsrange=4k-64k",
        "--size=16m",
        "--offset_increment=32m",
        "--numjobs=8",
        "--iodepth=8",
        "--thread",
    ]);
    // It would leave the state of its writes in the folder that it is started in.
    fio.args(["--verify_fatal=1", "--verify_state_save=0", "--uri", uri]);
    fio
}

#[test]
fn polling_and_more_threads_serve_the_same() {
    let appliance = Appliance::create(&Setup::new(1));
    let server = appliance.serve(&["--poll-us", "50", "--threads", "2"]);
    let report = fio_report(&mut fio(server.uri()));
    let jobs = report["jobs"].as_array().expect("fio lists its jobs");
    assert!(
        jobs.iter()
            .all(|job| job["read"]["total_ios"] == job["write"]["total_ios"]),
        "{report}"
    );
    server.stop();
}

#[test]
fn a_new_attachment_to_an_exclusive_export_ends_the_old_one() {
    let appliance = Appliance::create(&Setup::new(1));
    let server = appliance.serve(&["--exclusive"]);
    let attach = || Client::attach(&server.tcp(), "vol0").expect("the volume is served");
    let mut old = attach();
    old.write(0, &[0x61; 4096]).expect("a write succeeds");
    let mut new = attach();
    assert_eq!(new.read(0, 4096).expect("a read succeeds"), [0x61; 4096]);
    assert!(
        old.write(0, &[0x62; 4096]).is_err(),
        "the old attachment still writes"
    );
    assert_eq!(new.read(0, 4096).expect("a read succeeds"), [0x61; 4096]);
    server.stop();
}

#[test]
fn tls_serves_those_whom_the_authority_knows_and_nobody_else() {
    let certificates = Certificates::make();
    let file = |name: &str| certificates.file(name).display().to_string();
    let arguments = [
        "--tls-cert",
        &file("server-cert.pem"),
        "--tls-key",
        &file("server-key.pem"),
        "--tls-ca",
        &file("ca-cert.pem"),
    ];
    for level in [0, 1] {
        let appliance = Appliance::create(&Setup::new(level));
        let server = appliance.serve(&arguments);
        let port = server.address().port();
        let uri = |dir: &Path| format!("nbds://localhost:{port}/vol0?tls-certificates={}", dir.display());
        let known = uri(certificates.dir());

        let info = json(&mut command("nbdinfo", ["--json", &known]));
        assert_eq!(
            (&info["TLS"], &info["exports"][0]["export-size"]),
            (&true.into(), &SIZE.into()),
            "{info}"
        );
        let dir = folder(Store::Memory);
        let (source, target) = (dir.path().join("in"), dir.path().join("out"));
        image(&source);
        run(command("nbdcopy", ["--flush"]).arg(&source).arg(&known));
        run(command("nbdcopy", [&known]).arg(&target));
        assert_same(&source, &target);

        run_refused(&mut command(
            "nbdinfo",
            ["--json", &format!("nbd://localhost:{port}/vol0")],
        ));
        let stranger = Certificates::make();
        fs::copy(file("ca-cert.pem"), stranger.file("ca-cert.pem")).expect("a file can be copied");
        run_refused(&mut command("nbdinfo", ["--json", &uri(stranger.dir())]));
        server.stop();
    }
}
