//! Who manages an appliance that has no user yet.

use std::os::unix::fs::PermissionsExt as _;

use ashlar_server::app::accounts::first_admin;
use serde_json::json;

use crate::cluster::within;
use crate::world::{PASSWORD, World};

#[tokio::test]
async fn an_appliance_without_users_gets_an_admin_whose_password_stands_in_a_file_of_its_own() {
    let world = World::new().await;
    let mode = world.password_file().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let password = world.first_password();
    let me = world.ask("GET", "/auth/me").by(&world.admin().await).send().await;
    assert_eq!(
        (me.body["name"].as_str(), me.body["role"].as_str()),
        (Some("admin"), Some("admin"))
    );
    assert!(!world.everything().await.contains(&password));

    let folder = world.password_file().parent().unwrap().to_owned();
    first_admin(&world.app.catalog, &folder).await.unwrap();
    assert_eq!(
        world.first_password(),
        password,
        "where there is a user, nothing is done"
    );
    let users = world.ask("GET", "/users").by(&world.admin().await).send().await;
    assert_eq!(users.body["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_password_from_a_start_that_was_cut_off_is_the_one_that_counts() {
    let world = World::new().await;
    let folder = world.password_file().parent().unwrap().to_owned();
    world.database.run("delete from users").await;
    std::fs::write(world.password_file(), format!("{PASSWORD}\n")).unwrap();
    first_admin(&world.app.catalog, &folder).await.unwrap();
    assert_eq!(world.sign_in("admin", PASSWORD).await.status, 200);

    world.database.run("delete from users").await;
    std::fs::write(world.password_file(), "").unwrap();
    first_admin(&world.app.catalog, &folder).await.unwrap();
    let password = world.first_password();
    assert!(password.len() >= 32, "an empty file is replaced");
    assert_eq!(world.sign_in("admin", &password).await.status, 200);
}

#[tokio::test]
async fn an_emptied_catalog_gets_an_admin_again() {
    let world = World::new().await;
    let admin = world.admin().await;
    std::fs::remove_file(world.password_file()).unwrap();
    world.database.run("drop schema public cascade").await;
    within(async {
        while !world.password_file().exists() {
            tokio::task::yield_now().await;
        }
        // The keeper saw it; now it is ready again.
        world.ready().await;
    })
    .await;
    assert!(!world.lets_in(&admin).await, "sessions went with the catalog");
    assert_eq!(world.sign_in("admin", &world.first_password()).await.status, 200);
}

#[tokio::test]
async fn the_maintenance_socket_manages_accounts_and_has_none_itself() {
    let world = World::new().await;
    let me = world.ask("GET", "/auth/me").at_the_socket().send().await;
    assert_eq!(
        (me.body["role"].as_str(), me.body["user"].is_null()),
        (Some("admin"), true)
    );
    let body = json!({"name": "anna", "password": PASSWORD, "role": "admin"});
    let made = world
        .ask("POST", "/users")
        .at_the_socket()
        .json(&body)
        .send()
        .await;
    assert_eq!(made.status, 201);
    let tokens = world.ask("GET", "/tokens").at_the_socket().send().await;
    assert_eq!(tokens.status, 200);
    let token = json!({"name": "t", "scopes": ["volumes:read"]});
    let refused = world
        .ask("POST", "/tokens")
        .at_the_socket()
        .json(&token)
        .send()
        .await;
    assert_eq!(refused.problem(), (401, "not-signed-in"));
}
