//! The certificate of the agent's own CA: what a server says it is, and what is proven of it.
//!
//! A CA's certificate proves itself by what it signs, as peers see it: an SVID for a key that is thrown away, whose chain leads to the trust
//! bundle. That SVID is kept beside it, so that it can be looked at again when the bundle changes.

use der::Encode;
use ironroot_api::certificate::Certificate;
use ironroot_api::issuing::{Signer, ecdsa_with_sha256};
use ironroot_api::tls::{MAX_CHAIN, TrustAnchors};

use super::svid::{CheckedChain, is_signed_by};
use super::{AnswerRefusal, DerList, TrustBundle, span};
use crate::trusted_time::{Lifetime, Moment, Span, TrustedTime};

/// A CA's certificate as a server sent it. Nothing of it is believed yet.
#[derive(Debug)]
pub struct ClaimedIntermediate {
    chain: Vec<Certificate>,
    facts: Facts,
}

/// A CA's certificate whose SVIDs lead to the trust bundle, or did when it was proven.
#[derive(Clone, Debug)]
pub struct Intermediate {
    /// An SVID that it has signed, itself, and what is between it and a root.
    proof: DerList,
    facts: Facts,
    spki_der: Vec<u8>,
    lifetime: Lifetime,
}

/// What is needed to sign in its name.
#[derive(Clone, Debug)]
struct Facts {
    name: Vec<u8>,
    key_id: Vec<u8>,
}

impl Facts {
    fn of(ca: &Certificate) -> Result<Self, AnswerRefusal> {
        if !ca.is_ca() {
            return Err(AnswerRefusal::NotACa);
        }
        let name = ca.inner().tbs_certificate().subject().to_der();
        let name = name.map_err(|_| AnswerRefusal::Missing("name that can be encoded"))?;
        let key_id = ca.subject_key_id().ok_or(AnswerRefusal::Missing("subject key identifier"))?;
        Ok(Self { name, key_id })
    }

    fn signer(&self) -> Signer<'_> {
        Signer { name: &self.name, key_id: &self.key_id, algorithm: ecdsa_with_sha256() }
    }
}

impl ClaimedIntermediate {
    /// Reads a server's answer, DER, the CA first: it is to be for the key `spki_der`. One certificate less than a chain may have: its SVIDs
    /// come before it.
    pub fn read<'a>(chain: impl IntoIterator<Item = &'a [u8]>, spki_der: &[u8]) -> Result<Self, AnswerRefusal> {
        let mut certificates = Vec::new();
        for der in chain {
            if certificates.len() + 1 == MAX_CHAIN {
                return Err(AnswerRefusal::TooMany { what: "certificates above a CA", limit: MAX_CHAIN - 1 });
            }
            certificates.push(Certificate::parse(der)?);
        }
        let ca = certificates.first().ok_or(AnswerRefusal::Missing("certificate"))?;
        if ca.spki_der() != spki_der {
            return Err(AnswerRefusal::OtherKey);
        }
        let facts = Facts::of(ca)?;
        Ok(Self { facts, chain: certificates })
    }

    /// In whose name the proof is to be signed.
    pub fn signer(&self) -> Signer<'_> {
        self.facts.signer()
    }

    /// When it can be valid.
    pub fn span(&self) -> Span {
        span(&self.chain)
    }

    /// Verifies `svid` (DER), which the CA has signed, as peers do, and with it the CA. The key was made for this request, so the server's
    /// signature is fresh: `time` learns from it.
    pub fn prove(self, svid: &[u8], bundle: &TrustBundle, time: &TrustedTime) -> Result<Intermediate, AnswerRefusal> {
        let Some(ca) = self.chain.first() else { return Err(AnswerRefusal::Missing("certificate")) };
        let (issued, spki_der) = (ca.not_before_unix(), ca.spki_der());
        let chain = std::iter::once(svid).chain(self.chain.iter().map(|certificate| &certificate.der()[..]));
        let checked = CheckedChain::check(chain, bundle, &time.moment())?;
        let lifetime = time.receive(issued, self.span());
        Ok(Intermediate { proof: checked.list(), facts: self.facts, spki_der, lifetime })
    }
}

impl Intermediate {
    /// Takes up what [`proof`](Self::proof) gave in an earlier run, of which `left` seconds were left; verified again.
    pub fn restored<'a>(
        proof: impl IntoIterator<Item = &'a [u8]>,
        left: i64,
        bundle: &TrustBundle,
        moment: &Moment,
    ) -> Result<Self, AnswerRefusal> {
        let checked = CheckedChain::check(proof, bundle, moment)?;
        let chain = checked.certificates.get(1..).unwrap_or_default();
        let ca = chain.first().ok_or(AnswerRefusal::Missing("certificate"))?;
        let (facts, spki_der, lifetime) = (Facts::of(ca)?, ca.spki_der(), Lifetime::kept(span(chain), Some(left)));
        Ok(Self { proof: checked.list(), facts, spki_der, lifetime })
    }

    /// Its public key, DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// How long it lasts, with those above it.
    pub fn lifetime(&self) -> &Lifetime {
        &self.lifetime
    }

    /// In whose name its SVIDs are signed.
    pub fn signer(&self) -> Signer<'_> {
        self.facts.signer()
    }

    /// It and what is above it, DER: what follows each of its SVIDs.
    pub fn above(&self) -> Vec<Vec<u8>> {
        self.proof.iter().skip(1).map(|der| der.to_vec()).collect()
    }

    /// To be kept.
    pub fn proof(&self) -> Vec<Vec<u8>> {
        self.proof.iter().map(|der| der.to_vec()).collect()
    }

    /// Whether an authority of `anchors` stands above it. Its time is judged elsewhere.
    pub fn is_signed_by(&self, anchors: &TrustAnchors, moment: &Moment) -> bool {
        is_signed_by(&self.proof, &self.lifetime, anchors, moment)
    }
}
