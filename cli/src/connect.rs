//! Which appliance a command is for, and how it is let in there.
//!
//! What stands on the command line counts before the environment, and that before what lies around: a profile named
//! `default`, then the maintenance socket of an appliance on this machine.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ashlar_openapi::client::{Client, Credential, Fingerprint, Place, Trust};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args};

use url::{Host, Url};

use crate::failure::Failure;
use crate::profiles::{Profile, Profiles, USUAL};

/// Where an appliance on this machine keeps its data.
pub(crate) const USUAL_DATA: &str = "data";
const SYSTEM_DATA: &str = "/var/lib/ashlar";
const SOCKET: &str = "ashlar.sock";

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which appliance")]
pub(crate) struct Target {
    /// The appliance at this URL
    #[arg(long, global = true, env = "ASHLAR_URL", value_name = "https://HOST:PORT")]
    pub(crate) url: Option<String>,
    /// The appliance that this profile names; `ashlar login` makes profiles
    #[arg(long, global = true, env = "ASHLAR_PROFILE", value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// The appliance with this data folder, through its maintenance socket
    #[arg(long, global = true, env = "ASHLAR_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// API token; safer in the environment than as an argument
    #[arg(long, global = true, env = "ASHLAR_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Trust servers with these certificates (PEM), or with certificates by these authorities
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Trust the server whose certificate has this fingerprint
    #[arg(long, global = true, value_name = "SHA256", conflicts_with = "ca")]
    pub(crate) fingerprint: Option<Fingerprint>,
    /// Talk to any server, and without TLS to other machines: passwords and tokens can be read on the way
    #[arg(long, global = true, conflicts_with_all = ["ca", "fingerprint"])]
    pub(crate) insecure: bool,
}

/// The one option that names the appliance.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    Url(String),
    Profile(String),
    Data(PathBuf),
    Nothing,
}

impl Target {
    /// A client of the appliance that is meant, and whether that is on this machine for certain.
    pub(crate) fn client(&self, matches: &ArgMatches) -> Result<(Client, bool), Failure> {
        let profiles = Profiles::of_user();
        let (place, credential) = match self.named(matches)? {
            Named::Url(url) => self.at_url(&url, profiles.as_ref())?,
            Named::Profile(name) => {
                let found = found(profiles.as_ref(), |profiles| profiles.get(&name))?;
                let (profiles, profile) = found.ok_or_else(|| no_profile(&name, profiles.as_ref()))?;
                self.with_profile(profiles, &name, &profile)?
            }
            Named::Data(folder) => (Place::Socket(folder.join(SOCKET)), Credential::None),
            Named::Nothing => match found(profiles.as_ref(), |profiles| profiles.get(USUAL))? {
                Some((profiles, profile)) => self.with_profile(profiles, USUAL, &profile)?,
                None => (Place::Socket(local_socket()), Credential::None),
            },
        };
        Ok((
            Client::new(&place, credential)?,
            matches!(place, Place::Socket(_)),
        ))
    }

    fn named(&self, matches: &ArgMatches) -> Result<Named, Failure> {
        let candidates = [
            ("url", self.url.clone().map(Named::Url)),
            ("profile", self.profile.clone().map(Named::Profile)),
            ("data", self.data.clone().map(Named::Data)),
        ];
        let on_line = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
        let given: Vec<_> = candidates
            .iter()
            .filter(|(id, named)| named.is_some() && on_line(id))
            .collect();
        if given.len() > 1 {
            return Err(Failure::usage("give only one of --url, --profile and --data"));
        }
        let first = given
            .first()
            .copied()
            .or_else(|| candidates.iter().find(|(_, named)| named.is_some()));
        Ok(first
            .and_then(|(_, named)| named.clone())
            .unwrap_or(Named::Nothing))
    }

    fn at_url(&self, url: &str, profiles: Option<&Profiles>) -> Result<(Place, Credential), Failure> {
        if let Some((profiles, (name, profile))) = found(profiles, |profiles| profiles.at(url))? {
            return self.with_profile(profiles, &name, &profile);
        }
        let credential = self.token.clone().map_or(Credential::None, Credential::Token);
        Ok((self.place(url, Trust::System)?, credential))
    }

    fn with_profile(
        &self,
        profiles: &Profiles,
        name: &str,
        profile: &Profile,
    ) -> Result<(Place, Credential), Failure> {
        let credential = match &self.token {
            Some(token) => Credential::Token(token.clone()),
            None => Credential::Session(Arc::new(profiles.session(name))),
        };
        let trust = match (&profile.fingerprint, &profile.ca) {
            (Some(text), _) => {
                Trust::Fingerprint(text.parse().map_err(|error| Failure::usage(format!("{error}")))?)
            }
            (None, Some(path)) => trust_in(path)?,
            (None, None) => Trust::System,
        };
        Ok((self.place(&profile.url, trust)?, credential))
    }

