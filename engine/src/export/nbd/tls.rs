//! TLS of the server: certificate, key and client authority from PEM to what a connection needs.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Whether a server speaks TLS.
#[derive(Debug, Clone, Default)]
pub enum Tls {
    #[default]
    Off,
    /// Clients choose; an export may still insist.
    Offered(Arc<ServerConfig>),
    /// Nothing is told to a client without it.
    Required(Arc<ServerConfig>),
}

/// Why PEM texts make no TLS server.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the certificate cannot be read: {0}")]
    Certificate(rustls_pki_types::pem::Error),
    #[error("the private key cannot be read: {0}")]
    Key(rustls_pki_types::pem::Error),
    #[error("the client authority cannot be read: {0}")]
    ClientAuthority(rustls_pki_types::pem::Error),
    #[error("the client authority cannot be used: {0}")]
    ClientVerifier(#[from] rustls::server::VerifierBuilderError),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// A configuration from a certificate chain and its key. With `client_authority` every client has to show a
/// certificate that it issued.
///
/// # Errors
/// Where a text is malformed, or certificate and key do not belong together.
pub fn server_config(
    certificates: &[u8],
    key: &[u8],
    client_authority: Option<&[u8]>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = CertificateDer::pem_slice_iter(certificates)
        .collect::<Result<Vec<_>, _>>()
        .map_err(TlsError::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(TlsError::Key)?;
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match client_authority {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for root in CertificateDer::pem_slice_iter(pem) {
                roots.add(root.map_err(TlsError::ClientAuthority)?)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    Ok(Arc::new(builder.with_single_cert(chain, key)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_no_key_and_one_of_another_certificate_are_refused() {
        let mine = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        let certificate = mine.cert.pem();
        let with_key = |key: &str| server_config(certificate.as_bytes(), key.as_bytes(), None);
        assert!(with_key(&mine.signing_key.serialize_pem()).is_ok());
        assert!(matches!(with_key("nonsense"), Err(TlsError::Key(_))));
        assert!(matches!(
            with_key(&other.signing_key.serialize_pem()),
            Err(TlsError::Tls(_))
        ));
    }

    #[test]
    fn a_client_authority_without_a_certificate_is_refused() {
        let mine = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        let (certificate, key) = (mine.cert.pem(), mine.signing_key.serialize_pem());
        let config = server_config(certificate.as_bytes(), key.as_bytes(), Some(b""));
        assert!(matches!(config, Err(TlsError::ClientVerifier(_))));
    }
}
