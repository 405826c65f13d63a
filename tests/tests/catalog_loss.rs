//! The catalog is taken away, emptied or made older, while hosts work: they never notice, the API says so and recovers
//! by itself, and nothing on the devices is destroyed or made again.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use ashlar_tests::api::{Answer, Api};
use ashlar_tests::ground::{VOLUME, create_volume, export_id, group_id, small, volume_id};
use ashlar_tests::host::Hosts;
use ashlar_tests::nbd::Client;
use ashlar_tests::process::{run, run_any};
use ashlar_tests::server::{Home, KILL_AT_STEP, Managed, signal_all};

/// How long the API may take to notice, and to recover.
const LIMIT: Duration = Duration::from_secs(120);

/// A request that needs the catalog.
fn ask(api: &Api) -> Answer {
    api.get("/volumes")
}

/// Asks until the answer is as wanted.
fn until(api: &Api, what: &str, wanted: impl Fn(&Answer) -> bool) {
    let begun = Instant::now();
    loop {
        let answer = ask(api);
        if wanted(&answer) {
            return;
        }
        assert!(
            begun.elapsed() < LIMIT,
            "the API is not {what} within {LIMIT:?}: {} {:#}",
            answer.status,
            answer.body
        );
    }
}

fn until_away(api: &Api) {
    until(api, "without its catalog", |answer| {
        answer.status == 503 && answer.refused() == "catalog-unavailable"
    });
}

fn until_back(api: &Api) {
    until(api, "back", |answer| answer.status == 200);
}

/// Asks until the devices are open, which needs no catalog.
fn until_serving(api: &Api) {
    let begun = Instant::now();
    let serving = || {
        let answer = api.request("GET", "/appliance", &Value::Null);
        answer.is_ok_and(|answer| answer.body["state"] == "serving")
    };
    while !serving() {
        assert!(begun.elapsed() < LIMIT, "the devices are not opened");
    }
}

/// Every volume's name and presence, in order of their names.
fn volumes(api: &Api) -> Vec<(String, String)> {
    let listed = ask(api).granted();
    let items = listed["items"].as_array().expect("a page has items");
    let text = |value: &Value| value.as_str().expect("names are text").to_owned();
    let mut found: Vec<_> = items
        .iter()
        .map(|volume| (text(&volume["name"]), text(&volume["presence"])))
        .collect();
    found.sort();
    found
}

fn is(name: &str, presence: &str) -> (String, String) {
    (name.into(), presence.into())
}

/// What the devices hold, whatever the catalog says.
fn counted(api: &Api) -> Value {
    let appliance = api.get("/appliance").granted();
    json!([
        appliance["devices"],
        appliance["raid_groups"],
        appliance["volumes"],
        appliance["exports"]
    ])
}

fn presences(api: &Api) -> Vec<String> {
    ["/devices", "/raid-groups", "/volumes", "/exports"]
        .into_iter()
        .flat_map(|path| {
            let listed = api.get(path).granted();
            let items = listed["items"].as_array().cloned().unwrap_or_default();
            items.into_iter().map(|item| item["presence"].to_string())
        })
        .collect()
}

/// A server on the small ground, and hosts at its export.
fn served(home: &Home) -> (Managed, Api, Hosts) {
    let server = home.start();
    let api = server.api();
    small(home, &api);
    let hosts = Hosts::start(&server.nbd(), "vol0");
    hosts.are_served();
    (server, api, hosts)
}

/// All was adopted; making the catalog's records anew makes it known.
fn is_adopted_and_rebuilt(server: &Managed, api: &Api) {
    let found = presences(api);
    assert_eq!(found.len(), 5);
    assert!(
        found.iter().all(|presence| presence == "\"adopted\""),
        "{found:?}"
    );
    api.post("/appliance/rebuild-catalog", &Value::Null).granted();
    assert!(presences(api).iter().all(|presence| presence == "\"present\""));
    assert_eq!(volumes(api), [is("vol0", "present")]);
    let export = api.get(&format!("/exports/{}", export_id(0))).granted();
    assert_eq!(
        (&export["name"], &export["offered"]),
        (&json!("vol0"), &json!(true))
    );
    Client::attach(&server.nbd(), "vol0").expect("the export is offered");
}

