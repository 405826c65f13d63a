//! Guessing passwords, and what keeps from it.

use futures_util::future::join_all;
use serde_json::json;

use crate::world::{PASSWORD, World};

/// One that is nobody's.
const WRONG: &str = "wrong horse battery";

#[tokio::test]
async fn whatever_is_wrong_the_answer_is_the_same() {
    let world = World::new().await;
    let admin = world.admin().await;
    world.make(&admin, "anna", "viewer").await;
    let id = world.make(&admin, "bert", "viewer").await.id();
    let disable = world
        .ask("PATCH", &format!("/users/{id}"))
        .by(&admin)
        .with("if-match", "*");
    disable.json(&json!({"enabled": false})).send().await;
    let mut answers = Vec::new();
    for (name, password) in [
        ("anna", WRONG),
        ("bert", PASSWORD),
        ("nobody", PASSWORD),
        ("no name at all", PASSWORD),
        ("", ""),
    ] {
        let mut refused = world.sign_in(name, password).await;
        assert_eq!(refused.problem(), (401, "sign-in-failed"), "{name}");
        refused.body["request_id"] = json!(null);
        answers.push(refused.body);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1);
    assert_eq!(world.sign_in("ANNA", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn a_name_is_locked_after_five_failures_in_a_row_whether_anybody_has_it_or_not() {
    let world = World::new().await;
    let admin = world.admin().await;
    world.make(&admin, "anna", "viewer").await;
    for name in ["anna", "nobody"] {
        for _ in 0..5 {
            assert_eq!(world.sign_in(name, WRONG).await.status, 401);
        }
        let limited = world.sign_in(name, PASSWORD).await;
        assert_eq!(limited.problem(), (429, "sign-in-limited"));
        let wait: u32 = limited.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
    }
    // A minute later one more is one more minute.
    let unlock = "update sign_in_streaks set locked_until = now() where user_name = 'anna'";
    world.database.run(unlock).await;
    assert_eq!(world.sign_in("Anna", WRONG).await.status, 401);
    let wait: u32 = world
        .sign_in("anna", PASSWORD)
        .await
        .header("retry-after")
        .parse()
        .unwrap();
    assert!((61..=120).contains(&wait), "{wait}");
    world.database.run(unlock).await;
    assert_eq!(world.sign_in("anna", PASSWORD).await.status, 200);
    for _ in 0..4 {
        assert_eq!(world.sign_in("anna", WRONG).await.status, 401);
    }
    assert_eq!(
        world.sign_in("anna", PASSWORD).await.status,
        200,
        "the row began anew"
    );
}

#[tokio::test]
async fn an_admin_who_sets_a_password_unlocks_the_name() {
    let world = World::new().await;
    let admin = world.admin().await;
    let id = world.make(&admin, "anna", "viewer").await.id();
    for _ in 0..5 {
        world.sign_in("anna", WRONG).await;
    }
    assert_eq!(world.sign_in("anna", PASSWORD).await.status, 429);
    let edit = world
        .ask("PATCH", &format!("/users/{id}"))
        .by(&admin)
        .with("if-match", "*");
    edit.json(&json!({"password": "another long password"}))
        .send()
        .await;
    assert_eq!(world.sign_in("anna", "another long password").await.status, 200);
}

#[tokio::test]
async fn guesses_that_come_at_once_are_counted_too() {
    let world = World::new().await;
    let tries = (0..12).map(|_| world.sign_in("admin", WRONG));
    let replies = join_all(tries).await;
    let looked_at = replies.iter().filter(|reply| reply.status == 401).count();
    assert_eq!(looked_at, 5);
    assert!(replies.iter().all(|reply| matches!(reply.status, 401 | 429)));
}

#[tokio::test]
async fn an_address_has_twenty_failures_in_ten_minutes_whatever_the_names() {
    let world = World::new().await;
    let tried = |name: String, address: &'static str| {
        let body = json!({"name": name, "password": WRONG});
        world.ask("POST", "/auth/login").from(address).json(&body).send()
    };
    let network = ["[2001:db8::1]:1", "[2001:db8::2]:2"];
    for n in 0..20 {
        assert_eq!(tried(format!("n{n}"), network[n % 2]).await.status, 401);
    }
    let limited = tried("n20".into(), "[2001:db8::3]:3").await;
    assert_eq!(limited.problem(), (429, "sign-in-limited"));
    let wait: u32 = limited.header("retry-after").parse().unwrap();
    assert!((60..=600).contains(&wait), "{wait}");
    assert_eq!(
        tried("n20".into(), "[2001:db8:0:1::1]:1").await.status,
        401,
        "another network"
    );
    assert_eq!(world.sign_in("admin", &world.first_password()).await.status, 200);
    world
        .database
        .run("update sign_in_failures set at = at - interval '10 minutes'")
        .await;
    assert_eq!(tried("n21".into(), "[2001:db8::3]:3").await.status, 401);
}

#[tokio::test]
async fn ones_own_password_is_changed_by_who_knows_it_and_other_sessions_end() {
    let world = World::new().await;
    let admin = world.admin().await;
    world.make(&admin, "anna", "viewer").await;
    let (here, there) = (
        world.sign_in("anna", PASSWORD).await,
        world.sign_in("anna", PASSWORD).await,
    );
    let (access, other) = (here.text("access_token"), there.text("access_token"));
    let change = |old: &str, new: &str| {
        let body = json!({"old": old, "new": new});
        world.ask("POST", "/auth/password").by(&access).json(&body).send()
    };
    let wrong = change(WRONG, "another long password").await;
    assert_eq!(
        (wrong.problem(), wrong.text("pointer").as_str()),
        ((422, "invalid-value"), "/old")
    );
    let weak = change(PASSWORD, "short").await;
    assert_eq!(
        (weak.problem(), weak.text("pointer").as_str()),
        ((422, "password-weak"), "/new")
    );
    assert_eq!(change(PASSWORD, "another long password").await.status, 204);
    assert!(world.lets_in(&access).await, "one's own session goes on");
    assert!(!world.lets_in(&other).await);
    let refresh = |of: &crate::world::Reply| {
        let body = json!({"refresh_token": of.text("refresh_token")});
        world.ask("POST", "/auth/refresh").json(&body).send()
    };
    assert_eq!(refresh(&here).await.status, 200);
    assert_eq!(refresh(&there).await.problem(), (401, "refresh-token-invalid"));
    assert_eq!(world.sign_in("anna", PASSWORD).await.status, 401);
    assert_eq!(world.sign_in("anna", "another long password").await.status, 200);
    for _ in 0..5 {
        assert_eq!(change(WRONG, PASSWORD).await.status, 422);
    }
    assert_eq!(
        change("another long password", PASSWORD).await.problem(),
        (429, "sign-in-limited")
    );
}
