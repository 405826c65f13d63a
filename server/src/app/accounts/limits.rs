//! How often a password may be tried: [`MOST_OF_NAME`] times in a row for one name, then with pauses that grow, and
//! [`MOST_OF_ADDRESS`] failures from one address within [`WINDOW`].
//!
//! Invariants: a name that no user has is treated like every other, so that nobody learns which there are. Of one name
//! and from one address one attempt runs at a time: those that come at once are counted, too, and only some of them wait. An attempt that is kept
//! back is not counted, and its password not looked at.

use std::net::IpAddr;
use std::time::Duration;

use ashlar_openapi::values::LONGEST_NAME;
use ashlar_openapi::{Problem, ProblemType};
use sqlx::PgConnection;
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

use crate::app::{App, reading};
use crate::auth::secrets;
use crate::catalog::{CatalogError, sign_in_failures};
use crate::network::network_of;

/// Failures in a row with one name, after which it is locked for a while.
pub const MOST_OF_NAME: i32 = 5;
/// Failures from one address within [`WINDOW`].
pub const MOST_OF_ADDRESS: u32 = 20;
pub const WINDOW: Duration = Duration::from_secs(10 * 60);
/// Attempts that wait for one name's or one address's turn.
const MOST_WAITING: usize = 16;
const MINUTE: Duration = Duration::from_secs(60);
const LONGEST_LOCK: Duration = Duration::from_secs(15 * 60);

/// One try of a password.
pub struct Attempt {
    name: String,
    /// Where it is counted.
    network: Option<IpAddr>,
    _turns: Vec<OwnedMutexGuard<()>>,
}

impl Attempt {
    /// Waits for its turn.
    ///
    /// # Errors
    /// [`ProblemType::SignInLimited`].
    pub async fn begin(app: &App, name: &str, address: Option<IpAddr>) -> Result<Self, Problem> {
        let name = bounded(name).to_lowercase();
        let network = address.map(network_of);
        let mut locks = vec![lock_of("name", &name)];
        locks.extend(network.map(|network| lock_of("network", &network.to_string())));
        locks.sort_unstable();
        let mut turns = Vec::new();
        for lock in locks {
            let turn = app.locks.lock_unless_crowded(lock, MOST_WAITING).await;
            turns.push(turn.ok_or_else(|| limited(1))?);
        }
        let waits = reading(&app.catalog, async |connection| {
            let of_name = sign_in_failures::name_waits(connection, &name).await?;
            let of_network = match network {
                Some(network) => {
                    sign_in_failures::address_waits(connection, network, MOST_OF_ADDRESS, WINDOW).await?
                }
                None => None,
            };
            Ok(of_name.max(of_network))
        });
        match waits.await? {
            Some(seconds) => Err(limited(seconds)),
            None => Ok(Self {
                name,
                network,
                _turns: turns,
            }),
        }
    }

    /// Counts it as failed. Answers for how long the name is locked now.
    pub async fn failed(&self, connection: &mut PgConnection) -> Result<Option<Duration>, CatalogError> {
        if let Some(network) = self.network {
            sign_in_failures::note_address(connection, network).await?;
        }
        let failures = sign_in_failures::note_name(connection, &self.name).await?;
        let lock = lock_after(failures);
        if let Some(lasts) = lock {
            sign_in_failures::lock_name(connection, &self.name, lasts).await?;
        }
        Ok(lock)
    }

    /// It was right: earlier failures with the name are forgotten.
    pub async fn succeeded(&self, connection: &mut PgConnection) -> Result<(), CatalogError> {
        forget(connection, &self.name).await
    }
}

/// Forgets the failures with a name.
pub async fn forget(connection: &mut PgConnection, name: &str) -> Result<(), CatalogError> {
    sign_in_failures::forget_name(connection, &name.to_lowercase()).await
}

/// As much of a tried name as is kept: of the length that names have, and without what logs and Postgres do not take.
pub fn bounded(name: &str) -> String {
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    name.chars().take(LONGEST_NAME).map(plain).collect()
}

/// For how long a name is locked after so many failures in a row.
fn lock_after(failures: i32) -> Option<Duration> {
    let beyond = u32::try_from(failures - MOST_OF_NAME).ok()?;
    Some(MINUTE.saturating_mul(1 << beyond.min(8)).min(LONGEST_LOCK))
}

fn lock_of(what: &str, which: &str) -> Uuid {
    let digest = secrets::kept(&format!("sign-in {what} {which}"));
    Uuid::from_slice(&digest[..16]).expect("a UUID has 16 bytes")
}

fn limited(seconds: u32) -> Problem {
    let mut problem = Problem::new(
        ProblemType::SignInLimited,
        "there were too many failed attempts with this name or from this address",
        format!("try again in {seconds} s; an attempt before that is not looked at"),
    );
    problem.correction.retry_after_s = Some(seconds);
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_a_minute_to_a_quarter_of_an_hour() {
        let minutes = |failures| lock_after(failures).map(|lasts| lasts.as_secs() / 60);
        assert_eq!(minutes(4), None);
        assert_eq!(
            [5, 6, 7, 8, 9, 10, i32::MAX].map(minutes),
            [1, 2, 4, 8, 15, 15, 15].map(Some)
        );
    }

    #[test]
    fn what_is_kept_of_a_tried_name_is_short_and_plain() {
        assert_eq!(bounded("a\0b\nc"), "a\u{fffd}b\u{fffd}c");
        assert_eq!(bounded(&"ä".repeat(1000)).chars().count(), 64);
    }
}
