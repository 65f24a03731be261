//! Certificates and keys as they lie in PEM files, and what TLS is told about them.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// Why files do not make a TLS configuration: one line that names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {file}: {source}")]
    Unreadable { file: String, source: io::Error },
    #[error("{file} holds no {what} in PEM form")]
    Missing { file: String, what: &'static str },
    #[error("{file}: {why}")]
    Unfit { file: String, why: String },
}

/// What a server for clients shows, and, with a `client_ca`, which clients it lets in: those alone that show a certificate of it.
pub fn for_clients(cert: &Path, key: &Path, client_ca: Option<&Path>) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.expect("the provider knows the usual versions");
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let roots = Arc::new(roots(ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            builder.with_client_cert_verifier(verifier.map_err(|e| unfit(ca, e))?)
        }
    };
    let config = builder.with_single_cert(certificates(cert)?, private_key(key)?);
    let mut config = config.map_err(|e| unfit(cert, format!("{e} (its key: {})", key.display())))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The chain in a file, the node's own certificate first.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(file)?;
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().map_err(|e| unfit(file, e))?;
    if chain.is_empty() {
        return Err(TlsError::Missing { file: file.display().to_string(), what: "certificate" });
    }
    Ok(chain)
}

pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    // What is wrong with a key is not told: the text of an error might hold a piece of it.
    PrivateKeyDer::from_pem_slice(&read(file)?)
        .map_err(|_| TlsError::Missing { file: file.display().to_string(), what: "private key" })
}

/// The authorities in a file; several while they are being changed.
pub(super) fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|e| unfit(file, e))?;
    }
    Ok(roots)
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|source| TlsError::Unreadable { file: file.display().to_string(), source })
}

pub(super) fn unfit(file: &Path, why: impl ToString) -> TlsError {
    TlsError::Unfit { file: file.display().to_string(), why: why.to_string() }
}
