//! Users, as the contract has them.

use ashlar_openapi::Role;

use crate::catalog::users;

/// A user's role.
pub fn role(role: users::Role) -> Role {
    match role {
        users::Role::Admin => Role::Admin,
        users::Role::Operator => Role::Operator,
        users::Role::Backup => Role::Backup,
        users::Role::Viewer => Role::Viewer,
    }
}
