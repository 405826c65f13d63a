//! Every problem of the closed list, provoked from the outside.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use ashlar_openapi::ProblemType;
use ashlar_tests::api::{Answer, Api};
use ashlar_tests::appliance::MIB;
use ashlar_tests::ground::{self, device_id, export_id, file_source, group_id, volume_id};
use ashlar_tests::held::HeldRequest;
use ashlar_tests::nbd::Client;
use ashlar_tests::process::{command, run};
use ashlar_tests::server::{Home, Managed, signal_all};
use rustix::process::Signal;
use serde_json::{Value, json};

/// What no client can provoke, because it is a mistake of this program: server/src/app/refusals.rs shows what becomes of
/// one.
const MISTAKE: &str = "internal";

/// What was provoked so far.
#[derive(Default)]
struct Seen(BTreeSet<String>);

impl Seen {
    /// Notes that the answer is this problem.
    fn is(&mut self, kind: &str, answer: &Answer) {
        assert_eq!(answer.refused(), kind, "{:#}", answer.body);
        let correction = answer.body["correction"]["text"].as_str().unwrap_or_default();
        assert!(!correction.is_empty(), "{kind} does not say what would be right");
        assert_eq!(answer.header("x-request-id"), answer.body["request_id"], "{kind}");
        self.0.insert(kind.to_owned());
    }
}

fn new_volume(name: &str) -> Value {
    json!({"name": name, "capacity_bytes": ground::VOLUME, "raid_group": group_id(0)})
}

fn placed(ranges: &[(u64, u64)]) -> Value {
    let place = |&(offset, length): &(u64, u64)| json!({"range": {"offset": offset, "length": length}, "raid_group": group_id(0)});
    let placements: Vec<Value> = ranges.iter().map(place).collect();
    json!({"name": "placed", "capacity_bytes": ground::VOLUME, "placements": placements})
}

/// What is wrong with a request whatever the appliance holds.
fn requests(seen: &mut Seen, api: &Api) {
    let volumes = |body: &Value| api.post("/volumes", body);
    seen.is(
        "malformed-json",
        &api.raw("POST", "/volumes", "application/json", b"{"),
    );
    seen.is(
        "unsupported-media-type",
        &api.raw("POST", "/volumes", "text/plain", b"{}"),
    );
    let huge = vec![b' '; (4 << 20) + 1];
    seen.is(
        "body-too-large",
        &api.raw("POST", "/volumes", "application/json", &huge),
    );
    seen.is("unknown-field", &volumes(&json!({"name": "a", "colour": "red"})));
    seen.is("missing-field", &volumes(&json!({})));
    seen.is("invalid-value", &volumes(&json!({"name": "a b"})));
    seen.is("unknown-parameter", &api.get("/volumes?colour=red"));
    seen.is("invalid-parameter", &api.get("/volumes?limit=0"));
    seen.is("invalid-cursor", &api.get("/volumes?cursor=nowhere"));
    seen.is(
        "invalid-header",
        &api.with("idempotency-key", "a b")
            .post("/volumes", &new_volume("a")),
    );
    seen.is("not-acceptable", &api.with("accept", "image/png").get("/volumes"));
    seen.is("no-such-path", &api.get("/nowhere"));
    seen.is(
        "method-not-allowed",
        &api.request("DELETE", "/volumes", &Value::Null).expect("answered"),
    );
    seen.is(
        "no-such-object",
        &api.get(&format!("/volumes/{}", uuid::Uuid::nil())),
    );
    let volume = format!("/volumes/{}", volume_id(0));
    seen.is(
        "precondition-required",
        &api.patch(&volume, &json!({"name": "b"})),
    );
    seen.is(
        "stale",
        &api.with("if-match", "\"0-0\"")
            .patch(&volume, &json!({"name": "b"})),
    );
    let keyed = api.with("idempotency-key", "one");
    keyed.post("/volumes", &new_volume("keyed")).granted();
    seen.is(
        "idempotency-key-reused",
        &keyed.post("/volumes", &new_volume("another")),
    );
}

/// More requests than the maintenance socket has room for.
fn busy(seen: &mut Seen, home: &Home, api: &Api) {
    let socket = home.data().join("ashlar.sock");
    let held: Vec<_> = (0..64).map(|_| HeldRequest::begin(&socket, "/volumes")).collect();
    seen.is("busy", &api.get("/volumes"));
    for request in held {
        assert_eq!(request.finish().status, 200);
    }
}

