//! What must not be used twice is not, and what keeps an appliance from starting is told: one clear message on standard
//! error, an exit code that is not 0, and nothing changed.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::json;

use ashlar_tests::api::Api;
use ashlar_tests::certificates::Certificates;
use ashlar_tests::ground::{DEVICE, create_volume, device_id, file_source, small};
use ashlar_tests::process::{command, run, run_refused};
use ashlar_tests::server::{Home, serve};

/// Starts a server that is to be refused, and what it says on standard error.
fn refused(command: &mut Command) -> String {
    let finished = run_refused(command);
    assert_eq!(finished.stdout, "", "nothing is served");
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
    finished.stderr
}

fn assert_says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

/// Paths, sizes and times of change of all files below the data folder.
fn listing(home: &Home) -> String {
    run(command("find", ["-printf", "%P %s %T@ %m %u\\n"]).current_dir(home.data())).stdout
}

/// A listing without the lock, which every start writes, and the folder itself.
fn kept(listing: &str) -> Vec<&str> {
    let is_kept = |line: &&str| !line.starts_with("ashlar.lock") && !line.starts_with(' ');
    let mut files: Vec<_> = listing.lines().filter(is_kept).collect();
    files.sort_unstable();
    files
}

#[test]
fn a_second_server_on_a_data_folder_is_refused_and_told_who_has_it() {
    let home = Home::new();
    let server = home.start();
    let api = server.api();
    small(&home, &api);
    let said = refused(&mut home.command(&[]));
    assert_says(&said, &["in use", &server.pid().to_string()]);
    // The first one lost neither its socket nor its Postgres.
    create_volume(&api, 1, "later");
    server.stop();
    home.start().stop();
}

#[test]
fn what_was_left_by_servers_that_are_gone_keeps_nobody_out() {
    let home = Home::new();
    let server = home.start();
    small(&home, &server.api());
    server.kill();
    home.postgres_is_gone();
    // As if these numbers were somebody else's by now: ours.
    let own = std::process::id();
    std::fs::write(home.data().join("ashlar.lock"), format!("{own}\n")).expect("nobody uses it");
    let stale = format!("{own}\n{}\n0\n5432\n", home.postgres_data().display());
    std::fs::write(home.postgres_data().join("postmaster.pid"), stale).expect("nobody uses it");
    assert!(
        home.data().join("ashlar.sock").exists(),
        "the socket of the killed one is still there"
    );
    let server = home.start();
    create_volume(&server.api(), 1, "later");
    server.stop();
}

#[test]
fn devices_of_a_running_appliance_are_refused_to_another_one() {
    let (first, second) = (Home::new(), Home::new());
    let server = first.start();
    small(&first, &server.api());
    let other = second.start();
    let api = other.api();
    let sources = ["0", "1"].map(|name| file_source(&first.device(name), None));
    let import = api.post("/appliance/import", &json!({"sources": sources}));
    assert_eq!(import.refused(), "device-cannot-be-opened");
    assert_says(&import.body["cause"].to_string(), &["in use"]);
    for force in [false, true] {
        let add = api.post("/devices", &json!({"source": sources[0], "force": force}));
        assert_eq!(add.refused(), "device-cannot-be-opened");
        assert_says(&add.body["cause"].to_string(), &["in use"]);
    }
    assert_eq!(api.get("/appliance").granted()["state"], "blank");
    other.stop();
    create_volume(&server.api(), 1, "later");
    server.stop();
    first.start().stop();
}

