//! Who may do what: every operation of the OpenAPI document with every role, without a credential, and with a token for
//! just its scope and for all others.

use std::collections::{BTreeMap, BTreeSet};

use ashlar_tests::api::Api;
use ashlar_tests::server::{Home, Managed};
use serde_json::{Value, json};

const PUBLIC: &[&str] = &["getOpenApi", "signIn", "refreshSession", "signOut"];

const EVERYBODY: &[&str] = &[
    "getAppliance",
    "listDevices",
    "getDevice",
    "listRaidGroups",
    "getRaidGroup",
    "listLogicalDevices",
    "listVolumes",
    "getVolume",
    "mapVolume",
    "volumeRangesOf",
    "listExports",
    "getExport",
    "listJobs",
    "getJob",
    "listEvents",
    "listTokens",
    "createToken",
    "getToken",
    "revokeToken",
    "getMe",
    "changePassword",
];

const OPERATORS: &[&str] = &[
    "changeAppliance",
    "importAppliance",
    "rebuildCatalog",
    "addDevice",
    "examineDevice",
    "changeDevice",
    "removeDevice",
    "failDevice",
    "returnDevice",
    "setSpare",
    "identifyDevice",
    "createRaidGroup",
    "changeRaidGroup",
    "deleteRaidGroup",
    "replaceMember",
    "formatRaidGroup",
    "scrubRaidGroup",
    "createVolume",
    "changeVolume",
    "deleteVolume",
    "placeVolume",
    "expandVolume",
    "createExport",
    "changeExport",
    "deleteExport",
    "changeJob",
    "pauseJob",
    "resumeJob",
    "cancelJob",
    "listWebhooks",
    "createWebhook",
    "getWebhook",
    "changeWebhook",
    "deleteWebhook",
    "rotateWebhookSecret",
    "probeWebhook",
    "listDeliveries",
    "resendDelivery",
    "listAuditLog",
    "createSupportBundle",
    "getSupportBundle",
];

const ADMINS: &[&str] = &[
    "listUsers",
    "createUser",
    "getUser",
    "changeUser",
    "deleteUser",
    "rotateKeys",
];

const ROLES: [&str; 4] = ["admin", "operator", "backup", "viewer"];
const PASSWORD: &str = "a password for everybody";

/// The roles that may, by the tables above; `None` for an operation that stands in none of them.
fn wanted(operation: &str) -> Option<&'static [&'static str]> {
    const OF: [(&[&str], &[&str]); 4] = [
        (PUBLIC, &[]),
        (EVERYBODY, &ROLES),
        (OPERATORS, &["admin", "operator"]),
        (ADMINS, &["admin"]),
    ];
    let found = OF.iter().find(|(operations, _)| operations.contains(&operation));
    found.map(|(_, roles)| *roles)
}

/// An operation of the document.
struct Operation {
    id: String,
    method: String,
    /// With ids that nothing has.
    path: String,
    scope: Option<String>,
    roles: Vec<String>,
}

fn operations() -> Vec<Operation> {
    let text = include_str!("../../openapi/openapi.json");
    let document: Value = serde_json::from_str(text).expect("the document is JSON");
    let paths = document["paths"].as_object().expect("the document has paths");
    let mut found = Vec::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().expect("a path has operations") {
            let roles = operation["x-roles"]
                .as_array()
                .expect("an operation names its roles");
            let nowhere = uuid::Uuid::nil().to_string();
            let path = path.strip_prefix("/api/v1").expect("all stands below the base");
            found.push(Operation {
                id: operation["operationId"]
                    .as_str()
                    .expect("an operation has an id")
                    .to_owned(),
                method: method.to_uppercase(),
                path: path.replace("{id}", &nowhere).replace("{delivery}", &nowhere),
                scope: operation["security"][0]["bearer"][0].as_str().map(str::to_owned),
                roles: roles
                    .iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect(),
            });
        }
    }
    found
}

