//! The first user: where the catalog has none, `admin` with a random password in a file of the data folder.
//!
//! Invariants: the password is on stable storage before there is a user with it, so that a start that is cut off locks
//! nobody out: the next one takes the password that the file has. Nothing is done where there is any user. The password
//! is never logged.

use std::path::Path;

use ashlar_openapi::operations::CreateUser;
use ashlar_openapi::{Operation as _, Problem};

use super::users::{facts, made};
use super::{hash, note};
use crate::app::change::{Begun, Change};
use crate::app::{Caller, catalog_problem, internal};
use crate::auth::passwords::check_strength;
use crate::auth::{Actor, secrets};
use crate::catalog::Catalog;
use crate::catalog::users::{self as rows, NewUser, Role};
use crate::files;
use crate::steps::step;

/// What the first user is called.
pub const NAME: &str = "admin";
/// Name of the file with their password in the data folder.
pub const PASSWORD_FILE: &str = "admin-password";

/// Makes the first user where there is none. Called whenever the catalog was reached, also after it was emptied.
///
/// # Errors
/// Where the catalog is away or the data folder cannot be written.
pub async fn first_admin(catalog: &Catalog, data_dir: &Path) -> Result<(), Problem> {
    let caller = Caller {
        actor: Actor::appliance(),
        request_id: "start".to_owned(),
        operation: CreateUser::ID,
        key: None,
    };
    let none = crate::app::reading(catalog, async |connection| rows::none(connection).await);
    if !none.await? {
        return Ok(());
    }
    let path = data_dir.join(PASSWORD_FILE);
    let password = password(&path)?;
    step("the first password is written");
    let password_hash = hash(password).await?;
    let Begun::New(mut change) = Change::begin(catalog, &caller).await? else {
        return Err(internal());
    };
    let new = NewUser {
        id: uuid::Uuid::new_v4(),
        name: NAME,
        password_hash: &password_hash,
        role: Role::Admin,
        enabled: true,
    };
    let inserted = rows::insert(change.connection(), &new).await;
    let row = inserted.map_err(|error| catalog_problem(&error))?;
    note(
        &mut change,
        "user.created",
        "user",
        row.id,
        None,
        Some(facts(&row)),
    );
    change.commit(made(&row)).await?;
    tracing::warn!(user = NAME, file = %path.display(), "the first user is made; the file has the password");
    Ok(())
}

/// The password of the file; a new one where there is no file, or none in it that could be used.
fn password(path: &Path) -> Result<String, Problem> {
    let unusable = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "the first password cannot be kept");
        internal()
    };
    let stands = match std::fs::read_to_string(path) {
        Ok(text) => Some(text.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(unusable(&error)),
    };
    let password = match stands.filter(|text| check_strength(text, NAME, "").is_ok()) {
        Some(password) => password,
        None => secrets::hex(&secrets::random().map_err(|error| unusable(&error))?[..16]),
    };
    // Also where it stands already: nobody else may read it.
    files::write(path, format!("{password}\n").as_bytes()).map_err(|error| unusable(&error))?;
    Ok(password)
}
