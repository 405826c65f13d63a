//! Streams of events end with what let their listeners in.

use axum::body::BodyDataStream;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::cluster::within;
use crate::world::World;

/// A world whose events are told as they happen.
async fn telling() -> World {
    let world = World::new().await;
    tokio::spawn(ashlar_server::background::event_feed::run(world.app.clone()));
    world
}

/// A stream that has begun.
async fn listen(world: &World, credential: &str) -> BodyDataStream {
    let ask = world.ask("GET", "/events").by(credential);
    let mut stream = ask.with("accept", "text/event-stream").stream().await;
    let hello = within(stream.next()).await.unwrap().unwrap();
    assert!(hello.starts_with(b": events follow"), "{hello:?}");
    stream
}

/// Waits for the stream's end.
async fn ends(mut stream: BodyDataStream) {
    within(async { while stream.next().await.is_some() {} }).await;
}

/// The secret of a new token, and its id.
async fn token(world: &World, by: &str, more: Value) -> (String, String) {
    let mut body = json!({"name": "listener", "scopes": ["events:read"]});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let made = world.token(by, &body).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.body["token"]["id"].as_str().unwrap().to_owned();
    (made.text("secret"), id)
}

async fn disable(world: &World, admin: &str, id: &str) {
    let edit = world
        .ask("PATCH", &format!("/users/{id}"))
        .by(admin)
        .with("if-match", "*");
    assert_eq!(edit.json(&json!({"enabled": false})).send().await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_token_is_revoked_and_the_others_go_on() {
    let world = telling().await;
    let admin = world.admin().await;
    let (secret, id) = token(&world, &admin, json!({})).await;
    let (revoked, mut other) = (listen(&world, &secret).await, listen(&world, &admin).await);
    let revoke = world
        .ask("DELETE", &format!("/tokens/{id}"))
        .by(&admin)
        .send()
        .await;
    assert_eq!(revoke.status, 204);
    ends(revoked).await;
    let told = within(other.next()).await.unwrap().unwrap();
    assert!(
        String::from_utf8_lossy(&told).contains("token.revoked"),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_session() {
    let world = telling().await;
    let session = world.sign_in("admin", &world.first_password()).await;
    let stream = listen(&world, &session.text("access_token")).await;
    let body = json!({"refresh_token": session.text("refresh_token")});
    assert_eq!(
        world.ask("POST", "/auth/logout").json(&body).send().await.status,
        204
    );
    ends(stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_user_who_is_disabled_or_deleted_end() {
    let world = telling().await;
    let admin = world.admin().await;
    for name in ["disabled", "deleted"] {
        let made = world.make(&admin, name, "viewer").await;
        let session = world
            .sign_in(name, crate::world::PASSWORD)
            .await
            .text("access_token");
        let (secret, _) = token(&world, &session, json!({})).await;
        let streams = [listen(&world, &session).await, listen(&world, &secret).await];
        let id = made.text("id");
        if name == "disabled" {
            disable(&world, &admin, &id).await;
        } else {
            let deleted = world
                .ask("DELETE", &format!("/users/{id}"))
                .by(&admin)
                .send()
                .await;
            assert_eq!(deleted.status, 204);
        }
        for stream in streams {
            ends(stream).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_token_expires() {
    let world = telling().await;
    let admin = world.admin().await;
    let (secret, id) = token(&world, &admin, json!({})).await;
    let stream = listen(&world, &secret).await;
    // Nothing tells of it: time only passes.
    let expire = format!("update api_tokens set expires_at = now() where id = '{id}'");
    world.database.run(&expire).await;
    ends(stream).await;
}
