//! A trust domain's bundle as it is passed on from one trust domain to another: checked once, in whichever form it came.
//!
//! ```text
//!  types.Bundle (administrators) ─┐
//!  bundle document (JSON: peers,  ├─► Bundle ─► types.Bundle, bundle document
//!    operators' files)           ─┘
//! ```
//! Bundles of two trust domains are two values, and nothing here makes one of them.

mod document;
mod reading;

use prost::Message;
use prost::bytes::Bytes;
use thiserror::Error;

use crate::certificate::{Certificate, CertificateError};
use crate::jwt::{JwtAuthority, MAX_JWT_AUTHORITIES, MAX_KEY_ID_BYTES};
use crate::pb::types;
use crate::spiffe_id::{SpiffeIdError, TrustDomain};

pub use document::{NoDocument, document, jwks};
pub use reading::{DocumentError, MAX_DOCUMENT_BYTES, ReadBundle};

/// Most X.509 authorities of a bundle: as many as agents take. A trust domain has a few; many servers, a few dozen.
pub const MAX_X509_AUTHORITIES: usize = 256;
/// Largest bundle, bytes of its wire form: some two hundred authorities. Servers hold it for each trust domain, and agents too.
pub const MAX_BUNDLE_BYTES: usize = 256 * 1024;

/// Why something is no bundle that is taken. Where SPIRE has words for it, these are its words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum BundleError {
    /// Whose it is cannot be read.
    #[error("invalid trust domain")]
    TrustDomain(#[source] SpiffeIdError),
    /// An authority that is no certificate.
    #[error("unable to parse X.509 authority")]
    Authority(#[source] CertificateError),
    /// An authority without basicConstraints CA: agents refuse the bundle that it is in.
    #[error("unable to parse X.509 authority: it is not a CA certificate")]
    NotAnAuthority,
    /// A key that no JWT-SVID can be verified with, or one without a usable ID.
    #[error(
        "unable to parse JWT authority: a key has an ID of 1 to {MAX_KEY_ID_BYTES} bytes, and is on P-256, P-384 or P-521, or \
         RSA of 2048 to 8192 bits"
    )]
    JwtAuthority,
    /// Two keys of one ID: which of them counts, nobody could say.
    #[error("unable to parse JWT authority: two keys have the ID {0:?}")]
    DuplicateKeyId(String),
    /// More of something than a bundle may have.
    #[error("bundle has more than {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        limit: usize,
    },
    /// More than [`MAX_BUNDLE_BYTES`].
    #[error("bundle is larger than {MAX_BUNDLE_BYTES} bytes")]
    TooLarge,
    #[error("refresh hint is negative")]
    RefreshHint,
}

/// The authorities of one trust domain. None at all is a bundle too: nobody of that trust domain is to be believed.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    trust_domain: TrustDomain,
    /// Keys of JWT-SVIDs in the order of their IDs: SPIRE shows them in another order each time.
    wire: types::Bundle,
}

impl Bundle {
    /// Checks what came over the wire. Whether an authority is tainted is its own trust domain's business and is not taken, as in
    /// SPIRE.
    pub fn from_pb(wire: &types::Bundle) -> Result<Self, BundleError> {
        let trust_domain = TrustDomain::new(&wire.trust_domain).map_err(BundleError::TrustDomain)?;
        let authorities = wire.x509_authorities.iter().map(|authority| authority.asn1.clone()).collect();
        let numbers = Numbers { refresh_hint: wire.refresh_hint, sequence_number: wire.sequence_number };
        Self::of_parts(trust_domain, authorities, wire.jwt_authorities.clone(), numbers)
    }

    /// Checks certificates that are a trust domain's authorities, as from a PEM file.
    pub fn of_certificates(trust_domain: TrustDomain, certificates: &[Certificate]) -> Result<Self, BundleError> {
        let authorities = certificates.iter().map(|certificate| Bytes::copy_from_slice(certificate.der())).collect();
        Self::of_parts(trust_domain, authorities, Vec::new(), Numbers::default())
    }

    /// The bundle whose [`to_pb`](Self::to_pb) this is, from a database: no bounds, so that one that gets tighter keeps no server from
    /// starting.
    pub fn accepted(trust_domain: TrustDomain, wire: types::Bundle) -> Self {
        let wire = types::Bundle { trust_domain: trust_domain.as_str().to_owned(), ..wire };
        Self { trust_domain, wire }
    }

    fn of_parts(
        trust_domain: TrustDomain,
        authorities: Vec<Bytes>,
        mut keys: Vec<types::JwtKey>,
        numbers: Numbers,
    ) -> Result<Self, BundleError> {
        at_most(MAX_X509_AUTHORITIES, authorities.len(), "X.509 authorities")?;
        at_most(MAX_JWT_AUTHORITIES, keys.len(), "JWT authorities")?;
        authorities.iter().try_for_each(|der| check_authority(der))?;
        keys.iter_mut().try_for_each(check_key)?;
        keys.sort_by(|a, b| a.key_id.cmp(&b.key_id));
        if let Some(pair) = keys.windows(2).find(|pair| pair[0].key_id == pair[1].key_id) {
            return Err(BundleError::DuplicateKeyId(pair[0].key_id.clone()));
        }
        if numbers.refresh_hint < 0 {
            return Err(BundleError::RefreshHint);
        }
        let authority = |asn1| types::X509Certificate { asn1, tainted: false };
        let wire = types::Bundle {
            trust_domain: trust_domain.as_str().to_owned(),
            x509_authorities: authorities.into_iter().map(authority).collect(),
            jwt_authorities: keys,
            refresh_hint: numbers.refresh_hint,
            sequence_number: numbers.sequence_number,
            wit_authorities: Vec::new(),
        };
        if wire.encoded_len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::TooLarge);
        }
        Ok(Self { trust_domain, wire })
    }

    /// Whose bundle it is: it proves no SVID of another trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The wire form.
    pub fn to_pb(&self) -> &types::Bundle {
        &self.wire
    }

    /// The X.509 authorities, DER, in the order in which they came.
    pub fn x509_authorities(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.wire.x509_authorities.iter().map(|authority| &authority.asn1[..])
    }

    /// How often its trust domain wants to be asked for news, seconds; 0: it does not say.
    pub fn refresh_hint_seconds(&self) -> u64 {
        self.wire.refresh_hint.unsigned_abs()
    }

    /// Grows with each change, where its trust domain counts them; otherwise 0.
    pub fn sequence_number(&self) -> u64 {
        self.wire.sequence_number
    }

    /// Whether nobody of the trust domain can be verified with it.
    pub fn is_empty(&self) -> bool {
        self.wire.x509_authorities.is_empty() && self.wire.jwt_authorities.is_empty()
    }
}

/// What a bundle says beside its keys.
#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    refresh_hint: i64,
    sequence_number: u64,
}

fn at_most(limit: usize, count: usize, what: &'static str) -> Result<(), BundleError> {
    if count > limit { Err(BundleError::TooMany { what, limit }) } else { Ok(()) }
}

fn check_authority(der: &[u8]) -> Result<(), BundleError> {
    let certificate = Certificate::parse(der).map_err(BundleError::Authority)?;
    if certificate.is_ca() { Ok(()) } else { Err(BundleError::NotAnAuthority) }
}

fn check_key(key: &mut types::JwtKey) -> Result<(), BundleError> {
    key.tainted = false;
    JwtAuthority::from_wire(key).map(drop).ok_or(BundleError::JwtAuthority)
}

#[cfg(test)]
mod tests;
