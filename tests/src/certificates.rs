//! Certificates for a test: an authority, a server's and a client's, as files under the names that clients look for.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use tempfile::TempDir;

/// A folder with `ca-cert.pem`, `server-cert.pem`, `server-key.pem`, `client-cert.pem` and `client-key.pem`.
#[derive(Debug)]
pub struct Certificates {
    dir: TempDir,
}

impl Certificates {
    pub fn make() -> Self {
        Self::good_until(4095)
    }

    /// The server's and the client's were good until the beginning of 2021.
    pub fn expired() -> Self {
        Self::good_until(2021)
    }

    fn good_until(year: i32) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let mut authority = named("Ashlar test authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(authority, key()).expect("the parameters are valid");
        write(dir.path(), "ca-cert.pem", &issuer.pem());
        for (who, purpose) in [
            ("server", ExtendedKeyUsagePurpose::ServerAuth),
            ("client", ExtendedKeyUsagePurpose::ClientAuth),
        ] {
            let mut params = named(&format!("Ashlar test {who}"));
            params.extended_key_usages = vec![purpose];
            params.not_after = date_time_ymd(year, 1, 1);
            let key = key();
            let certificate = params.signed_by(&key, &issuer).expect("the parameters are valid");
            write(dir.path(), &format!("{who}-cert.pem"), &certificate.pem());
            write(dir.path(), &format!("{who}-key.pem"), &key.serialize_pem());
        }
        Self { dir }
    }

    /// What clients call the certificates' directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn named(name: &str) -> CertificateParams {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).expect("both are valid names");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key can be generated")
}

fn write(dir: &Path, name: &str, pem: &str) {
    std::fs::write(dir.join(name), pem).expect("a temporary file can be written");
}
