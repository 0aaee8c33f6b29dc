//! The head of a server's issuance log, as it is shown to agents and kept by them: how far the log has come, signed by the server's CA.
//!
//! ```text
//!  server: metadata of a sync's answer ── SignedHead ──► agent keeps the furthest, and shows it with its next sync
//!  statement (JSON) ◄─ signature over PREFIX ‖ statement ─ key of chain[0] ─ signed by chain[1].. ─ signed by an authority of the bundle
//! ```
//! The prefix is the beginning of nothing else that such a key signs: certificates begin with 0x30, tokens with base64url.

use const_oid::db::rfc5912;
use prost::Message;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use webpki::EndEntityCert;
use x509_cert::der::Encode;

use crate::certificate::Certificate;
use crate::jwt::{Algorithm, PublicKey};
use crate::pb::issuance_head as pb;
use crate::tls::AuthorityMark;

/// The metadata that both sides send it in.
pub const HEAD_METADATA: &str = "ironroot-head-bin";
/// Longest signed head, bytes: in base64 it fits into the 4 KiB of headers that servers take from strangers, which an agent may be to them. One of
/// P-256 has 0.9 kB, of RSA-4096 2.4.
pub const MAX_SIGNED_HEAD_BYTES: usize = 2560;
/// Certificates from the signer up to what the bundle has.
const MAX_CHAIN: usize = 6;
const PREFIX: &[u8] = b"ironroot issuance head 1\n";

/// How far a server's issuance log has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuanceHead {
    /// Whose.
    pub trust_domain: String,
    /// Which of the trust domain's servers; empty of one without a name.
    pub server: String,
    /// Which chain: see the server's `issuance_log`.
    pub epoch: u64,
    /// How many records it has.
    pub sequence: u64,
    /// Of the last of them, SHA-256 in hexadecimal.
    pub hash: String,
    /// When that was, UNIX seconds.
    pub at: i64,
}

/// Why a head is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeadRefusal {
    /// Longer than [`MAX_SIGNED_HEAD_BYTES`], or no such message.
    #[error("it does not decode")]
    Malformed,
    /// Its signer's chain does not lead to an authority of the bundle.
    #[error("its signer is not known from the bundle")]
    UnknownSigner,
    /// A CA has signed it that is none of the server's.
    #[error("another CA than the server's has signed it")]
    AnotherSigner,
    /// Signed by another key, or changed.
    #[error("its signature is wrong")]
    Signature,
}

/// What is signed.
pub fn signed_bytes(statement: &[u8]) -> Vec<u8> {
    [PREFIX, statement].concat()
}

/// A head with what proves it. `chain`: the signer's certificate first, DER.
pub fn encode(statement: Vec<u8>, signature: Vec<u8>, chain: Vec<Vec<u8>>) -> Option<Vec<u8>> {
    let [statement, signature] = [statement, signature].map(Into::into);
    let message = pb::SignedHead { statement, signature, chain: chain.into_iter().map(Into::into).collect() };
    Some(message.encode_to_vec()).filter(|bytes| bytes.len() <= MAX_SIGNED_HEAD_BYTES)
}

/// What a signed head says; nothing is verified.
pub fn read(encoded: &[u8]) -> Result<IssuanceHead, HeadRefusal> {
    serde_json::from_slice(&decode(encoded)?.statement).map_err(|_| HeadRefusal::Malformed)
}