    /// The place at `url`, trusted as the options say, or else as `known`.
    pub(crate) fn place(&self, url: &str, known: Trust) -> Result<Place, Failure> {
        if !self.insecure && is_open(url) {
            return Err(Failure::usage(format!(
                "{url} is not protected by TLS; --insecure talks to it all the same"
            )));
        }
        let trust = match (&self.ca, &self.fingerprint) {
            _ if self.insecure => Trust::Anybody,
            (Some(path), _) => trust_in(path)?,
            (None, Some(fingerprint)) => Trust::Fingerprint(*fingerprint),
            (None, None) => known,
        };
        Ok(Place::Url {
            url: url.to_owned(),
            trust,
        })
    }
}

/// Looks into the profiles, where there are any.
fn found<T>(
    profiles: Option<&Profiles>,
    look: impl Fn(&Profiles) -> std::io::Result<Option<T>>,
) -> Result<Option<(&Profiles, T)>, Failure> {
    let Some(profiles) = profiles else {
        return Ok(None);
    };
    let found = look(profiles).map_err(|error| Failure::file(profiles.path(), error))?;
    Ok(found.map(|found| (profiles, found)))
}

fn no_profile(name: &str, profiles: Option<&Profiles>) -> Failure {
    let path = profiles.map_or_else(
        || "the profiles".to_owned(),
        |profiles| profiles.path().display().to_string(),
    );
    Failure::usage(format!(
        "there is no profile {name:?} in {path}\n  `ashlar login URL --profile {name}` makes it"
    ))
}

fn trust_in(path: &Path) -> Result<Trust, Failure> {
    let pem = fs::read(path).map_err(|error| Failure::file(path, error))?;
    Ok(Trust::from_pem(&pem)?)
}

/// The socket of the appliance in this folder's `data`, or else of the system's. Somebody else's socket may stand in a
/// folder that others write to, and would be told everything that is asked.
fn local_socket() -> PathBuf {
    let here = Path::new(USUAL_DATA).join(SOCKET);
    let owner = fs::metadata(&here).map(|found| found.uid());
    if owner.is_ok_and(|owner| owner == 0 || owner == rustix::process::geteuid().as_raw()) {
        here
    } else {
        Path::new(SYSTEM_DATA).join(SOCKET)
    }
}

/// Whether what is sent to `text` can be read on its way.
fn is_open(text: &str) -> bool {
    // What is no URL is refused where it is used.
    let Ok(url) = Url::parse(text) else {
        return false;
    };
    let is_here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "http" && !is_here
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _};

    use super::*;
    use crate::Cli;

    fn named(line: &str) -> Result<Named, Failure> {
        let matches = Cli::command().get_matches_from(line.split(' '));
        let mut cli = Cli::from_arg_matches(&matches).unwrap();
        // As if it stood in the environment.
        cli.target.url = cli.target.url.or_else(|| Some("https://env".to_owned()));
        cli.target.named(&matches)
    }

    #[test]
    fn the_command_line_counts_before_the_environment_wherever_the_option_stands() {
        assert_eq!(
            named("ashlar volume list").unwrap(),
            Named::Url("https://env".to_owned())
        );
        assert_eq!(
            named("ashlar volume list --data d").unwrap(),
            Named::Data("d".into())
        );
        assert_eq!(
            named("ashlar --profile p volume list").unwrap(),
            Named::Profile("p".to_owned())
        );
        assert_eq!(
            named("ashlar --url u volume list").unwrap(),
            Named::Url("u".to_owned())
        );
        assert!(named("ashlar --url u volume list --data d").is_err());
    }

    #[test]
    fn http_is_for_this_machine_unless_it_is_asked_for_by_name() {
        for open in [
            "http://ashlar:80",
            "http://192.0.2.1",
            "http://127.0.0.1.example/",
            "http://[2001:db8::1]:80",
            "HTTP://ashlar",
            " http://ashlar",
            "http://localhost@ashlar",
        ] {
            assert!(is_open(open), "{open}");
        }
        for closed in [
            "https://ashlar",
            "http://localhost:80",
            "http://127.0.0.1:80/",
            "http://[::1]:80",
        ] {
            assert!(!is_open(closed), "{closed}");
        }
    }
}
