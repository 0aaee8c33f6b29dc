//! An authority whose certificate and key are files: another PKI's CA. The files are read anew for each CA that it certifies.
//!
//! Source of the words: SPIRE pkg/server/plugin/upstreamauthority/disk.

mod files;
mod key_file;

use std::path::PathBuf;

use ironroot_api::TrustDomain;
use ironroot_api::certificate::{Certificate, CertificateError};
use ironroot_api::tls::{SvidRefusal, TrustAnchors};
use ironroot_text::FileError;
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use webpki::KeyUsage;

use super::minted::throw_away;
use super::{CaRequest, MintedCa, UpstreamError};
use crate::ca::profile::{self, AuthorityFacts, Certifier, Leaf, ProfileError, Serial, SubjectKey};
pub(super) use files::certificates;
use key_file::FileKey;

pub use key_file::KeyFileError;

/// Where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskAuthority {
    /// PEM: the CA's certificate, then what is between it and its root.
    pub certificate_path: PathBuf,
    /// PEM: its key.
    pub key_path: PathBuf,
    /// PEM: its roots; without it the CA is one.
    pub bundle_path: Option<PathBuf>,
}

/// Why they cannot be used.
#[derive(Debug, Error)]
pub enum DiskError {
    /// The key's file.
    #[error("unable to load upstream CA key")]
    Key(#[from] KeyFileError),
    /// The CA's certificates.
    #[error("unable to load upstream CA cert")]
    Certificate(#[source] CertificateFileError),
    /// Its roots.
    #[error("unable to load upstream CA bundle")]
    Bundle(#[source] CertificateFileError),
    /// Several certificates, and nothing says which of them is a root.
    #[error(
        "with no bundle_file_path configured only self-signed CAs are supported: {0} holds {1} certificates; name the file with the \
         roots in bundle_file_path"
    )]
    NoBundle(String, usize),
    /// Nothing says what is above it. Source of the first half: SPIRE.
    #[error(
        "unable to load upstream CA: certificate cannot be validated with the provided bundle or is not self-signed: the certificate in \
         {0} has another issuer; name the file with the roots in bundle_file_path"
    )]
    NotSelfSigned(String),
    /// They are not a pair.
    #[error("unable to load upstream CA: certificate and private key do not match")]
    NotAPair,
    /// Nobody would take what it signs.
    #[error(
        "unable to load upstream CA: certificate cannot be validated with the provided bundle or is not self-signed"
    )]
    NotValid(#[source] SvidRefusal),
    /// It cannot certify a CA.
    #[error("unable to sign CSR")]
    Sign(#[from] ProfileError),
    /// The task that reads the files ended early.
    #[error("the files of the upstream CA were not read to their end")]
    Interrupted,
}

/// Why a file of certificates cannot be used.
#[derive(Debug, Error)]
pub enum CertificateFileError {
    /// It cannot be read, or is no text.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is something else in it.
    #[error("{0} holds no usable certificates")]
    Content(String, #[source] CertificateError),
}

/// The authority with its key in memory, for as long as it certifies one CA.
struct Loaded {
    key: FileKey,
    facts: AuthorityFacts,
    /// What it sends besides a CA: its own certificate first, roots left out.
    chain: Vec<Certificate>,
    roots: Vec<Certificate>,
    /// When the first of the chain ends, UNIX seconds.
    ends_unix: i64,
}

impl DiskAuthority {
    /// Reads the files as for a CA, and certifies none.
    pub fn look(&self, trust_domain: &TrustDomain, now_unix: i64) -> Result<(), DiskError> {
        self.load(trust_domain, now_unix).map(drop)
    }

    pub(super) async fn mint(&self, request: &CaRequest, now_unix: i64) -> Result<MintedCa, UpstreamError> {
        let (files, trust_domain) = (self.clone(), request.trust_domain.clone());
        let loaded = tokio::task::spawn_blocking(move || files.load(&trust_domain, now_unix)).await;
        let loaded = loaded.map_err(|_| DiskError::Interrupted)??;
        let ca = loaded.certify(request, now_unix)?;
        let chain = std::iter::once(Certificate::parse(&ca)?).chain(loaded.chain).collect();
        MintedCa::new(chain, loaded.roots)
    }

    fn load(&self, trust_domain: &TrustDomain, now_unix: i64) -> Result<Loaded, DiskError> {
        let key = FileKey::read(&self.key_path)?;
        let certificates = certificates(&self.certificate_path).map_err(DiskError::Certificate)?;
        let roots = self.roots(&certificates)?;
        let own = certificates.first().filter(|own| key.is_of(&own.spki_der())).ok_or(DiskError::NotAPair)?;
        let facts = AuthorityFacts::of(own)?;
        let ends_unix = certificates.iter().map(Certificate::not_after_unix).fold(i64::MAX, i64::min);
        let is_between = |one: &Certificate| roots.iter().all(|root| root.der() != one.der());
        let chain = certificates.into_iter().filter(is_between).collect();
        let loaded = Loaded { key, facts, chain, roots, ends_unix };
        loaded.check(trust_domain, now_unix)?;
        Ok(loaded)
    }

    /// What verifies it: the bundle, or without one itself, if it is alone.
    fn roots(&self, own: &[Certificate]) -> Result<Vec<Certificate>, DiskError> {
        match &self.bundle_path {
            Some(bundle) => certificates(bundle).map_err(DiskError::Bundle),
            None if own.len() == 1 && is_self_issued(&own[0]) => Ok(own.to_vec()),
            None if own.len() == 1 => Err(DiskError::NotSelfSigned(self.certificate_path.display().to_string())),
            None => Err(DiskError::NoBundle(self.certificate_path.display().to_string(), own.len())),
        }
    }
}

impl Loaded {
    /// Has it sign a throw-away SVID, which peers with the roots alone must take.
    fn check(&self, trust_domain: &TrustDomain, now_unix: i64) -> Result<(), DiskError> {
        let leaf = Leaf::plain(trust_domain.server_id(), throw_away(), 60);
        let tbs = profile::svid(&leaf, &self.facts, Serial::random(), now_unix)?;
        let svid = CertificateDer::from(self.sign(&tbs)?);
        let ders = |certificates: &[Certificate]| -> Vec<_> {
            certificates.iter().map(|certificate| certificate.der().clone()).collect()
        };
        let verify = || {
            let anchors = TrustAnchors::new(trust_domain.clone(), &ders(&self.roots))?;
            anchors.verify(&svid, &ders(&self.chain), KeyUsage::server_auth(), now_unix)
        };
        verify().map(drop).map_err(DiskError::NotValid)
    }

    /// The certificate of the CA, DER. It ends no later than the first of those above it.
    fn certify(&self, request: &CaRequest, now_unix: i64) -> Result<Vec<u8>, DiskError> {
        let CaRequest { trust_domain, name, spki, ttl_seconds, .. } = request;
        let end = now_unix.saturating_add(*ttl_seconds).min(self.ends_unix);
        let (key, serial) = (SubjectKey::from(spki), Serial::random());
        let above = Certifier::Root(&self.facts);
        let tbs = profile::signing_certificate(name, trust_domain, key, above, serial, now_unix, end)?;
        self.sign(&tbs)
    }

    fn sign(&self, tbs: &[u8]) -> Result<Vec<u8>, DiskError> {
        let signature = self.key.sign(tbs)?;
        Ok(profile::assemble(tbs, self.key.kind(), &signature)?)
    }
}

fn is_self_issued(certificate: &Certificate) -> bool {
    let signed = certificate.inner().tbs_certificate();
    signed.subject() == signed.issuer()
}

#[cfg(test)]
mod tests;
