//! The audit log: what stands in it, and what never does.

use serde_json::{Value, json};

use crate::world::{HERE, PASSWORD, World};

async fn entries(world: &World, by: &str, query: &str) -> Vec<Value> {
    let reply = world
        .ask("GET", &format!("/audit-log{query}"))
        .by(by)
        .send()
        .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.body["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_failed_sign_in_stands_there_under_the_name_that_was_tried() {
    let world = World::new().await;
    let admin = world.admin().await;
    let endless = "x".repeat(5000);
    for name in ["nobody", endless.as_str()] {
        world.sign_in(name, PASSWORD).await;
    }
    let found = entries(&world, &admin, "?operation=signIn&outcome=refused").await;
    assert_eq!(found.len(), 2);
    assert_eq!(found[0]["actor_name"].as_str().map(str::len), Some(64));
    let entry = &found[1];
    assert_eq!(
        (&entry["actor"], &entry["actor_name"]),
        (&json!("anonymous"), &json!("nobody"))
    );
    assert_eq!(entry["problem"], "urn:ashlar:problem:sign-in-failed");
    assert_eq!(entry["address"], HERE.split(':').next().unwrap());

    for _ in 0..9 {
        world.sign_in("admin", PASSWORD).await;
    }
    let found = entries(
        &world,
        &admin,
        "?operation=signIn&outcome=refused&actor_name=admin",
    )
    .await;
    assert_eq!(found.len(), 5, "what the limit keeps back does not fill the log");
    assert_eq!(found[0]["after"], json!({"locked_for_s": 60}));
}

#[tokio::test]
async fn a_failed_sign_in_at_the_maintenance_socket_stands_there_once() {
    let world = World::new().await;
    let body = json!({"name": "admin", "password": "another password"});
    let refused = world.ask("POST", "/auth/login").at_the_socket().json(&body);
    assert_eq!(refused.send().await.problem(), (401, "sign-in-failed"));
    let log = world.ask("GET", "/audit-log").at_the_socket().send().await;
    let entries = log.body["items"].as_array().unwrap();
    let refusals = entries.iter().filter(|entry| !entry["problem"].is_null());
    assert_eq!(refusals.count(), 1, "{:#}", log.body);
}

#[tokio::test]
async fn changes_stand_there_before_and_after_and_refused_ones_too() {
    let world = World::new().await;
    let admin = world.admin().await;
    let made = world.make(&admin, "anna", "viewer").await;
    let path = format!("/users/{}", made.id());
    let edit = world
        .ask("PATCH", &path)
        .by(&admin)
        .with("if-match", made.header("etag"));
    edit.json(&json!({"role": "operator"})).send().await;
    let anna = world.sign_in("anna", PASSWORD).await.text("access_token");
    world.ask("DELETE", &path).by(&anna).send().await;

    let of_anna = entries(&world, &admin, &format!("?object_id={}", made.id())).await;
    let operations: Vec<_> = of_anna
        .iter()
        .map(|entry| entry["operation"].as_str().unwrap())
        .collect();
    assert_eq!(operations, ["signIn", "changeUser", "createUser"]);
    let change = &of_anna[1];
    assert_eq!(
        (&change["before"]["role"], &change["after"]["role"]),
        (&json!("viewer"), &json!("operator"))
    );
    assert_eq!(
        (&change["actor"], &change["actor_name"]),
        (&json!("user"), &json!("admin"))
    );
    let refused = entries(&world, &anna, "?outcome=refused").await;
    assert_eq!(refused[0]["operation"], "deleteUser");
    assert_eq!(
        (&refused[0]["actor_name"], &refused[0]["problem"]),
        (&json!("anna"), &json!("urn:ashlar:problem:role-forbidden"))
    );
    let viewer = world.user(&admin, "bert", "viewer").await;
    assert_eq!(
        world.ask("GET", "/audit-log").by(&viewer).send().await.status,
        403
    );
}

#[tokio::test]
async fn the_log_is_read_in_pages_newest_first() {
    let world = World::new().await;
    let admin = world.admin().await;
    for name in ["anna", "bert", "carl"] {
        world.make(&admin, name, "viewer").await;
    }
    let mut numbers = Vec::new();
    let mut path = "/audit-log?limit=2".to_owned();
    loop {
        let page = world.ask("GET", &path).by(&admin).send().await;
        for entry in page.body["items"].as_array().unwrap() {
            numbers.push(entry["number"].as_u64().unwrap());
        }
        match page.body["next_cursor"].as_str() {
            Some(cursor) => path = format!("/audit-log?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert!(numbers.len() >= 5, "{numbers:?}");
    assert!(numbers.is_sorted_by(|newer, older| newer > older), "{numbers:?}");
    let wrong = world.ask("GET", "/audit-log?cursor=x").by(&admin).send().await;
    assert_eq!(wrong.problem(), (400, "invalid-cursor"));
}

#[tokio::test]
async fn no_secret_stands_anywhere_in_the_catalog() {
    let world = World::new().await;
    let admin = world.admin().await;
    let body = json!({"name": "anna", "password": PASSWORD, "role": "viewer"});
    let made = world
        .ask("POST", "/users")
        .by(&admin)
        .key("k1")
        .json(&body)
        .send()
        .await;
    let session = world.sign_in("anna", PASSWORD).await;
    let access = session.text("access_token");
    let token = json!({"name": "t", "scopes": ["self:manage"]});
    let token = world
        .ask("POST", "/tokens")
        .by(&access)
        .key("k2")
        .json(&token)
        .send()
        .await;
    let own = json!({"old": PASSWORD, "new": "another long password"});
    assert_eq!(
        world
            .ask("POST", "/auth/password")
            .by(&access)
            .json(&own)
            .send()
            .await
            .status,
        204
    );
    let path = format!("/users/{}", made.id());
    let edit = world
        .ask("PATCH", &path)
        .by(&admin)
        .key("k3")
        .with("if-match", "*");
    assert_eq!(
        edit.json(&json!({"password": "third long password"}))
            .send()
            .await
            .status,
        200
    );
    world.sign_in("anna", "a password of some other place").await;

    let everything = world.everything().await;
    let (told, first) = (token.text("secret"), world.first_password());
    let refresh = session.text("refresh_token");
    let secrets = [
        PASSWORD,
        "another long password",
        "third long password",
        "a password of some other place",
        &first,
        &access,
        &refresh,
        told.trim_start_matches("ashlar_"),
    ];
    for secret in secrets {
        assert!(!everything.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn what_is_kept_of_a_request_tells_nothing_without_the_data_folder() {
    let body = json!({"name": "anna", "password": PASSWORD, "role": "viewer"});
    let mut kept = Vec::new();
    for world in [World::new().await, World::new().await] {
        let admin = world.admin().await;
        let ask = world.ask("POST", "/users").by(&admin).key("k1").json(&body);
        assert_eq!(ask.send().await.status, 201);
        let fingerprint: Vec<u8> = sqlx::query_scalar("select fingerprint from idempotency_keys")
            .fetch_one(&world.database.pool)
            .await
            .unwrap();
        kept.push(fingerprint);
    }
    assert_ne!(kept[0], kept[1], "a plain digest would let guess the password");
}
