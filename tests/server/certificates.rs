//! Certificates for tests: an authority, and what it signs, as PEM files.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// Signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct Files {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// The authority's own certificate, in a file.
    pub fn file(&self, dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(format!("{name}.pem"));
        fs::write(&path, self.0.pem()).unwrap();
        path
    }

    /// Writes a certificate for this name, and its key; they take the place of what was there as certificate tools do it.
    pub fn issue(&self, dir: &Path, file: &str, name: &str) -> Files {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let at = |ending: &str| dir.join(format!("{file}.{ending}")).display().to_string();
        let files = Files { cert: at("crt"), key: at("key") };
        for (path, text) in [(&files.key, key.serialize_pem()), (&files.cert, cert.pem())] {
            let new = dir.join("new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, path).unwrap();
        }
        files
    }
}
