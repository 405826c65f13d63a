//! The program as it is run, against an appliance that answers what the OpenAPI document promises.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;
mod sample;

use std::collections::BTreeSet;
use std::fs;
use std::process::{Output, Stdio};

use ashlar_openapi::operations::ALL;
use ashlar_openapi::{Problem, ProblemType};
use serde_json::{Value, json};

use self::fake::{Appliance, Reply, Seen, program};
use self::sample::ID;

/// One line for each verb; `ID` stands for the id of everything, `OUT` for a file that is not there.
const LINES: &[&str] = &[
    "appliance show",
    "appliance set --name x --rate-limit 100MiB",
    "appliance import /dev/sdb nbd://host/name",
    "appliance openapi",
    "catalog rebuild",
    "device add /srv/disk --size 1.5GiB --name d0 --cache direct",
    "device list --kind file",
    "device show ID",
    "device set ID --name d1",
    "device examine /dev/sdb",
    "device remove ID --yes",
    "device fail ID",
    "device return ID",
    "device spare ID --for ID",
    "device identify ID --seconds 5",
    "raid-group create --level 1 --name fast ID ID",
    "raid-group list",
    "raid-group show ID",
    "raid-group set ID --no-name --rate-limit 100MiB --scrub-every 30d",
    "raid-group set ID --spare-after usual --replace-suspect false --suspect-after 3",
    "raid-group delete ID",
    "raid-group format ID --no-wait",
    "raid-group scrub ID --repair --no-wait",
    "raid-group replace ID --old ID --new ID --no-wait",
    "logical-device list --raid-group ID --state free",
    "volume create vol0 --capacity 10GiB --raid-group ID --place 0+1GiB=ID",
    "volume list",
    "volume show ID",
    "volume map ID --range 0+1MiB",
    "volume ranges-of ID --device ID",
    "volume place ID --place 100/0-120/14=ID --dry-run",
    "volume expand ID --capacity 20GiB",
    "volume rename ID vol1",
    "volume delete ID",
    "export create ID --read-only --client 192.0.2.7",
    "export list",
    "export show ID",
    "export set ID --disable",
    "export delete ID",
    "job list --state running",
    "job show ID",
    "job wait ID",
    "job pause ID",
    "job resume ID",
    "job cancel ID",
    "job limit ID none",
    "event list --kind volume. --after 7",
    "webhook create hook https://example.org --kind volume.",
    "webhook list",
    "webhook show ID",
    "webhook set ID --enable",
    "webhook delete ID",
    "webhook rotate-secret ID",
    "webhook probe ID",
    "webhook deliveries ID --state failed",
    "webhook resend ID ID",
    "user create eve --role viewer --password-file password",
    "user list --role admin",
    "user show ID",
    "user set ID --role backup",
    "user delete ID",
    "user passwd ID --password-file password",
    "user rotate-keys",
    "token create t --scope volumes:read,jobs:read --expires 90d",
    "token list --user ID",
    "token show ID",
    "token revoke ID",
    "audit list --outcome refused",
    "support-bundle create -o OUT",
    "support-bundle fetch ID -o OUT2",
    "whoami",
];

/// What the program cannot be asked for without a terminal.
const ASKED_FOR: &[&str] = &["changePassword"];

fn promised(_: usize, seen: &Seen) -> Reply {
    let described = sample::operation(&seen.method, &seen.path);
    (described.status, "etag: \"e\"\r\n", sample::answer(described))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn done(line: &str, output: &Output) -> String {
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn every_operation_has_a_verb_that_asks_for_it_and_shows_the_answer() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("password"), "correct horse battery\n").unwrap();
    let appliance = Appliance::answering(promised);
    let login = format!("login {} --user admin --password-file password", appliance.url);
    assert!(done(&login, &appliance.run(home.path(), &login)).contains("signed in"));
    for line in LINES {
        let line = line.replace("ID", ID);
        let shown = done(&line, &appliance.run(home.path(), &line));
        assert!(!shown.is_empty() || line.ends_with("openapi"), "{line}");
    }
    done("logout", &appliance.run(home.path(), "logout"));
    let asked: BTreeSet<_> = appliance
        .seen()
        .iter()
        .map(|seen| sample::operation(&seen.method, &seen.path).id)
        .collect();
    let missing: Vec<_> = ALL
        .iter()
        .map(|known| known.id)
        .filter(|id| !asked.contains(id))
        .collect();
    assert_eq!(missing, ASKED_FOR);
    let again = appliance.run(home.path(), "whoami");
    assert_eq!(again.status.code(), Some(4), "{}", text(&again.stderr));
}

#[test]
fn json_is_the_answer_unchanged_and_quiet_prints_ids() {
    let home = tempfile::tempdir().unwrap();
    let answer =
        sample::answer(sample::operation("GET", "/api/v1/volumes")).replace("{\"items\"", "{ \"items\"");
    let body = answer.clone();
    let appliance = Appliance::answering(move |_, _| (200, "", body.clone()));
    let json = done("json", &appliance.run(home.path(), "volume list --json"));
    assert_eq!(json, format!("{answer}\n"));
    assert_eq!(
        done("quiet", &appliance.run(home.path(), "volume list -q")),
        format!("{ID}\n")
    );
    let table = done("table", &appliance.run(home.path(), "volume list"));
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("NUMBER  NAME  TYPE"), "{table}");
}

