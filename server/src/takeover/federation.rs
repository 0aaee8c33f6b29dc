//! Other trust domains: their bundles, and where those are fetched from.

use std::collections::HashSet;

use ironroot_api::TrustDomain;
use ironroot_api::bundle::Bundle;
use ironroot_api::pb::types;
use ironroot_api::pb::types::federation_relationship::BundleEndpointProfile;
use ironroot_shell::describe;
use prost::Message;

use super::journal_blob;
use super::plan::Rules;
use super::report::{Report, What};
use crate::facts::federation::{AskedRelationship, FederationRelationship};
use crate::federation::MAX_TRUST_DOMAINS;
use crate::store::spire::{SpireBundle, SpireRelationship};

/// What becomes of them.
#[derive(Debug, Default)]
pub(super) struct Federation {
    pub(super) bundles: Vec<Bundle>,
    pub(super) relationships: Vec<FederationRelationship>,
}

impl Federation {
    /// What our rules take; of each other the report says why.
    pub(super) fn taken(
        bundles: &[SpireBundle],
        relationships: &[SpireRelationship],
        rules: &Rules,
        report: &mut Report,
    ) -> Self {
        let mut federation = Self::default();
        let own = rules.trust_domain.id().to_string();
        for found in bundles.iter().filter(|bundle| bundle.trust_domain != own) {
            match judge_bundle(found).and_then(|bundle| federation.has_room_for(bundle)) {
                Ok(bundle) => federation.bundles.push(bundle),
                Err(why) => report.leave(What::FederatedBundle, &found.trust_domain, why),
            }
        }
        for found in relationships {
            match judge_relationship(found, rules).and_then(|one| federation.has_room_for_relationship(one)) {
                Ok(relationship) => federation.relationships.push(relationship),
                Err(why) => report.leave(What::FederationRelationship, &found.trust_domain, why),
            }
        }
        (report.federated_bundles, report.federation_relationships) =
            (federation.bundles.len(), federation.relationships.len());
        federation
    }

    /// Whose bundles have come along.
    pub(super) fn trust_domains(&self) -> HashSet<&TrustDomain> {
        self.bundles.iter().map(Bundle::trust_domain).collect()
    }

    fn has_room_for(&self, bundle: Bundle) -> Result<Bundle, String> {
        let is_there = self.bundles.iter().any(|other| other.trust_domain() == bundle.trust_domain());
        refuse(is_there, self.bundles.len()).map(|()| bundle)
    }

    fn has_room_for_relationship(&self, one: FederationRelationship) -> Result<FederationRelationship, String> {
        let is_there = self.relationships.iter().any(|other| other.trust_domain == one.trust_domain);
        refuse(is_there, self.relationships.len()).map(|()| one)
    }
}

fn refuse(is_there: bool, count: usize) -> Result<(), String> {
    if is_there {
        return Err("it is there twice".to_owned());
    }
    match i64::try_from(count).is_ok_and(|count| count < MAX_TRUST_DOMAINS) {
        true => Ok(()),
        false => Err(format!("a server knows {MAX_TRUST_DOMAINS} other trust domains at most")),
    }
}

/// Without its sequence number: SPIRE keeps 0 of bundles that it has fetched, and whatever an operator gave of others.
fn judge_bundle(found: &SpireBundle) -> Result<Bundle, String> {
    let stored =
        journal_blob::Bundle::decode(&*found.data).map_err(|_| "it is damaged: it does not decode".to_owned())?;
    if stored.trust_domain_id != found.trust_domain {
        return Err(format!("the bundle in its row is that of {:?}", stored.trust_domain_id));
    }
    let authority = |root: &journal_blob::RootCa| types::X509Certificate {
        asn1: root.der_bytes.clone().into(),
        tainted: root.tainted_key,
    };
    let key = |key: &journal_blob::PublicKey| types::JwtKey {
        public_key: key.pkix_bytes.clone().into(),
        key_id: key.kid.clone(),
        expires_at: key.not_after,
        tainted: key.tainted_key,
    };
    let wire = types::Bundle {
        trust_domain: name(&found.trust_domain),
        x509_authorities: stored.root_cas.iter().map(authority).collect(),
        jwt_authorities: stored.jwt_signing_keys.iter().map(key).collect(),
        refresh_hint: stored.refresh_hint,
        ..types::Bundle::default()
    };
    Bundle::from_pb(&wire).map_err(|error| {
        format!("our rules refuse it: {}; bundle set would too: ask that trust domain for another", describe(&error))
    })
}

fn judge_relationship(found: &SpireRelationship, rules: &Rules) -> Result<FederationRelationship, String> {
    let profile = match found.bundle_endpoint_profile.as_str() {
        "https_web" => BundleEndpointProfile::HttpsWeb(types::HttpsWebProfile {}),
        "https_spiffe" => BundleEndpointProfile::HttpsSpiffe(types::HttpsspiffeProfile {
            endpoint_spiffe_id: found.endpoint_spiffe_id.clone(),
        }),
        other => return Err(format!("its bundle endpoint profile is {other:?}: create it here (federation create)")),
    };
    let wire = types::FederationRelationship {
        trust_domain: name(&found.trust_domain),
        bundle_endpoint_url: found.bundle_endpoint_url.clone(),
        bundle_endpoint_profile: Some(profile),
        trust_domain_bundle: None,
    };
    let asked = AskedRelationship::from_pb(&wire);
    let relationship = asked
        .map_err(|error| format!("our rules refuse it: {}; create it here (federation create)", describe(&error)))?;
    match relationship.relationship.trust_domain == rules.trust_domain {
        true => Err("it is with the trust domain itself".to_owned()),
        false => Ok(relationship.relationship),
    }
}

/// Without `spiffe://`, which SPIRE writes in one table and not in the other.
pub(super) fn name(trust_domain: &str) -> String {
    trust_domain.strip_prefix("spiffe://").unwrap_or(trust_domain).to_owned()
}
