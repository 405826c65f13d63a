//! Users and their tokens.

use std::time::Duration;

use ashlar_server::catalog::api_tokens::{self, ApiTokenFilter, ApiTokenSort, NewApiToken};
use ashlar_server::catalog::refresh_tokens::{self, NewRefreshToken, Rotation};
use ashlar_server::catalog::users::{self, NewUser, Role, UserEdit, UserFilter, UserSort};
use ashlar_server::catalog::{CatalogError, Part, sign_in_failures};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::cluster::{Database, hash, in_an_hour, within};

async fn user(conn: &mut PgConnection, name: &str) -> users::User {
    let new = NewUser {
        id: Uuid::new_v4(),
        name,
        password_hash: "$argon2id$one",
        role: Role::Admin,
        enabled: true,
    };
    users::insert(conn, &new).await.unwrap()
}

fn token(hash: &[u8; 32]) -> NewRefreshToken<'_> {
    NewRefreshToken {
        id: Uuid::new_v4(),
        hash,
        expires_at: in_an_hour(),
    }
}

#[tokio::test]
async fn a_token_used_twice_makes_its_whole_family_void() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    let (user, family, other) = (user(conn, "anna").await.id, Uuid::new_v4(), Uuid::new_v4());
    refresh_tokens::issue(conn, user, family, &token(&hash(1)))
        .await
        .unwrap();
    refresh_tokens::issue(conn, user, other, &token(&hash(9)))
        .await
        .unwrap();
    let rotated = Rotation::Rotated {
        user_id: user,
        family,
    };
    let rotate = async |conn: &mut PgConnection, old, new| {
        refresh_tokens::rotate(conn, &hash(old), &token(&hash(new)))
            .await
            .unwrap()
    };
    assert_eq!(rotate(conn, 1, 2).await, rotated);
    assert_eq!(rotate(conn, 2, 3).await, rotated);
    let reused = Rotation::Reused {
        user_id: user,
        family,
    };
    assert_eq!(rotate(conn, 1, 4).await, reused);
    assert_eq!(rotate(conn, 3, 5).await, reused, "the good one is void, too");
    assert_eq!(rotate(conn, 7, 8).await, Rotation::Unknown);
    let kept = rotate(conn, 9, 10).await;
    assert!(
        matches!(kept, Rotation::Rotated { .. }),
        "another sign-in is untouched"
    );
    assert!(refresh_tokens::revoke(conn, &hash(10)).await.unwrap());
    assert_eq!(refresh_tokens::revoke_of_user(conn, user).await.unwrap(), 0);
}

#[tokio::test]
async fn of_two_that_use_a_token_at_once_one_is_a_thief() {
    let database = Database::migrated().await;
    let (user, family) = {
        let conn = &mut *database.pool.acquire().await.unwrap();
        let (user, family) = (user(conn, "anna").await.id, Uuid::new_v4());
        refresh_tokens::issue(conn, user, family, &token(&hash(1)))
            .await
            .unwrap();
        (user, family)
    };
    let attempt = |new: u8| {
        let pool = database.pool.clone();
        async move {
            let mut tx = pool.begin().await.unwrap();
            let rotation = refresh_tokens::rotate(&mut tx, &hash(1), &token(&hash(new))).await;
            tx.commit().await.unwrap();
            rotation.unwrap()
        }
    };
    let (first, second) = within(async { tokio::join!(attempt(2), attempt(3)) }).await;
    let outcomes = [first, second];
    assert!(outcomes.contains(&Rotation::Rotated {
        user_id: user,
        family
    }));
    assert!(outcomes.contains(&Rotation::Reused {
        user_id: user,
        family
    }));
    let conn = &mut *database.pool.acquire().await.unwrap();
    assert_eq!(refresh_tokens::revoke_family(conn, family).await.unwrap(), 0);
}

#[tokio::test]
async fn an_expired_token_gives_nothing_and_is_pruned() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    let user = user(conn, "anna").await.id;
    let first = hash(1);
    refresh_tokens::issue(conn, user, Uuid::new_v4(), &token(&first))
        .await
        .unwrap();
    database
        .run(
            "update refresh_tokens set created_at = now() - interval '2 days', expires_at = now() - interval '1 day'",
        )
        .await;
    let expired = refresh_tokens::rotate(conn, &first, &token(&hash(2)))
        .await
        .unwrap();
    assert_eq!(expired, Rotation::Expired);
    assert_eq!(
        refresh_tokens::prune(conn, OffsetDateTime::now_utc())
            .await
            .unwrap(),
        1
    );
}

