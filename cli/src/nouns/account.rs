//! `ashlar login`, `logout` and `whoami`

use std::io::{self, IsTerminal as _};

use ashlar_openapi::Name;
use ashlar_openapi::accounts::{Refresh, Session, SignIn};
use ashlar_openapi::client::{
    Call, Client, ClientError, Credential, Place, Tokens, Trust, shown_fingerprint,
};
use ashlar_openapi::operations::{GetMe, SignInWithPassword, SignOut};
use clap::{ArgMatches, Args};

use crate::Context;
use crate::connect::Target;
use crate::failure::Failure;
use crate::output::{Output, line, note};
use crate::profiles::{Profile, Profiles, USUAL};
use crate::secret::{PasswordFrom, ask_line, confirm};

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The appliance
    #[arg(value_name = "https://HOST:PORT")]
    at: String,
    /// Who signs in; asked for unless given
    #[arg(long)]
    user: Option<String>,
    #[command(flatten)]
    password: PasswordFrom,
}

impl Login {
    pub(crate) async fn run(self, target: &Target, out: Output) -> Result<(), Failure> {
        let profiles = profiles()?;
        let name = target.profile.clone().unwrap_or_else(|| USUAL.to_owned());
        name.parse::<Name>()
            .map_err(|error| Failure::usage(format!("profile {name:?}: {error}")))?;
        let (place, fingerprint) = trusted(target, &self.at).await?;
        let user = match self.user {
            Some(user) => user,
            None => ask_line("User: ")?,
        };
        let password = self.password.known("Password: ")?;
        let client = Client::new(&place, Credential::None)?;
        let sign_in = SignIn {
            name: user.clone(),
            password,
        };
        let answer = client
            .call(Call::<SignInWithPassword>::with(&[], sign_in))
            .await?;
        let ca = target.ca.as_ref().map(std::path::absolute).transpose()?;
        let profile = profile(&self.at, fingerprint, ca, user, &answer.body);
        profiles
            .put(&name, profile)
            .map_err(|error| Failure::file(profiles.path(), error))?;
        let Session { user, .. } = answer.body;
        match out {
            Output::People => line(&format!(
                "signed in to {} as {} ({}), profile {name}",
                self.at, user.name, user.role
            )),
            Output::Ids => line(&user.id.to_string()),
            // The session is nobody's to read: who signed in is.
            Output::Json => {
                line(&serde_json::to_string(&user).map_err(|error| Failure::Terminal(error.into()))?)
            }
        }
    }
}

fn profile(
    url: &str,
    fingerprint: Option<String>,
    ca: Option<std::path::PathBuf>,
    user: String,
    session: &Session,
) -> Profile {
    Profile {
        url: url.trim_end_matches('/').to_owned(),
        fingerprint,
        ca,
        user,
        session: Some(Tokens::of(session)),
    }
}

fn profiles() -> Result<Profiles, Failure> {
    Profiles::of_user()
        .ok_or_else(|| Failure::usage("there is no home folder to keep the profile in: set HOME"))
}

/// The place to sign in at, and the fingerprint to remember where nobody vouches for its certificate.
async fn trusted(target: &Target, url: &str) -> Result<(Place, Option<String>), Failure> {
    let place = target.place(url, Trust::System)?;
    if let Some(fingerprint) = target.fingerprint {
        return Ok((place, Some(fingerprint.to_string())));
    }
    if target.ca.is_some() || !url.starts_with("https://") {
        return Ok((place, None));
    }
    // Any answer at all came over a trusted connection.
    let asked = Client::new(&place, Credential::None)?
        .call(Call::<GetMe>::at(&[]))
        .await;
    match asked {
        Err(ClientError::Tls { .. }) => {}
        Err(error @ (ClientError::Connect { .. } | ClientError::Lost { .. })) => return Err(error.into()),
        _ if !target.insecure => return Ok((place, None)),
        _ => {}
    }
    let shown = shown_fingerprint(url).await?;
    note(&format!(
        "{url} shows a certificate that nobody vouches for, with the SHA-256 fingerprint\n  {shown}"
    ));
    if !target.insecure {
        if !io::stdin().is_terminal() {
            return Err(Failure::usage(format!(
                "there is no terminal to ask whether it is right: give --fingerprint {shown}"
            )));
        }
        confirm("Is it the appliance's?", false)?;
    }
    let place = Place::Url {
        url: url.to_owned(),
        trust: Trust::Fingerprint(shown),
    };
    Ok((place, Some(shown.to_string())))
}

#[derive(Debug, Args)]
pub(crate) struct Logout {}

impl Logout {
    /// Ends the session of the profile; it is forgotten here even where the appliance cannot be told.
    pub(crate) async fn run(self, target: &Target, matches: &ArgMatches) -> Result<(), Failure> {
        let profiles = profiles()?;
        let name = target.profile.clone().unwrap_or_else(|| USUAL.to_owned());
        let named = Target {
            url: None,
            data: None,
            token: None,
            profile: Some(name.clone()),
            ..target.clone()
        };
        let (client, _) = named.client(matches)?;
        let forgotten = profiles.session(&name).forget();
        let was = forgotten.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ClientError::Session(error).into(),
            _ => Failure::file(profiles.path(), error),
        })?;
        client
            .call(Call::<SignOut>::with(
                &[],
                Refresh {
                    refresh_token: was.refresh_token,
                },
            ))
            .await?;
        Ok(())
    }
}

pub(crate) async fn whoami(cx: &Context) -> Result<(), Failure> {
    let answer = cx.client.call(Call::<GetMe>::at(&[])).await?;
    let id = answer.body.user.as_ref().map(|user| user.id.to_string());
    cx.out.object(&answer.text, &id.unwrap_or_default())
}
