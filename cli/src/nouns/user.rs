//! `ashlar user`

use ashlar_openapi::accounts::{NewUser, PasswordChange, User, UserChange, UserFilter};
use ashlar_openapi::client::Call;
use ashlar_openapi::operations::{
    ChangePassword, ChangeUser, CreateUser, DeleteUser, GetUser, ListUsers, RotateKeys,
};
use ashlar_openapi::sort::NamedKey;
use ashlar_openapi::{Name, Role};
use clap::{Args, Subcommand};

use super::{Gone, One, end, show, switch};
use crate::Context;
use crate::edit::edit;
use crate::failure::Failure;
use crate::find::{Handle, Noun, find};
use crate::format;
use crate::list::{Length, Names, Order, Row, list};
use crate::secret::{PasswordFrom, ask};
use crate::values::word;

const ROLES: &[&str] = &["admin", "operator", "backup", "viewer"];

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a user; asks for the password
    Create {
        /// What to call them
        name: Name,
        /// What they are here for
        #[arg(long, value_parser = word::<Role>(ROLES))]
        role: Role,
        #[command(flatten)]
        password: PasswordFrom,
    },
    /// List the users
    List {
        /// Only of this role
        #[arg(long, value_parser = word::<Role>(ROLES))]
        role: Option<Role>,
        #[command(flatten)]
        order: Order<NamedKey>,
        #[command(flatten)]
        length: Length,
    },
    /// Look at a user
    Show(One),
    /// Edit a user; ends their sessions
    Set(Set),
    /// Delete a user, with tokens and sessions
    Delete(Gone),
    /// Change one's own password, or another user's
    Passwd(Passwd),
    /// Make new keys for sessions; those signed by the former key stay good until they expire
    RotateKeys,
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    #[command(flatten)]
    one: One,
    /// What they are here for
    #[arg(long, value_parser = word::<Role>(ROLES))]
    role: Option<Role>,
    /// Let them in
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Do not let them in
    #[arg(long)]
    disable: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Passwd {
    /// Another user: id or name; asks for the new password only
    user: Option<String>,
    #[command(flatten)]
    password: PasswordFrom,
}

impl Verb {
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Failure> {
        let one = async |text: &str| find::<Users>(&cx.client, text).await;
        match self {
            Self::Create { name, role, password } => {
                let password = password.chosen("Password of the new user: ")?;
                let new = NewUser {
                    id: None,
                    name,
                    password,
                    role,
                };
                let answer = cx.client.call(Call::<CreateUser>::with(&[], new)).await?;
                cx.out.object(&answer.text, &answer.body.id.to_string())
            }
            Self::List { role, order, length } => {
                let filter = UserFilter {
                    name: None,
                    role,
                    sort: order.sort,
                };
                list(cx, Call::<ListUsers>::at(&[]).query(filter), &length).await
            }
            Self::Show(named) => {
                let id = one(&named.object).await?;
                show::<GetUser>(cx, &[id], id).await
            }
            Self::Set(Set {
                one: named,
                role,
                enable,
                disable,
            }) => {
                let id = one(&named.object).await?;
                let change = UserChange {
                    role,
                    enabled: switch(enable, disable),
                    password: None,
                };
                let answer = edit::<GetUser, ChangeUser>(&cx.client, &[id], change).await?;
                cx.out.object(&answer.text, &id.to_string())
            }
            Self::Delete(gone) => {
                let id = one(&gone.object).await?;
                gone.confirm("Delete, with tokens and sessions, the user")?;
                end::<DeleteUser>(cx, id, "deleted").await
            }
            Self::Passwd(passwd) => passwd.run(cx).await,
            Self::RotateKeys => {
                cx.client.call(Call::<RotateKeys>::at(&[])).await?;
                cx.out.done("rotated")
            }
        }
    }
}

impl Passwd {
    async fn run(self, cx: &Context) -> Result<(), Failure> {
        match self.user {
            Some(name) => {
                let id = find::<Users>(&cx.client, &name).await?;
                let password = Some(self.password.chosen("New password: ")?);
                let change = UserChange {
                    password,
                    ..UserChange::default()
                };
                edit::<GetUser, ChangeUser>(&cx.client, &[id], change).await?;
            }
            None => {
                let old = ask("Old password: ")?;
                let new = self.password.chosen("New password: ")?;
                cx.client
                    .call(Call::<ChangePassword>::with(&[], PasswordChange { old, new }))
                    .await?;
            }
        }
        cx.out.done("changed")
    }
}

/// Users, to be found.
pub(crate) struct Users;

impl Noun for Users {
    const WHAT: &'static str = "user";
    type Item = User;
    type List = ListUsers;

    fn queries(text: &str) -> Vec<UserFilter> {
        vec![UserFilter {
            name: Some(text.to_owned()),
            ..UserFilter::default()
        }]
    }

    fn handle(item: &User) -> Handle {
        Handle {
            id: item.id,
            name: Some(item.name.to_string()),
            number: None,
        }
    }
}

impl Row for User {
    const HEADERS: &'static [&'static str] = &["NAME", "ROLE", "ENABLED", "LAST SIGN-IN"];

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn cells(&self, _: &Names) -> Vec<String> {
        vec![
            self.name.to_string(),
            self.role.to_string(),
            format::yes(self.enabled),
            format::or_nothing(self.last_sign_in_at.map(format::moment)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roles_that_are_offered_are_those_of_the_contract() {
        assert_eq!(ROLES, Role::ALL.map(Role::as_str));
    }
}