#[tokio::test]
async fn what_changes_a_users_rights_makes_access_tokens_void_and_a_new_name_does_not() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    let anna = user(conn, "Anna").await;
    let renamed = UserEdit {
        name: Some("Anne"),
        ..UserEdit::default()
    };
    let renamed = users::update(conn, anna.id, &renamed).await.unwrap().unwrap();
    assert_eq!((renamed.version, renamed.credential_generation), (2, 1));
    let demoted = UserEdit {
        role: Some(Role::Viewer),
        ..UserEdit::default()
    };
    let demoted = users::update(conn, anna.id, &demoted).await.unwrap().unwrap();
    assert_eq!(
        (demoted.role, demoted.version, demoted.credential_generation),
        (Role::Viewer, 3, 2)
    );
    assert!(users::raise_generation(conn, anna.id).await.unwrap());
    let found = users::by_name(conn, "aNNE").await.unwrap().unwrap();
    assert_eq!((found.id, found.credential_generation), (anna.id, 3));
    assert!(users::lock_enabled_admins(conn).await.unwrap().is_empty());
    assert_eq!(
        users::update(conn, Uuid::new_v4(), &UserEdit::default())
            .await
            .unwrap(),
        None
    );
    let second = NewUser {
        id: Uuid::new_v4(),
        name: "ANNE",
        password_hash: "$argon2id$one",
        role: Role::Admin,
        enabled: true,
    };
    let refused = users::insert(conn, &second).await;
    assert!(matches!(refused, Err(CatalogError::Constraint { name }) if name == "users_name"));
}

#[tokio::test]
async fn failures_in_a_row_lock_an_account_and_a_sign_in_forgets_them() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    let id = user(conn, "anna").await.id;
    let minute = Duration::from_secs(60);
    for count in 1..=2 {
        let counted = users::note_failed_sign_in(conn, id, 3, minute).await.unwrap();
        assert_eq!(counted, Some(count));
    }
    assert_eq!(users::get(conn, id).await.unwrap().unwrap().locked_until, None);
    users::note_failed_sign_in(conn, id, 3, minute).await.unwrap();
    let locked = users::get(conn, id).await.unwrap().unwrap();
    assert!(locked.locked_until.unwrap() > OffsetDateTime::now_utc());
    users::note_sign_in(conn, id).await.unwrap();
    let signed_in = users::get(conn, id).await.unwrap().unwrap();
    assert_eq!((signed_in.failed_sign_ins, signed_in.locked_until), (0, None));

    let (here, there) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    let since = OffsetDateTime::now_utc() - minute;
    sign_in_failures::record(conn, here, "nobody").await.unwrap();
    sign_in_failures::record(conn, here, "anna").await.unwrap();
    assert_eq!(sign_in_failures::count(conn, here, since).await.unwrap(), 2);
    assert_eq!(sign_in_failures::count(conn, there, since).await.unwrap(), 0);
    assert_eq!(sign_in_failures::prune(conn, in_an_hour()).await.unwrap(), 2);
}

#[tokio::test]
async fn an_api_token_is_found_by_its_hash_and_its_name_is_free_once_it_is_revoked() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    let user_id = user(conn, "anna").await.id;
    let scopes = ["volumes:read".to_owned()];
    let (first, second) = (hash(1), hash(2));
    let new = |hash| NewApiToken {
        id: Uuid::new_v4(),
        user_id,
        name: "backup",
        hash,
        scopes: &scopes,
        expires_at: None,
    };
    let made = api_tokens::insert(conn, &new(&first)).await.unwrap();
    let refused = api_tokens::insert(conn, &new(&second)).await;
    assert!(matches!(refused, Err(CatalogError::Constraint { name }) if name == "api_tokens_name"));
    api_tokens::note_use(conn, made.id).await.unwrap();
    let found = api_tokens::by_hash(conn, &first).await.unwrap().unwrap();
    assert!(found.last_used_at.is_some());
    assert_eq!(found.scopes, scopes);
    assert!(api_tokens::revoke(conn, made.id).await.unwrap().is_some());
    assert_eq!(api_tokens::revoke(conn, made.id).await.unwrap(), None);
    api_tokens::insert(conn, &new(&second)).await.unwrap();
    let good = ApiTokenFilter {
        user_id: Some(user_id),
        revoked: Some(false),
        ..ApiTokenFilter::default()
    };
    let part = Part {
        sort: ApiTokenSort::Name,
        descending: false,
        after: None,
        limit: 10,
    };
    let page = api_tokens::page(conn, &good, &part).await.unwrap();
    assert_eq!(
        page.rows
            .iter()
            .map(|row| row.hash.as_slice())
            .collect::<Vec<_>>(),
        [second.as_slice()]
    );
    assert!(users::delete(conn, user_id).await.unwrap());
    assert_eq!(api_tokens::get(conn, made.id).await.unwrap(), None);
}

#[tokio::test]
async fn users_are_listed_in_both_orders() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    for name in ["carl", "anna", "bert"] {
        user(conn, name).await;
    }
    for (sort, expected) in [
        (UserSort::Name, ["carl", "bert", "anna"]),
        (UserSort::CreatedAt, ["bert", "anna", "carl"]),
    ] {
        let mut names = Vec::new();
        let mut part = Part {
            sort,
            descending: true,
            after: None,
            limit: 1,
        };
        loop {
            let page = users::page(conn, &UserFilter::default(), &part).await.unwrap();
            names.extend(page.rows.into_iter().map(|row| row.name));
            part.after = page.next;
            if part.after.is_none() {
                break;
            }
        }
        assert_eq!(names, expected);
    }
}