#[test]
fn devices_that_belong_to_an_appliance_that_does_not_run_are_refused_to_another_one() {
    let (first, second) = (Home::new(), Home::new());
    let server = first.start();
    small(&first, &server.api());
    server.stop();
    let other = second.start();
    let api = other.api();
    let taken = file_source(&first.device("0"), None);
    let refused = api.post("/devices", &json!({"source": taken}));
    assert_eq!(refused.refused(), "device-foreign-appliance");
    let own = file_source(&second.device("0"), Some(DEVICE));
    api.post("/devices", &json!({"id": device_id(9), "source": own}))
        .granted();
    let refused = api.post("/devices", &json!({"source": taken}));
    assert_eq!(refused.refused(), "device-foreign-appliance");
    let refused = api.post("/appliance/import", &json!({"sources": [taken]}));
    assert_eq!(refused.refused(), "appliance-not-blank");
    other.stop();
    // It is still the first one's.
    let server = first.start();
    assert_eq!(server.api().get("/appliance").granted()["state"], "serving");
    server.stop();
    second.start().stop();
}

#[test]
fn a_private_cluster_that_another_postgres_runs_is_not_used() {
    let home = Home::new();
    let server = home.start();
    small(&home, &server.api());
    server.stop();
    home.with_postgres_alone(|| {
        let before = home.query("select last from event_counter");
        let said = refused(&mut home.command(&[]));
        let number = home.postgres().expect("it runs").as_raw_pid();
        assert_says(&said, &["in use", &number.to_string()]);
        assert_eq!(home.query("select last from event_counter"), before);
    });
    home.start().stop();
}

#[test]
fn a_port_in_use_is_named() {
    let home = Home::new();
    home.start().stop();
    let before = listing(&home);
    let taken = TcpListener::bind("127.0.0.1:0").expect("there are free ports");
    let address = taken.local_addr().expect("it is bound").to_string();
    for option in ["--listen", "--nbd-listen"] {
        let mut command = serve_only(&home);
        for each in ["--listen", "--nbd-listen"] {
            let given = if each == option {
                address.as_str()
            } else {
                "127.0.0.1:0"
            };
            command.args([each, given]);
        }
        let said = refused(&mut command);
        assert_says(&said, &[&address, "in use"]);
    }
    assert_eq!(kept(&listing(&home)), kept(&before), "nothing was changed");
    home.start().stop();
}

fn serve_only(home: &Home) -> Command {
    let mut command = ashlar_tests::binaries::ashlar();
    command.args(["serve", "--data"]).arg(home.data());
    command
}

#[test]
fn a_certificate_that_has_expired_is_named_with_its_date_and_what_to_do() {
    let home = Home::new();
    home.start().stop();
    let before = listing(&home);
    let certificates = Certificates::expired();
    let (chain, key) = (
        certificates.file("server-cert.pem"),
        certificates.file("server-key.pem"),
    );
    for (option, key_option) in [("--tls-cert", "--tls-key"), ("--nbd-tls-cert", "--nbd-tls-key")] {
        let mut command = home.command(&[]);
        command.arg(option).arg(&chain).arg(key_option).arg(&key);
        let finished = run_refused(&mut command);
        assert_eq!((finished.status.code(), finished.stdout.as_str()), (Some(5), ""));
        assert_says(
            &finished.stderr,
            &["server-cert.pem", "expired at 2021-01-01", "renew it"],
        );
        assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
    }
    assert_eq!(kept(&listing(&home)), kept(&before), "nothing was changed");
    // The appliance's own serves as before.
    home.start().stop();
}

#[test]
fn a_data_folder_that_others_can_write_is_refused() {
    let home = Home::new();
    home.start().stop();
    std::fs::set_permissions(home.data(), Permissions::from_mode(0o777)).expect("the folder is ours");
    let before = listing(&home);
    let said = refused(&mut home.command(&[]));
    assert_says(&said, &["can be written by others", "chmod"]);
    assert_eq!(listing(&home), before, "nothing was changed");
}

#[test]
fn a_data_folder_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        println!("not root: a folder cannot be given to another user");
        return;
    }
    let home = Home::new();
    home.start().stop();
    run(command("chown", ["nobody"]).arg(home.data()));
    let before = listing(&home);
    let said = refused(&mut home.command(&[]));
    assert_says(&said, &["belongs to user"]);
    assert_eq!(listing(&home), before, "nothing was changed");
}

