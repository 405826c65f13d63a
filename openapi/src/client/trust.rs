//! Which servers are trusted: by the system's authorities, by certificates given, or by the fingerprint of theirs.
//!
//! A certificate that is known by itself is trusted whatever names and dates it carries: appliances sign their own.
//! The handshake's signature is checked in every case, so that a server always holds the key of its certificate.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::error::ClientError;

/// SHA-256 of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; SHA256_OUTPUT_LEN]);

impl Fingerprint {
    /// Of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    /// As `AB:CD:…`, the way other tools write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, byte) in self.0.iter().enumerate() {
            let colon = if place == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

/// A text is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is the SHA-256 of a certificate: 64 hexadecimal digits, with or without colons")]
pub struct NotAFingerprint;

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, NotAFingerprint> {
        let digits: Vec<u8> = text
            .chars()
            .filter(|c| *c != ':')
            .map(|c| u8::try_from(c.to_digit(16)?).ok())
            .collect::<Option<_>>()
            .ok_or(NotAFingerprint)?;
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
            .collect();
        if digits.len() != 2 * SHA256_OUTPUT_LEN {
            return Err(NotAFingerprint);
        }
        Ok(Self(bytes.try_into().map_err(|_| NotAFingerprint)?))
    }
}

/// Which servers are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Those whom the system's authorities vouch for.
    System,
    /// Those that show one of these certificates, or one that these vouch for.
    Certificates(Vec<CertificateDer<'static>>),
    /// The one whose certificate has this fingerprint.
    Fingerprint(Fingerprint),
    /// Any.
    Anybody,
}

impl Trust {
    /// Trust in the certificates of a PEM file.
    pub fn from_pem(pem: &[u8]) -> Result<Self, ClientError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        match found {
            Ok(certificates) if !certificates.is_empty() => Ok(Self::Certificates(certificates)),
            Ok(_) => Err(ClientError::Setting(
                "there is no certificate in the PEM file".to_owned(),
            )),
            Err(error) => Err(ClientError::Setting(format!(
                "the certificates cannot be read: {error}"
            ))),
        }
    }

    /// The settings of TLS that carry this trust; `None` where they are the library's own.
    pub(super) fn config(&self) -> Result<Option<ClientConfig>, ClientError> {
        let known = match self {
            Self::System => return Ok(None),
            Self::Certificates(certificates) => {
                Known::Certificates(certificates.clone(), authorities(certificates))
            }
            Self::Fingerprint(fingerprint) => Known::Fingerprint(*fingerprint),
            Self::Anybody => Known::Anybody,
        };
        let crypto = Arc::new(provider::default_provider());
        let verifier = Verifier {
            known,
            crypto: Arc::clone(&crypto),
        };
        let mut config = ClientConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()
            .map_err(|error| ClientError::Setting(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Some(config))
    }
}

/// Checks against the certificates that can be authorities; `None` where none can.
fn authorities(certificates: &[CertificateDer<'static>]) -> Option<Arc<WebPkiServerVerifier>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    let crypto = Arc::new(provider::default_provider());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), crypto)
        .build()
        .ok()
}

#[derive(Debug)]
enum Known {
    Certificates(Vec<CertificateDer<'static>>, Option<Arc<WebPkiServerVerifier>>),
    Fingerprint(Fingerprint),
    Anybody,
}

#[derive(Debug)]
struct Verifier {
    known: Known,
    crypto: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.known {
            Known::Anybody => Ok(ServerCertVerified::assertion()),
            Known::Certificates(known, _) if known.contains(certificate) => {
                Ok(ServerCertVerified::assertion())
            }
            Known::Certificates(_, Some(authorities)) => {
                authorities.verify_server_cert(certificate, chain, name, ocsp, now)
            }
            Known::Certificates(_, None) => Err(rustls::Error::General(
                "the server's certificate is none of those given".to_owned(),
            )),
            Known::Fingerprint(wanted) => match Fingerprint::of(certificate) {
                shown if shown == *wanted => Ok(ServerCertVerified::assertion()),
                shown => Err(rustls::Error::General(format!(
                    "the server's certificate has the fingerprint {shown}, and not {wanted}"
                ))),
            },
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.crypto.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.crypto.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_they_are_written_and_without_colons() {
        let fingerprint = Fingerprint::of(b"certificate");
        let written = fingerprint.to_string();
        assert_eq!(written.len(), 95);
        assert_eq!(written.parse(), Ok(fingerprint));
        assert_eq!(written.replace(':', "").to_lowercase().parse(), Ok(fingerprint));
        let not_hexadecimal = "G".repeat(64);
        for wrong in [
            "",
            "AB",
            &written[3..],
            &format!("{written}:00"),
            &not_hexadecimal,
        ] {
            assert_eq!(wrong.parse::<Fingerprint>(), Err(NotAFingerprint), "{wrong}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        assert!(matches!(Trust::from_pem(b"hello"), Err(ClientError::Setting(_))));
        let broken = b"-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n";
        assert!(matches!(Trust::from_pem(broken), Err(ClientError::Setting(_))));
    }
}
