//! How servers are approached: what is shown at their door, and whose word is believed that they are the right ones.

use std::fmt;
use std::sync::Arc;

use hyper::header::HeaderValue;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// What servers are shown, and whom they are to be. By default: nothing, and no server over TLS is trusted.
#[derive(Clone, Default)]
pub struct Access {
    pub(super) credential: Option<HeaderValue>,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

/// Why an [`Access`] cannot be made of what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAccess {
    #[error("a credential's token is made of visible ASCII characters alone")]
    Token,
    #[error("the roots cannot be read: {0}")]
    Roots(String),
    #[error("the client's own certificate cannot be used: {0}")]
    Identity(String),
}

/// A client's own certificate (its chain, its own first) and the key to it, both in PEM.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    pub certificate: &'a [u8],
    pub key: &'a [u8],
}

impl Access {
    /// Shows a credential with each request. It is sent in the clear to servers at `http://`.
    pub fn credential(mut self, token: &str) -> Result<Self, BadAccess> {
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(BadAccess::Token);
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| BadAccess::Token)?;
        // Kept out of what is printed for debugging.
        value.set_sensitive(true);
        self.credential = Some(value);
        Ok(self)
    }

    /// Believes servers at `https://` whose certificates go back to one of these roots (PEM), and shows them the client's own
    /// certificate if they ask for one.
    pub fn tls(mut self, roots: &[u8], identity: Option<Identity<'_>>) -> Result<Self, BadAccess> {
        let bad_roots = |why: &dyn fmt::Display| BadAccess::Roots(why.to_string());
        let mut store = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots) {
            store.add(root.map_err(|why| bad_roots(&why))?).map_err(|why| bad_roots(&why))?;
        }
        if store.is_empty() {
            return Err(bad_roots(&"there is no certificate among them"));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|why| bad_roots(&why))?
            .with_root_certificates(store);
        let bad_identity = |why: &dyn fmt::Display| BadAccess::Identity(why.to_string());
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(Identity { certificate, key }) => {
                let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
                let chain = chain.map_err(|why| bad_identity(&why))?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|why| bad_identity(&why))?;
                builder.with_client_auth_cert(chain, key).map_err(|why| bad_identity(&why))?
            }
        };
        self.tls = Some(Arc::new(config));
        Ok(self)
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access {{ credential: {}, tls: {} }}", self.credential.is_some(), self.tls.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_token_or_root_is_refused() {
        for token in ["", "a b", "a\n", "ä"] {
            assert_eq!(Access::default().credential(token).err(), Some(BadAccess::Token), "{token:?}");
        }
        for roots in ["", "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"] {
            assert!(Access::default().tls(roots.as_bytes(), None).is_err(), "{roots:?}");
        }
    }

    #[test]
    fn a_credential_is_not_printed() {
        let access = Access::default().credential("hush-hush").unwrap();
        assert!(!format!("{access:?} {:?}", access.credential).contains("hush"));
    }
}