#[test]
fn a_name_is_looked_up_and_one_that_is_not_there_is_said_not_to_be() {
    let home = tempfile::tempdir().unwrap();
    let appliance = Appliance::answering(promised);
    assert!(done("show", &appliance.run(home.path(), "volume show a")).contains(&format!("id: {ID}")));
    let paths: Vec<_> = appliance.seen().iter().map(|seen| seen.path.clone()).collect();
    assert_eq!(
        paths,
        [
            "/api/v1/volumes?name=a".to_owned(),
            format!("/api/v1/volumes/{ID}")
        ]
    );
    let missing = appliance.run(home.path(), "volume show other");
    assert_eq!(missing.status.code(), Some(1));
    assert_eq!(text(&missing.stderr), "ashlar: there is no volume \"other\"\n");
}

#[test]
fn problems_go_to_standard_error_and_into_the_exit_code() {
    let home = tempfile::tempdir().unwrap();
    for (kind, code) in [
        (ProblemType::VolumeExported, 1),
        (ProblemType::NotEnoughSpace, 1),
        (ProblemType::RoleForbidden, 4),
        (ProblemType::NotSignedIn, 4),
        (ProblemType::Internal, 5),
    ] {
        let problem = serde_json::to_string(&Problem::new(kind, "It is so", "Do otherwise")).unwrap();
        let appliance = Appliance::answering(move |_, _| (kind.status(), "", problem.clone()));
        let output = appliance.run(home.path(), &format!("volume delete {ID} --json"));
        assert_eq!(output.status.code(), Some(code), "{kind:?}");
        assert_eq!(text(&output.stderr), "ashlar: It is so\n  Do otherwise\n");
        assert!(output.stdout.is_empty());
    }
    let nobody = program(home.path()).args(["volume", "list"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(3));
    assert!(
        text(&nobody.stderr).contains("ashlar.sock"),
        "{}",
        text(&nobody.stderr)
    );
    let usage = program(home.path())
        .args(["volume", "create", "v"])
        .output()
        .unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

/// Stale once; then the object has another name and number, or the same name and another number.
fn renaming(name_now: &'static str) -> Appliance {
    Appliance::answering(move |number, seen| {
        let described = sample::operation(&seen.method, &seen.path);
        let mut volume: Value = serde_json::from_str(&sample::answer(described)).unwrap();
        let stale =
            serde_json::to_string(&Problem::new(ProblemType::Stale, "Stale", "Read it again")).unwrap();
        match number {
            1 => (412, "", stale),
            2 => {
                volume["number"] = json!(8);
                volume["name"] = json!(name_now);
                (200, "etag: \"new\"\r\n", volume.to_string())
            }
            _ => (200, "etag: \"old\"\r\n", volume.to_string()),
        }
    })
}

#[test]
fn an_edit_is_made_once_more_where_nobody_else_changed_the_same_field() {
    let home = tempfile::tempdir().unwrap();
    let line = format!("volume rename {ID} mine");
    let appliance = renaming("a");
    done(&line, &appliance.run(home.path(), &line));
    let etags: Vec<_> = appliance
        .seen()
        .iter()
        .map(|seen| seen.header("if-match").map(str::to_owned))
        .collect();
    assert_eq!(
        etags,
        [None, Some("\"old\"".to_owned()), None, Some("\"new\"".to_owned())]
    );
    assert_eq!(appliance.seen()[3].body, r#"{"name":"mine"}"#);
    let appliance = renaming("theirs");
    assert_eq!(appliance.run(home.path(), &line).status.code(), Some(1));
    assert_eq!(appliance.seen().len(), 3);
}

#[test]
fn a_job_that_failed_is_shown_and_makes_the_command_fail() {
    let home = tempfile::tempdir().unwrap();
    let appliance = Appliance::answering(|_, seen| {
        let (status, headers, body) = promised(0, seen);
        let mut job: Value = serde_json::from_str(&body).unwrap();
        job["state"] = json!("failed");
        job["failure"] =
            serde_json::to_value(Problem::new(ProblemType::DeviceAbsent, "It went", "Bring it")).unwrap();
        (status, headers, job.to_string())
    });
    let output = appliance.run(home.path(), &format!("job wait {ID} -q"));
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(text(&output.stdout), format!("{ID}\n"));
    assert!(
        text(&output.stderr).ends_with("is failed\n  It went\n  Bring it\n"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn lists_are_walked_to_their_end_or_to_the_limit() {
    let home = tempfile::tempdir().unwrap();
    let paged = || {
        Appliance::answering(|number, seen| {
            let (status, headers, body) = promised(0, seen);
            let mut page: Value = serde_json::from_str(&body).unwrap();
            page["next_cursor"] = if number < 2 {
                json!(format!("c{number}"))
            } else {
                Value::Null
            };
            (status, headers, page.to_string())
        })
    };
    let appliance = paged();
    assert_eq!(
        done("all", &appliance.run(home.path(), "user list -q"))
            .lines()
            .count(),
        3
    );
    let paths: Vec<_> = appliance.seen().iter().map(|seen| seen.path.clone()).collect();
    assert_eq!(paths[2], "/api/v1/users?limit=1000&cursor=c1");
    let some = done("some", &paged().run(home.path(), "user list --limit 2 --json"));
    let page: Value = serde_json::from_str(&some).unwrap();
    assert_eq!(
        (page["items"].as_array().unwrap().len(), &page["next_cursor"]),
        (2, &json!("c1"))
    );
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let home = tempfile::tempdir().unwrap();
    let mut child = program(home.path());
    let mut child = child
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), text(&output.stderr).as_str()),
        (Some(0), "")
    );
}

#[test]
fn other_machines_are_not_talked_to_without_tls() {
    let home = tempfile::tempdir().unwrap();
    let line = ["--url", "http://192.0.2.1:1", "--token", "t0ken", "whoami"];
    let output = program(home.path()).args(line).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--insecure"));
    assert!(!text(&output.stderr).contains("t0ken"));
}
