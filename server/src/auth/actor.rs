//! Who was let in, and what they may do: the only place where roles and scopes are compared.

use std::net::IpAddr;

use ashlar_openapi::access::{Role, Roles, Scope};
use ashlar_openapi::audit::ActorKind;
use ashlar_openapi::{Problem, ProblemType};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Somebody who asks for something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    pub kind: ActorKind,
    /// The user's id; `None` at the maintenance socket and for those who are not signed in.
    pub user: Option<Uuid>,
    /// The session or the token that let in.
    pub credential: Option<Uuid>,
    pub name: String,
    /// `None` where nobody is signed in.
    pub role: Option<Role>,
    /// Of the token; `None` where the role alone counts.
    pub scopes: Option<Vec<Scope>>,
    /// `None` at the maintenance socket.
    pub address: Option<IpAddr>,
}

impl Actor {
    pub fn anonymous(address: Option<IpAddr>) -> Self {
        Self {
            kind: ActorKind::Anonymous,
            user: None,
            credential: None,
            name: "anonymous".to_owned(),
            role: None,
            scopes: None,
            address,
        }
    }

    /// A user of the operating system at the maintenance socket.
    pub fn maintenance(name: String) -> Self {
        Self {
            kind: ActorKind::Maintenance,
            user: None,
            credential: None,
            name,
            role: Some(Role::Admin),
            scopes: None,
            address: None,
        }
    }

    /// The appliance itself.
    pub fn appliance() -> Self {
        Self {
            kind: ActorKind::Appliance,
            user: None,
            credential: None,
            name: "appliance".to_owned(),
            role: None,
            scopes: None,
            address: None,
        }
    }

    /// Whose idempotency keys these are: those of others never match.
    pub fn principal(&self) -> String {
        match self.user {
            Some(user) => user.to_string(),
            None => format!("{}:{}", self.kind.as_str(), self.name),
        }
    }

    /// Whether this actor may do what needs one of `roles` and `scope`.
    ///
    /// # Errors
    /// Why not.
    pub fn may(&self, roles: Roles, scope: Scope) -> Result<(), Problem> {
        if roles == Roles::Public {
            return Ok(());
        }
        let Some(role) = self.role else {
            return Err(not_signed_in("the request carries no credential"));
        };
        if !roles.admit(role) {
            return Err(Problem::new(
                ProblemType::RoleForbidden,
                format!("{} is {role}, who may not do this", self.name),
                "ask somebody with one of the roles that may",
            )
            .allowing(roles.allowed().iter().map(|role| role.as_str())));
        }
        match &self.scopes {
            Some(scopes) if !scopes.contains(&scope) => Err(Problem::new(
                ProblemType::ScopeForbidden,
                "the token is for other things",
                format!("make a token with scope {scope}"),
            )
            .allowing([scope.as_str()])),
            _ => Ok(()),
        }
    }
}

/// The problem of a request without a valid credential.
pub fn not_signed_in(cause: &str) -> Problem {
    Problem::new(
        ProblemType::NotSignedIn,
        cause,
        "send `Authorization: Bearer` with a session's access token or an API token",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(role: Role, scopes: Option<Vec<Scope>>) -> Actor {
        Actor {
            role: Some(role),
            scopes,
            ..Actor::anonymous(None)
        }
    }

    #[test]
    fn a_token_may_do_what_role_and_scopes_both_allow() {
        let reads = |actor: &Actor| {
            actor
                .may(Roles::Everybody, Scope::VolumesRead)
                .map_err(|problem| problem.kind)
        };
        let operates = |actor: &Actor| {
            actor
                .may(Roles::Operators, Scope::VolumesOperate)
                .map_err(|problem| problem.kind)
        };
        assert_eq!(reads(&actor(Role::Viewer, None)), Ok(()));
        assert_eq!(
            operates(&actor(Role::Viewer, None)),
            Err(ProblemType::RoleForbidden)
        );
        assert_eq!(operates(&actor(Role::Operator, None)), Ok(()));
        let scoped = actor(Role::Operator, Some(vec![Scope::VolumesRead]));
        assert_eq!(reads(&scoped), Ok(()));
        assert_eq!(operates(&scoped), Err(ProblemType::ScopeForbidden));
        let beyond_its_role = actor(Role::Viewer, Some(vec![Scope::VolumesOperate]));
        assert_eq!(operates(&beyond_its_role), Err(ProblemType::RoleForbidden));
        assert_eq!(reads(&Actor::anonymous(None)), Err(ProblemType::NotSignedIn));
    }
}
