//! Users: making, editing, deleting them.
//!
//! Invariants: an enabled admin is always left. What takes rights or a password away ends the user's sessions in the
//! same transaction.

use ashlar_openapi::accounts::{NewUser, User as View, UserChange};
use ashlar_openapi::operations::{ChangeUser, CreateUser, DeleteUser};
use ashlar_openapi::{Problem, ProblemType, Role, Timestamp};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{LONGEST_PASSWORD, check_length, fits, hash, note, role, role_row};
use crate::app::change::{Begun, Change};
use crate::app::{Answer, App, Caller, catalog_problem, check_match, etag, no_such};
use crate::auth::passwords::{check_shortest, check_strength};
use crate::catalog::CatalogError;
use crate::catalog::refresh_tokens;
use crate::catalog::users::{self as rows, User, UserEdit};

/// A user, as the contract has them.
pub fn view(row: &User) -> View {
    View {
        id: row.id,
        name: row.name.parse().expect("names of users are names"),
        role: role(row.role),
        enabled: row.enabled,
        last_sign_in_at: row.last_sign_in_at.map(Timestamp),
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.updated_at),
    }
}

/// Names what of a user can be edited: a sign-in is no edit.
pub fn tag(row: &User) -> String {
    etag(row.version, row.updated_at)
}

/// What the audit log and events say of a user.
pub(super) fn facts(row: &User) -> Value {
    json!({"name": row.name, "role": role(row.role), "enabled": row.enabled})
}

pub(super) fn made(row: &User) -> Answer {
    Answer::of::<CreateUser>(&view(row))
        .tagged(tag(row))
        .located(format_args!("/users/{}", row.id))
}

impl App {
    /// Makes a user; where the client's id has just such a one, that is the answer.
    ///
    /// # Errors
    /// Where the password is weak, or id or name are another's.
    pub async fn create_user(&self, caller: &Caller, new: NewUser) -> Result<Answer, Problem> {
        check_length(&new.password, LONGEST_PASSWORD, "/password")?;
        check_strength(&new.password, new.name.as_str(), "/password")?;
        let id = new.id.unwrap_or_else(Uuid::new_v4);
        // Two requests with one id do not run into each other.
        let _turn = self.locks.lock(id).await;
        let password_hash = hash(new.password.clone()).await?;
        let mut change = match Change::begin(&self.catalog, caller).await? {
            Begun::New(change) => change,
            Begun::Answered(answer) => return Ok(answer),
        };
        let found = rows::get(change.connection(), id).await;
        if let Some(known) = found.map_err(|error| catalog_problem(&error))? {
            check_same(&known, new).await?;
            return change.commit(made(&known)).await;
        }
        let row = rows::NewUser {
            id,
            name: new.name.as_str(),
            password_hash: &password_hash,
            role: role_row(new.role),
            enabled: true,
        };
        let inserted = rows::insert(change.connection(), &row).await;
        let row = inserted.map_err(|error| taken(&error))?;
        note(&mut change, "user.created", "user", id, None, Some(facts(&row)));
        change.commit(made(&row)).await
    }

    /// Edits a user.
    ///
    /// # Errors
    /// Where there is none, it was changed since it was read, or nobody would be left to manage accounts.
    pub async fn change_user(
        &self,
        caller: &Caller,
        id: Uuid,
        if_match: Option<&str>,
        wanted: UserChange,
    ) -> Result<Answer, Problem> {
        if let Some(password) = &wanted.password {
            check_length(password, LONGEST_PASSWORD, "/password")?;
            // Before the ETag is looked at: what is never right is said first.
            check_shortest(password, "/password")?;
        }
        let password_hash = match wanted.password.clone() {
            Some(password) => Some(hash(password).await?),
            None => None,
        };
        let mut change = match Change::begin(&self.catalog, caller).await? {
            Begun::New(change) => change,
            Begun::Answered(answer) => return Ok(answer),
        };
        let before = locked(change.connection(), id, if_match).await?;
        if let Some(password) = &wanted.password {
            check_strength(password, &before.user.name, "/password")?;
        }
        let edit = UserEdit {
            password_hash: password_hash.as_deref(),
            role: wanted.role.map(role_row).filter(|role| *role != before.user.role),
            enabled: wanted.enabled.filter(|enabled| *enabled != before.user.enabled),
        };
        if edit.role.is_some() || edit.enabled == Some(false) {
            before.check_others_manage()?;
        }
        if edit.password_hash.is_none() && edit.role.is_none() && edit.enabled.is_none() {
            return change.commit(shown(&before.user)).await;
        }
        let edited = apply(change.connection(), id, &edit).await;
        let after = edited.map_err(|error| catalog_problem(&error))?;
        let mut data = facts(&after);
        data["password_changed"] = edit.password_hash.is_some().into();
        let before = facts(&before.user);
        note(&mut change, "user.changed", "user", id, Some(before), Some(data));
        change.commit(shown(&after)).await
    }

