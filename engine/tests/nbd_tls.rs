//! The NBD server under TLS.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common;

use std::sync::Arc;

use ashlar_engine::export::access::Protection;
use ashlar_engine::export::nbd::server::{Server, Settings};
use ashlar_engine::export::nbd::tls::{Tls, server_config};
use ashlar_engine::export::{Access, Export, Registry};
use ashlar_engine::nbd::wire;
use common::memory_target::MemoryTarget;
use common::raw_client::{RawClient, named, write};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::DuplexStream;
use tokio::task::LocalSet;
use tokio_rustls::TlsConnector;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.into()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }
}

struct Bench {
    authority: Authority,
    server: Arc<Server<MemoryTarget>>,
}

impl Bench {
    fn new(required: bool, client_certificates: bool, protection: Protection) -> Self {
        let authority = Authority::new();
        let (certificate, key) = authority.issue("localhost");
        let clients = authority.0.pem();
        let clients = client_certificates.then_some(clients.as_bytes());
        let config = server_config(
            certificate.pem().as_bytes(),
            key.serialize_pem().as_bytes(),
            clients,
        )
        .unwrap();
        let tls = if required {
            Tls::Required(config)
        } else {
            Tls::Offered(config)
        };
        let registry = Arc::new(Registry::default());
        let access = Access {
            protection,
            ..Access::default()
        };
        registry
            .add(Export {
                access,
                ..Export::new("vol", Arc::new(MemoryTarget::new(1 << 20)))
            })
            .unwrap();
        Self {
            authority,
            server: Server::new(
                registry,
                Settings {
                    tls,
                    ..Settings::default()
                },
            ),
        }
    }

    fn connect(&self) -> RawClient<DuplexStream> {
        let (stream, far) = tokio::io::duplex(1 << 20);
        tokio::task::spawn_local(self.server.admit().unwrap().serve(far, None));
        RawClient { stream }
    }

    async fn greeted(&self) -> RawClient<DuplexStream> {
        let mut client = self.connect();
        client.greet().await;
        client
    }

    /// A client's configuration, with a certificate of `issuer`'s.
    fn client(&self, issuer: Option<&Authority>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match issuer {
            None => builder.with_no_client_auth(),
            Some(issuer) => {
                let (certificate, key) = issuer.issue("client");
                builder
                    .with_client_auth_cert(vec![certificate.der().clone()], key.into())
                    .unwrap()
            }
        };
        TlsConnector::from(Arc::new(config))
    }
}

async fn local(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

/// Whether a client with such a certificate gets to talk under TLS.
async fn is_let_in(bench: &Bench, issuer: Option<&Authority>) -> bool {
    let mut client = bench.greeted().await;
    assert_eq!(client.ask(wire::OPT_STARTTLS, &[]).await, wire::REP_ACK);
    let connector = bench.client(issuer);
    let Ok(stream) = connector
        .connect("localhost".try_into().unwrap(), client.stream)
        .await
    else {
        return false;
    };
    let mut client = RawClient { stream };
    client
        .send(&common::raw_client::option(wire::OPT_ABORT, &[]))
        .await;
    !client.is_closed().await
}

#[tokio::test]
async fn a_client_with_a_certificate_reads_and_writes_under_tls() {
    local(async {
        let bench = Bench::new(true, true, Protection::TlsClientCertificate);
        let mut client = bench.greeted().await;
        assert_eq!(client.ask(wire::OPT_LIST, &[]).await, wire::REP_ERR_TLS_REQD);
        assert_eq!(client.ask(wire::OPT_STARTTLS, &[]).await, wire::REP_ACK);
        let connector = bench.client(Some(&bench.authority));
        let stream = connector
            .connect("localhost".try_into().unwrap(), client.stream)
            .await
            .unwrap();
        let mut client = RawClient { stream };
        assert_eq!(client.ask(wire::OPT_GO, &named("vol")).await, wire::REP_ACK);
        let payload: Vec<u8> = (0..1 << 20).map(|n: u32| (n / 512 % 251) as u8).collect();
        assert_eq!(client.call(&write(1, 0, &payload)).await, 0);
        assert!(client.read(0, payload.len()).await == payload);
    })
    .await;
}

#[tokio::test]
async fn a_client_without_a_certificate_of_the_authority_is_not_let_in() {
    local(async {
        let bench = Bench::new(true, true, Protection::Tls);
        assert!(is_let_in(&bench, Some(&bench.authority)).await);
        assert!(!is_let_in(&bench, None).await);
        assert!(!is_let_in(&bench, Some(&Authority::new())).await);
    })
    .await;
}

#[tokio::test]
async fn an_export_that_insists_on_certificates_is_not_served_where_none_are_asked_for() {
    local(async {
        let bench = Bench::new(false, false, Protection::TlsClientCertificate);
        let mut client = bench.greeted().await;
        assert_eq!(
            client.ask(wire::OPT_GO, &named("vol")).await,
            wire::REP_ERR_TLS_REQD
        );
        assert_eq!(client.ask(wire::OPT_STARTTLS, &[]).await, wire::REP_ACK);
        let connector = bench.client(None);
        let stream = connector
            .connect("localhost".try_into().unwrap(), client.stream)
            .await
            .unwrap();
        let mut client = RawClient { stream };
        assert_eq!(
            client.ask(wire::OPT_GO, &named("vol")).await,
            wire::REP_ERR_POLICY
        );
    })
    .await;
}

#[tokio::test]
async fn where_tls_is_only_offered_a_plain_client_is_served() {
    local(async {
        let bench = Bench::new(false, false, Protection::Plain);
        let mut client = bench.connect();
        client.attach("vol").await;
        assert_eq!(client.read(0, 512).await, [0; 512]);
    })
    .await;
}
