//! Access tokens: JSON Web Tokens with HS256, good for a quarter of an hour, and the keys that sign them.
//!
//! Invariants: keys stand in the data folder, readable to the service only. A former key is good as
//! long as tokens signed by it before it was replaced can live, and no token lives longer than those made here.

use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

use ashlar_openapi::Problem;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::actor::not_signed_in;
use super::hmac;
use super::secrets::{self, NoRandomness};
use crate::files::{self, FileError};

/// How long an access token is good, in seconds.
pub const ACCESS_S: u32 = 15 * 60;
const ISSUER: &str = "ashlar";

/// What an access token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub sub: Uuid,
    /// The session, as the catalog knows it: where it ends, its access tokens are void.
    pub session: Uuid,
    pub exp: i64,
    pub iat: i64,
    iss: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Key {
    id: Uuid,
    secret: Vec<u8>,
    /// When it was made, in seconds since 1970.
    made: i64,
}

/// The newest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Keys(Vec<Key>);

/// Why keys cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// Makes and checks access tokens.
pub struct Sessions {
    path: PathBuf,
    keys: RwLock<Keys>,
}

impl Sessions {
    /// Reads the keys, or makes the first one.
    ///
    /// # Errors
    /// Where the file system or the source of randomness refuses.
    pub fn open(path: PathBuf) -> Result<Self, KeysError> {
        hmac::install();
        let keys = match files::read_json::<Keys>(&path)? {
            Some(keys) if !keys.0.is_empty() => keys,
            _ => {
                let keys = Keys(vec![Key::new()?]);
                files::write_json(&path, &keys)?;
                keys
            }
        };
        Ok(Self {
            path,
            keys: RwLock::new(keys),
        })
    }

    /// Signs with a new key from now on.
    ///
    /// # Errors
    /// Where it cannot be made durable; the former one goes on then.
    pub fn rotate(&self) -> Result<(), KeysError> {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = keys.clone();
        next.0.insert(0, Key::new()?);
        let now = OffsetDateTime::now_utc().unix_timestamp();
        // A key signs until the next one is made.
        let mut replaced_at = now;
        next.0.retain(|key| {
            let needed = now - replaced_at <= i64::from(ACCESS_S);
            replaced_at = key.made;
            needed
        });
        files::write_json(&self.path, &next)?;
        *keys = next;
        Ok(())
    }

    /// An access token for a user's session.
    ///
    /// # Errors
    /// Never but by a mistake of this program.
    pub fn issue(&self, user: Uuid, session: Uuid) -> Result<String, jsonwebtoken::errors::Error> {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let claims = Claims {
            sub: user,
            session,
            iat: now,
            exp: now + i64::from(ACCESS_S),
            iss: ISSUER.to_owned(),
        };
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = &keys.0[0];
        let header = Header {
            kid: Some(key.id.to_string()),
            ..Header::new(Algorithm::HS256)
        };
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&key.secret))
    }

    /// What a token says, where it is one of ours and has not expired.
    ///
    /// # Errors
    /// Why it is not good.
    pub fn check(&self, token: &str) -> Result<Claims, Problem> {
        let unknown = |_| not_signed_in("the access token is none of this appliance's");
        let header = jsonwebtoken::decode_header(token).map_err(unknown)?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let named = |key: &&Key| header.kid.as_deref() == Some(key.id.to_string().as_str());
        let retired = || not_signed_in("the access token was signed with a key that is not in use any more");
        let place = keys.0.iter().position(|key| named(&key)).ok_or_else(retired)?;
        let key = &keys.0[place];
        let now = OffsetDateTime::now_utc().unix_timestamp();
        // A key signs until the next one is made.
        let replaced_at = place.checked_sub(1).map(|newer| keys.0[newer].made);
        if replaced_at.is_some_and(|at| now.saturating_sub(at) > i64::from(ACCESS_S)) {
            return Err(retired());
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.leeway = 0;
        match jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_secret(&key.secret), &validation) {
            Ok(data) if data.claims.exp.saturating_sub(data.claims.iat) > i64::from(ACCESS_S) => Err(
                not_signed_in("the access token is good for longer than any of this appliance's"),
            ),
            Ok(data) => Ok(data.claims),
            Err(error) if matches!(error.kind(), jsonwebtoken::errors::ErrorKind::ExpiredSignature) => {
                Err(not_signed_in("the access token has expired"))
            }
            Err(error) => Err(unknown(error)),
        }
    }
}

impl Key {
    fn new() -> Result<Self, NoRandomness> {
        Ok(Self {
            id: Uuid::new_v4(),
            secret: secrets::random()?.to_vec(),
            made: OffsetDateTime::now_utc().unix_timestamp(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(folder: &tempfile::TempDir) -> Sessions {
        Sessions::open(folder.path().join("keys")).unwrap()
    }

    #[test]
    fn a_token_is_good_across_restarts_and_one_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let (user, session) = (Uuid::new_v4(), Uuid::new_v4());
        let token = sessions(&folder).issue(user, session).unwrap();
        let again = sessions(&folder);
        let claims = again.check(&token).unwrap();
        assert_eq!((claims.sub, claims.session), (user, session));
        again.rotate().unwrap();
        assert!(again.check(&token).is_ok());
        let later = again.issue(user, session).unwrap();
        assert!(sessions(&folder).check(&later).is_ok());
    }

    #[test]
    fn a_former_key_is_good_no_longer_than_what_it_signed_before() {
        let folder = tempfile::tempdir().unwrap();
        let sessions = sessions(&folder);
        let token = sessions.issue(Uuid::new_v4(), Uuid::new_v4()).unwrap();
        sessions.rotate().unwrap();
        let later = |seconds| sessions.keys.write().unwrap().0[0].made -= seconds;
        later(i64::from(ACCESS_S) - 60);
        assert!(sessions.check(&token).is_ok());
        later(61);
        assert!(sessions.check(&token).is_err());
    }

    #[test]
    fn a_token_that_lives_longer_than_those_made_here_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let sessions = sessions(&folder);
        let token = sessions.issue(Uuid::new_v4(), Uuid::new_v4()).unwrap();
        let mut claims = sessions.check(&token).unwrap();
        let signed = |claims: &Claims| {
            let key = &sessions.keys.read().unwrap().0[0];
            let header = Header {
                kid: Some(key.id.to_string()),
                ..Header::new(Algorithm::HS256)
            };
            jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(&key.secret)).unwrap()
        };
        assert!(sessions.check(&signed(&claims)).is_ok());
        claims.exp += 1;
        assert!(sessions.check(&signed(&claims)).is_err());
    }

    #[test]
    fn what_another_appliance_signed_or_somebody_changed_is_refused() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (ours, theirs) = (sessions(&folder), sessions(&other));
        let token = theirs.issue(Uuid::new_v4(), Uuid::nil()).unwrap();
        assert!(ours.check(&token).is_err());
        let mut forged = ours.issue(Uuid::new_v4(), Uuid::nil()).unwrap();
        let last = if forged.ends_with('A') { "B" } else { "A" };
        // Not the last character, of which not every bit counts.
        forged.replace_range(forged.len() - 2..forged.len() - 1, last);
        assert!(ours.check(&forged).is_err());
        assert!(ours.check("").is_err());
    }
}
