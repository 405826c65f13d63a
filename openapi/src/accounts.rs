//! Users, their tokens, signing in.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::access::{Role, Scope};
use crate::operation::content;
use crate::sort::NamedSort;
use crate::values::{Name, Natural, Page, Timestamp};

/// Shortest password, in characters.
pub const SHORTEST_PASSWORD: usize = 12;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    pub id: Uuid,
    pub name: Name,
    pub role: Role,
    pub enabled: bool,
    pub last_sign_in_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A user to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// Chosen by the client: a repeated request then finds what the first one made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub id: Option<Uuid>,
    pub name: Name,
    /// At least 12 characters.
    #[schema(min_length = 1, max_length = 1024)]
    pub password: String,
    pub role: Role,
}

/// An edit of a user. A new password or role, or disabling, ends the user's sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub role: Option<Role>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub enabled: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 1024)]
    pub password: Option<String>,
}

/// A named token for automation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    pub id: Uuid,
    pub name: Name,
    pub user: Uuid,
    pub scopes: Vec<Scope>,
    pub expires_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
    pub created_at: Timestamp,
}

/// A token to be made, for oneself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// Chosen by the client: a repeated request is refused then instead of making another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub id: Option<Uuid>,
    pub name: Name,
    #[schema(min_items = 1, max_items = 64)]
    pub scopes: Vec<Scope>,
    /// Never, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub expires_at: Option<Timestamp>,
}

/// The answer that tells a token's secret: it is told once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenMade {
    pub token: Token,
    /// Goes into `Authorization: Bearer`.
    pub secret: String,
}

/// Name and password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    #[schema(max_length = 64)]
    pub name: String,
    #[schema(max_length = 1024)]
    pub password: String,
}

/// A refresh token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    #[schema(max_length = 256)]
    pub refresh_token: String,
}

/// What signing in gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Goes into `Authorization: Bearer`.
    pub access_token: String,
    pub expires_in_s: Natural,
    /// Good once: each use gives another.
    pub refresh_token: String,
    pub refresh_expires_at: Timestamp,
    pub user: User,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// `null` for users of the operating system at the maintenance socket.
    pub user: Option<User>,
    pub name: String,
    pub role: Role,
    /// Of the token in use; empty where the role alone counts.
    pub scopes: Vec<Scope>,
}

/// One's own new password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    #[schema(max_length = 1024)]
    pub old: String,
    #[schema(min_length = 1, max_length = 1024)]
    pub new: String,
}

/// Which users.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct UserFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, inline)]
    pub role: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, inline)]
    pub sort: Option<NamedSort>,
}

/// Which tokens: one's own, and for admins everybody's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct TokenFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub user: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false)]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(nullable = false, inline)]
    pub sort: Option<NamedSort>,
}

content!(
    User,
    Page<User>,
    NewUser,
    UserChange,
    Token,
    Page<Token>,
    NewToken,
    TokenMade,
    SignIn,
    Refresh,
    Session,
    Me,
    PasswordChange
);
