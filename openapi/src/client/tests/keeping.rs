//! Sessions are renewed when they must be, once for all who share them.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::json;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::fake::{Log, Reply, Seen, json as say, over_tcp};
use super::{QUICK, device, problem};
use crate::client::{
    Call, Client, ClientError, Credential, LockedSession, Place, SessionStore, Tokens, Trust,
};
use crate::operations::GetDevice;
use crate::{ProblemType, Timestamp};

/// What is kept, and how often it was written.
#[derive(Clone)]
struct Store(Arc<Mutex<(Option<Tokens>, usize)>>);

impl Store {
    fn holding(access: &str, lives: Duration, refresh: &str) -> Self {
        let tokens = Tokens {
            access_token: access.to_owned(),
            access_expires_at: Timestamp(OffsetDateTime::now_utc() + lives),
            refresh_token: refresh.to_owned(),
        };
        Self(Arc::new(Mutex::new((Some(tokens), 0))))
    }

    fn client(&self, url: &str) -> Client {
        let place = Place::Url {
            url: url.to_owned(),
            trust: Trust::System,
        };
        Client::new(&place, Credential::Session(Arc::new(self.clone())))
            .unwrap()
            .repeating(QUICK)
    }
}

impl SessionStore for Store {
    fn lock(&self) -> io::Result<Box<dyn LockedSession>> {
        Ok(Box::new(self.clone()))
    }
}

impl LockedSession for Store {
    fn read(&self) -> io::Result<Tokens> {
        self.0
            .lock()
            .unwrap()
            .0
            .clone()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write(&mut self, tokens: &Tokens) -> io::Result<()> {
        let mut kept = self.0.lock().unwrap();
        *kept = (Some(tokens.clone()), kept.1 + 1);
        Ok(())
    }
}

/// Takes the refresh tokens `r0`, `r1` … once each, and the access token that the last exchange gave.
fn appliance(number: usize, seen: &Seen) -> Reply {
    if seen.line != "POST /api/v1/auth/refresh" {
        let good = seen.header("authorization") == Some("Bearer a1");
        return if good {
            say(200, "", &device(1))
        } else {
            problem(ProblemType::NotSignedIn)
        };
    }
    assert_eq!(seen.header("authorization"), None, "request {number}");
    if seen.body != r#"{"refresh_token":"r0"}"# {
        return problem(ProblemType::RefreshTokenInvalid);
    }
    let session = json!({
        "access_token": "a1", "expires_in_s": 900, "refresh_token": "r1",
        "refresh_expires_at": "2027-01-01T00:00:00Z",
        "user": {
            "id": Uuid::nil(), "name": "admin", "role": "admin", "enabled": true, "last_sign_in_at": null,
            "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
        },
    });
    say(200, "", &session)
}

fn exchanges(log: &Log) -> usize {
    log.lock()
        .unwrap()
        .iter()
        .filter(|seen| seen.line.ends_with("/auth/refresh"))
        .count()
}

#[tokio::test]
async fn a_session_is_renewed_before_it_expires_and_kept() {
    let (url, log) = over_tcp(appliance).await;
    let store = Store::holding("a0", Duration::seconds(1), "r0");
    let client = store.client(&url);
    for _ in 0..2 {
        client.call(Call::<GetDevice>::at(&[Uuid::nil()])).await.unwrap();
    }
    assert_eq!(exchanges(&log), 1);
    let kept = store.0.lock().unwrap();
    assert_eq!(
        (kept.0.as_ref().unwrap().refresh_token.as_str(), kept.1),
        ("r1", 1)
    );
}

#[tokio::test]
async fn a_session_is_renewed_when_the_appliance_does_not_accept_it() {
    let (url, log) = over_tcp(appliance).await;
    let store = Store::holding("a0", Duration::hours(1), "r0");
    store
        .client(&url)
        .call(Call::<GetDevice>::at(&[Uuid::nil()]))
        .await
        .unwrap();
    assert_eq!((exchanges(&log), log.lock().unwrap().len()), (1, 3));
}

#[tokio::test]
async fn what_another_program_has_renewed_is_not_renewed_again() {
    let (url, log) = over_tcp(appliance).await;
    let store = Store::holding("a0", Duration::seconds(1), "r0");
    let (one, other) = (store.client(&url), store.client(&url));
    one.call(Call::<GetDevice>::at(&[Uuid::nil()])).await.unwrap();
    other.call(Call::<GetDevice>::at(&[Uuid::nil()])).await.unwrap();
    assert_eq!(exchanges(&log), 1);
}

#[tokio::test]
async fn a_session_that_has_ended_is_said_to_have_ended() {
    let (url, _) = over_tcp(appliance).await;
    let store = Store::holding("a0", Duration::seconds(1), "used");
    let error = store
        .client(&url)
        .call(Call::<GetDevice>::at(&[Uuid::nil()]))
        .await
        .unwrap_err();
    assert_eq!(error.problem().unwrap().kind, ProblemType::RefreshTokenInvalid);
    store.0.lock().unwrap().0 = None;
    let error = store
        .client(&url)
        .call(Call::<GetDevice>::at(&[Uuid::nil()]))
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Session(ref error) if error.kind() == io::ErrorKind::NotFound));
}
