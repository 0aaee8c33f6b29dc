//! SSH host certificates that devices were given, and possession of their keys, as SPIRE's `sshpop` asks for it.

use std::sync::Arc;

use ironroot_api::csr::Csr;
use ironroot_attest::SelectorSet;
use ironroot_attest::node::sshpop::{
    self, ATTESTATION_TYPE, AttestedHost, HostAuthorities, HostCertificate, Pending, ShownCertificate, SshPopRefusal,
};
use thiserror::Error;

use super::agent_path::{AgentPathTemplate, Field, Kind, NoName, Value};
use super::fresh::fresh;
use super::proof::renamed;
use super::{AttestationError, AttestedNode, Fault, NodeAttestation, Progress, Proof};

/// The attestation type.
pub(super) const TYPE: &str = ATTESTATION_TYPE;

/// The fields of `agent_path_template`. Source: SPIRE, `agentPathTemplateData`, and of Go's ssh.Certificate what makes a path.
pub const SSHPOP_FIELDS: &[Field] = &[
    ("PluginName", Kind::Text),
    ("Fingerprint", Kind::Text),
    ("Hostname", Kind::Text),
    ("KeyId", Kind::Text),
    ("Serial", Kind::Text),
    ("ValidPrincipals", Kind::List),
];

/// What this server asks of a certificate.
#[derive(Debug)]
pub struct SshPopPolicy {
    /// Who must have signed it.
    pub authorities: HostAuthorities,
    /// What its first name must end with, a dot in front; none if it need not.
    pub canonical_domain: Option<String>,
    /// What the agent is called.
    pub agent_path: AgentPathTemplate,
}

/// Why a host is not attested.
#[derive(Debug, Error)]
pub enum SshPopServerRefusal {
    /// What it shows.
    #[error(transparent)]
    Evidence(#[from] SshPopRefusal),
    /// Its name is of elsewhere.
    #[error("failed to decanonicalize hostname: cert principal is not in domain {0:?}")]
    Domain(String),
    /// It has no name by the template.
    #[error(transparent)]
    NoName(#[from] NoName),
}

/// The certificate as it was sent, and what is asked of it.
#[derive(Debug)]
pub struct Evidence<'a> {
    certificate: ShownCertificate,
    policy: &'a Arc<SshPopPolicy>,
}

impl<'a> Evidence<'a> {
    pub(super) fn read(payload: &[u8], policy: &'a Arc<SshPopPolicy>) -> Result<Self, SshPopServerRefusal> {
        let certificate = sshpop::Evidence::from_json(payload)?.certificate()?;
        Ok(Self { certificate, policy })
    }

    pub(super) fn certificate_sha256(&self) -> [u8; 32] {
        self.certificate.signed_sha256()
    }
}

/// An attestation that waits for the node's answer.
#[derive(Debug)]
pub struct Challenge {
    pending: Pending,
    policy: Arc<SshPopPolicy>,
    csr: Csr,
}

impl Challenge {
    /// As [`super::Challenge::wait_for`].
    pub(super) fn wait_for(&mut self, seconds: i64) {
        self.pending.wait_for(seconds);
    }
}

impl SshPopServerRefusal {
    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::Evidence(refusal) if refusal.is_of_the_message() => Fault::Message,
            Self::Evidence(_) | Self::Domain(_) | Self::NoName(_) => Fault::Node,
        }
    }
}

impl SshPopPolicy {
    /// The name of the host in its domain: the first of the certificate's.
    fn host_name(&self, certificate: &HostCertificate) -> Result<String, SshPopServerRefusal> {
        let first = certificate.principals().first().cloned().unwrap_or_default();
        let Some(domain) = &self.canonical_domain else { return Ok(first) };
        let host = first.strip_suffix(domain.as_str()).filter(|host| !host.is_empty());
        host.map(str::to_owned).ok_or_else(|| SshPopServerRefusal::Domain(domain.clone()))
    }

    fn path(&self, host: &AttestedHost) -> Result<String, SshPopServerRefusal> {
        let certificate = host.certificate();
        let name = self.host_name(certificate)?;
        Ok(self.agent_path.render(&|field| value(field, certificate, &name))?)
    }
}

fn value(field: &str, certificate: &HostCertificate, host: &str) -> Option<Value> {
    Some(match field {
        "PluginName" => TYPE.into(),
        "Fingerprint" => Value::Text(certificate.fingerprint()),
        "Hostname" => host.into(),
        "KeyId" => certificate.key_id().into(),
        "Serial" => Value::Text(certificate.serial().to_string()),
        "ValidPrincipals" => Value::List(certificate.principals().to_vec()),
        _ => return None,
    })
}

impl NodeAttestation {
    pub(super) fn challenge_ssh_host(
        &self,
        Evidence { certificate, policy }: Evidence<'_>,
        csr: Csr,
        now_unix: i64,
    ) -> Result<Progress, SshPopServerRefusal> {
        let verified = certificate.verified(&policy.authorities, now_unix)?;
        policy.host_name(verified.certificate())?;
        let (pending, challenge) = verified.challenge(fresh(), now_unix);
        let waiting = Challenge { pending, policy: policy.clone(), csr };
        Ok(Progress::Challenge(super::Challenge::SshPop(Box::new(waiting)), challenge.to_json()))
    }

    pub(super) fn judge_ssh_host(
        &self,
        Challenge { pending, policy, csr }: Challenge,
        response: &[u8],
        now_unix: i64,
    ) -> Result<AttestedNode, AttestationError> {
        let attested = pending.complete(response, now_unix).map_err(SshPopServerRefusal::from)?;
        let (path, certificate) = (policy.path(&attested)?, attested.certificate());
        let id = self.trust_domain.id_with_path(&format!("/spire/agent{path}"))?;
        let other_ids = renamed(&id, &certificate.fingerprint(), &certificate.other_fingerprints());
        Ok(AttestedNode {
            id,
            attestation_type: TYPE.into(),
            // As in SPIRE, none.
            selectors: SelectorSet::default(),
            can_reattest: true,
            csr,
            proof: Proof::Certificate { sha256: certificate.signed_sha256(), other_ids },
        })
    }
}
