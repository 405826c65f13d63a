//! A client that knows nothing but the OpenAPI document: schemathesis asks a running appliance whatever the document
//! allows and forbids. Every answer must be as the document says, nothing that it forbids may be granted, and nothing
//! may be answered with a mistake of the appliance's own.

use std::fs;
use std::process::Command;
use std::time::Duration;

use ashlar_tests::binaries;
use ashlar_tests::ground::{self, device_id, export_id, group_id, volume_id};
use ashlar_tests::process::start;
use ashlar_tests::server::{Home, Managed};
use serde_json::json;

/// Every run asks the same.
const SEED: &str = "20260101";
/// Requests of each operation beside those at the edges of the document.
const EXAMPLES: &str = "10";

/// What is looked at. Left out is only what contradicts a closed contract on purpose: that every request which the
/// document allows is granted, whatever the appliance holds.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
response_headers_conformance,response_schema_conformance,negative_data_rejection";

/// What is only asked wrongly: where it is granted it reaches out of the test, makes files and connections anywhere.
const NEVER_GRANTED: [&str; 5] = [
    "addDevice",
    "examineDevice",
    "importAppliance",
    "createWebhook",
    "changeWebhook",
];

/// How long it may take; two minutes are usual.
const LIMIT: Duration = Duration::from_secs(900);

/// One that never ends its answer.
const ENDLESS: &str = "listEvents";

/// Every second id in a path is one that there is: of what is in use, and so not deleted before what uses it.
fn settings() -> String {
    let kinds = [
        ("devices", device_id(0)),
        ("raid-groups", group_id(0)),
        ("volumes", volume_id(0)),
        ("exports", export_id(0)),
    ];
    // Too little space is no mistake of the appliance's own, and neither is it that the catalog is away for a moment where
    // the machine has too much to do. What comes first for an operation counts.
    let mut settings = format!(
        "[cache]\nenabled = false\n\
         [checks]\nnot_a_server_error.expected-statuses = [\"2xx\", \"3xx\", \"4xx\", 503, 507]\n\
         [[operations]]\ninclude-operation-id = {NEVER_GRANTED:?}\ngeneration.mode = \"negative\"\n"
    );
    for (kind, id) in kinds {
        settings += &format!(
            "[dictionaries.{kind}]\nvalues = [\"{id}\"]\n\
             [[operations]]\ninclude-path-regex = \"^/api/v1/{kind}/\"\n\
             parameters = {{ \"path.id\" = {{ dictionary = \"{kind}\", probability = 0.5 }} }}\n"
        );
    }
    settings
}

/// A token of a session of the first administrator.
fn sign_in(home: &Home, server: &Managed) -> String {
    let password = fs::read_to_string(home.data().join("admin-password")).expect("there is a password");
    let login = json!({"name": "admin", "password": password.trim()});
    let session = server.api().post("/auth/login", &login).granted();
    let token = session["access_token"].as_str().expect("a session has a token");
    token.to_owned()
}

#[test]
fn the_appliance_keeps_to_its_document_whatever_it_is_asked() {
    let home = Home::new();
    let server = Managed::start(home.command(&["--http"]), &home.data()).expect("the server gets ready");
    ground::whole(&home, &server.api());
    let token = sign_in(&home, &server);
    let folder = home.device("schemathesis");
    fs::create_dir(&folder).expect("the place is free");
    fs::write(folder.join("schemathesis.toml"), settings()).expect("the folder is ours");
    let mut ask: Command = binaries::schemathesis();
    ask.current_dir(&folder)
        .args(["run", "--phases=examples,coverage,fuzzing", "--no-color"])
        .args(["--seed", SEED, "--max-examples", EXAMPLES, "--checks", CHECKS])
        .args(["--generation-database=none", "--continue-on-failure"])
        .args(["--exclude-operation-id", ENDLESS])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .arg(format!("http://{}/api/v1/openapi.json", server.listens()));
    let asked = start(&mut ask).finish_within(LIMIT);
    assert!(asked.status.success(), "{}", asked.output());
    let granted = "select count(distinct operation) from audit_log where problem is null";
    let granted: u32 = home.query(granted).trim().parse().expect("it is a count");
    assert!(
        granted >= 15,
        "only {granted} operations that change something were ever granted"
    );
    println!("{}", asked.stdout);
    server.stop();
}
