//! The locks on a node's doors: which files hold them, as flags and as meant, and what is missing where strangers can come.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::reread::Rereader;
use crate::http::credentials::{Credentials, CurrentCredentials};
use crate::http::{BODY_BYTES_MAX_DEFAULT, MAX_CONNECTIONS_DEFAULT, Terms};
use crate::model::ident::NodeId;
use crate::net::links::PeerLocks;
use crate::net::mutual::PeerTls;
use crate::net::seal::{ClusterKeys, Flaws};
use crate::net::tls;

/// The flags of `quorate serve` that lock its doors and limit what comes through. Every file is read again when it changes, and
/// on SIGHUP.
#[derive(Args, Clone, Debug)]
pub struct LockArgs {
    /// The certificate that clients are shown, with its chain (PEM): clients speak https from then on
    #[arg(long, env = "QUORATE_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert (PEM)
    #[arg(long, env = "QUORATE_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Lets in clients alone that show a certificate of this authority (PEM)
    #[arg(long, env = "QUORATE_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
    /// Who may come in, a JSON object a line (see quorate credential new): clients show a token from then on
    #[arg(long, env = "QUORATE_CREDENTIALS", value_name = "FILE")]
    pub credentials: Option<PathBuf>,
    /// This node's certificate for other nodes, with its chain (PEM); its DNS name is node-ID.quorate
    #[arg(long, env = "QUORATE_PEER_CERT", value_name = "FILE")]
    pub peer_cert: Option<PathBuf>,
    /// The private key of --peer-cert (PEM)
    #[arg(long, env = "QUORATE_PEER_KEY", value_name = "FILE")]
    pub peer_key: Option<PathBuf>,
    /// The authority of all nodes' certificates (PEM)
    #[arg(long, env = "QUORATE_PEER_CA", value_name = "FILE")]
    pub peer_ca: Option<PathBuf>,
    /// The cluster's key for datagrams: 32 random bytes in hexadecimal or base64; a second line while it is being changed
    #[arg(long, env = "QUORATE_CLUSTER_KEY_FILE", value_name = "FILE")]
    pub cluster_key_file: Option<PathBuf>,
    /// Connections of clients held at once; more are answered 429 and closed
    #[arg(long, env = "QUORATE_MAX_CONNECTIONS", value_name = "N", default_value_t = MAX_CONNECTIONS_DEFAULT as u32, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
    /// Bytes of request bodies under way at once; requests with more are answered 429
    #[arg(long, env = "QUORATE_MAX_BODY_BYTES", value_name = "N", default_value_t = BODY_BYTES_MAX_DEFAULT as u64, value_parser = clap::value_parser!(u64).range(1_048_576..))]
    pub max_body_bytes: u64,
}

/// The locks, checked to fit together, and the limits.
#[derive(Clone, Debug)]
pub struct Locks {
    pub http_tls: Option<HttpTls>,
    pub credentials: Option<PathBuf>,
    pub peers: Option<PeerFiles>,
    pub max_connections: usize,
    pub max_body_bytes: usize,
}

/// Where the certificate for clients lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTls {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub client_ca: Option<PathBuf>,
}

/// Where lies what a node shows its peers, and by which it knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
    pub cluster_key: PathBuf,
}

/// A node on loopback needs no locks.
impl Default for Locks {
    fn default() -> Self {
        Self {
            http_tls: None,
            credentials: None,
            peers: None,
            max_connections: MAX_CONNECTIONS_DEFAULT,
            max_body_bytes: BODY_BYTES_MAX_DEFAULT,
        }
    }
}

