//! The trust bundle: the authorities that everybody in the trust domain believes.

use std::sync::Arc;
use std::time::Duration;

use ironroot_api::TrustDomain;
use ironroot_api::certificate::Certificate;
use ironroot_api::jwt::JwtAuthorities;
use ironroot_api::pb::types;
use ironroot_api::tls::TrustAnchors;
use prost::bytes::Bytes;
use rustls_pki_types::CertificateDer;

use super::{AnswerRefusal, DerList};
use crate::server_number::MAX_SERVERS;

/// Most authorities accepted. A server keeps a few; many servers and a long outage, a few dozen.
const MAX_AUTHORITIES: usize = 256;

/// The authorities of one trust domain, at least one: what is verified against, kept, and handed to workloads.
#[derive(Clone, Debug)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    authorities: DerList,
    /// Of each authority, whether it is tainted.
    tainted: Box<[bool]>,
    newest_not_before: i64,
    anchors: Arc<TrustAnchors>,
    untainted: Arc<TrustAnchors>,
    jwt: JwtAuthorities,
    wit: JwtAuthorities,
    /// Seconds; 0: the server says nothing.
    refresh_hint: i64,
}

impl TrustBundle {
    /// Checks what GetBundle answered.
    pub fn from_answer(answer: &types::Bundle, trust_domain: &TrustDomain) -> Result<Self, AnswerRefusal> {
        let name = answer.trust_domain.strip_prefix("spiffe://").unwrap_or(&answer.trust_domain);
        if name != trust_domain.as_str() {
            return Err(AnswerRefusal::OtherTrustDomain(name.chars().take(255).collect()));
        }
        let authorities = answer.x509_authorities.iter().map(|authority| (&authority.asn1[..], authority.tainted));
        let bundle = Self::new(trust_domain, authorities)?.with_jwt(&answer.jwt_authorities, answer.refresh_hint);
        let key = |wire: &types::WitKey| {
            let types::WitKey { public_key, key_id, expires_at, tainted } = wire.clone();
            types::JwtKey { public_key, key_id, expires_at, tainted }
        };
        let keys: Vec<_> = answer.wit_authorities.iter().map(key).collect();
        Ok(bundle.with_wit(&keys))
    }

    /// The same with the keys that sign the trust domain's JWT-SVIDs, and how often its server wants to be asked for news,
    /// seconds. Only keys that are for JWT-SVIDs come in here: none that signs certificates or another kind of token.
    //= JWT-10 JWT-SVID 6.2: "Implementations MUST extract the JWT-SVID specific keys before using them"
    pub fn with_jwt(self, keys: &[types::JwtKey], refresh_hint: i64) -> Self {
        let jwt = JwtAuthorities::from_wire(&self.trust_domain, keys);
        Self { jwt, refresh_hint: refresh_hint.max(0), ..self }
    }

    /// The same with the keys that sign the trust domain's WIT-SVIDs, in the form of those of JWT-SVIDs.
    pub fn with_wit(self, keys: &[types::JwtKey]) -> Self {
        Self { wit: JwtAuthorities::from_wire(&self.trust_domain, keys), ..self }
    }

    /// Checks stored or configured authorities, DER, each with whether it is tainted.
    pub fn new<'a>(
        trust_domain: &TrustDomain,
        authorities: impl IntoIterator<Item = (&'a [u8], bool)>,
    ) -> Result<Self, AnswerRefusal> {
        Self::of_at_most(MAX_AUTHORITIES, trust_domain, authorities)
    }

