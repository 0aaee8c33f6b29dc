//! Attested agents as the server remembers them, and their wire form.

use ironroot_attest::SelectorSet;

use crate::facts::mask::mask_agent;
use ironroot_api::SpiffeId;
use ironroot_api::pb::types;

/// Longest agent version kept, bytes. Source: SPIRE's PostStatus.
pub const MAX_AGENT_VERSION_BYTES: usize = 255;

/// An agent's row: how it proved itself and which certificate speaks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRecord {
    /// The agent's SPIFFE ID.
    pub spiffe_id: SpiffeId,
    /// How it attested, such as `tpm2` or `join_token`.
    pub attestation_type: String,
    /// Serial number of the certificate in force, decimal. Empty once banned.
    pub serial: String,
    /// End of that certificate, UNIX seconds.
    pub not_after: i64,
    /// Serial number of a renewed certificate that has not been used yet, decimal; empty if there is none.
    pub new_serial: String,
    /// End of the renewed certificate, UNIX seconds; 0 if there is none.
    pub new_not_after: i64,
    /// Whether it attests again instead of renewing.
    pub can_reattest: bool,
    /// Whether an operator shut it out.
    pub banned: bool,
    /// What attestation found; labels are not among them, they are joined at each sync.
    pub selectors: SelectorSet,
    /// What the agent says it runs; empty until it says so.
    pub agent_version: String,
    /// SHA-256 of the endorsement key it proved, for agents with a TPM.
    pub ek_sha256: Option<[u8; 32]>,
    /// SHA-256 of the TBSCertificate of the certificate it proved, for agents that have one (`x509pop`). No two have the same.
    pub certificate_sha256: Option<[u8; 32]>,
}

impl AgentRecord {
    /// The attestation type that named the agent: the first, where several were proven together.
    pub fn named_by(&self) -> &str {
        self.attestation_type.split('+').next().unwrap_or_default()
    }

    /// The wire form, only the fields that `mask` names (no mask: all). The ID is always there.
    pub fn to_pb(&self, mask: Option<&types::AgentMask>) -> types::Agent {
        let all = types::Agent {
            id: Some(self.spiffe_id.to_pb()),
            attestation_type: self.attestation_type.clone(),
            x509svid_serial_number: self.serial.clone(),
            x509svid_expires_at: self.not_after,
            selectors: selectors_to_pb(&self.selectors),
            banned: self.banned,
            can_reattest: self.can_reattest,
            agent_version: self.agent_version.clone(),
        };
        mask_agent(all, mask)
    }
}

/// The wire form of a selector set, in order.
pub fn selectors_to_pb(selectors: &SelectorSet) -> Vec<types::Selector> {
    selectors.iter().map(|s| types::Selector { r#type: s.kind().to_owned(), value: s.value().to_owned() }).collect()
}

#[cfg(test)]
impl AgentRecord {
    /// `spiffe://td/spire/agent/<name>`, whose certificate has serial 1; tests say what else is true of it.
    pub(crate) fn example(name: &str) -> Self {
        Self {
            spiffe_id: SpiffeId::parse(&format!("spiffe://td/spire/agent/{name}")).expect("legal"),
            attestation_type: "test".into(),
            serial: "1".into(),
            not_after: 9,
            new_serial: String::new(),
            new_not_after: 0,
            can_reattest: true,
            banned: false,
            selectors: SelectorSet::default(),
            agent_version: String::new(),
            ek_sha256: None,
            certificate_sha256: None,
        }
    }
}
