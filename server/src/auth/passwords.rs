//! Passwords: argon2id with a random salt each, in PHC form.
//!
//! Invariant: at most [`AT_A_TIME`] are computed at a time, off the control plane's threads: each takes 19 MiB and some
//! hundredths of a second.

use std::sync::{Arc, LazyLock};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use ashlar_openapi::accounts::SHORTEST_PASSWORD;
use ashlar_openapi::{Problem, ProblemType};
use tokio::sync::Semaphore;

const AT_A_TIME: usize = 2;

static PLACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(AT_A_TIME)));

/// The password could not be hashed: no memory or no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the password could not be hashed")]
pub struct CannotHash;

async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, CannotHash> {
    let place = Arc::clone(&PLACES)
        .acquire_owned()
        .await
        .map_err(|_| CannotHash)?;
    let done = tokio::task::spawn_blocking(move || {
        let _place = place;
        work()
    });
    done.await.map_err(|_| CannotHash)
}

/// The hash to keep of a password.
///
/// # Errors
/// [`CannotHash`].
pub async fn hash(password: String) -> Result<String, CannotHash> {
    aside(move || {
        Argon2::default()
            .hash_password(password.as_bytes())
            .map(|hash| hash.to_string())
    })
    .await?
    .map_err(|_| CannotHash)
}

/// Whether a password is the one that `kept` was made of. Takes as long where there is none to compare with, so that
/// the time does not tell which users exist.
///
/// # Errors
/// [`CannotHash`].
pub async fn verify(password: String, kept: Option<String>) -> Result<bool, CannotHash> {
    aside(move || match kept {
        Some(kept) => PasswordHash::new(&kept).is_ok_and(|kept| {
            Argon2::default()
                .verify_password(password.as_bytes(), &kept)
                .is_ok()
        }),
        None => {
            let _same_work = Argon2::default().hash_password(password.as_bytes());
            false
        }
    })
    .await
}

/// Whether a password is too short for every user.
///
/// # Errors
/// Where it is.
pub fn check_shortest(password: &str, pointer: &str) -> Result<(), Problem> {
    if password.chars().count() < SHORTEST_PASSWORD {
        return Err(weak("the password is too short", pointer));
    }
    Ok(())
}

/// Whether a password may be used by this user. Length is what counts; what is known to everybody is refused.
///
/// # Errors
/// Why not.
pub fn check_strength(password: &str, user: &str, pointer: &str) -> Result<(), Problem> {
    check_shortest(password, pointer)?;
    let weak = |cause: &str| Err(weak(cause, pointer));
    let folded = password.to_lowercase();
    if folded.contains(&user.to_lowercase())
        && password.chars().count() < user.chars().count() + SHORTEST_PASSWORD
    {
        return weak("the password is little more than the user's name");
    }
    let mut distinct: Vec<char> = folded.chars().collect();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() < 5 {
        return weak("the password repeats a few characters");
    }
    Ok(())
}

fn weak(cause: &str, pointer: &str) -> Problem {
    let correction = format!("use at least {SHORTEST_PASSWORD} characters that nobody would guess");
    Problem::new(ProblemType::PasswordWeak, cause, correction).at(pointer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_same_password_fits_its_hash() {
        let kept = hash("correct horse battery".into()).await.unwrap();
        assert!(kept.starts_with("$argon2id$"));
        assert!(
            verify("correct horse battery".into(), Some(kept.clone()))
                .await
                .unwrap()
        );
        assert!(
            !verify("correct horse batterz".into(), Some(kept.clone()))
                .await
                .unwrap()
        );
        assert!(!verify("correct horse battery".into(), None).await.unwrap());
        assert_ne!(hash("correct horse battery".into()).await.unwrap(), kept);
    }

    #[test]
    fn passwords_that_anybody_would_guess_are_refused() {
        for weak in ["short", "aaaaaaaaaaaaaa", "administrator", "121212121212"] {
            let problem = check_strength(weak, "administrator", "/password").unwrap_err();
            assert_eq!(problem.kind, ProblemType::PasswordWeak, "{weak}");
        }
        assert!(check_strength("correct horse battery", "anna", "/password").is_ok());
    }
}