    /// Deletes a user, with tokens and sessions.
    ///
    /// # Errors
    /// As [`Self::change_user`]'s.
    pub async fn delete_user(
        &self,
        caller: &Caller,
        id: Uuid,
        if_match: Option<&str>,
    ) -> Result<Answer, Problem> {
        let mut change = match Change::begin(&self.catalog, caller).await? {
            Begun::New(change) => change,
            Begun::Answered(answer) => return Ok(answer),
        };
        let before = locked(change.connection(), id, if_match).await?;
        before.check_others_manage()?;
        let deleted = rows::delete(change.connection(), id).await;
        deleted.map_err(|error| catalog_problem(&error))?;
        let before = facts(&before.user);
        note(&mut change, "user.deleted", "user", id, Some(before), None);
        change.commit(Answer::nothing::<DeleteUser>()).await
    }
}

fn shown(row: &User) -> Answer {
    Answer::of::<ChangeUser>(&view(row)).tagged(tag(row))
}

/// A user that nobody else changes until the transaction ends.
struct Locked {
    user: User,
    /// There is another enabled admin.
    others_manage: bool,
}

impl Locked {
    /// Whether somebody is left to manage accounts without this user.
    fn check_others_manage(&self) -> Result<(), Problem> {
        let manages = role(self.user.role) == Role::Admin && self.user.enabled;
        if !manages || self.others_manage {
            return Ok(());
        }
        Err(Problem::new(
            ProblemType::LastAdmin,
            format!("{} is the only enabled admin", self.user.name),
            "make another user an admin before",
        ))
    }
}

/// Locks the user, and before it all enabled admins: always in this order.
async fn locked(connection: &mut PgConnection, id: Uuid, if_match: Option<&str>) -> Result<Locked, Problem> {
    let found = async {
        let admins = rows::lock_enabled_admins(connection).await?;
        Ok::<_, CatalogError>((admins, rows::lock(connection, id).await?))
    };
    let (admins, user) = found.await.map_err(|error| catalog_problem(&error))?;
    let user = user.ok_or_else(|| no_such("user", id))?;
    check_match(if_match, &tag(&user))?;
    Ok(Locked {
        user,
        others_manage: admins.iter().any(|admin| *admin != id),
    })
}

async fn apply(connection: &mut PgConnection, id: Uuid, edit: &UserEdit<'_>) -> Result<User, CatalogError> {
    let after = rows::update(connection, id, edit)
        .await?
        .ok_or(CatalogError::NotFound)?;
    refresh_tokens::revoke_of_user(connection, id, None).await?;
    if edit.password_hash.is_some() {
        // Who was locked out by others' guesses gets in again.
        super::limits::forget(connection, &after.name).await?;
    }
    Ok(after)
}

/// Whether a repeated request would make the user that there is.
async fn check_same(known: &User, new: NewUser) -> Result<(), Problem> {
    let same = known.name == new.name.as_str()
        && role(known.role) == new.role
        && fits(new.password, Some(known.password_hash.clone())).await?;
    if same { Ok(()) } else { Err(id_taken("user")) }
}

pub(super) fn id_taken(kind: &str) -> Problem {
    Problem::new(
        ProblemType::IdTaken,
        format!("there is a {kind} with this id that is not as the request has it"),
        "choose a new id, or leave it out",
    )
    .at("/id")
}

fn taken(error: &CatalogError) -> Problem {
    match error {
        CatalogError::Constraint { name } if name == "users_name" => Problem::new(
            ProblemType::NameTaken,
            "another user has this name, whatever the letters' case",
            "choose another name",
        )
        .at("/name"),
        CatalogError::Constraint { name } if name == "users_pkey" => id_taken("user"),
        other => catalog_problem(other),
    }
}