/// Asks in a way that changes nothing where it is let in: an empty object, ids of nothing.
fn ask(api: &Api, operation: &Operation) -> (u16, String) {
    let body = match operation.method.as_str() {
        "POST" | "PATCH" => json!({}),
        _ => Value::Null,
    };
    let answer = api
        .with("if-match", "\"none\"")
        .request(&operation.method, &operation.path, &body)
        .unwrap_or_else(|error| panic!("{}: {error}", operation.id));
    let kind = answer.body["type"].as_str().unwrap_or_default();
    (
        answer.status,
        kind.trim_start_matches("urn:ashlar:problem:").to_owned(),
    )
}

fn https(home: &Home, server: &Managed) -> Api {
    Api::over_https(server.listens(), &home.data().join("tls/certificate.pem"))
}

/// One signed-in client for each role.
fn sign_in(home: &Home, server: &Managed) -> BTreeMap<&'static str, Api> {
    let (local, remote) = (server.api(), https(home, server));
    let of = |role: &'static str| {
        let new = json!({"name": format!("the-{role}"), "password": PASSWORD, "role": role});
        local.post("/users", &new).granted();
        let session = remote
            .post(
                "/auth/login",
                &json!({"name": format!("the-{role}"), "password": PASSWORD}),
            )
            .granted();
        let token = session["access_token"].as_str().expect("a session has a token");
        (role, remote.with("authorization", &format!("Bearer {token}")))
    };
    ROLES.into_iter().map(of).collect()
}

#[test]
fn every_operation_is_for_the_roles_that_the_document_names_and_for_nobody_else() {
    let home = Home::new();
    let server = home.start();
    let nobody = https(&home, &server);
    let signed_in = sign_in(&home, &server);
    let mut walked = BTreeSet::new();
    for operation in operations() {
        let id = &operation.id;
        let roles = wanted(id).unwrap_or_else(|| panic!("{id} stands in no table of this test"));
        assert_eq!(operation.roles, roles, "{id}");
        walked.insert(id.clone());
        if roles.is_empty() {
            let (status, kind) = ask(&nobody, &operation);
            assert!(
                kind != "not-signed-in" && status != 403,
                "{id} for nobody: {status} {kind}"
            );
            continue;
        }
        assert_eq!(
            ask(&nobody, &operation),
            (401, "not-signed-in".into()),
            "{id} for nobody"
        );
        for role in ROLES {
            let (status, kind) = ask(&signed_in[role], &operation);
            if roles.contains(&role) {
                assert!(![401, 403].contains(&status), "{id} for {role}: {status} {kind}");
                assert!(status < 500, "{id} for {role}: {status} {kind}");
            } else {
                assert_eq!(
                    (status, kind.as_str()),
                    (403, "role-forbidden"),
                    "{id} for {role}"
                );
            }
        }
    }
    let known = [PUBLIC, EVERYBODY, OPERATORS, ADMINS].concat().len();
    assert_eq!(
        walked.len(),
        known,
        "the tables of this test name operations that do not exist"
    );
    server.stop();
}

#[test]
fn a_token_is_good_for_its_scopes_only() {
    let home = Home::new();
    let server = home.start();
    let admin = &sign_in(&home, &server)["admin"];
    let remote = https(&home, &server);
    let scopes: BTreeSet<String> = operations()
        .into_iter()
        .filter_map(|operation| operation.scope)
        .collect();
    let token = |name: &str, scopes: &[&String]| {
        let made = admin
            .post("/tokens", &json!({"name": name, "scopes": scopes}))
            .granted();
        let secret = made["secret"].as_str().expect("a new token tells its secret");
        remote.with("authorization", &format!("Bearer {secret}"))
    };
    for scope in &scopes {
        let name = scope.replace(':', "-");
        let others: Vec<_> = scopes.iter().filter(|other| *other != scope).collect();
        let (just, all_others) = (token(&name, &[scope]), token(&format!("not-{name}"), &others));
        for operation in operations()
            .iter()
            .filter(|operation| operation.scope.as_ref() == Some(scope))
        {
            let (status, kind) = ask(&just, operation);
            assert!(
                ![401, 403].contains(&status) || kind == "role-forbidden",
                "{}: {status} {kind}",
                operation.id
            );
            assert_eq!(
                ask(&all_others, operation),
                (403, "scope-forbidden".into()),
                "{}",
                operation.id
            );
        }
    }
    server.stop();
}
