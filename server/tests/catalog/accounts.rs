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
    let reused = |ended| Rotation::Reused {
        user_id: user,
        family,
        ended,
    };
    assert_eq!(rotate(conn, 1, 4).await, reused(true));
    assert_eq!(
        rotate(conn, 3, 5).await,
        reused(false),
        "the good one is void, too"
    );
    assert_eq!(rotate(conn, 7, 8).await, Rotation::Unknown);
    let kept = rotate(conn, 9, 10).await;
    assert!(
        matches!(kept, Rotation::Rotated { .. }),
        "another sign-in is untouched"
    );
    assert_eq!(
        refresh_tokens::revoke(conn, &hash(10)).await.unwrap(),
        Some(other)
    );
    assert_eq!(refresh_tokens::revoke(conn, &hash(10)).await.unwrap(), None);
    assert_eq!(refresh_tokens::revoke_of_user(conn, user, None).await.unwrap(), 0);
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
        family,
        ended: true
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
async fn a_session_is_good_until_its_tokens_are_revoked_or_its_user_is_disabled() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    let anna = user(conn, "Anna").await;
    let sessions = [Uuid::new_v4(), Uuid::new_v4()];
    for (session, token_hash) in sessions.into_iter().zip([hash(1), hash(2)]) {
        refresh_tokens::issue(conn, anna.id, session, &token(&token_hash))
            .await
            .unwrap();
    }
    let good = async |conn: &mut PgConnection, session| {
        let found = users::by_session(conn, anna.id, session).await.unwrap();
        found.is_some()
    };
    assert!(good(conn, sessions[0]).await && good(conn, sessions[1]).await);
    assert!(!good(conn, Uuid::new_v4()).await);
    let ended = refresh_tokens::revoke_of_user(conn, anna.id, Some(sessions[1])).await;
    assert_eq!(ended.unwrap(), 1);
    assert!(!good(conn, sessions[0]).await && good(conn, sessions[1]).await);
    let disabled = UserEdit {
        enabled: Some(false),
        ..UserEdit::default()
    };
    let disabled = users::update(conn, anna.id, &disabled).await.unwrap().unwrap();
    assert_eq!((disabled.version, disabled.enabled), (2, false));
    assert!(!good(conn, sessions[1]).await);
    assert!(users::lock_enabled_admins(conn).await.unwrap().is_empty());
}

#[tokio::test]
async fn names_of_users_are_one_whatever_their_case() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    assert!(users::none(conn).await.unwrap());
    let anna = user(conn, "Anna").await;
    assert!(!users::none(conn).await.unwrap());
    let found = users::by_name(conn, "aNNA").await.unwrap().unwrap();
    assert_eq!((found.id, found.last_sign_in_at), (anna.id, None));
    let signed_in = users::note_sign_in(conn, anna.id).await.unwrap().unwrap();
    assert!(signed_in.last_sign_in_at.is_some());
    assert_eq!(signed_in.version, 1, "a sign-in is no edit");
    let second = NewUser {
        id: Uuid::new_v4(),
        name: "ANNA",
        password_hash: "$argon2id$one",
        role: Role::Admin,
        enabled: true,
    };
    let refused = users::insert(conn, &second).await;
    assert!(matches!(refused, Err(CatalogError::Constraint { name }) if name == "users_name"));
}

#[tokio::test]
async fn failed_sign_ins_count_by_name_in_a_row_and_by_address_within_a_time() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    let minute = Duration::from_secs(60);
    for count in 1..=2 {
        assert_eq!(sign_in_failures::note_name(conn, "anna").await.unwrap(), count);
    }
    assert_eq!(sign_in_failures::name_waits(conn, "anna").await.unwrap(), None);
    sign_in_failures::lock_name(conn, "anna", minute).await.unwrap();
    let waits = sign_in_failures::name_waits(conn, "anna").await.unwrap().unwrap();
    assert!((1..=60).contains(&waits), "{waits}");
    assert_eq!(sign_in_failures::name_waits(conn, "bert").await.unwrap(), None);
    database
        .run("update sign_in_streaks set at = now() - interval '25 hours'")
        .await;
    assert_eq!(
        sign_in_failures::note_name(conn, "anna").await.unwrap(),
        1,
        "the row ended with the day"
    );
    sign_in_failures::forget_name(conn, "anna").await.unwrap();
    assert_eq!(sign_in_failures::name_waits(conn, "anna").await.unwrap(), None);

    let (here, there) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    sign_in_failures::note_address(conn, here).await.unwrap();
    let waits = async |conn: &mut PgConnection, address, most| {
        sign_in_failures::address_waits(conn, address, most, minute)
            .await
            .unwrap()
    };
    assert_eq!(waits(conn, here, 2).await, None);
    sign_in_failures::note_address(conn, here).await.unwrap();
    assert!(waits(conn, here, 2).await.is_some());
    assert_eq!(waits(conn, there, 2).await, None);
    database
        .run("update sign_in_failures set at = now() - interval '2 minutes'")
        .await;
    assert_eq!(waits(conn, here, 2).await, None);
    sign_in_failures::note_name(conn, "anna").await.unwrap();
    assert_eq!(sign_in_failures::prune(conn, in_an_hour()).await.unwrap(), 3);
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
    let holder = api_tokens::holder(conn, &first).await.unwrap().unwrap();
    assert!(holder.use_is_noted);
    assert_eq!(
        (holder.token, holder.user_id, holder.role),
        (made.id, user_id, Role::Admin)
    );
    assert_eq!(holder.scopes, scopes);
    assert!(api_tokens::revoke(conn, made.id).await.unwrap().is_some());
    assert_eq!(api_tokens::revoke(conn, made.id).await.unwrap(), None);
    assert_eq!(api_tokens::holder(conn, &first).await.unwrap(), None);
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
