//! Who may ask for what: roles of people, scopes of tokens.
//!
//! Every operation names the roles that may ask for it and one scope; a token may do what its owner's role and its own
//! scopes both allow.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a user is here for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Admin,
    /// Everything but accounts.
    Operator,
    /// Backup software: looks, and works with snapshot pairs and changed ranges.
    Backup,
    /// Looks.
    Viewer,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Admin, Self::Operator, Self::Backup, Self::Viewer];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Backup => "backup",
            Self::Viewer => "viewer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which roles may ask for an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roles {
    /// Whoever can reach the appliance; needs no sign-in.
    Public,
    /// Every role.
    Everybody,
    /// `admin` and `operator`.
    Operators,
    /// `admin`.
    Admins,
}

impl Roles {
    /// The roles that may; none where no sign-in is needed.
    pub fn allowed(self) -> &'static [Role] {
        match self {
            Self::Public => &[],
            Self::Everybody => &Role::ALL,
            Self::Operators => &[Role::Admin, Role::Operator],
            Self::Admins => &[Role::Admin],
        }
    }

    pub fn admit(self, role: Role) -> bool {
        self == Self::Public || self.allowed().contains(&role)
    }
}

/// Declares the scopes, each once.
macro_rules! scopes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// What a token may be used for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Scope {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
        }

        impl Scope {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        crate::values::words!(Scope, Self::ALL.iter().map(|scope| scope.as_str()), "What a token may be used for.");
    };
}

scopes! {
    ApplianceRead = "appliance:read",
    ApplianceOperate = "appliance:operate",
    DevicesRead = "devices:read",
    DevicesOperate = "devices:operate",
    RaidGroupsRead = "raid-groups:read",
    RaidGroupsOperate = "raid-groups:operate",
    VolumesRead = "volumes:read",
    VolumesOperate = "volumes:operate",
    ExportsRead = "exports:read",
    ExportsOperate = "exports:operate",
    JobsRead = "jobs:read",
    JobsOperate = "jobs:operate",
    EventsRead = "events:read",
    WebhooksOperate = "webhooks:operate",
    UsersManage = "users:manage",
    /// One's own account: tokens, password, sessions.
    SelfManage = "self:manage",
    AuditRead = "audit:read",
    MetricsRead = "metrics:read",
    SupportCreate = "support:create",
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let found = Self::ALL.iter().find(|scope| scope.as_str() == text);
        found.copied().ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

/// There is no such scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no scope {0:?}")]
pub struct UnknownScope(pub String);
