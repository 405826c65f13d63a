//! Making, editing and deleting users.

use serde_json::json;
use uuid::Uuid;

use crate::world::{PASSWORD, World};

#[tokio::test]
async fn a_user_is_made_once_however_often_the_request_comes() {
    let world = World::new().await;
    let admin = world.admin().await;
    let id = Uuid::new_v4();
    let body = json!({"id": id, "name": "anna", "password": PASSWORD, "role": "operator"});
    let ask = |body: &serde_json::Value| world.ask("POST", "/users").by(&admin).json(body);
    let made = ask(&body).key("k1").send().await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.header("location"), format!("/api/v1/users/{id}"));
    assert_eq!(made.body["last_sign_in_at"], json!(null));
    for repeated in [ask(&body).key("k1").send().await, ask(&body).send().await] {
        assert_eq!((repeated.status, &repeated.body), (201, &made.body));
    }
    let other = json!({"id": id, "name": "anna", "password": PASSWORD, "role": "viewer"});
    assert_eq!(
        ask(&other).key("k1").send().await.problem(),
        (422, "idempotency-key-reused")
    );
    let taken = ask(&other).send().await;
    assert_eq!(
        (taken.problem(), taken.text("pointer").as_str()),
        ((409, "id-taken"), "/id")
    );
    let other = json!({"id": id, "name": "anna", "password": "another long password", "role": "operator"});
    assert_eq!(ask(&other).send().await.problem(), (409, "id-taken"));
    let namesake = json!({"name": "ANNA", "password": PASSWORD, "role": "viewer"});
    let taken = ask(&namesake).send().await;
    assert_eq!(
        (taken.problem(), taken.text("pointer").as_str()),
        ((409, "name-taken"), "/name")
    );
    let events: i64 = sqlx::query_scalar("select count(*) from events where subject_id = $1")
        .bind(id)
        .fetch_one(&world.database.pool)
        .await
        .unwrap();
    assert_eq!(events, 1);
}

#[tokio::test]
async fn requests_with_one_id_at_once_make_one_user() {
    let world = World::new().await;
    let admin = world.admin().await;
    let id = Uuid::new_v4();
    let body = json!({"id": id, "name": "anna", "password": PASSWORD, "role": "viewer"});
    let ask = || world.ask("POST", "/users").by(&admin).json(&body).send();
    let turn = world.app.locks.lock(id).await;
    let mut both = Box::pin(async { tokio::join!(ask(), ask()) });
    // While somebody else has the id, later requests overtake them.
    let later = async {
        for name in ["bert", "carl", "dora"] {
            world.make(&admin, name, "viewer").await;
        }
    };
    tokio::select! {
        _ = &mut both => panic!("they do not wait for each other"),
        () = later => drop(turn),
    }
    let (one, other) = both.await;
    assert_eq!((one.status, other.status), (201, 201));
    assert_eq!(one.body, other.body);
}

#[tokio::test]
async fn a_weak_or_endless_password_is_refused_with_its_place() {
    let world = World::new().await;
    let admin = world.admin().await;
    let endless = "abcdefgh".repeat(129);
    for (password, problem) in [("short", "password-weak"), (endless.as_str(), "invalid-value")] {
        let body = json!({"name": "anna", "password": password, "role": "viewer"});
        let refused = world.ask("POST", "/users").by(&admin).json(&body).send().await;
        assert_eq!(refused.problem(), (422, problem));
        assert_eq!(refused.text("pointer"), "/password");
    }
    let id = world.make(&admin, "anna", "viewer").await.id();
    let edit = world
        .ask("PATCH", &format!("/users/{id}"))
        .by(&admin)
        .with("if-match", "*");
    let refused = edit.json(&json!({"password": "annaannaanna"})).send().await;
    assert_eq!(refused.problem(), (422, "password-weak"));
}

#[tokio::test]
async fn an_edit_is_meant_for_one_state_and_a_sign_in_is_no_other_state() {
    let world = World::new().await;
    let admin = world.admin().await;
    let made = world.make(&admin, "anna", "viewer").await;
    let path = format!("/users/{}", made.id());
    let edit = |tag: &str, body: serde_json::Value| {
        world
            .ask("PATCH", &path)
            .by(&admin)
            .with("if-match", tag)
            .json(&body)
    };
    world.sign_in("anna", PASSWORD).await;
    let shown = world.ask("GET", &path).by(&admin).send().await;
    assert!(shown.body["last_sign_in_at"].is_string());
    let first = made.header("etag").to_owned();
    assert_eq!(shown.header("etag"), first);
    let changed = edit(&first, json!({"role": "operator"})).key("e1").send().await;
    assert_eq!((changed.status, changed.text("role").as_str()), (200, "operator"));
    assert_ne!(changed.header("etag"), first);
    let again = edit(&first, json!({"role": "operator"})).key("e1").send().await;
    assert_eq!((again.status, &again.body), (200, &changed.body));
    assert_eq!(
        edit(&first, json!({"role": "backup"})).send().await.problem(),
        (412, "stale")
    );
    let without = world.ask("PATCH", &path).by(&admin).json(&json!({})).send().await;
    assert_eq!(without.problem(), (428, "precondition-required"));
    let nothing = edit(changed.header("etag"), json!({"role": "operator"}))
        .send()
        .await;
    assert_eq!(
        nothing.header("etag"),
        changed.header("etag"),
        "nothing was changed"
    );
    let unknown = world
        .ask("GET", &format!("/users/{}", Uuid::new_v4()))
        .by(&admin)
        .send()
        .await;
    assert_eq!(unknown.problem(), (404, "no-such-object"));
}

