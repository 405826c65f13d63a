//! The appliance's certificate: its own, made at the first start and again when it has expired, or one that is given.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ashlar_engine::export::nbd::tls::{self, TlsError};
use rcgen::{CertificateParams, DnType, KeyPair};
use ring::digest::{SHA256, digest};
use rustls::ServerConfig;
use time::{Duration, OffsetDateTime};
use x509_parser::pem::Pem;

use crate::auth::secrets::hex;
use crate::files::{self, FileError};

/// How long the appliance's own certificate is good.
const LIFE: Duration = Duration::days(3650);

/// Where a certificate comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// The appliance's own, in this folder, for clients that reach it by these names too.
    Own { folder: PathBuf, hosts: Vec<String> },
    /// Files in PEM.
    Given { certificate: PathBuf, key: PathBuf },
}

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error(
        "the certificate {path} expired at {at}: renew it, or start without it to use one of the appliance's own"
    )]
    Expired { path: String, at: String },
    #[error("{path}: {source}")]
    Unreadable { path: String, source: std::io::Error },
    #[error("{path} is no certificate in PEM")]
    NoCertificate { path: String },
    #[error("the certificate cannot be used: {0}")]
    Tls(#[from] TlsError),
    #[error("a certificate could not be made: {0}")]
    Made(#[from] rcgen::Error),
    #[error(transparent)]
    File(#[from] FileError),
}

/// A certificate with what its clients need to know of it.
pub struct Certificate {
    /// For the API.
    pub config: Arc<ServerConfig>,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// The chain in PEM.
    pub pem: Vec<u8>,
    pub key: Vec<u8>,
}

/// Reads the certificate, or makes the appliance's own.
///
/// # Errors
/// Where there is none that could be served with now.
pub fn load(origin: &Origin) -> Result<Certificate, CertificateError> {
    let (certificate, key) = match origin {
        Origin::Given { certificate, key } => (certificate.clone(), key.clone()),
        Origin::Own { folder, hosts } => {
            let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
            let usable =
                certificate.exists() && key.exists() && expiry(&certificate)? > OffsetDateTime::now_utc();
            if !usable {
                make(&certificate, &key, hosts)?;
            }
            (certificate, key)
        }
    };
    let ends = expiry(&certificate)?;
    if ends <= OffsetDateTime::now_utc() {
        return Err(CertificateError::Expired {
            path: certificate.display().to_string(),
            at: ends.to_string(),
        });
    }
    let (chain, secret) = (read(&certificate)?, read(&key)?);
    let config = tls::server_config(&chain, &secret, None)?;
    let first = first_certificate(&certificate, &chain)?;
    Ok(Certificate {
        fingerprint: hex(digest(&SHA256, &first.contents).as_ref()),
        config: with_alpn(&config),
        pem: chain,
        key: secret,
    })
}

/// What hosts are shown that ask for TLS. With an authority every host has to show a certificate that it issued.
///
/// # Errors
/// Where the authority cannot be read or used.
pub fn for_hosts(
    certificate: &Certificate,
    authority: Option<&Path>,
) -> Result<Arc<ServerConfig>, CertificateError> {
    let authority = authority.map(read).transpose()?;
    Ok(tls::server_config(
        &certificate.pem,
        &certificate.key,
        authority.as_deref(),
    )?)
}

fn with_alpn(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|source| CertificateError::Unreadable {
        path: path.display().to_string(),
        source,
    })
}

fn first_certificate(path: &Path, chain: &[u8]) -> Result<Pem, CertificateError> {
    let found = Pem::iter_from_buffer(chain).next().and_then(Result::ok);
    found
        .filter(|pem| pem.label == "CERTIFICATE")
        .ok_or_else(|| CertificateError::NoCertificate {
            path: path.display().to_string(),
        })
}

fn expiry(path: &Path) -> Result<OffsetDateTime, CertificateError> {
    let pem = first_certificate(path, &read(path)?)?;
    let parsed = pem.parse_x509().map_err(|_| CertificateError::NoCertificate {
        path: path.display().to_string(),
    })?;
    Ok(parsed.validity().not_after.to_datetime())
}

fn make(certificate: &Path, key: &Path, hosts: &[String]) -> Result<(), CertificateError> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for name in std::iter::once(&own).chain(hosts) {
        let unspecified = name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_unspecified());
        if !name.is_empty() && !unspecified && !names.contains(name) {
            names.push(name.clone());
        }
    }
    let mut params = CertificateParams::new(names)?;
    params
        .distinguished_name
        .push(DnType::CommonName, format!("ashlar on {own}"));
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::days(1);
    params.not_after = now + LIFE;
    let pair = KeyPair::generate()?;
    let made = params.self_signed(&pair)?;
    // The key first: a certificate without its key would not be usable, and is made again.
    files::write(key, pair.serialize_pem().as_bytes())?;
    Ok(files::write(certificate, made.pem().as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(folder: &tempfile::TempDir) -> Origin {
        Origin::Own {
            folder: folder.path().to_owned(),
            hosts: vec!["192.0.2.7".into(), "0.0.0.0".into()],
        }
    }

    #[test]
    fn the_appliances_own_certificate_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = load(&own(&folder)).unwrap().fingerprint;
        assert_eq!(load(&own(&folder)).unwrap().fingerprint, first);
        assert_eq!(first.len(), 64);
        std::fs::remove_file(folder.path().join("key.pem")).unwrap();
        assert_ne!(load(&own(&folder)).unwrap().fingerprint, first);
    }

    #[test]
    fn a_given_certificate_that_has_expired_is_refused_by_date() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.not_before = time::macros::datetime!(2020-01-01 0:00 UTC);
        params.not_after = time::macros::datetime!(2021-01-01 0:00 UTC);
        let pair = KeyPair::generate().unwrap();
        std::fs::write(&certificate, params.self_signed(&pair).unwrap().pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        let given = Origin::Given { certificate, key };
        let refused = load(&given).err().unwrap().to_string();
        assert!(refused.contains("expired at 2021-01-01"), "{refused}");
    }

    #[test]
    fn a_file_that_is_no_certificate_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
        std::fs::write(&certificate, "nonsense").unwrap();
        std::fs::write(&key, "nonsense").unwrap();
        let refused = load(&Origin::Given { certificate, key }).err().unwrap();
        assert!(
            matches!(refused, CertificateError::NoCertificate { .. }),
            "{refused}"
        );
    }
}