    /// What several servers of one trust domain say, in their order: the authorities of all. One that any of them calls tainted is;
    /// one that is revoked is gone when none has it any more. `None` without a bundle.
    pub fn union(bundles: &[Arc<Self>]) -> Result<Option<Arc<Self>>, AnswerRefusal> {
        let Some((first, others)) = bundles.split_first() else { return Ok(None) };
        if others.is_empty() {
            return Ok(Some(first.clone()));
        }
        let mut authorities: Vec<(CertificateDer<'_>, bool)> = Vec::new();
        for (der, is_tainted) in bundles.iter().flat_map(|bundle| bundle.tainted_authorities()) {
            match authorities.iter_mut().find(|(known, _)| *known == der) {
                Some((_, tainted)) => *tainted |= is_tainted,
                None => authorities.push((der, is_tainted)),
            }
        }
        let authorities = authorities.iter().map(|(der, tainted)| (der.as_ref(), *tainted));
        let all = Self::of_at_most(MAX_AUTHORITIES * MAX_SERVERS, &first.trust_domain, authorities)?;
        let hint = bundles.iter().map(|bundle| bundle.refresh_hint).filter(|hint| *hint > 0).min();
        let jwt = all_keys(bundles.iter().flat_map(|bundle| bundle.jwt.to_wire()));
        let wit = all_keys(bundles.iter().flat_map(|bundle| bundle.wit.to_wire()));
        Ok(Some(Arc::new(all.with_jwt(&jwt, hint.unwrap_or_default()).with_wit(&wit))))
    }

    fn of_at_most<'a>(
        limit: usize,
        trust_domain: &TrustDomain,
        authorities: impl IntoIterator<Item = (&'a [u8], bool)>,
    ) -> Result<Self, AnswerRefusal> {
        let (mut parsed, mut tainted) = (Vec::new(), Vec::new());
        for (der, is_tainted) in authorities {
            if parsed.len() == limit {
                return Err(AnswerRefusal::TooMany { what: "authorities", limit });
            }
            parsed.push(authority(der)?);
            tainted.push(is_tainted);
        }
        //= TDB-04 SPIFFE Trust Domain and Bundle 4.1.3: "MUST treat all SVIDs from the trust domain as invalid"
        let newest = parsed.iter().map(Certificate::not_before_unix).max().ok_or(AnswerRefusal::EmptyBundle)?;
        let anchors = |ders: Vec<CertificateDer<'_>>| {
            TrustAnchors::new(trust_domain.clone(), &ders).map_err(AnswerRefusal::Authority)
        };
        let sound = |(certificate, tainted): (&Certificate, &bool)| (!tainted).then(|| certificate.der().clone());
        let all = anchors(parsed.iter().map(|certificate| certificate.der().clone()).collect())?;
        let untainted = match tainted.contains(&true) {
            true => anchors(parsed.iter().zip(&tainted).filter_map(sound).collect())?,
            false => all.clone(),
        };
        Ok(Self {
            trust_domain: trust_domain.clone(),
            authorities: DerList::of(&parsed),
            tainted: tainted.into(),
            newest_not_before: newest,
            anchors: all,
            untainted,
            jwt: JwtAuthorities::from_wire(trust_domain, &[]),
            wit: JwtAuthorities::from_wire(trust_domain, &[]),
            refresh_hint: 0,
        })
    }

    /// Whose authorities these are: they prove no SVID of another trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The authorities, DER, in the server's order.
    pub fn authorities(&self) -> impl ExactSizeIterator<Item = CertificateDer<'_>> {
        self.authorities.iter()
    }

    /// The authorities' DER certificates laid end to end, as the Workload API sends them.
    pub fn concatenated(&self) -> &Bytes {
        self.authorities.concatenated()
    }

    /// The authorities with whether each is tainted, as they are stored.
    pub fn tainted_authorities(&self) -> impl Iterator<Item = (CertificateDer<'_>, bool)> {
        self.authorities.iter().zip(self.tainted.iter().copied())
    }

    /// What SVIDs are verified against: tainted authorities still count until they are gone.
    pub fn anchors(&self) -> &Arc<TrustAnchors> {
        &self.anchors
    }

    /// The authorities that are not tainted; what chains to others is replaced at once.
    pub fn untainted_anchors(&self) -> &Arc<TrustAnchors> {
        &self.untainted
    }

    /// Whether any of them is.
    pub fn has_tainted(&self) -> bool {
        self.tainted.contains(&true)
    }

    /// The keys that sign the trust domain's JWT-SVIDs.
    pub fn jwt_authorities(&self) -> &JwtAuthorities {
        &self.jwt
    }

    /// The keys that sign the trust domain's WIT-SVIDs.
    pub fn wit_authorities(&self) -> &JwtAuthorities {
        &self.wit
    }

    /// How often the server wants to be asked for news of the bundle, if it says so.
    pub fn refresh_hint(&self) -> Option<Duration> {
        u64::try_from(self.refresh_hint).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
    }

    /// When its newest authority began, UNIX seconds.
    pub fn newest_not_before(&self) -> i64 {
        self.newest_not_before
    }

    /// Whether it has an authority that began after `time`, UNIX seconds: if that is when the newest of another bundle began, only such
    /// a bundle can have come after it.
    pub fn began_after(&self, time: i64) -> bool {
        self.newest_not_before > time
    }
}

impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        self.trust_domain == other.trust_domain
            && self.authorities == other.authorities
            && self.tainted == other.tainted
            && self.jwt == other.jwt
            && self.wit == other.wit
            && self.refresh_hint == other.refresh_hint
    }
}

impl Eq for TrustBundle {}

/// Each key once; tainted if anybody says so.
fn all_keys(keys: impl Iterator<Item = types::JwtKey>) -> Vec<types::JwtKey> {
    let mut all: Vec<types::JwtKey> = Vec::new();
    for key in keys {
        match all.iter_mut().find(|known| known.key_id == key.key_id && known.public_key == key.public_key) {
            Some(known) => known.tainted |= key.tainted,
            None => all.push(key),
        }
    }
    all
}

fn authority(der: &[u8]) -> Result<Certificate, AnswerRefusal> {
    let certificate = Certificate::parse(der).map_err(AnswerRefusal::Authority)?;
    if certificate.is_ca() { Ok(certificate) } else { Err(AnswerRefusal::NotAnAuthority) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    fn authority(year: i32) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(year, 1, 1);
        params.self_signed(&KeyPair::generate().expect("key")).expect("root").der().to_vec()
    }

    #[test]
    fn only_a_bundle_with_a_later_authority_is_newer() {
        let bundle = |authorities: &[&Vec<u8>]| {
            let authorities = authorities.iter().map(|der| (der.as_slice(), false));
            TrustBundle::new(&TrustDomain::new("td").expect("legal"), authorities).expect("bundle")
        };
        let (first, second, third) = (authority(2024), authority(2025), authority(2026));
        let held = bundle(&[&second]).newest_not_before();
        assert!(!bundle(&[&first]).began_after(held), "an authority that was revoked since does not come back");
        assert!(!bundle(&[&first, &second]).began_after(held));
        assert!(!bundle(&[&second]).began_after(held));
        assert!(bundle(&[&third]).began_after(held));
        assert!(bundle(&[&first, &third]).began_after(held));
    }

    #[test]
    fn the_bundle_of_two_servers_has_what_either_has_and_believes_the_one_that_calls_an_authority_tainted() {
        let domain = TrustDomain::new("td").expect("legal");
        let bundle = |authorities: &[(&Vec<u8>, bool)], hint| {
            let authorities = authorities.iter().map(|(der, tainted)| (der.as_slice(), *tainted));
            Arc::new(TrustBundle::new(&domain, authorities).expect("bundle").with_jwt(&[], hint))
        };
        let union = |bundles: &[Arc<TrustBundle>]| TrustBundle::union(bundles).expect("sound");
        let (norths, souths, shared) = (authority(2024), authority(2025), authority(2026));
        let north = bundle(&[(&norths, false), (&shared, false)], 300);
        let south = bundle(&[(&souths, false), (&shared, true)], 60);
        let both = union(&[north.clone(), south]).expect("two");
        let seen: Vec<_> = both.tainted_authorities().map(|(der, tainted)| (der.to_vec(), tainted)).collect();
        assert_eq!(seen, [(norths, false), (shared, true), (souths, false)]);
        assert_eq!(both.refresh_hint(), Some(Duration::from_secs(60)), "as often as the one that is in a hurry");
        assert!(union(std::slice::from_ref(&north)).is_some_and(|alone| Arc::ptr_eq(&alone, &north)));
        assert!(union(&[]).is_none());
    }
}