#[tokio::test]
async fn somebody_is_always_left_to_manage_accounts() {
    let world = World::new().await;
    let admin = world.admin().await;
    let me = world.ask("GET", "/auth/me").by(&admin).send().await;
    let path = format!("/users/{}", me.body["user"]["id"].as_str().unwrap());
    let edit = |body: serde_json::Value| {
        world
            .ask("PATCH", &path)
            .by(&admin)
            .with("if-match", "*")
            .json(&body)
    };
    let disabled = world.make(&admin, "carl", "admin").await.id();
    let disable = world
        .ask("PATCH", &format!("/users/{disabled}"))
        .by(&admin)
        .with("if-match", "*");
    assert_eq!(disable.json(&json!({"enabled": false})).send().await.status, 200);
    assert_eq!(
        edit(json!({"enabled": false})).send().await.problem(),
        (409, "last-admin")
    );
    assert_eq!(
        edit(json!({"role": "operator"})).send().await.problem(),
        (409, "last-admin")
    );
    let delete = || world.ask("DELETE", &path).by(&admin).send();
    assert_eq!(delete().await.problem(), (409, "last-admin"));

    world.make(&admin, "anna", "admin").await;
    assert_eq!(delete().await.status, 204);
    assert!(!world.lets_in(&admin).await);
}

#[tokio::test]
async fn of_two_admins_that_go_at_once_one_stays() {
    let world = World::new().await;
    let admin = world.admin().await;
    let me = world.ask("GET", "/auth/me").by(&admin).send().await;
    let first = me.body["user"]["id"].as_str().unwrap().to_owned();
    let second = world.make(&admin, "anna", "admin").await.id().to_string();
    let demote = |id: String| {
        let ask = world.ask("PATCH", &format!("/users/{id}")).at_the_socket();
        ask.with("if-match", "*").json(&json!({"role": "viewer"})).send()
    };
    let (one, other) = tokio::join!(demote(first), demote(second));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
}

#[tokio::test]
async fn what_an_admin_changes_of_a_user_ends_their_sessions_and_deleting_takes_all_they_have() {
    let world = World::new().await;
    let admin = world.admin().await;
    let id = world.make(&admin, "anna", "operator").await.id();
    let path = format!("/users/{id}");
    for (edit, password) in [
        (json!({"role": "viewer"}), PASSWORD),
        (
            json!({"password": "another long password"}),
            "another long password",
        ),
        (json!({"enabled": false}), ""),
    ] {
        let now = world.ask("GET", &path).by(&admin).send().await;
        let before = if edit.get("enabled").is_some() {
            "another long password"
        } else {
            PASSWORD
        };
        let session = world.sign_in("anna", before).await;
        let access = session.text("access_token");
        assert!(world.lets_in(&access).await);
        let ask = world
            .ask("PATCH", &path)
            .by(&admin)
            .with("if-match", now.header("etag"));
        assert_eq!(ask.json(&edit).send().await.status, 200);
        assert!(!world.lets_in(&access).await, "{edit}");
        let refresh = json!({"refresh_token": session.text("refresh_token")});
        let refused = world.ask("POST", "/auth/refresh").json(&refresh).send().await;
        assert_eq!(refused.problem(), (401, "refresh-token-invalid"));
        if !password.is_empty() {
            assert_eq!(world.sign_in("anna", password).await.status, 200);
        }
    }
    let enable = world.ask("PATCH", &path).by(&admin).with("if-match", "*");
    assert_eq!(enable.json(&json!({"enabled": true})).send().await.status, 200);
    let access = world
        .sign_in("anna", "another long password")
        .await
        .text("access_token");
    let token = world
        .token(&access, &json!({"name": "t", "scopes": ["self:manage"]}))
        .await;
    let secret = token.text("secret");
    assert!(world.lets_in(&secret).await);
    let delete = || world.ask("DELETE", &path).by(&admin).key("d1").send();
    assert_eq!((delete().await.status, delete().await.status), (204, 204));
    assert!(!world.lets_in(&access).await && !world.lets_in(&secret).await);
    assert_eq!(world.ask("DELETE", &path).by(&admin).send().await.status, 404);
}

#[tokio::test]
async fn users_are_listed_by_name_in_pages_and_only_to_admins() {
    let world = World::new().await;
    let admin = world.admin().await;
    for (name, role) in [("carl", "viewer"), ("anna", "viewer"), ("bert", "operator")] {
        world.make(&admin, name, role).await;
    }
    let mut names = Vec::new();
    let mut path = "/users?limit=3".to_owned();
    loop {
        let page = world.ask("GET", &path).by(&admin).send().await;
        for user in page.body["items"].as_array().unwrap() {
            names.push(user["name"].as_str().unwrap().to_owned());
        }
        match page.body["next_cursor"].as_str() {
            Some(cursor) => path = format!("/users?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(names, ["admin", "anna", "bert", "carl"]);
    let found = world
        .ask("GET", "/users?role=viewer&name=ANNA")
        .by(&admin)
        .send()
        .await;
    assert_eq!(found.body["items"].as_array().unwrap().len(), 1);
    let bert = world.sign_in("bert", PASSWORD).await.text("access_token");
    assert_eq!(
        world.ask("GET", "/users").by(&bert).send().await.problem(),
        (403, "role-forbidden")
    );
    assert_eq!(
        world.ask("GET", "/users").send().await.problem(),
        (401, "not-signed-in")
    );
}
