//! What each node proves its addresses with.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::Outcome;

/// An authority for the nodes of one lab.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A new one, whose certificate is written to `roots`.
    pub fn new(roots: &Path) -> Outcome<Self> {
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, "lab-ha");
        let issuer = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
        fs::write(roots, issuer.pem())?;
        Ok(Self(issuer))
    }

    /// Writes `server.crt` and `server.key` into `place`.
    pub fn prove(&self, addresses: Vec<String>, place: &Path) -> Outcome<()> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(addresses)?.signed_by(&key, &self.0)?;
        fs::write(place.join("server.crt"), certificate.pem())?;
        let path = place.join("server.key");
        fs::write(&path, key.serialize_pem())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(())
    }
}