/// Objects that are in each other's way.
fn objects(seen: &mut Seen, api: &Api) {
    let twice =
        json!({"id": volume_id(0), "name": "other", "capacity_bytes": MIB, "raid_group": group_id(0)});
    seen.is("id-taken", &api.post("/volumes", &twice));
    seen.is("name-taken", &api.post("/volumes", &new_volume("vol0")));
    let mut numbered = new_volume("numbered");
    numbered["number"] = json!(0);
    seen.is("number-taken", &api.post("/volumes", &numbered));
    let mut nowhere = new_volume("nowhere");
    nowhere["raid_group"] = json!(uuid::Uuid::nil());
    seen.is("unknown-reference", &api.post("/volumes", &nowhere));
    seen.is(
        "volume-exported",
        &api.delete(&format!("/volumes/{}", volume_id(0))),
    );
    seen.is(
        "raid-group-in-use",
        &api.delete(&format!("/raid-groups/{}", group_id(0))),
    );
    seen.is(
        "appliance-not-blank",
        &api.post(
            "/appliance/import",
            &json!({"sources": [file_source(Path::new("/x"), None)]}),
        ),
    );
}

/// Ranges and capacities.
fn ranges(seen: &mut Seen, api: &Api) {
    let volumes = |body: &Value| api.post("/volumes", body);
    seen.is(
        "no-placement",
        &volumes(&json!({"name": "none", "capacity_bytes": MIB})),
    );
    let sized =
        |capacity: u64| json!({"name": "sized", "capacity_bytes": capacity, "raid_group": group_id(0)});
    seen.is("capacity-invalid", &volumes(&sized(MIB + 1)));
    let roomless = volumes(&sized(1 << 40));
    seen.is("not-enough-space", &roomless);
    assert_eq!(
        roomless.body["correction"]["missing"][0]["raid_group"],
        group_id(0)
    );
    let mut typed = sized(MIB);
    typed["emulation_type"] = json!("floppy");
    seen.is("emulation-unsupported", &volumes(&typed));
    seen.is("range-empty", &volumes(&placed(&[(0, 0)])));
    seen.is(
        "range-overflow",
        &volumes(&placed(&[((1 << 53) - 1, (1 << 53) - 1)])),
    );
    seen.is("range-out-of-bounds", &volumes(&placed(&[(ground::VOLUME, MIB)])));
    seen.is("range-misaligned", &volumes(&placed(&[(1, 4096)])));
    seen.is("ranges-overlap", &volumes(&placed(&[(0, 2 * MIB), (MIB, MIB)])));
    let track = json!({"cylinder": 0, "head": 0});
    let mut tracks = placed(&[]);
    tracks["placements"] = json!([{"range": {"from": track, "to": track}, "raid_group": group_id(0)}]);
    seen.is("track-invalid", &volumes(&tracks));
    let more = placed(&[(0, MIB)])["placements"].clone();
    let mapped = api.post(
        &format!("/volumes/{}/placements", volume_id(2)),
        &json!({"placements": more}),
    );
    seen.is("range-mapped", &mapped);
    let shrunk = json!({"capacity_bytes": MIB, "raid_group": group_id(0)});
    seen.is(
        "volume-shrinks",
        &api.post(&format!("/volumes/{}/expand", volume_id(0)), &shrunk),
    );
}

