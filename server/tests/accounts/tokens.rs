//! API tokens: whose they are, what they may do, and that their secrets are told once.

use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::world::World;

fn in_days(days: i64) -> String {
    (OffsetDateTime::now_utc() + Duration::days(days))
        .format(&Rfc3339)
        .unwrap()
}

fn scoped(name: &str, scopes: &[&str]) -> Value {
    json!({"name": name, "scopes": scopes})
}

#[tokio::test]
async fn a_repeated_request_is_told_the_same_secret_which_stands_nowhere() {
    let world = World::new().await;
    let admin = world.admin().await;
    let body = json!({"name": "backup", "scopes": ["self:manage", "self:manage"], "expires_at": in_days(1)});
    let ask = || world.ask("POST", "/tokens").by(&admin).json(&body);
    let made = ask().key("k1").send().await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.body["token"]["scopes"], json!(["self:manage"]), "each once");
    let secret = made.text("secret");
    assert!(secret.starts_with("ashlar_") && world.lets_in(&secret).await);
    let again = ask().key("k1").send().await;
    assert_eq!((again.status, &again.body), (201, &made.body));
    assert_eq!(again.header("location"), made.header("location"));
    let everything = world.everything().await;
    assert!(!everything.contains(secret.trim_start_matches("ashlar_")));
    let without = ask().send().await;
    assert_eq!(
        (without.problem(), without.text("pointer").as_str()),
        ((409, "name-taken"), "/name")
    );
    let id = made.body["token"]["id"].as_str().unwrap();
    let same_id = json!({"id": id, "name": "other", "scopes": ["self:manage"]});
    assert_eq!(world.token(&admin, &same_id).await.problem(), (409, "id-taken"));
}

#[tokio::test]
async fn others_tokens_are_no_ones_business_but_the_admins() {
    let world = World::new().await;
    let admin = world.admin().await;
    let (anna, bert) = (
        world.user(&admin, "anna", "operator").await,
        world.user(&admin, "bert", "viewer").await,
    );
    let made = world.token(&anna, &scoped("t", &["self:manage"])).await;
    let token = made.body["token"].clone();
    let path = format!("/tokens/{}", token["id"].as_str().unwrap());
    let (get, revoke) = (
        |by: &str| world.ask("GET", &path).by(by).send(),
        |by: &str| world.ask("DELETE", &path).by(by).send(),
    );
    let listed = async |by: &str, query: &str| {
        let list = world.ask("GET", &format!("/tokens{query}")).by(by).send().await;
        list.body["items"].as_array().unwrap().len()
    };
    assert_eq!(get(&anna).await.body["name"], "t");
    assert_eq!(get(&bert).await.problem(), (404, "no-such-object"));
    assert_eq!(revoke(&bert).await.problem(), (404, "no-such-object"));
    let whose = format!("?user={}", token["user"].as_str().unwrap());
    assert_eq!((listed(&anna, "").await, listed(&anna, &whose).await), (1, 1));
    assert_eq!((listed(&bert, "").await, listed(&bert, &whose).await), (0, 0));
    assert_eq!(
        (listed(&admin, "").await, listed(&admin, "?name=u").await),
        (1, 0)
    );
    let own_only = world
        .token(&admin, &scoped("own", &["self:manage"]))
        .await
        .text("secret");
    assert_eq!(
        get(&own_only).await.status,
        404,
        "its scope is for one's own account"
    );
    assert_eq!(get(&admin).await.status, 200);
    assert_eq!(revoke(&admin).await.status, 204);
    assert!(!world.lets_in(&made.text("secret")).await);
    assert_eq!((get(&anna).await.status, revoke(&anna).await.status), (404, 404));
    assert_eq!(listed(&anna, "").await, 0);
    assert_eq!(
        world.token(&anna, &scoped("t", &["self:manage"])).await.status,
        201,
        "the name is free"
    );
}

