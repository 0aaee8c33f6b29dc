//! Relationships for people, as SPIRE's commands print them.

use ironroot_api::pb::types::FederationRelationship;
use ironroot_api::pb::types::federation_relationship::BundleEndpointProfile;
use ironroot_shell::command_line::labelled;

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
    labelled(text, 26, label, value);
}
