//! What comes back from a ceremony, before the server is given it.

use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use ironroot_api::TrustDomain;
use ironroot_api::certificate::Certificate;
use ironroot_text::hex::hex;

use super::{CeremonyRefusal, refuse_no_root};
use crate::ca::lint;

/// A chain that belongs to the key that waits and leads to one of the roots.
#[derive(Debug)]
#[must_use]
pub struct Delivery(Vec<Certificate>);

impl Delivery {
    /// `chain`: the CA first; `waiting_spki`: of the request that waits; `roots`: those of `roots_path`.
    pub fn judge(
        chain: Vec<Certificate>,
        waiting_spki: &[u8],
        (roots, roots_path): (&[Certificate], &Path),
        trust_domain: &TrustDomain,
        now_unix: i64,
    ) -> Result<Self, CeremonyRefusal> {
        let Some(ca) = chain.first() else { return Err(CeremonyRefusal::NoCa("there is none")) };
        if ca.spki_der() != waiting_spki {
            let (found, waiting) = (fingerprint(&ca.spki_der()), fingerprint(waiting_spki));
            return Err(CeremonyRefusal::NotTheWaitingKey { found, waiting });
        }
        lint::fields_of_a_ca(ca, trust_domain, waiting_spki)
            .map_err(|_| CeremonyRefusal::NoCa("it is not what CAs of this server are"))?;
        if let Some(ended) = chain.iter().find(|one| one.not_after_unix() <= now_unix) {
            return Err(CeremonyRefusal::Ended(ended.not_after_unix()));
        }
        for pair in chain.windows(2) {
            if !lint::is_signed_by(&pair[0], &pair[1]) {
                return Err(CeremonyRefusal::NotBelowTheRoots(roots_path.display().to_string()));
            }
        }
        let last = chain.last().unwrap_or(ca);
        let is_root_of_it = |root: &&Certificate| {
            refuse_no_root(root, trust_domain).is_ok()
                && root.not_after_unix() > now_unix
                && lint::is_signed_by(last, root)
        };
        match roots.iter().find(is_root_of_it) {
            Some(_) => Ok(Self(chain)),
            None => Err(CeremonyRefusal::NotBelowTheRoots(roots_path.display().to_string())),
        }
    }

    /// The CA first.
    pub fn chain(&self) -> &[Certificate] {
        &self.0
    }
}

/// SHA-256, hexadecimal.
fn fingerprint(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};

    use super::*;

    fn params(name: &str, is_ca: IsCa) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = is_ca;
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![SanType::URI("spiffe://example.org".try_into().unwrap())];
        params
    }

    struct Authority {
        certificate: Certificate,
        params: CertificateParams,
        key: KeyPair,
    }

    impl Authority {
        fn root(name: &str) -> Self {
            let (params, key) = (params(name, IsCa::Ca(BasicConstraints::Unconstrained)), KeyPair::generate().unwrap());
            let certificate = Certificate::parse(params.self_signed(&key).unwrap().der()).unwrap();
            Self { certificate, params, key }
        }

        fn sign(&self, name: &str, is_ca: IsCa) -> Self {
            let (params, key) = (params(name, is_ca), KeyPair::generate().unwrap());
            let issuer = Issuer::from_params(&self.params, &self.key);
            let certificate = Certificate::parse(params.signed_by(&key, &issuer).unwrap().der()).unwrap();
            Self { certificate, params, key }
        }
    }

    #[test]
    fn what_comes_back_is_taken_only_for_the_key_that_waits_and_below_a_root_of_the_file() {
        let unconstrained = || IsCa::Ca(BasicConstraints::Unconstrained);
        let (root, other) = (Authority::root("root"), Authority::root("root"));
        let between = root.sign("between", unconstrained());
        let (ca, below) = (root.sign("ca", unconstrained()), between.sign("below", unconstrained()));
        let trust_domain = TrustDomain::new("example.org").unwrap();
        let judge = |chain: &[&Authority], waiting: &Authority, roots: &Authority, now| {
            let chain = chain.iter().map(|one| one.certificate.clone()).collect();
            let roots = (std::slice::from_ref(&roots.certificate), Path::new("roots.pem"));
            Delivery::judge(chain, &waiting.certificate.spki_der(), roots, &trust_domain, now)
        };
        let now = 1_800_000_000;
        assert_eq!(judge(&[&ca], &ca, &root, now).unwrap().chain().len(), 1);
        assert_eq!(judge(&[&below, &between], &below, &root, now).unwrap().chain().len(), 2);
        assert!(matches!(judge(&[&ca], &below, &root, now), Err(CeremonyRefusal::NotTheWaitingKey { .. })));
        // A root of the same name with another key has not signed it.
        assert!(matches!(judge(&[&ca], &ca, &other, now), Err(CeremonyRefusal::NotBelowTheRoots(_))));
        assert!(matches!(judge(&[&below], &below, &root, now), Err(CeremonyRefusal::NotBelowTheRoots(_))));
        assert!(matches!(judge(&[&below, &ca], &below, &root, now), Err(CeremonyRefusal::NotBelowTheRoots(_))));
        let leaf = root.sign("leaf", IsCa::ExplicitNoCa);
        assert!(matches!(judge(&[&leaf], &leaf, &root, now), Err(CeremonyRefusal::NoCa(_))));
        assert!(matches!(judge(&[], &ca, &root, now), Err(CeremonyRefusal::NoCa(_))));
        let end = ca.certificate.not_after_unix();
        assert!(matches!(judge(&[&ca], &ca, &root, end), Err(CeremonyRefusal::Ended(at)) if at == end));
    }
}
