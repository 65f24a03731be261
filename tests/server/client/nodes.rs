//! The Rust client against real nodes, dead ones, silent ones, and ones behind TLS.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate::client::call::Cause;
use quorate::client::client::Client;
use quorate::client::error::Error;
use quorate::model::command::{Action, Condition};
use quorate::model::ident::{Meta, Mode};
use quorate::model::outcome::{Ended, Refusal};
use quorate::model::query::Page;
use quorate::registry::Consistency;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::nodes::{Nodes, free_port};

/// Calls end by then; generous, for a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn urls(nodes: &Nodes) -> Vec<String> {
    nodes.ports.iter().map(|(http, _)| format!("http://127.0.0.1:{http}")).collect()
}

fn client(urls: impl IntoIterator<Item = String>, mode: Mode) -> Client {
    Client::builder().endpoints(urls).mode(mode).timeout(PATIENCE).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_groups_by_way_of_the_servers_that_are_left() {
    let mut nodes = Nodes::start(3, &[]);
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let all = [nowhere].into_iter().chain(urls(&nodes)).collect::<Vec<_>>();
    for mode in Mode::ALL {
        let client = client(all.clone(), mode);
        let granted = client.register("billing", "a").meta(r#"{"at":"b2"}"#).send().await.unwrap();
        assert!(granted.new);
        let refused = client.register("billing", "b").send().await.unwrap_err();
        assert!(
            matches!(refused.refusal(), Some(Refusal::NameTaken { current }) if current.token == granted.entry.token)
        );
        let found = client.whereis("billing").await.unwrap().unwrap();
        assert_eq!((found.holder_text(), found.meta.as_str()), ("a", r#"{"at":"b2"}"#));
        assert_eq!(client.whereis("nobody").await, Ok(None));
        assert_eq!(client.is_current("billing", granted.entry.token).await, Ok(true));
        let taken = client.register("billing", "b").takeover().send().await.unwrap();
        assert_eq!(client.is_current("billing", granted.entry.token).await, Ok(false));
        assert_eq!(client.unregister("billing", granted.entry.token).await, Ok(Ended::Before));
        assert_eq!(client.unregister("billing", taken.entry.token).await, Ok(Ended::Now));
        assert!(client.join("cameras", "cam-1").send().await.unwrap().new);
        assert_eq!(client.groups(Page::default()).await.unwrap().items[0].count, 1);
        let member = client.all_members("cameras").await.unwrap().remove(0);
        assert_eq!(client.leave("cameras", "cam-1", member.token).await, Ok(Ended::Now));
        assert!(matches!(client.register("", "a").send().await, Err(Error::Word(_))));
        assert_eq!(client.cluster().await.unwrap().nodes.len(), 3);
    }
    // The server that answered last is gone: the next call is answered by another one.
    for mode in Mode::ALL {
        // `ap`: by more than the one that is about to be killed.
        let client = client(urls(&nodes), mode).writing_to(3);
        client.register("kept", "a").send().await.unwrap();
        nodes.kill(0);
        let found = client.whereis("kept").await.unwrap().unwrap();
        assert_eq!(found.holder_text(), "a");
        nodes.restart(0);
        nodes.wait_ready(0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_outlives_its_deadline_and_a_silent_server_is_passed_by() {
    let nodes = Nodes::start(1, &[]);
    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let both = client([silent_url.clone()].into_iter().chain(urls(&nodes)), Mode::Cp).within(Duration::from_secs(6));
    assert_eq!(both.whereis("nobody").await, Ok(None));
    // From now on the other one is asked first.
    let begun = Instant::now();
    both.register("x", "a").send().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());

    let alone = client([silent_url.clone()], Mode::Cp).within(Duration::from_millis(600));
    let begun = Instant::now();
    let unknown = alone.register("y", "a").send().await;
    assert_eq!(unknown, Err(Error::Unknown(Cause::Late)));
    assert!(matches!(alone.whereis("y").await, Err(Error::Unanswered(Cause::Late))));
    // What may not be done twice is not tried at the next server once it was sent.
    let unsafe_both = client([silent_url].into_iter().chain(urls(&nodes)), Mode::Cp).within(Duration::from_millis(600));
    let words = ("z".parse().unwrap(), "a".parse().unwrap(), Meta::empty());
    let takeover =
        Action::Register { name: words.0, owner: words.1, meta: words.2, lease: None, condition: Condition::Takeover };
    let unknown = unsafe_both.execute(&takeover).await;
    assert!(matches!(unknown, Err(quorate::client::call::CommandError::Unknown(_))), "{unknown:?}");
    assert_eq!(both.whereis("z").await, Ok(None));
    let nobody = client([format!("http://127.0.0.1:{}", free_port())], Mode::Cp).within(Duration::from_millis(600));
    assert!(matches!(nobody.register("x", "a").send().await, Err(Error::NotApplied(Cause::Unreachable(_)))));
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minority_does_not_stop_a_client_that_knows_the_majority() {
    let nodes = Nodes::start(3, &["--enable-faults"]);
    let cut = r#"{"peers":{"2":{"incoming":{"drop":true},"outgoing":{"drop":true}},"3":{"incoming":{"drop":true},"outgoing":{"drop":true}}}}"#;
    assert_eq!(crate::nodes::http(nodes.http_port(0), "PUT", "/v1/faults", cut).unwrap().status, 200);
    let client = client(urls(&nodes), Mode::Cp);
    // A join is safe to repeat, so that even an unknown outcome at the first server is no obstacle.
    client.join("workers", "w1").send().await.unwrap();
    let first = Client::builder().endpoints([urls(&nodes).remove(0)]).build().unwrap();
    let refused = first.join("workers", "w2").send().await.unwrap_err();
    assert!(matches!(refused, Error::NotApplied(_) | Error::Unknown(_)), "{refused}");
    assert_eq!(first.reading(Consistency::Stale).whereis("x").await, Ok(None));
}

/// A certificate authority of the test's own, and what it has signed.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn signed(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }
}

/// Ends TLS and passes what is in it on to a server; the port.
async fn behind_tls(authority: &Authority, to: u16, clients_prove_themselves: bool) -> u16 {
    let (certificate, key) = authority.signed("localhost", ExtendedKeyUsagePurpose::ServerAuth);
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = if clients_prove_themselves {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authority.roots()), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A handshake that fails is the client's to tell.
                let Ok(mut secured) = acceptor.accept(stream).await else { return };
                let mut plain = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                let _ = copy_bidirectional(&mut secured, &mut plain).await;
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_only_servers_that_the_roots_vouch_for_are_believed() {
    let nodes = Nodes::start(1, &[]);
    let (authority, stranger) = (Authority::new(), Authority::new());
    let port = behind_tls(&authority, nodes.http_port(0), false).await;
    let build = |url: String, roots: &Authority| {
        Client::builder().endpoints([url]).tls_roots(roots.issuer.pem()).timeout(PATIENCE).build().unwrap()
    };
    let believed = build(format!("https://localhost:{port}"), &authority);
    believed.register("x", "a").send().await.unwrap();
    assert_eq!(believed.whereis("x").await.unwrap().unwrap().holder_text(), "a");
    // Another authority's word, or a name that is not in the certificate, counts for nothing, and nothing is sent.
    for doubted in
        [build(format!("https://localhost:{port}"), &stranger), build(format!("https://127.0.0.1:{port}"), &authority)]
    {
        let refused = doubted.within(Duration::from_secs(1)).register("y", "a").send().await;
        assert!(matches!(refused, Err(Error::NotApplied(Cause::Unreachable(_)))), "{refused:?}");
    }

    let port = behind_tls(&authority, nodes.http_port(0), true).await;
    let (certificate, key) = authority.signed("a-client", ExtendedKeyUsagePurpose::ClientAuth);
    let url = format!("https://localhost:{port}");
    let proven = Client::builder()
        .endpoints([url.clone()])
        .tls_roots(authority.issuer.pem())
        .tls_identity(certificate.pem(), key.serialize_pem())
        .timeout(PATIENCE)
        .build()
        .unwrap();
    assert_eq!(proven.whereis("x").await.unwrap().unwrap().holder_text(), "a");
    let unproven = build(url, &authority).within(Duration::from_secs(1));
    assert!(unproven.whereis("x").await.is_err());
}
