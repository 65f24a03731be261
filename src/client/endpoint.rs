//! Where a server is: its URL, understood once.

use std::sync::Arc;

use hyper::Uri;
use hyper::header::HeaderValue;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::access::Access;

/// A text that is no URL of a server, or of one that cannot be approached so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    #[error("{url:?} is not http://HOST:PORT or https://HOST:PORT")]
    Malformed { url: String },
    #[error("{url:?} speaks TLS: say by which roots its certificate is to be believed")]
    NoRoots { url: String },
}

/// A server's address, and how it is approached.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `HOST:PORT`.
    pub host: String,
    /// What stands in the requests' `Host`.
    pub authority: HeaderValue,
    pub tls: Option<Tls>,
    pub credential: Option<HeaderValue>,
}

/// How a connection to it is secured, and as whom it has to prove itself.
#[derive(Clone)]
pub struct Tls {
    pub connector: TlsConnector,
    pub name: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({:?})", self.name)
    }
}

impl Endpoint {
    /// A server at `http://HOST:PORT` or `https://HOST:PORT`.
    pub fn parse(url: &str, access: &Access) -> Result<Self, BadUrl> {
        let bad = || BadUrl::Malformed { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?;
        if uri.path().len() > 1 || uri.query().is_some() || authority.as_str().contains('@') {
            return Err(bad());
        }
        let (tls, port) = match uri.scheme_str() {
            Some("http") => (None, 80),
            Some("https") => {
                let config = access.tls.clone().ok_or_else(|| BadUrl::NoRoots { url: url.to_owned() })?;
                // An IPv6 address stands in brackets in a URL, and without them in a certificate.
                let name = authority.host().trim_matches(['[', ']']).to_owned();
                let name = ServerName::try_from(name).map_err(|_| bad())?;
                (Some(Tls { connector: TlsConnector::from(Arc::clone(&config)), name }), 443)
            }
            _ => return Err(bad()),
        };
        Ok(Self {
            host: format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(port)),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| bad())?,
            tls,
            credential: access.credential.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_servers_are_told_from_others() {
        for (url, host) in [("http://a:7401", "a:7401"), ("http://[::1]:1/", "[::1]:1"), ("http://a", "a:80")] {
            assert_eq!(Endpoint::parse(url, &Access::default()).unwrap().host, host);
        }
        for url in ["here", "a:7401", "ftp://a", "http://u:p@a", "http://a/v1", "http://a?x=1", ""] {
            assert!(matches!(Endpoint::parse(url, &Access::default()), Err(BadUrl::Malformed { .. })), "{url:?}");
        }
        assert!(matches!(Endpoint::parse("https://a", &Access::default()), Err(BadUrl::NoRoots { .. })));
    }
}
