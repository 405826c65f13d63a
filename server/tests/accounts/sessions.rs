//! Refresh tokens, signing out, keys.

use serde_json::json;

use crate::world::{PASSWORD, Reply, World};

async fn refresh(world: &World, session: &Reply) -> Reply {
    let body = json!({"refresh_token": session.text("refresh_token")});
    world.ask("POST", "/auth/refresh").json(&body).send().await
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_one_that_comes_again_ends_its_session() {
    let world = World::new().await;
    let admin = world.admin().await;
    world.make(&admin, "anna", "viewer").await;
    let (first, other) = (
        world.sign_in("anna", PASSWORD).await,
        world.sign_in("anna", PASSWORD).await,
    );
    assert_eq!(first.body["expires_in_s"], 900);
    let second = refresh(&world, &first).await;
    assert_eq!(second.status, 200, "{second:?}");
    assert_ne!(second.text("refresh_token"), first.text("refresh_token"));
    assert!(
        world.lets_in(&first.text("access_token")).await,
        "the session is the same"
    );
    for _ in 0..2 {
        assert_eq!(
            refresh(&world, &first).await.problem(),
            (401, "refresh-token-invalid")
        );
    }
    assert_eq!(
        refresh(&world, &second).await.problem(),
        (401, "refresh-token-invalid")
    );
    for session in [&first, &second] {
        assert!(!world.lets_in(&session.text("access_token")).await);
    }
    assert!(
        world.lets_in(&other.text("access_token")).await,
        "another session is untouched"
    );
    let told: i64 = sqlx::query_scalar("select count(*) from events where kind = 'user.session_ended'")
        .fetch_one(&world.database.pool)
        .await
        .unwrap();
    assert_eq!(told, 1);
    let unknown = json!({"refresh_token": "ashlar-refresh_0"});
    let unknown = world.ask("POST", "/auth/refresh").json(&unknown).send().await;
    assert_eq!(unknown.problem(), (401, "refresh-token-invalid"));
}

#[tokio::test]
async fn an_expired_refresh_token_gives_nothing_and_ends_its_access_tokens() {
    let world = World::new().await;
    let session = world.sign_in("admin", &world.first_password()).await;
    world
        .database
        .run("update refresh_tokens set created_at = now() - interval '31 days', expires_at = now() - interval '1 day'")
        .await;
    assert_eq!(
        refresh(&world, &session).await.problem(),
        (401, "refresh-token-invalid")
    );
    assert!(!world.lets_in(&session.text("access_token")).await);
}

#[tokio::test]
async fn signing_out_ends_the_session_at_once_and_again_is_no_error() {
    let world = World::new().await;
    let (session, other) = (
        world.sign_in("admin", &world.first_password()).await,
        world.admin().await,
    );
    let body = json!({"refresh_token": session.text("refresh_token")});
    for _ in 0..2 {
        let out = world.ask("POST", "/auth/logout").json(&body).send().await;
        assert_eq!(out.status, 204);
    }
    assert!(!world.lets_in(&session.text("access_token")).await);
    assert_eq!(refresh(&world, &session).await.status, 401);
    assert!(world.lets_in(&other).await);
}

#[tokio::test]
async fn new_keys_leave_sessions_as_they_are() {
    let world = World::new().await;
    let admin = world.admin().await;
    let rotated = world.ask("POST", "/auth/rotate-keys").by(&admin).send().await;
    assert_eq!(rotated.status, 204);
    assert!(world.lets_in(&admin).await);
    let viewer = world.user(&admin, "anna", "viewer").await;
    let refused = world.ask("POST", "/auth/rotate-keys").by(&viewer).send().await;
    assert_eq!(refused.problem(), (403, "role-forbidden"));
}