/// Devices and members. The ground's device 6 has failed; 2 and 3 are free.
fn devices(seen: &mut Seen, home: &Home, api: &Api) {
    let add = |source: Value| api.post("/devices", &json!({"source": source}));
    let file = |name: &str| file_source(&home.device(name), None);
    seen.is("device-cannot-be-opened", &add(file("nowhere")));
    seen.is(
        "device-too-small",
        &add(file_source(&home.device("tiny"), Some(MIB))),
    );
    ground::empty_file(&home.device("ext4"));
    run(command("mkfs.ext4", ["-q"]).arg(home.device("ext4")));
    seen.is("device-foreign-content", &add(file("ext4")));
    std::fs::copy(home.device("2"), home.device("copy")).expect("the file can be copied");
    seen.is("device-known", &add(file("copy")));
    let device =
        |number: u32, verb: &str| api.post(&format!("/devices/{}/{verb}", device_id(number)), &Value::Null);
    seen.is("device-in-service", &device(2, "return"));
    seen.is("would-lose-data", &device(4, "fail"));
    seen.is(
        "device-in-use",
        &api.delete(&format!("/devices/{}", device_id(0))),
    );
    let group = |level: &str, members: &[String]| {
        api.post(
            "/raid-groups",
            &json!({"level": level, "members": members, "slice_length_bytes": MIB}),
        )
    };
    let (two, three) = (device_id(2), device_id(3));
    let spare = |spare: Value| api.post(&format!("/devices/{three}/spare"), &json!({"spare": spare}));
    let own = |number: u32| json!({"kind": "raid_group", "raid_group": group_id(number)});
    seen.is("no-redundancy", &spare(own(1)));
    spare(own(0)).granted();
    seen.is("device-is-spare", &group("1", &[two.clone(), three.clone()]));
    spare(json!({"kind": "none"})).granted();
    seen.is("too-few-members", &group("1", std::slice::from_ref(&two)));
    let many: Vec<String> = (0..65).map(device_id).collect();
    seen.is("too-many-members", &group("0", &many));
    seen.is("member-twice", &group("1", &[two.clone(), two.clone()]));
    let small = file_source(&home.device("small"), Some(16 * MIB));
    let small = add(small).granted()["id"]
        .as_str()
        .expect("a device has an id")
        .to_owned();
    let replace = |new: &str| {
        let body = json!({"old": device_id(1), "new": new});
        api.post(&format!("/raid-groups/{}/replace", group_id(0)), &body)
    };
    seen.is("member-too-small", &replace(&small));
    let stranger = json!({"old": three, "new": two});
    let stranger = api.post(&format!("/raid-groups/{}/replace", group_id(0)), &stranger);
    seen.is("not-a-member", &stranger);
    api.with("if-match", "*")
        .patch("/appliance", &json!({"smallest_volume_bytes": 64 * MIB}))
        .granted();
    let roomless = api.post(
        "/raid-groups",
        &json!({"level": "0", "members": [small], "slice_length_bytes": 64 * MIB}),
    );
    seen.is("no-room", &roomless);
    api.with("if-match", "*")
        .patch("/appliance", &json!({"smallest_volume_bytes": MIB}))
        .granted();
    device(3, "fail").granted();
    seen.is("device-absent", &group("0", &[three]));
}

/// Accounts: over HTTPS, with the password of the first start.
fn accounts(seen: &mut Seen, api: &Api, remote: &Api) {
    let password = "a password for everybody";
    let user = |name: &str, role: &str| {
        let new = json!({"name": name, "password": password, "role": role});
        api.post("/users", &new).granted()["id"]
            .as_str()
            .expect("a user has an id")
            .to_owned()
    };
    user("looker", "viewer");
    let sign_in =
        |name: &str, password: &str| remote.post("/auth/login", &json!({"name": name, "password": password}));
    let bearer = |secret: &Value| {
        remote.with(
            "authorization",
            &format!("Bearer {}", secret.as_str().unwrap_or_default()),
        )
    };
    seen.is("not-signed-in", &remote.get("/volumes"));
    seen.is("sign-in-failed", &sign_in("looker", "a wrong password"));
    let session = sign_in("looker", password).granted();
    let looker = bearer(&session["access_token"]);
    seen.is("role-forbidden", &looker.post("/volumes", &new_volume("no")));
    let token = looker
        .post("/tokens", &json!({"name": "t", "scopes": ["metrics:read"]}))
        .granted();
    seen.is("scope-forbidden", &bearer(&token["secret"]).get("/volumes"));
    let refresh = |token: &Value| remote.post("/auth/refresh", &json!({"refresh_token": token}));
    refresh(&session["refresh_token"]).granted();
    seen.is("refresh-token-invalid", &refresh(&session["refresh_token"]));
    seen.is(
        "password-weak",
        &api.post(
            "/users",
            &json!({"name": "weak", "password": "short", "role": "viewer"}),
        ),
    );
    let admins = api.get("/users?role=admin").granted();
    let admin = admins["items"][0]["id"]
        .as_str()
        .expect("there is an administrator")
        .to_owned();
    seen.is("last-admin", &api.delete(&format!("/users/{admin}")));
    let limited = (0..30)
        .map(|_| sign_in("nobody", "a wrong password"))
        .find(|answer| answer.status == 429);
    seen.is("sign-in-limited", &limited.expect("guessing is limited"));
}

