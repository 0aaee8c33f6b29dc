//! Relationships for people, as SPIRE's commands print them.

use std::fmt::Write;

use ironroot_api::pb::types::FederationRelationship;
use ironroot_api::pb::types::federation_relationship::BundleEndpointProfile;

/// Writes `relationship` down, a line for each part.
pub(super) fn describe(text: &mut String, relationship: &FederationRelationship) {
    line(text, "Trust domain", &relationship.trust_domain);
    line(text, "Bundle endpoint URL", &relationship.bundle_endpoint_url);
    match &relationship.bundle_endpoint_profile {
        Some(BundleEndpointProfile::HttpsWeb(_)) => line(text, "Bundle endpoint profile", "https_web"),
        Some(BundleEndpointProfile::HttpsSpiffe(spiffe)) => {
            line(text, "Bundle endpoint profile", "https_spiffe");
            line(text, "Endpoint SPIFFE ID", &spiffe.endpoint_spiffe_id);
        }
        None => {}
    }
}

fn line(text: &mut String, label: &str, value: &str) {
    writeln!(text, "{label:<26}: {value}").expect("writing to a string cannot fail");
}