impl TryFrom<LockArgs> for Locks {
    /// One line with the mend.
    type Error = String;
    fn try_from(args: LockArgs) -> Result<Self, String> {
        let http_tls = match (args.tls_cert, args.tls_key, args.tls_client_ca) {
            (Some(cert), Some(key), client_ca) => Some(HttpTls { cert, key, client_ca }),
            (None, None, None) => None,
            (Some(_), None, _) => return Err("--tls-cert is of no use without --tls-key: give both".to_owned()),
            (None, Some(_), _) => return Err("--tls-key is of no use without --tls-cert: give both".to_owned()),
            (None, None, Some(_)) => {
                return Err("--tls-client-ca is of no use without TLS: give --tls-cert and --tls-key too".to_owned());
            }
        };
        let peers = match (args.peer_cert, args.peer_key, args.peer_ca, args.cluster_key_file) {
            (Some(cert), Some(key), Some(ca), Some(cluster_key)) => Some(PeerFiles { cert, key, ca, cluster_key }),
            (None, None, None, None) => None,
            (Some(_), Some(_), Some(_), None) => {
                let mend = "give --cluster-key-file too (a line from openssl rand -hex 32, the same on every node)";
                return Err(format!("with TLS between nodes their datagrams have to be sealed: {mend}"));
            }
            (None, None, None, Some(_)) => {
                let mend = "give --peer-cert, --peer-key and --peer-ca too";
                return Err(format!("--cluster-key-file seals datagrams, and streams would be open: {mend}"));
            }
            _ => return Err("TLS between nodes wants --peer-cert, --peer-key and --peer-ca: give all three".to_owned()),
        };
        Ok(Self {
            http_tls,
            credentials: args.credentials,
            peers,
            max_connections: args.max_connections as usize,
            max_body_bytes: args.max_body_bytes as usize,
        })
    }
}

impl Locks {
    /// `https` or `http`.
    pub fn http_scheme(&self) -> &'static str {
        if self.http_tls.is_some() { "https" } else { "http" }
    }

    /// One line for each lock that is missing at an address that strangers may reach.
    pub fn warnings(&self, http: SocketAddr, peer: SocketAddr) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |missing: bool, at: SocketAddr, what: &str| {
            if missing && !at.ip().is_loopback() {
                warnings.push(format!("{at} can be reached from other machines, and {what}"));
            }
        };
        warn(
            self.http_tls.is_none(),
            http,
            "what clients send there can be read and changed on its way: give --tls-cert and --tls-key",
        );
        warn(self.credentials.is_none(), http, "whoever reaches it may change everything: give --credentials");
        let what =
            "whoever reaches it may speak as a node: give --peer-cert, --peer-key, --peer-ca and --cluster-key-file";
        warn(self.peers.is_none(), peer, what);
        warnings
    }

    /// Opens the locks of the links to other nodes.
    pub(super) fn open_peers(&self, me: NodeId, rereader: &mut Rereader) -> Result<Option<PeerLocks>, String> {
        let Some(PeerFiles { cert, key, ca, cluster_key }) = self.peers.clone() else { return Ok(None) };
        let files = vec![cert.clone(), key.clone(), ca.clone()];
        let tls = rereader.keep(files, move || PeerTls::read(&cert, &key, &ca, me));
        let keys = rereader.keep(vec![cluster_key.clone()], move || {
            let text = std::fs::read_to_string(&cluster_key).map_err(|e| e.to_string());
            let keys = text.and_then(|text| ClusterKeys::parse(&text).map_err(|e| e.to_string()));
            keys.map_err(|why| format!("--cluster-key-file {}: {why}", cluster_key.display()))
        });
        let tls = tls.map_err(|e| format!("TLS between nodes: {e}"))?;
        Ok(Some(PeerLocks { tls, keys: keys?, flaws: Flaws::default() }))
    }

    /// Opens the locks of the door for clients: on what terms connections are taken, and whom the API lets in.
    pub(super) fn open(&self, rereader: &mut Rereader) -> Result<(Terms, Option<CurrentCredentials>), String> {
        let mut terms = Terms { max_connections: self.max_connections, ..Terms::default() };
        if let Some(HttpTls { cert, key, client_ca }) = self.http_tls.clone() {
            let files = [&cert, &key].into_iter().chain(&client_ca).cloned().collect();
            let read = move || tls::for_clients(&cert, &key, client_ca.as_deref());
            terms.tls = Some(rereader.keep(files, read).map_err(|e| format!("TLS for clients: {e}"))?);
        }
        let credentials = match self.credentials.clone() {
            None => None,
            Some(file) => Some(rereader.keep(vec![file.clone()], move || {
                let named = |why: String| format!("--credentials {}: {why}", file.display());
                let text = std::fs::read_to_string(&file).map_err(|e| named(e.to_string()))?;
                Credentials::parse(&text).map_err(|e| named(e.to_string()))
            })?),
        };
        Ok((terms, credentials))
    }
}