#[tokio::test]
async fn a_token_makes_none_that_may_do_more_or_lives_longer() {
    let world = World::new().await;
    let admin = world.admin().await;
    let maker = json!({"name": "maker", "scopes": ["self:manage", "volumes:read"], "expires_at": in_days(2)});
    let maker = world.token(&admin, &maker).await.text("secret");
    let refused = world.token(&maker, &scoped("more", &["users:manage"])).await;
    assert_eq!(
        (refused.problem(), refused.text("pointer").as_str()),
        ((403, "scope-forbidden"), "/scopes")
    );
    let longer = json!({"name": "longer", "scopes": ["volumes:read"], "expires_at": in_days(3)});
    for body in [scoped("forever", &["volumes:read"]), longer] {
        let refused = world.token(&maker, &body).await;
        assert_eq!(
            (refused.problem(), refused.text("pointer").as_str()),
            ((422, "invalid-value"), "/expires_at")
        );
    }
    let less = json!({"name": "less", "scopes": ["volumes:read"], "expires_at": in_days(1)});
    let made = world.token(&maker, &less).await;
    assert_eq!(made.status, 201);
    let refused = world.ask("GET", "/tokens").by(&made.text("secret")).send().await;
    assert_eq!(refused.problem(), (403, "scope-forbidden"));
}

#[tokio::test]
async fn scopes_beyond_the_role_are_taken_and_do_nothing() {
    let world = World::new().await;
    let admin = world.admin().await;
    let viewer = world.user(&admin, "anna", "viewer").await;
    let token = world.token(&viewer, &scoped("t", &["users:manage"])).await;
    assert_eq!(token.status, 201);
    let refused = world.ask("GET", "/users").by(&token.text("secret")).send().await;
    assert_eq!(refused.problem(), (403, "role-forbidden"));
}

#[tokio::test]
async fn a_token_without_scopes_or_from_the_past_is_refused() {
    let world = World::new().await;
    let admin = world.admin().await;
    let none = world.token(&admin, &scoped("t", &[])).await;
    assert_eq!(
        (none.problem(), none.text("pointer").as_str()),
        ((422, "invalid-value"), "/scopes")
    );
    let past = json!({"name": "t", "scopes": ["self:manage"], "expires_at": in_days(-1)});
    let past = world.token(&admin, &past).await;
    assert_eq!(
        (past.problem(), past.text("pointer").as_str()),
        ((422, "invalid-value"), "/expires_at")
    );
}

#[tokio::test]
async fn a_token_of_a_disabled_user_or_past_its_end_lets_nobody_in_and_its_use_is_noted_by_the_minute() {
    let world = World::new().await;
    let admin = world.admin().await;
    let anna = world.user(&admin, "anna", "viewer").await;
    let body = json!({"name": "t", "scopes": ["self:manage"], "expires_at": in_days(1)});
    let made = world.token(&anna, &body).await;
    let (secret, token) = (made.text("secret"), &made.body["token"]);
    let id: Uuid = token["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(token["last_used_at"], json!(null));
    let used = async || {
        assert!(world.lets_in(&secret).await);
        let used: Option<OffsetDateTime> =
            sqlx::query_scalar("select last_used_at from api_tokens where id = $1")
                .bind(id)
                .fetch_one(&world.database.pool)
                .await
                .unwrap();
        used.unwrap()
    };
    let first = used().await;
    assert_eq!(used().await, first);
    world
        .database
        .run("update api_tokens set last_used_at = now() - interval '61 seconds'")
        .await;
    assert!(used().await > first - Duration::seconds(1));

    let path = format!("/users/{}", token["user"].as_str().unwrap());
    let enable = async |enabled: bool| {
        let edit = world.ask("PATCH", &path).by(&admin).with("if-match", "*");
        assert_eq!(edit.json(&json!({"enabled": enabled})).send().await.status, 200);
    };
    enable(false).await;
    assert!(!world.lets_in(&secret).await);
    enable(true).await;
    assert!(world.lets_in(&secret).await);
    let expire =
        "update api_tokens set created_at = now() - interval '2 days', expires_at = now() - interval '1 day'";
    world.database.run(expire).await;
    assert!(!world.lets_in(&secret).await);
}