#[test]
fn a_data_folder_that_the_database_server_cannot_reach_is_refused() {
    if !rustix::process::geteuid().is_root() {
        println!("not root: Postgres runs as the same user");
        return;
    }
    let home = Home::new();
    let closed = home.device("closed");
    std::fs::create_dir(&closed).expect("the folder can be made");
    std::fs::set_permissions(&closed, Permissions::from_mode(0o700)).expect("the folder is ours");
    let said = refused(&mut serve(&closed.join("data"), &[]));
    assert_says(&said, &["cannot pass through", "chmod a+x"]);
}

#[test]
fn a_file_in_the_place_of_the_data_folder_is_named() {
    let home = Home::new();
    std::fs::write(home.data(), "something").expect("the place is free");
    let said = refused(&mut home.command(&[]));
    assert_says(&said, &[&home.data().display().to_string()]);
    assert_eq!(std::fs::read(home.data()).expect("it is there"), b"something");
}

#[test]
fn a_damaged_list_of_devices_is_named_and_left_alone() {
    let home = Home::new();
    let server = home.start();
    small(&home, &server.api());
    server.stop();
    let list = home.data().join("devices.json");
    std::fs::write(&list, "[{").expect("nobody uses it");
    let said = refused(&mut home.command(&[]));
    assert_says(&said, &["devices.json", "damaged"]);
    assert_eq!(std::fs::read(&list).expect("it is there"), b"[{");
    home.postgres_is_gone();
}

/// Runs `test` with a small file system of its own, where that is allowed.
fn with_small_disk(home: &Home, bytes: u64, test: impl FnOnce()) {
    let place = home.data();
    std::fs::create_dir(&place).expect("the place is free");
    let mut mount = command("mount", ["-t", "tmpfs", "-o"]);
    mount
        .arg(format!("size={bytes},mode=711"))
        .arg("none")
        .arg(&place);
    if !mount.status().is_ok_and(|status| status.success()) {
        println!("no file system can be mounted here: a full disk is not tested");
        return;
    }
    let unmount = Unmount(place);
    test();
    drop(unmount);
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        // Lazily: what a failed test left running may hold it.
        let _ = command("umount", ["--lazy"]).arg(&self.0).status();
    }
}

#[test]
fn a_disk_too_full_to_begin_is_told() {
    let home = Home::new();
    with_small_disk(&home, 1 << 20, || {
        let said = refused(&mut home.command(&[]));
        assert_says(&said, &["No space left on device"]);
        home.postgres_is_gone();
    });
}

#[test]
fn a_disk_that_fills_up_costs_changes_and_not_hosts() {
    let home = Home::new();
    with_small_disk(&home, 160 << 20, || {
        let server = home.start();
        let api = server.api();
        small(&home, &api);
        let hosts = ashlar_tests::host::Hosts::start(&server.nbd(), "vol0");
        let fill = home.data().join("fill");
        let filled = command("dd", ["if=/dev/zero", "bs=64k"])
            .arg(format!("of={}", fill.display()))
            .output();
        assert!(!filled.expect("dd is there").status.success(), "the disk is full");
        let source = file_source(&home.device("9"), Some(DEVICE));
        let refused = add(&api, &source);
        assert!((500..600).contains(&refused), "{refused}");
        hosts.are_served();
        std::fs::remove_file(&fill).expect("the file is ours");
        let begun = std::time::Instant::now();
        while add(&api, &source) != 201 {
            assert!(begun.elapsed().as_secs() < 120, "the appliance does not recover");
        }
        hosts.were_never_disturbed();
        server.stop();
    });
}

fn add(api: &Api, source: &serde_json::Value) -> u16 {
    api.post("/devices", &json!({"id": device_id(9), "source": source}))
        .status
}