fn jobs(seen: &mut Seen, api: &Api) {
    let identify = api
        .post(
            &format!("/devices/{}/identify?wait=30s", device_id(2)),
            &json!({"seconds": 1}),
        )
        .granted();
    let job = identify["id"].as_str().expect("a job has an id");
    seen.is(
        "job-state",
        &api.post(&format!("/jobs/{job}/pause"), &Value::Null),
    );
    let bundle = api.post("/support-bundle?wait=60s", &Value::Null).granted();
    let job = bundle["id"].as_str().expect("a job has an id");
    let answer = api
        .with("if-match", "*")
        .patch(&format!("/jobs/{job}"), &json!({"rate_limit_bytes_per_s": 1}));
    seen.is("job-kind", &answer);
}

/// An NBD server whose export has blocks of 4096 bytes.
struct LargeBlocks {
    child: Child,
    uri: String,
}

impl LargeBlocks {
    fn start(home: &Home) -> Self {
        let socket = home.device("nbd.sock");
        let child = Command::new("nbdkit")
            .args([
                "--foreground",
                "--exit-with-parent",
                "--filter=blocksize-policy",
                "-U",
            ])
            .arg(&socket)
            .args([
                "memory",
                "128M",
                "blocksize-minimum=4096",
                "blocksize-error-policy=error",
            ])
            .stdout(Stdio::null())
            .spawn()
            .expect("nbdkit runs (`make deps` installs what the tests need)");
        Self {
            child,
            uri: format!("nbd+unix:///?socket={}", socket.display()),
        }
    }
}

