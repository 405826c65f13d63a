//! Who the private Postgres runs as.
//!
//! Postgres refuses to run as root. Started as root it therefore runs as another user, who must be able to reach its
//! folder; otherwise it runs as whoever runs the appliance.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::{Uid, User};

use super::PostgresError;

/// Whom Debian's packages make for it. Not somebody whom other services run as too: they could read the catalog.
const UNPRIVILEGED: &str = "postgres";

/// An account of the operating system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl Account {
    /// Whoever runs this process.
    pub fn own() -> Result<Self, PostgresError> {
        let uid = Uid::effective();
        let user = User::from_uid(uid).ok().flatten();
        user.map(Self::from).ok_or(PostgresError::NoUser(uid.as_raw()))
    }

    /// Who Postgres is to be.
    pub fn for_postgres() -> Result<Self, PostgresError> {
        let own = Self::own()?;
        if own.uid != 0 {
            return Ok(own);
        }
        let user = User::from_name(UNPRIVILEGED).ok().flatten();
        user.map(Self::from).ok_or(PostgresError::NoUnprivileged)
    }

    /// Whether this user may pass through every folder on the way to `path`.
    pub fn check_way_to(&self, path: &Path) -> Result<(), PostgresError> {
        for folder in path.ancestors().skip(1).filter(|folder| folder.has_root()) {
            let Ok(meta) = folder.metadata() else { continue };
            let bit = match () {
                () if meta.uid() == self.uid => 0o100,
                () if meta.gid() == self.gid => 0o010,
                () => 0o001,
            };
            if meta.mode() & bit == 0 {
                return Err(PostgresError::NoWay {
                    user: self.name.clone(),
                    folder: folder.to_owned(),
                });
            }
        }
        Ok(())
    }
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        Self {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_closed_folder_on_the_way_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let closed = folder.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        let somebody = Account {
            name: "somebody".into(),
            uid: 54321,
            gid: 54321,
        };
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
        somebody.check_way_to(&closed).unwrap();
        let refused = somebody.check_way_to(&closed.join("pg")).unwrap_err();
        assert!(matches!(refused, PostgresError::NoWay { folder, .. } if folder == closed));
    }
}
