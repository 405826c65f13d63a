//! TLS with certificates, against nbdkit.

use std::path::Path;

use ashlar_engine::device::remote::{ConnectError, RemoteDevice, RemoteOptions};
use ashlar_engine::nbd::NbdUri;
use ashlar_engine::nbd::client::{NegotiationError, OpenError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use crate::servers::{Server, nbdkit};
use crate::{connect, flush, on_data_thread, pattern, read, write};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes `{role}-cert.pem` and `{role}-key.pem`, signed by `authority`, to `folder`.
fn issue(authority: &Authority, role: &str, usage: ExtendedKeyUsagePurpose, folder: &Path) {
    let mut params = CertificateParams::new(vec!["storage.example".into()]).unwrap();
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    std::fs::write(folder.join(format!("{role}-cert.pem")), certificate.pem()).unwrap();
    std::fs::write(folder.join(format!("{role}-key.pem")), key.serialize_pem()).unwrap();
}

/// A folder that trusts `authority`; with a server's certificate of its own.
fn server_folder(authority: &Authority) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca-cert.pem"), authority.pem()).unwrap();
    issue(
        authority,
        "server",
        ExtendedKeyUsagePurpose::ServerAuth,
        folder.path(),
    );
    folder
}

fn client_folder(trusted: &Authority, identified_by: Option<&Authority>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca-cert.pem"), trusted.pem()).unwrap();
    if let Some(authority) = identified_by {
        issue(
            authority,
            "client",
            ExtendedKeyUsagePurpose::ClientAuth,
            folder.path(),
        );
    }
    folder
}

const TLS_SERVER: [&str; 8] = [
    "nbdkit",
    "-f",
    "--exit-with-parent",
    "--tls=require",
    "--tls-verify-peer",
    "--tls-certificates=.",
    "memory",
    "1M",
];

fn secured(mut uri: NbdUri, certificates: &Path, hostname: Option<&str>) -> NbdUri {
    uri.tls = true;
    uri.tls_certificates = Some(certificates.into());
    uri.tls_hostname = hostname.map(Into::into);
    uri
}

fn refusal(uri: &NbdUri) -> OpenError {
    match on_data_thread(RemoteDevice::connect(uri, RemoteOptions::default())) {
        Err(ConnectError::Open(error)) => error,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("connected"),
    }
}

#[test]
fn data_passes_where_both_ends_show_certificates_of_the_authority() {
    let authority = authority();
    let client = client_folder(&authority, Some(&authority));
    let on_unix = Server::on_unix_socket_in(server_folder(&authority), &TLS_SERVER);
    let on_tcp = Server::on_tcp_in(server_folder(&authority), &TLS_SERVER);
    for server in [on_unix, on_tcp] {
        let uri = secured(server.uri(), client.path(), Some("storage.example"));
        on_data_thread(async {
            let device = connect(&uri).await;
            let content = pattern(700 << 10, 9);
            write(&device, 4096, &content).await.unwrap();
            flush(&device).await.unwrap();
            assert_eq!(read(&device, 4096, content.len()).await.unwrap(), content);
        });
    }
}

#[test]
fn a_server_that_proves_nothing_is_not_used() {
    let (authority, other) = (authority(), authority());
    let server = Server::on_unix_socket_in(server_folder(&authority), &TLS_SERVER);
    let good = client_folder(&authority, Some(&authority));
    let other_name = secured(server.uri(), good.path(), Some("elsewhere.example"));
    assert!(matches!(refusal(&other_name), OpenError::Handshake(_)));
    let no_name = secured(server.uri(), good.path(), None);
    assert!(matches!(refusal(&no_name), OpenError::Handshake(_)));
    let suspicious = client_folder(&other, Some(&authority));
    let other_authority = secured(server.uri(), suspicious.path(), Some("storage.example"));
    assert!(matches!(refusal(&other_authority), OpenError::Handshake(_)));
}

#[test]
fn a_client_without_a_certificate_of_the_authority_is_sent_away() {
    let (authority, other) = (authority(), authority());
    let server = Server::on_unix_socket_in(server_folder(&authority), &TLS_SERVER);
    for identity in [None, Some(&other)] {
        let folder = client_folder(&authority, identity);
        let uri = secured(server.uri(), folder.path(), Some("storage.example"));
        assert!(matches!(
            refusal(&uri),
            OpenError::Broken(_) | OpenError::Handshake(_)
        ));
    }
}

#[test]
fn plain_and_tls_are_never_mistaken_for_each_other() {
    let authority = authority();
    let client = client_folder(&authority, None);
    let plain = nbdkit(&["memory", "1M"]);
    let uri = secured(plain.uri(), client.path(), Some("storage.example"));
    assert!(matches!(
        refusal(&uri),
        OpenError::Negotiation(NegotiationError::TlsRefused(_))
    ));
    let server = Server::on_unix_socket_in(server_folder(&authority), &TLS_SERVER);
    assert!(matches!(
        refusal(&server.uri()),
        OpenError::Negotiation(NegotiationError::TlsRequired)
    ));
}

#[test]
fn missing_certificates_are_told_before_anything_is_sent() {
    let empty = tempfile::tempdir().unwrap();
    let nowhere: NbdUri = "nbds+unix:///?socket=/nonexistent".parse().unwrap();
    assert!(matches!(refusal(&nowhere), OpenError::NoTls));
    assert!(matches!(
        refusal(&secured(nowhere, empty.path(), None)),
        OpenError::Tls(_)
    ));
}
