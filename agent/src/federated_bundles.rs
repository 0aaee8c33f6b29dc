//! The bundles of other trust domains that entries ask for, each by itself: nothing here puts two together.

use std::collections::BTreeMap;
use std::sync::Arc;

use ironroot_api::TrustDomain;

use crate::server_answers::ForeignBundle;

/// Most other trust domains whose bundles are held: as many as one entry may name.
pub const MAX_FEDERATED: usize = 256;
/// All their bundles together, bytes on the wire. Each workload that asks for them all is sent as much.
pub const MAX_FEDERATED_BYTES: usize = 2 * 1024 * 1024;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FederatedBundles {
    by_trust_domain: BTreeMap<TrustDomain, Arc<ForeignBundle>>,
    bytes: usize,
}

impl FederatedBundles {
    /// Adds a bundle of a trust domain that there is none of yet; false if there is no room for it.
    #[must_use]
    pub fn add(&mut self, bundle: Arc<ForeignBundle>) -> bool {
        let bytes = self.bytes + bundle.wire_bytes();
        if self.by_trust_domain.len() >= MAX_FEDERATED || bytes > MAX_FEDERATED_BYTES {
            return false;
        }
        self.bytes = bytes;
        self.by_trust_domain.insert(bundle.trust_domain().clone(), bundle);
        true
    }

    /// The bundle of that trust domain.
    pub fn get(&self, trust_domain: &TrustDomain) -> Option<&Arc<ForeignBundle>> {
        self.by_trust_domain.get(trust_domain)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<ForeignBundle>> {
        self.by_trust_domain.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_trust_domain.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_trust_domain.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::pb::types;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;

    fn bundle(name: &str, authorities: &[Vec<u8>]) -> Arc<ForeignBundle> {
        let authority = |der: &Vec<u8>| types::X509Certificate { asn1: der.clone().into(), tainted: false };
        let wire = types::Bundle {
            trust_domain: name.to_owned(),
            x509_authorities: authorities.iter().map(authority).collect(),
            ..types::Bundle::default()
        };
        let trust_domain = TrustDomain::new(name).expect("legal");
        Arc::new(ForeignBundle::from_answer(&wire, &trust_domain).expect("a bundle"))
    }

    #[test]
    fn so_many_bundles_of_so_many_bytes_are_held_and_no_more() {
        let mut held = FederatedBundles::default();
        let added = (0..MAX_FEDERATED + 1).filter(|number| held.add(bundle(&format!("td{number}"), &[]))).count();
        assert_eq!((added, held.len()), (MAX_FEDERATED, MAX_FEDERATED));
        let mut params = CertificateParams::new(vec!["x".repeat(250); 50]).expect("legal");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let large = params.self_signed(&KeyPair::generate().expect("key")).expect("root").der().to_vec();
        let mut held = FederatedBundles::default();
        let added =
            (0..100).filter(|number| held.add(bundle(&format!("td{number}"), &vec![large.clone(); 15]))).count();
        assert!((5..100).contains(&added) && held.len() == added, "{added}");
        assert!(added * 15 * large.len() <= MAX_FEDERATED_BYTES);
    }
}
