//! Only trusted servers get a request.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use uuid::Uuid;

use super::fake::{json as say, over_tls};
use super::{QUICK, device};
use crate::client::{
    Call, CertificateDer, Client, ClientError, Credential, Fingerprint, Place, Trust, shown_fingerprint,
};
use crate::operations::GetDevice;

fn server(certificate: CertificateDer<'static>, key: &KeyPair) -> rustls::ServerConfig {
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ServerConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap()
}

async fn ask(url: &str, trust: Trust) -> Result<u32, ClientError> {
    let place = Place::Url {
        url: url.to_owned(),
        trust,
    };
    let client = Client::new(&place, Credential::None)?.repeating(QUICK);
    let answer = client.call(Call::<GetDevice>::at(&[Uuid::nil()])).await?;
    Ok(answer.body.number.0)
}

#[tokio::test]
async fn a_server_is_trusted_by_its_certificate_or_its_fingerprint_whatever_its_name() {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["elsewhere".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let (url, log) = over_tls(server(certificate.der().clone(), &key), |_, _| {
        say(200, "", &device(4))
    })
    .await;
    let fingerprint = Fingerprint::of(certificate.der());
    assert_eq!(shown_fingerprint(&url).await.unwrap(), fingerprint);
    let begun = log.lock().unwrap().len();
    let pem = Trust::from_pem(certificate.pem().as_bytes()).unwrap();
    for trust in [pem, Trust::Fingerprint(fingerprint), Trust::Anybody] {
        assert_eq!(ask(&url, trust).await.unwrap(), 4);
    }
    let other = KeyPair::generate().unwrap();
    let other = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .self_signed(&other)
        .unwrap();
    let other_pem = Trust::from_pem(other.pem().as_bytes()).unwrap();
    for trust in [
        Trust::System,
        other_pem,
        Trust::Fingerprint(Fingerprint::of(other.der())),
    ] {
        let error = ask(&url, trust).await.unwrap_err();
        assert!(matches!(error, ClientError::Tls { .. }), "{error}");
    }
    assert_eq!(log.lock().unwrap().len(), begun + 3);
}

#[tokio::test]
async fn an_authority_vouches_for_servers_by_their_names() {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    for (name, trusted) in [("localhost", true), ("elsewhere", false)] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let (url, _) = over_tls(server(certificate.der().clone(), &key), |_, _| {
            say(200, "", &device(4))
        })
        .await;
        let trust = Trust::from_pem(authority.pem().as_bytes()).unwrap();
        let asked = ask(&url, trust).await;
        assert_eq!(asked.is_ok(), trusted, "{name}");
    }
}