impl Drop for LargeBlocks {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// A device with large blocks, and then the loss of the only device that holds the metadata.
fn large_blocks(seen: &mut Seen) {
    let home = Home::new();
    let remote = LargeBlocks::start(&home);
    let server = home.start();
    let api = server.api();
    let source = json!({"kind": "nbd", "uri": remote.uri});
    let added = (0..100).find_map(|_| {
        let answer = api.post("/devices", &json!({"id": device_id(0), "source": source}));
        (answer.status == 201).then_some(answer)
    });
    added.expect("the NBD server is there soon").granted();
    seen.is("last-device", &api.delete(&format!("/devices/{}", device_id(0))));
    api.with("if-match", "*")
        .patch("/appliance", &json!({"smallest_volume_bytes": MIB}))
        .granted();
    ground::create_group(&api, 0, "0", &[0]);
    seen.is("block-mismatch", &api.post("/volumes", &new_volume("fine")));
    let (one, two) = (home.device("1"), home.device("2"));
    for (number, path) in [(1, &one), (2, &two)] {
        let new = json!({"id": device_id(number), "source": file_source(path, Some(ground::DEVICE))});
        api.post("/devices", &new).granted();
    }
    ground::create_group(&api, 1, "1", &[1, 2]);
    api.delete(&format!("/raid-groups/{}", group_id(0))).granted();
    let body = json!({"old": device_id(1), "new": device_id(0)});
    seen.is(
        "member-block",
        &api.post(&format!("/raid-groups/{}/replace", group_id(1)), &body),
    );
    server.stop();
}

/// A scrub that takes long.
fn scrubs(seen: &mut Seen) {
    let home = Home::new();
    let server = home.start();
    let api = server.api();
    ground::small(&home, &api);
    let mut host = Client::attach(&server.nbd(), "vol0").expect("the volume is exported");
    host.write(0, &[1; 1 << 20]).expect("the volume takes writes");
    let slow = json!({"mode": "check", "rate_limit_bytes_per_s": 1});
    let scrub = || api.post(&format!("/raid-groups/{}/scrub", group_id(0)), &slow);
    scrub().granted();
    seen.is("scrub-running", &scrub());
    server.stop();
}

/// The metadata's only holder goes away.
fn lost_metadata(seen: &mut Seen) {
    let home = Home::new();
    let remote = LargeBlocks::start(&home);
    let server = home.start();
    let api = server.api();
    let source = json!({"kind": "nbd", "uri": remote.uri});
    let added = (0..100).any(|_| {
        api.post("/devices", &json!({"id": device_id(0), "source": source}))
            .status
            == 201
    });
    assert!(added, "the NBD server is there soon");
    drop(remote);
    let renamed = api
        .with("if-match", "*")
        .patch(&format!("/devices/{}", device_id(0)), &json!({"name": "gone"}));
    seen.is("metadata-not-durable", &renamed);
    let later = api
        .with("if-match", "*")
        .patch("/appliance", &json!({"name": "later"}));
    seen.is("metadata-unavailable", &later);
    server.kill();
    let server = home.start();
    seen.is(
        "appliance-unavailable",
        &server.api().post("/volumes", &new_volume("none")),
    );
    server.stop();
}

/// A device of another appliance, and the catalog's going away.
fn strangers(seen: &mut Seen) {
    let (home, other) = (Home::new(), Home::new());
    let server = other.start();
    seen.is(
        "appliance-blank",
        &server.api().post("/volumes", &new_volume("none")),
    );
    ground::add_device(&other, &server.api(), 0);
    server.stop();
    let server = home.start();
    let api = server.api();
    ground::small(&home, &api);
    let theirs = json!({"source": file_source(&other.device("0"), None)});
    seen.is("device-foreign-appliance", &api.post("/devices", &theirs));
    home.query(&format!(
        "insert into volumes (id, number, name, emulation, capacity, partial, presence) \
         values ('{}', 9, 'lost', 'open-512', 1048576, false, 'missing')",
        volume_id(9)
    ));
    seen.is(
        "object-missing",
        &api.delete(&format!("/volumes/{}", volume_id(9))),
    );
    waiting(seen, &home, server);
}

/// A group whose member is not there, then the catalog's going away.
fn waiting(seen: &mut Seen, home: &Home, server: Managed) {
    let api = server.api();
    ground::add_device(home, &api, 2);
    ground::create_group(&api, 1, "0", &[2]);
    let lies_there =
        json!({"id": volume_id(1), "name": "lies", "capacity_bytes": MIB, "raid_group": group_id(1)});
    api.post("/volumes", &lies_there).granted();
    server.stop();
    std::fs::rename(home.device("2"), home.device("away")).expect("the file can be moved");
    let server = home.start();
    let api = server.api();
    let on_it = json!({"name": "waits", "capacity_bytes": MIB, "raid_group": group_id(1)});
    seen.is("raid-group-waiting", &api.post("/volumes", &on_it));
    let larger = json!({"capacity_bytes": 2 * MIB, "raid_group": group_id(0)});
    seen.is(
        "volume-not-serving",
        &api.post(&format!("/volumes/{}/expand", volume_id(1)), &larger),
    );
    let postgres = home.postgres_processes();
    signal_all(&postgres, Signal::STOP);
    let away = (0..100)
        .map(|_| api.get("/volumes"))
        .find(|answer| answer.status == 503);
    signal_all(&postgres, Signal::CONT);
    seen.is("catalog-unavailable", &away.expect("the catalog is missed"));
    stopping(seen, home, server);
}

/// A request that is not whole when the appliance stops, and that outlasts its patience. Postgres is held up so that the
/// process is still there when the engine is not.
fn stopping(seen: &mut Seen, home: &Home, server: Managed) {
    let socket = home.data().join("ashlar.sock");
    let held = HeldRequest::begin(&socket, &format!("/volumes/{}/map", volume_id(0)));
    let head = [home.postgres().expect("the private Postgres runs")];
    signal_all(&head, Signal::STOP);
    server.begin_to_stop();
    let begun = Instant::now();
    // It is taken away when nothing serves any more.
    while socket.exists() {
        assert!(begun.elapsed().as_secs() < 60, "the appliance does not stop");
    }
    seen.is("stopping", &held.finish());
    signal_all(&head, Signal::CONT);
    server.stop();
}

#[test]
fn every_problem_of_the_closed_list_is_provoked() {
    let mut seen = Seen::default();
    let home = Home::new();
    let server = home.start();
    let api = server.api();
    ground::whole(&home, &api);
    let remote = Api::over_https(server.listens(), &home.data().join("tls/certificate.pem"));
    requests(&mut seen, &api);
    busy(&mut seen, &home, &api);
    objects(&mut seen, &api);
    ranges(&mut seen, &api);
    jobs(&mut seen, &api);
    devices(&mut seen, &home, &api);
    accounts(&mut seen, &api, &remote);
    assert_eq!(api.get(&format!("/exports/{}", export_id(0))).status, 200);
    server.stop();
    large_blocks(&mut seen);
    scrubs(&mut seen);
    lost_metadata(&mut seen);
    strangers(&mut seen);
    let all: BTreeSet<String> = ProblemType::ALL
        .iter()
        .map(|kind| kind.uri().trim_start_matches("urn:ashlar:problem:").to_owned())
        .collect();
    let missing: Vec<_> = all.difference(&seen.0).filter(|kind| *kind != MISTAKE).collect();
    assert!(missing.is_empty(), "never provoked: {missing:?}");
}