#[test]
fn hosts_do_not_notice_that_postgres_is_killed() {
    let home = Home::new();
    let (server, api, hosts) = served(&home);
    signal_all(&home.postgres_processes(), Signal::KILL);
    until_away(&api);
    hosts.are_served();
    until_back(&api);
    create_volume(&api, 1, "later");
    assert_eq!(volumes(&api), [is("later", "present"), is("vol0", "present")]);
    hosts.were_never_disturbed();
    server.stop();
}

#[test]
fn hosts_do_not_notice_that_postgres_stands_still() {
    let home = Home::new();
    let (server, api, hosts) = served(&home);
    let processes = home.postgres_processes();
    signal_all(&processes, Signal::STOP);
    until_away(&api);
    hosts.are_served();
    signal_all(&processes, Signal::CONT);
    until_back(&api);
    assert_eq!(volumes(&api), [is("vol0", "present")]);
    hosts.were_never_disturbed();
    server.stop();
}

#[test]
fn a_change_that_is_asked_for_while_the_catalog_is_away_is_made_by_the_same_request_later() {
    let home = Home::new();
    let (server, api, hosts) = served(&home);
    let processes = home.postgres_processes();
    signal_all(&processes, Signal::STOP);
    let new =
        json!({"id": volume_id(1), "name": "later", "capacity_bytes": VOLUME, "raid_group": group_id(0)});
    let refused = api.post("/volumes", &new);
    assert_eq!(refused.refused(), "catalog-unavailable");
    until_away(&api);
    signal_all(&processes, Signal::CONT);
    until_back(&api);
    api.post("/volumes", &new).granted();
    assert_eq!(volumes(&api), [is("later", "present"), is("vol0", "present")]);
    hosts.were_never_disturbed();
    server.stop();
}

#[test]
fn a_cluster_that_is_wiped_is_made_anew_and_filled_from_the_devices() {
    let home = Home::new();
    let (server, api, hosts) = served(&home);
    // Aside first, so that it is gone before Postgres can be started again.
    let aside = home.device("wiped");
    let processes = home.postgres_processes();
    std::fs::rename(home.postgres_data(), &aside).expect("both are on one file system");
    signal_all(&processes, Signal::KILL);
    until_away(&api);
    until_back(&api);
    is_adopted_and_rebuilt(&server, &api);
    hosts.were_never_disturbed();
    server.stop();
}

#[test]
fn a_cluster_that_is_wiped_while_nothing_runs_is_made_anew_and_filled_from_the_devices() {
    let home = Home::new();
    let (server, _, hosts) = served(&home);
    hosts.were_never_disturbed();
    server.stop();
    std::fs::remove_dir_all(home.postgres_data()).expect("nobody uses it");
    std::fs::create_dir(home.postgres_data()).expect("it is gone");
    let server = home.start();
    is_adopted_and_rebuilt(&server, &server.api());
    server.stop();
}

#[test]
fn tables_that_are_dropped_are_made_anew_and_filled_from_the_devices() {
    let home = Home::new();
    let (server, api, hosts) = served(&home);
    home.query("drop schema public cascade");
    until_away(&api);
    until_back(&api);
    is_adopted_and_rebuilt(&server, &api);
    hosts.were_never_disturbed();
    server.stop();
}

/// A catalog with an unfinished operation that the engine has never heard of, dumped; then the operation is taken out
/// again, volume `later` made and volume `early` deleted.
fn dumped(home: &Home, api: &Api) -> String {
    create_volume(api, 1, "early");
    create_volume(api, 2, "ghost");
    api.delete(&format!("/volumes/{}", volume_id(2))).granted();
    home.query(&format!(
        "insert into operations (id, kind, intent, actor, object_kind, object_id) \
         select gen_random_uuid(), kind, intent, actor, object_kind, object_id from operations \
         where kind = 'create_volume' and object_id = '{}'",
        volume_id(2)
    ));
    let mut dump = home.postgres_client("pg_dump");
    let dumped = run(dump.args(["--clean", "--if-exists"])).stdout;
    home.query("delete from operations where state = 'running'");
    create_volume(api, 3, "later");
    api.delete(&format!("/volumes/{}", volume_id(1))).granted();
    dumped
}

