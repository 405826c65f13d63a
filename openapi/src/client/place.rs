//! Where an appliance is: at a URL, or at its maintenance socket.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use reqwest::redirect::Policy;
use rustls::crypto::ring;

use super::error::ClientError;
use super::trust::{Fingerprint, Trust};
use crate::document::BASE;

/// Longest time until a connection stands.
const CONNECT: Duration = Duration::from_secs(10);

/// Where an appliance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `https://HOST:PORT`, or `http://HOST:PORT` without any protection.
    Url { url: String, trust: Trust },
    /// Path of the maintenance socket.
    Socket(PathBuf),
}

impl Place {
    /// For messages.
    pub fn describe(&self) -> String {
        match self {
            Self::Url { url, .. } => url.trim_end_matches('/').to_owned(),
            Self::Socket(path) => path.display().to_string(),
        }
    }

    /// The URL below which all operations stand, without a slash at its end.
    pub(super) fn base(&self) -> Result<Url, ClientError> {
        let text = match self {
            Self::Url { url, .. } => url.trim_end_matches('/'),
            Self::Socket(_) => "http://localhost",
        };
        let wrong = |why: &str| ClientError::Setting(format!("{text:?} is no URL of an appliance: {why}"));
        let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
            return Err(wrong("write it as https://HOST:PORT"));
        }
        if url.path() != "/"
            || url.query().is_some()
            || url.fragment().is_some()
            || !url.username().is_empty()
        {
            return Err(wrong("nothing but host and port stands in it"));
        }
        url.join(BASE).map_err(|error| wrong(&error.to_string()))
    }

    pub(super) fn http(&self) -> Result<reqwest::Client, ClientError> {
        // The library takes the process's provider where none is set with the connection. It stays if there is one.
        let _ = ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .redirect(Policy::none())
            .user_agent(concat!("ashlar/", env!("CARGO_PKG_VERSION")));
        match self {
            Self::Socket(path) => builder = builder.no_proxy().unix_socket(path.clone()),
            Self::Url { trust, .. } => {
                if let Some(config) = trust.config()? {
                    builder = builder.tls_backend_preconfigured(config);
                }
                builder = builder.tls_info(true);
            }
        }
        builder
            .build()
            .map_err(|error| ClientError::of(&self.describe(), &error))
    }
}

/// The fingerprint of the certificate that the server at `url` shows, without trusting it. Nothing is told to it.
pub async fn shown_fingerprint(url: &str) -> Result<Fingerprint, ClientError> {
    let place = Place::Url {
        url: url.to_owned(),
        trust: Trust::Anybody,
    };
    let base = place.base()?;
    let answered = place.http()?.head(base).timeout(CONNECT).send().await;
    let response = answered.map_err(|error| ClientError::of(&place.describe(), &error))?;
    let shown = response
        .extensions()
        .get::<reqwest::tls::TlsInfo>()
        .and_then(|tls| tls.peer_certificate());
    shown.map(Fingerprint::of).ok_or_else(|| ClientError::Tls {
        place: place.describe(),
        reason: "it shows no certificate".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(url: &str) -> Result<Url, ClientError> {
        Place::Url {
            url: url.to_owned(),
            trust: Trust::System,
        }
        .base()
    }

    #[test]
    fn urls_name_host_and_port_and_nothing_else() {
        assert_eq!(
            base("https://ashlar:8443/").unwrap().as_str(),
            "https://ashlar:8443/api/v1"
        );
        assert_eq!(base("http://[::1]:80").unwrap().as_str(), "http://[::1]/api/v1");
        for wrong in [
            "ashlar:8443",
            "ashlar",
            "ftp://ashlar",
            "https://ashlar/x",
            "https://a@ashlar",
            "https://",
            "",
        ] {
            assert!(matches!(base(wrong), Err(ClientError::Setting(_))), "{wrong}");
        }
    }
}
