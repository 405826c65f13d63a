//! Appliances that somebody has signed in to: `profiles.toml`, readable to its owner only.
//!
//! The file is changed under a lock and by renaming a new one over it: it is whole at every moment, and no two programs
//! exchange one refresh token.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use ashlar_openapi::client::{LockedSession, SessionStore, Tokens};
use serde::{Deserialize, Serialize};

/// The profile that counts where none is named.
pub(crate) const USUAL: &str = "default";

/// One appliance, and who is signed in to it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    pub(crate) url: String,
    /// Of the server's certificate, where the system does not trust it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<String>,
    /// A file of certificates to trust.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    pub(crate) user: String,
    /// Absent after signing out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<Tokens>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default)]
    profiles: BTreeMap<String, Profile>,
}

/// The file of profiles.
#[derive(Debug, Clone)]
pub(crate) struct Profiles {
    folder: PathBuf,
}

impl Profiles {
    /// In `$XDG_CONFIG_HOME/ashlar`, or `~/.config/ashlar`. `None` where there is no home.
    pub(crate) fn of_user() -> Option<Self> {
        let set = |name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let config = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
        Some(Self::in_folder(config.join("ashlar")))
    }

    pub(crate) fn in_folder(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join("profiles.toml")
    }

    pub(crate) fn get(&self, name: &str) -> io::Result<Option<Profile>> {
        Ok(self.read()?.profiles.remove(name))
    }

    /// The first profile of the appliance at `url`.
    pub(crate) fn at(&self, url: &str) -> io::Result<Option<(String, Profile)>> {
        let same = |profile: &Profile| profile.url.trim_end_matches('/') == url.trim_end_matches('/');
        Ok(self
            .read()?
            .profiles
            .into_iter()
            .find(|(_, profile)| same(profile)))
    }

    pub(crate) fn put(&self, name: &str, profile: Profile) -> io::Result<()> {
        let _lock = self.lock()?;
        let mut content = self.read()?;
        content.profiles.insert(name.to_owned(), profile);
        self.write(&content)
    }

    /// Where the session of a profile is kept.
    pub(crate) fn session(&self, name: &str) -> ProfileSession {
        ProfileSession {
            profiles: self.clone(),
            name: name.to_owned(),
        }
    }

    fn read(&self) -> io::Result<Content> {
        match fs::read_to_string(self.path()) {
            Ok(text) => toml::from_str(&text).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Content::default()),
            Err(error) => Err(error),
        }
    }

    fn write(&self, content: &Content) -> io::Result<()> {
        let new = self.folder.join("profiles.toml.new");
        let text = toml::to_string(content).map_err(io::Error::other)?;
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(new, self.path())
    }

    fn lock(&self) -> io::Result<File> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(self.folder.join("profiles.lock"))?;
        file.lock()?;
        Ok(file)
    }
}

/// The session of one profile.
#[derive(Debug, Clone)]
pub(crate) struct ProfileSession {
    profiles: Profiles,
    name: String,
}

impl SessionStore for ProfileSession {
    fn lock(&self) -> io::Result<Box<dyn LockedSession>> {
        Ok(Box::new(Locked {
            _lock: self.profiles.lock()?,
            session: self.clone(),
        }))
    }
}

struct Locked {
    _lock: File,
    session: ProfileSession,
}

impl Locked {
    fn change(&self, session: Option<Tokens>) -> io::Result<()> {
        let ProfileSession { profiles, name } = &self.session;
        let mut content = profiles.read()?;
        content
            .profiles
            .get_mut(name)
            .ok_or(io::ErrorKind::NotFound)?
            .session = session;
        profiles.write(&content)
    }
}

impl LockedSession for Locked {
    fn read(&self) -> io::Result<Tokens> {
        let profile = self.session.profiles.get(&self.session.name)?;
        profile
            .and_then(|profile| profile.session)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write(&mut self, tokens: &Tokens) -> io::Result<()> {
        self.change(Some(tokens.clone()))
    }
}

impl ProfileSession {
    /// Forgets the session, and tells what it was.
    pub(crate) fn forget(&self) -> io::Result<Tokens> {
        let locked = Locked {
            _lock: self.profiles.lock()?,
            session: self.clone(),
        };
        let was = locked.read()?;
        locked.change(None)?;
        Ok(was)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use ashlar_openapi::Timestamp;
    use time::OffsetDateTime;

    use super::*;

    fn tokens(refresh: &str) -> Tokens {
        Tokens {
            access_token: "a".to_owned(),
            access_expires_at: Timestamp(OffsetDateTime::UNIX_EPOCH),
            refresh_token: refresh.to_owned(),
        }
    }

    fn profile() -> Profile {
        Profile {
            url: "https://ashlar:8443".to_owned(),
            fingerprint: Some("AB".to_owned()),
            ca: None,
            user: "admin".to_owned(),
            session: Some(tokens("r0")),
        }
    }

    #[test]
    fn a_profile_is_kept_for_its_owner_alone_and_found_by_name_or_url() {
        let folder = tempfile::tempdir().unwrap();
        let profiles = Profiles::in_folder(folder.path().join("config/ashlar"));
        assert!(profiles.get("x").unwrap().is_none());
        profiles.put("x", profile()).unwrap();
        let mode = fs::metadata(profiles.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            profiles.get("x").unwrap().unwrap().fingerprint.as_deref(),
            Some("AB")
        );
        assert_eq!(profiles.at("https://ashlar:8443/").unwrap().unwrap().0, "x");
        assert!(profiles.at("https://other:8443").unwrap().is_none());
    }

    #[test]
    fn a_session_is_renewed_in_place_and_forgotten_once() {
        let folder = tempfile::tempdir().unwrap();
        let profiles = Profiles::in_folder(folder.path().to_owned());
        profiles.put("x", profile()).unwrap();
        profiles.put("y", profile()).unwrap();
        let session = profiles.session("x");
        session.lock().unwrap().write(&tokens("r1")).unwrap();
        assert_eq!(session.lock().unwrap().read().unwrap().refresh_token, "r1");
        assert_eq!(session.forget().unwrap().refresh_token, "r1");
        assert_eq!(
            session.forget().map(drop).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        assert_eq!(
            profiles
                .session("y")
                .lock()
                .unwrap()
                .read()
                .unwrap()
                .refresh_token,
            "r0"
        );
    }

    #[test]
    fn a_file_that_is_no_list_of_profiles_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let profiles = Profiles::in_folder(folder.path().to_owned());
        fs::write(profiles.path(), "profiles = 3").unwrap();
        assert!(profiles.put("x", profile()).is_err());
        assert_eq!(fs::read_to_string(profiles.path()).unwrap(), "profiles = 3");
    }
}