fn restore(home: &Home, dump: &str) {
    let file = home.data().join("dump.sql");
    std::fs::write(&file, dump).expect("the folder is ours");
    let mut psql = home.postgres_client("psql");
    psql.args([
        "--no-psqlrc",
        "--quiet",
        "--single-transaction",
        "--set=ON_ERROR_STOP=1",
        "--file",
    ]);
    psql.arg(file);
    let begun = Instant::now();
    loop {
        let restored = run_any(&mut psql);
        if restored.status.success() {
            return;
        }
        // What the appliance does meanwhile may stand in its way; then nothing was restored.
        let again = restored.stderr.contains("deadlock detected") && begun.elapsed() < LIMIT;
        assert!(again, "{}", restored.output());
    }
}

/// Nothing came back and nothing went because an older catalog was restored.
fn is_only_told(home: &Home, api: &Api) {
    until(api, "back with what the devices say", |answer| {
        answer.status == 200 && answer.body.to_string().contains("later")
    });
    assert_eq!(
        volumes(api),
        [
            is("early", "missing"),
            is("later", "adopted"),
            is("vol0", "present")
        ]
    );
    assert_eq!(counted(api), json!([2, 1, 2, 1]));
    assert_eq!(
        home.query("select kind from operations where state = 'abandoned'"),
        "create_volume\n"
    );
    assert_eq!(
        home.query("select kind from operations where state = 'running'"),
        ""
    );
    let refused = api.delete(&format!("/volumes/{}", volume_id(1)));
    assert_eq!(refused.refused(), "object-missing");
    api.post("/appliance/rebuild-catalog", &Value::Null).granted();
    assert_eq!(volumes(api), [is("later", "present"), is("vol0", "present")]);
}

#[test]
fn an_older_catalog_that_is_restored_while_serving_destroys_and_makes_nothing() {
    let home = Home::new();
    let (server, api, hosts) = served(&home);
    let dump = dumped(&home, &api);
    restore(&home, &dump);
    is_only_told(&home, &api);
    hosts.were_never_disturbed();
    server.stop();
}

#[test]
fn an_older_catalog_that_is_restored_between_two_starts_destroys_and_makes_nothing() {
    let home = Home::new();
    let (server, api, hosts) = served(&home);
    let dump = dumped(&home, &api);
    hosts.were_never_disturbed();
    server.stop();
    home.with_postgres_alone(|| restore(&home, &dump));
    let server = home.start();
    is_only_told(&home, &server.api());
    server.stop();
}

#[test]
fn an_older_catalog_that_is_restored_after_a_crash_destroys_and_makes_nothing() {
    let home = Home::new();
    let (server, api, hosts) = served(&home);
    let dump = dumped(&home, &api);
    hosts.were_never_disturbed();
    server.kill();
    home.postgres_is_gone();
    home.with_postgres_alone(|| restore(&home, &dump));
    let server = home.start();
    is_only_told(&home, &server.api());
    server.stop();
}

#[test]
fn an_unfinished_change_is_made_after_a_start_that_did_not_reach_the_catalog() {
    let home = Home::new();
    let server = home.start();
    small(&home, &server.api());
    server.stop();
    let killing = home.try_start(&[(KILL_AT_STEP, "1")]);
    let killing = killing.expect("there are no steps before a request");
    let new =
        json!({"id": volume_id(1), "name": "later", "capacity_bytes": VOLUME, "raid_group": group_id(0)});
    assert!(killing.api().request("POST", "/volumes", &new).is_err());
    killing.was_killed();
    home.postgres_is_gone();
    // Without this file no Postgres starts; hosts are served all the same.
    let (there, aside) = (
        home.postgres_data().join("global/pg_control"),
        home.device("pg_control"),
    );
    std::fs::rename(&there, &aside).expect("both are on one file system");
    let without = home.launch();
    until_serving(&without.api());
    without.kill();
    home.postgres_is_gone();
    std::fs::rename(&aside, &there).expect("both are on one file system");
    let server = home.start();
    until(&server.api(), "at the end of the unfinished change", |answer| {
        answer.status == 200 && answer.body.to_string().contains("later")
    });
    assert_eq!(
        volumes(&server.api()),
        [is("later", "present"), is("vol0", "present")]
    );
    server.stop();
}
