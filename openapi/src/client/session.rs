//! What a client shows to be let in: an API token, or a session that it keeps alive.
//!
//! A refresh token is good once. Whoever exchanges it holds the lock of the store meanwhile, so that several programs
//! can share one session: each takes what another one has got, and exchanges only what nobody has exchanged.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::Mutex;

use super::Client;
use super::call::Call;
use super::error::ClientError;
use crate::accounts::{Refresh, Session};
use crate::operations::RefreshSession;
use crate::values::Timestamp;

/// An access token is renewed when it has no longer to live than this: the request must arrive with it.
const MARGIN: Duration = Duration::from_secs(10);

/// A session as it is kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    pub access_token: String,
    pub access_expires_at: Timestamp,
    pub refresh_token: String,
}

impl Tokens {
    /// Of a session that was given just now.
    pub fn of(session: &Session) -> Self {
        let lives = Duration::from_secs(session.expires_in_s.0.into());
        Self {
            access_token: session.access_token.clone(),
            access_expires_at: Timestamp(OffsetDateTime::now_utc() + lives),
            refresh_token: session.refresh_token.clone(),
        }
    }

    fn serve(&self, refused: Option<&str>) -> bool {
        OffsetDateTime::now_utc() + MARGIN < self.access_expires_at.0 && refused != Some(&self.access_token)
    }
}

/// Where a session is kept.
pub trait SessionStore: Send + Sync {
    /// Waits until nobody else uses the session; may block.
    fn lock(&self) -> io::Result<Box<dyn LockedSession>>;
}

/// A session that nobody else exchanges until this is dropped.
pub trait LockedSession: Send {
    /// What is kept. `NotFound`: nobody is signed in.
    fn read(&self) -> io::Result<Tokens>;

    fn write(&mut self, tokens: &Tokens) -> io::Result<()>;
}

/// What a client shows to be let in.
#[derive(Clone)]
pub enum Credential {
    /// Nothing, as at the maintenance socket.
    None,
    /// An API token.
    Token(String),
    /// A session, renewed when it must be.
    Session(Arc<dyn SessionStore>),
}

/// A credential in use.
pub(super) struct Access {
    credential: Credential,
    held: Mutex<Option<Tokens>>,
}

impl Access {
    pub(super) fn new(credential: Credential) -> Self {
        Self {
            credential,
            held: Mutex::new(None),
        }
    }

    /// Whether another bearer may be accepted where one was refused.
    pub(super) fn renews(&self) -> bool {
        matches!(self.credential, Credential::Session(_))
    }

    /// What goes into `Authorization: Bearer`: never `refused`, which the appliance did not accept.
    pub(super) async fn bearer(
        &self,
        client: &Client,
        refused: Option<&str>,
    ) -> Result<Option<String>, ClientError> {
        let store = match &self.credential {
            Credential::None => return Ok(None),
            Credential::Token(token) => return Ok(Some(token.clone())),
            Credential::Session(store) => Arc::clone(store),
        };
        let mut held = self.held.lock().await;
        if held.as_ref().is_none_or(|tokens| !tokens.serve(refused)) {
            *held = Some(renew(client, store, refused).await?);
        }
        Ok(held.as_ref().map(|tokens| tokens.access_token.clone()))
    }
}

async fn renew(
    client: &Client,
    store: Arc<dyn SessionStore>,
    refused: Option<&str>,
) -> Result<Tokens, ClientError> {
    let locking = tokio::task::spawn_blocking(move || store.lock()).await;
    let mut kept = locking
        .map_err(io::Error::other)
        .flatten()
        .map_err(ClientError::Session)?;
    let found = kept.read().map_err(ClientError::Session)?;
    if found.serve(refused) {
        return Ok(found);
    }
    let call = Call::<RefreshSession>::with(
        &[],
        Refresh {
            refresh_token: found.refresh_token,
        },
    );
    // A call of a public operation shows no bearer: it does not come back here.
    let session = Box::pin(client.call(call)).await?.body;
    let tokens = Tokens::of(&session);
    kept.write(&tokens).map_err(ClientError::Session)?;
    Ok(tokens)
}
