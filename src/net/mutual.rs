//! Mutual TLS between nodes: each shows a certificate of the cluster's authority, with a DNS name that tells its id.
//!
//! The authority is checked while TLS shakes hands, the id after it, against what Quorate's own handshake says: only then do both
//! sides know of whom they speak, and can tell their operators.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::{fmt, io};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme, version,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::tls::{TlsError, certificates, private_key, provider, roots, unfit};
use super::wire::{ReadHalf, WriteHalf};
use crate::model::ident::NodeId;

/// What a node shows its peers, and whom it believes.
pub struct PeerTls {
    accepting: Arc<ServerConfig>,
    dialling: Arc<ClientConfig>,
}

/// The certificate that a peer has shown; it is of our authority.
pub(super) struct Shown(CertificateDer<'static>);

/// The DNS name that a node's certificate has to have.
pub fn name_of(node: NodeId) -> String {
    format!("node-{node}.quorate")
}

impl PeerTls {
    /// Reads this node's certificate and key, and the authority that its peers' certificates have to be of.
    pub fn read(cert: &Path, key: &Path, ca: &Path, me: NodeId) -> Result<Self, TlsError> {
        let (chain, roots) = (certificates(cert)?, roots(ca)?);
        if !Shown(chain[0].clone()).is_of(me) {
            let name = name_of(me);
            return Err(unfit(
                cert,
                format!("this is node {me}, and the certificate does not have the DNS name {name}"),
            ));
        }
        let pair = |e: rustls::Error| unfit(cert, format!("{e} (its key: {})", key.display()));
        let versions = [&version::TLS13];
        let known = "the provider knows TLS 1.3";
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider()).build();
        let mut accepting = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&versions)
            .expect(known)
            .with_client_cert_verifier(verifier.map_err(|e| unfit(ca, e))?)
            .with_single_cert(chain.clone(), private_key(key)?)
            .map_err(pair)?;
        let verifier = ByAuthority { roots, algorithms: provider().signature_verification_algorithms };
        let mut dialling = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&versions)
            .expect(known)
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(chain, private_key(key)?)
            .map_err(pair)?;
        // A resumed session would not look at certificates again, whatever has become of the authority meanwhile.
        accepting.session_storage = Arc::new(NoServerSessionStorage {});
        accepting.send_tls13_tickets = 0;
        dialling.resumption = Resumption::disabled();
        Ok(Self { accepting: Arc::new(accepting), dialling: Arc::new(dialling) })
    }

    /// Shakes hands as the one who has dialled. Whose certificate it is remains to be looked at.
    pub(super) async fn dial(
        &self,
        to: NodeId,
        stream: (ReadHalf, WriteHalf),
    ) -> io::Result<(Shown, ReadHalf, WriteHalf)> {
        let name = ServerName::try_from(name_of(to)).expect("the name is well formed");
        let connector = TlsConnector::from(self.dialling.clone());
        split(connector.connect(name, Duplex::new(stream)).await?.into())
    }

    /// Shakes hands as the one who was dialled.
    pub(super) async fn accept(&self, stream: (ReadHalf, WriteHalf)) -> io::Result<(Shown, ReadHalf, WriteHalf)> {
        let acceptor = TlsAcceptor::from(self.accepting.clone());
        split(acceptor.accept(Duplex::new(stream)).await?.into())
    }
}

impl Shown {
    pub(super) fn is_of(&self, node: NodeId) -> bool {
        let Ok(cert) = ParsedCertificate::try_from(&self.0) else { return false };
        let name = ServerName::try_from(name_of(node)).expect("the name is well formed");
        verify_server_name(&cert, &name).is_ok()
    }
}

/// Whether the two sides do not trust each other, as opposed to a connection that broke.
pub(super) fn distrust(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Believes certificates of the authority, whomever they name.
struct ByAuthority {
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for ByAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByAuthority")
    }
}

impl ServerCertVerifier for ByAuthority {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let cert = ParsedCertificate::try_from(cert)?;
        verify_server_cert_signed_by_trust_anchor(&cert, &self.roots, chain, now, self.algorithms.all)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The two halves below TLS.
struct Duplex {
    reader: ReadHalf,
    /// None once our own writing half is gone, and the peer has been told so.
    writer: Option<WriteHalf>,
}

impl Duplex {
    fn new((reader, writer): (ReadHalf, WriteHalf)) -> Self {
        Self { reader, writer: Some(writer) }
    }

    fn writer(&mut self) -> io::Result<Pin<&mut WriteHalf>> {
        self.writer.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl AsyncRead for Duplex {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writer()?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer()?.poll_shutdown(cx)
    }
}

/// The two halves above TLS. They share one session, which each locks for as long as a poll takes.
type Session = Arc<Mutex<TlsStream<Duplex>>>;
struct Reader(Session);
struct Writer(Session);

fn split(stream: TlsStream<Duplex>) -> io::Result<(Shown, ReadHalf, WriteHalf)> {
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
    // Both configurations ask for a certificate: without one the handshake has failed.
    let shown = shown.ok_or(io::ErrorKind::InvalidData)?;
    let session = Arc::new(Mutex::new(stream));
    Ok((Shown(shown.into_owned()), Box::new(Reader(session.clone())), Box::new(Writer(session))))
}

fn lock(session: &Session) -> MutexGuard<'_, TlsStream<Duplex>> {
    session.lock().expect("no panic while held")
}

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *lock(&self.0)).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_shutdown(cx)
    }
}

/// As with TCP's own halves: the peer sees the end when the writing one is dropped, whoever still holds the other.
impl Drop for Writer {
    fn drop(&mut self) {
        lock(&self.0).get_mut().0.writer = None;
    }
}