/// What a signed head says, once its signature leads to one of `authorities`. Whose CA has signed it is not asked: whoever has one below the
/// same authority can say what he likes of another's log, to an agent that believes him.
pub fn verify(encoded: &[u8], authorities: &[CertificateDer<'_>]) -> Result<IssuanceHead, HeadRefusal> {
    verify_of(encoded, authorities, |_| true)
}

/// The same of a head that one of a server's own CAs must have signed. `is_own`: whether that is one of them.
pub fn verify_of(
    encoded: &[u8],
    authorities: &[CertificateDer<'_>],
    is_own: impl Fn(&AuthorityMark) -> bool,
) -> Result<IssuanceHead, HeadRefusal> {
    let message = decode(encoded)?;
    if message.chain.len() > MAX_CHAIN {
        return Err(HeadRefusal::Malformed);
    }
    let chain = message.chain.iter().map(|der| Certificate::parse(der)).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|_| HeadRefusal::Malformed)?;
    let signer = chain.first().ok_or(HeadRefusal::UnknownSigner)?;
    if !leads_to(&chain, authorities) {
        return Err(HeadRefusal::UnknownSigner);
    }
    if !AuthorityMark::of_certificate(signer).is_ok_and(|mark| is_own(&mark)) {
        return Err(HeadRefusal::AnotherSigner);
    }
    let signed = signed_bytes(&message.statement);
    match has_signed(signer, &signed, &message.signature) {
        true => serde_json::from_slice(&message.statement).map_err(|_| HeadRefusal::Malformed),
        false => Err(HeadRefusal::Signature),
    }
}

fn decode(encoded: &[u8]) -> Result<pb::SignedHead, HeadRefusal> {
    let is_short = encoded.len() <= MAX_SIGNED_HEAD_BYTES;
    is_short.then(|| pb::SignedHead::decode(encoded).ok()).flatten().ok_or(HeadRefusal::Malformed)
}

/// Whether each certificate is a CA's, signed by the next, and the last is an authority or signed by one. Their times are not asked: what
/// was said once stays said.
fn leads_to(chain: &[Certificate], authorities: &[CertificateDer<'_>]) -> bool {
    for (place, certificate) in chain.iter().enumerate() {
        if !certificate.is_ca() {
            return false;
        }
        if authorities.iter().any(|authority| authority == certificate.der() || signed_by(certificate, authority)) {
            return true;
        }
        if !chain.get(place + 1).is_some_and(|above| signed_by(certificate, above.der())) {
            return false;
        }
    }
    false
}

fn signed_by(certificate: &Certificate, above: &CertificateDer<'_>) -> bool {
    let inner = certificate.inner();
    let (Ok(above), Ok(message)) = (EndEntityCert::try_from(above), inner.tbs_certificate().to_der()) else {
        return false;
    };
    let Some(signature) = inner.signature().as_bytes() else { return false };
    algorithms(inner.signature_algorithm().oid).iter().any(|a| above.verify_signature(*a, &message, signature).is_ok())
}

/// The algorithms of certificates of ours and of those above.
fn algorithms(oid: const_oid::ObjectIdentifier) -> Vec<&'static dyn SignatureVerificationAlgorithm> {
    use webpki::aws_lc_rs as with;
    match oid {
        rfc5912::ECDSA_WITH_SHA_256 => vec![with::ECDSA_P256_SHA256, with::ECDSA_P384_SHA256],
        rfc5912::ECDSA_WITH_SHA_384 => vec![with::ECDSA_P384_SHA384, with::ECDSA_P256_SHA384],
        rfc5912::SHA_256_WITH_RSA_ENCRYPTION => vec![with::RSA_PKCS1_2048_8192_SHA256],
        rfc5912::SHA_384_WITH_RSA_ENCRYPTION => vec![with::RSA_PKCS1_2048_8192_SHA384],
        rfc5912::SHA_512_WITH_RSA_ENCRYPTION => vec![with::RSA_PKCS1_2048_8192_SHA512],
        _ => Vec::new(),
    }
}

/// In the form of JWS, with the digest that goes with the kind of key.
fn has_signed(signer: &Certificate, message: &[u8], signature: &[u8]) -> bool {
    let Some(key) = PublicKey::parse(&signer.spki_der()) else { return false };
    let algorithms = [Algorithm::Es256, Algorithm::Es384, Algorithm::Rs256];
    algorithms.into_iter().any(|algorithm| key.has_signed(algorithm, message, signature) == Some(true))
}
