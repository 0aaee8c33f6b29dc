//! Drives one attestation to an [`AttestedNode`].
//!
//! ```text
//!  read(type, payload) ─► Evidence ─ begin(CSR) ─► Attested | Challenge ─ answer ─► Attested
//! ```
//! Each way to attest is a file below: its policy, what a node says first, the challenge if there is one, and why it refuses.
//! A further one is a file and a line in each of the lists here.

pub mod agent_path;
mod boot_policy;
mod circumstances;
mod fault;
mod fresh;
mod http_challenge;
mod join_token;
mod proof;
mod sshpop;
mod together;
mod tpm;
mod tpm2;
mod tpm_devid;
mod weak_firmware;
mod x509pop;

use std::borrow::Cow;
use std::sync::Arc;

use ironroot_api::csr::Csr;
use ironroot_api::{SpiffeId, SpiffeIdError, TrustDomain};
use ironroot_attest::node::together::TogetherRefusal;
use ironroot_attest::node::tpm::TpmRefusal;
use ironroot_attest::node::tpm_devid::TpmDevIdRefusal;
use ironroot_attest::node::tpm2::CHALLENGE_SECONDS;
use ironroot_attest::{Selector, SelectorSet};
use ironroot_text::hex::hex;
use thiserror::Error;

pub use boot_policy::BootPolicy;
pub use circumstances::Circumstances;
pub use fault::Fault;
pub use http_challenge::{HttpChallengePolicy, HttpChallengeServerRefusal, Ports};
pub use join_token::{JoinTokenRefusal, UnspentToken};
pub use proof::Proof;
pub use sshpop::{SSHPOP_FIELDS, SshPopPolicy, SshPopServerRefusal};
pub use together::{Enrolment, Together, TwoChips};
pub use tpm::TpmPolicy;
pub use tpm_devid::TpmDevIdPolicy;
pub use tpm2::{Tpm2Policy, Tpm2Refusal};
pub use weak_firmware::{WeakFirmware, told_of_chip};
pub use x509pop::{Issuers, X509POP_FIELDS, X509PopPolicy, X509PopServerRefusal};

use crate::devices::{Devices, NotAdmitted, ProvenDevice};
use crate::facts::device::DeviceState;
use crate::store::{Store, StoreError};

/// The attestation type of join tokens.
pub const JOIN_TOKEN: &str = "join_token";

/// A way to attest, with what the server asks of it.
#[derive(Debug)]
pub enum Attestor {
    /// A secret that an administrator made, good once.
    JoinToken,
    /// A TPM 2.0.
    Tpm2(Box<Tpm2Policy>),
    /// A TPM 2.0, as the agents of a plugin of SPIRE's show it.
    Tpm(Box<TpmPolicy>),
    /// A certificate that somebody gave the device for a key in its TPM.
    TpmDevId(Box<TpmDevIdPolicy>),
    /// A certificate that somebody gave the device.
    X509Pop(Arc<X509PopPolicy>),
    /// An SSH host certificate that somebody gave the device.
    SshPop(Arc<SshPopPolicy>),
    /// What a host serves by HTTP.
    HttpChallenge(Arc<HttpChallengePolicy>),
    /// Several of these, all of which a device must prove.
    Together(Box<Together>),
}

/// What a node's first message says, by its attestation type. Nothing is believed yet.
#[derive(Debug)]
pub enum Evidence<'a> {
    /// A join token, in the clear.
    JoinToken(join_token::Evidence<'a>),
    /// What the TPM claims.
    Tpm2(Box<tpm2::Evidence<'a>>),
    /// What the TPM of a plugin's agent claims.
    Tpm(Box<tpm::Evidence<'a>>),
    /// What the TPM with the certified key claims.
    TpmDevId(Box<tpm_devid::Evidence<'a>>),
    /// The certificates.
    X509Pop(x509pop::Evidence<'a>),
    /// The SSH certificate.
    SshPop(Box<sshpop::Evidence<'a>>),
    /// Where it can be asked.
    HttpChallenge(http_challenge::Evidence<'a>),
    /// That of several ways.
    Together(together::Evidence<'a>),
}

/// What a node must answer.
#[derive(Debug)]
pub enum Challenge {
    /// To show that it has the TPM.
    Tpm2(Box<tpm2::Challenge>),
    /// To show that it has the TPM, as the plugin does.
    Tpm(Box<tpm::Challenge>),
    /// To show that it has the certificate's key, in the TPM.
    TpmDevId(Box<tpm_devid::Challenge>),
    /// To show that it has the certificate's key.
    X509Pop(Box<x509pop::Challenge>),
    /// To show that it has the SSH certificate's key.
    SshPop(Box<sshpop::Challenge>),
    /// To serve a nonce.
    HttpChallenge(Box<http_challenge::Challenge>),
    /// To show all of several.
    Together(Box<together::Challenge>),
}

impl Challenge {
    /// How long its answer may take, seconds; what the server itself asks a host takes no time of the node's.
    fn answer_seconds(&self) -> i64 {
        match self {
            Self::Tpm2(_) | Self::Tpm(_) | Self::TpmDevId(_) => CHALLENGE_SECONDS,
            Self::X509Pop(_) => ironroot_attest::node::x509pop::ANSWER_SECONDS,
            Self::SshPop(_) => ironroot_attest::node::sshpop::ANSWER_SECONDS,
            Self::HttpChallenge(_) | Self::Together(_) => 0,
        }
    }

    /// Waits for its answer that long at least: it comes with that to another challenge. None waits longer than a chip may take.
    fn wait_for(&mut self, seconds: i64) {
        match self {
            Self::X509Pop(challenge) => challenge.wait_for(seconds),
            Self::SshPop(challenge) => challenge.wait_for(seconds),
            Self::Tpm2(_) | Self::Tpm(_) | Self::TpmDevId(_) | Self::HttpChallenge(_) | Self::Together(_) => {}
        }
    }
}

/// Why a node is not attested.
#[derive(Debug, Error)]
pub enum AttestationError {
    /// A type that is not configured.
    #[error("attestation type {0:?} is not configured on this server")]
    Type(String),
    /// The join token is refused.
    #[error(transparent)]
    JoinToken(#[from] JoinTokenRefusal),
    /// The TPM's evidence is refused, or its device is.
    #[error(transparent)]
    Tpm2(#[from] Tpm2Refusal),
    /// The TPM of a plugin's agent is.
    #[error("TPM evidence refused: {0}")]
    Tpm(#[from] TpmRefusal),
    /// Whether its endorsement key is listed cannot be seen. Why is in this server's log alone.
    #[error("whether endorsement key {ek_sha256} is listed cannot be seen")]
    ListUnread {
        /// SHA-256 of the endorsement key, hex.
        ek_sha256: String,
    },
    /// The DevID, or the TPM that it is in, is.
    #[error("DevID evidence refused: {0}")]
    TpmDevId(#[from] TpmDevIdRefusal),
    /// The device is shut out, whatever way it attests in.
    #[error(transparent)]
    Banned(NotAdmitted),
    /// The certificate is.
    #[error("certificate evidence refused: {0}")]
    X509Pop(#[from] X509PopServerRefusal),
    /// The SSH certificate is.
    #[error("SSH certificate refused: {0}")]
    SshPop(#[from] SshPopServerRefusal),
    /// The host is.
    #[error(transparent)]
    HttpChallenge(#[from] HttpChallengeServerRefusal),
    /// The message is not that of several ways.
    #[error(transparent)]
    Together(#[from] TogetherRefusal),
    /// Its parts are of two chips.
    #[error(transparent)]
    TwoChips(#[from] TwoChips),
    /// The identity would not be a legal agent ID.
    #[error("node has no legal agent ID")]
    AgentId(#[from] SpiffeIdError),
    /// The store could not be read or written.
    #[error("store failed")]
    Store(#[from] StoreError),
}

impl Attestor {
    /// Its attestation type.
    pub fn kind(&self) -> &str {
        match self {
            Self::JoinToken => JOIN_TOKEN,
            Self::Tpm2(_) => tpm2::TYPE,
            Self::Tpm(_) => tpm::TYPE,
            Self::TpmDevId(_) => tpm_devid::TYPE,
            Self::X509Pop(_) => x509pop::TYPE,
            Self::SshPop(_) => sshpop::TYPE,
            Self::HttpChallenge(_) => http_challenge::TYPE,
            Self::Together(together) => together.name(),
        }
    }

    fn read<'a>(&'a self, payload: &'a [u8]) -> Result<Evidence<'a>, AttestationError> {
        Ok(match self {
            Self::JoinToken => Evidence::JoinToken(join_token::Evidence::new(payload)),
            Self::Tpm2(policy) => Evidence::Tpm2(Box::new(tpm2::Evidence::read(payload, policy)?)),
            Self::Tpm(policy) => Evidence::Tpm(Box::new(tpm::Evidence::read(payload, policy)?)),
            Self::TpmDevId(policy) => Evidence::TpmDevId(Box::new(tpm_devid::Evidence::read(payload, policy)?)),
            Self::X509Pop(policy) => Evidence::X509Pop(x509pop::Evidence::read(payload, policy)?),
            Self::SshPop(policy) => Evidence::SshPop(Box::new(sshpop::Evidence::read(payload, policy)?)),
            Self::HttpChallenge(policy) => Evidence::HttpChallenge(http_challenge::Evidence::read(payload, policy)?),
            Self::Together(together) => Evidence::Together(together.read(payload)?),
        })
    }
}

impl Evidence<'_> {
    /// The device that it claims to be: SHA-256 of its endorsement key.
    pub fn device(&self) -> Option<[u8; 32]> {
        match self {
            Self::JoinToken(_) | Self::X509Pop(_) | Self::SshPop(_) | Self::HttpChallenge(_) => None,
            Self::Tpm2(evidence) => Some(evidence.device()),
            Self::Tpm(evidence) => Some(evidence.device()),
            Self::TpmDevId(evidence) => Some(evidence.device()),
            Self::Together(evidence) => evidence.parts.iter().find_map(Evidence::device),
        }
    }

    /// The certificate that it shows: SHA-256 of what its authority has signed.
    pub fn certificate_sha256(&self) -> Option<[u8; 32]> {
        match self {
            Self::JoinToken(_) | Self::Tpm2(_) | Self::Tpm(_) | Self::HttpChallenge(_) => None,
            Self::TpmDevId(evidence) => Some(evidence.certificate_sha256()),
            Self::X509Pop(evidence) => evidence.certificate_sha256(),
            Self::SshPop(evidence) => Some(evidence.certificate_sha256()),
            Self::Together(evidence) => evidence.parts.iter().find_map(Evidence::certificate_sha256),
        }
    }
}

impl AttestationError {
    /// Whose fault it is, for the endpoint that answers: it need not know the attestors' reasons.
    pub fn fault(self) -> Fault {
        match self {
            Self::Type(_) => Fault::Type,
            Self::JoinToken(refusal) => refusal.fault(),
            Self::Tpm2(refusal) => refusal.fault(),
            Self::Tpm(refusal) => tpm::fault(&refusal),
            Self::ListUnread { .. } => Fault::Server,
            Self::TpmDevId(refusal) => tpm_devid::fault(&refusal),
            Self::Banned(_) => Fault::Banned,
            Self::X509Pop(refusal) => refusal.fault(),
            Self::SshPop(refusal) => refusal.fault(),
            Self::HttpChallenge(refusal) => refusal.fault(),
            Self::TwoChips(_) => Fault::Node,
            Self::AgentId(_) | Self::Together(_) => Fault::Message,
            Self::Store(error) => Fault::Store(error),
        }
    }
}

/// A node whose identity has been proven, with the key its certificate will carry. Made only here.
///
/// ```compile_fail
/// # fn forge(id: ironroot_api::SpiffeId, csr: ironroot_api::csr::Csr) -> ironroot_server::node_attestation::AttestedNode {
/// ironroot_server::node_attestation::AttestedNode {
///     id,
///     attestation_type: "tpm2".into(),
///     selectors: Default::default(),
///     can_reattest: true,
///     csr,
///     proof: ironroot_server::node_attestation::Proof::Certificate { sha256: [0; 32], other_ids: vec![] },
/// }
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct AttestedNode {
    id: SpiffeId,
    attestation_type: Cow<'static, str>,
    selectors: SelectorSet,
    can_reattest: bool,
    csr: Csr,
    proof: Proof,
}

impl AttestedNode {
    /// The agent's SPIFFE ID, derived from what was proven.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// `join_token`, `tpm2`, `tpm`, `tpm_devid`, `x509pop`, `sshpop` or `http_challenge`, or several of them.
    pub fn attestation_type(&self) -> &str {
        &self.attestation_type
    }

    /// What was proven, as selectors.
    pub fn selectors(&self) -> &SelectorSet {
        &self.selectors
    }

    /// Whether the node can prove itself again; otherwise it renews.
    pub fn can_reattest(&self) -> bool {
        self.can_reattest
    }

    /// The request whose key was proven with it.
    pub fn csr(&self) -> &Csr {
        &self.csr
    }

    /// The TPM, for nodes that proved what its clock says and what it has booted.
    pub fn device(&self) -> Option<&ProvenDevice> {
        self.proof.device()
    }

    /// SHA-256 of the endorsement key's SubjectPublicKeyInfo, for nodes that proved a TPM.
    pub fn ek_sha256(&self) -> Option<[u8; 32]> {
        self.proof.ek_sha256()
    }

    /// Whether what was proven counts once: while there is an agent of that ID, nobody else is it.
    pub fn is_first_use(&self) -> bool {
        self.proof.is_first_use()
    }

    /// What it was proven by.
    pub fn proof(&self) -> &Proof {
        &self.proof
    }

    /// SHA-256 of what the authority of its certificate has signed, for nodes that proved one.
    pub fn certificate_sha256(&self) -> Option<[u8; 32]> {
        self.proof.certificate_sha256()
    }

    /// What it would be called if the signature of its certificate were written in another way.
    pub fn other_ids(&self) -> Vec<&SpiffeId> {
        self.proof.other_ids()
    }
}

/// Where an attestation stands.
#[derive(Debug)]
pub enum Progress {
    /// Over: this proof is all that the next room accepts.
    Attested(Box<AttestedNode>),
    /// The node must answer these bytes.
    Challenge(Challenge, Vec<u8>),
}

/// The attestors of this server and the facts they consult.
#[derive(Debug)]
pub struct NodeAttestation {
    trust_domain: TrustDomain,
    store: Store,
    devices: Arc<Devices>,
    attestors: Vec<Attestor>,
    id_is_selector: bool,
}

impl NodeAttestation {
    /// Only what is among `attestors` attests.
    pub fn new(trust_domain: TrustDomain, store: Store, devices: Arc<Devices>, attestors: Vec<Attestor>) -> Self {
        Self { trust_domain, store, devices, attestors, id_is_selector: false }
    }

    /// The same; if `it_is`, a node's own ID is one more of its selectors: `spiffe_id:spiffe://…`.
    ///
    /// Source: SPIRE, `agent_spiffe_id_as_selector` (pkg/server/api/agent/v1/service.go, AttestAgent).
    pub fn with_id_as_selector(self, it_is: bool) -> Self {
        Self { id_is_selector: it_is, ..self }
    }

    /// Whether a join token is worth anything here, by itself or together with another proof.
    pub fn takes_join_tokens(&self) -> bool {
        self.attestors.iter().any(|attestor| match attestor {
            Attestor::JoinToken => true,
            Attestor::Together(together) => together.takes_join_tokens(),
            _ => false,
        })
    }

    /// Reads a node's first message. Nothing is believed or looked up yet.
    pub fn read<'a>(&'a self, kind: &str, payload: &'a [u8]) -> Result<Evidence<'a>, AttestationError> {
        let attestor = self.attestors.iter().find(|attestor| attestor.kind() == kind);
        attestor.ok_or_else(|| AttestationError::Type(kind.chars().take(64).collect()))?.read(payload)
    }

    /// Begins with what a node's first message says. Changes nothing.
    pub async fn begin(
        &self,
        evidence: Evidence<'_>,
        csr: Csr,
        at: &Circumstances<'_>,
    ) -> Result<Progress, AttestationError> {
        let begun = match evidence {
            Evidence::Together(evidence) => self.begin_together(evidence, csr, at).await,
            evidence => self.begin_one(evidence, csr, at).await,
        };
        begun.map(|progress| self.with_every_selector(progress))
    }

    async fn begin_one(
        &self,
        evidence: Evidence<'_>,
        csr: Csr,
        at: &Circumstances<'_>,
    ) -> Result<Progress, AttestationError> {
        match evidence {
            Evidence::JoinToken(token) => self.join(token, csr, at.now_unix).await.map(Progress::attested),
            Evidence::Tpm2(evidence) => self.challenge_tpm(*evidence, csr, at.now_unix),
            Evidence::Tpm(evidence) => self.challenge_known_tpm(*evidence, csr, at.now_unix).await,
            Evidence::TpmDevId(evidence) => self.challenge_devid(*evidence, csr, at.now_unix),
            Evidence::X509Pop(evidence) => Ok(self.challenge_certificate(evidence, csr, at)?),
            Evidence::SshPop(evidence) => Ok(self.challenge_ssh_host(*evidence, csr, at.now_unix)?),
            Evidence::HttpChallenge(evidence) => Ok(self.challenge_host(evidence, csr)?),
            Evidence::Together(evidence) => Err(TogetherRefusal { expected: evidence.parts.len() }.into()),
        }
    }

    /// Goes on with the node's answer to a challenge, and may ask the node's host for more. Changes nothing.
    pub async fn answer(
        &self,
        challenge: Challenge,
        response: &[u8],
        now_unix: i64,
    ) -> Result<Progress, AttestationError> {
        let answered = match challenge {
            Challenge::Together(challenge) => self.judge_together(*challenge, response, now_unix).await,
            challenge => self.answer_one(challenge, response, now_unix).await,
        };
        answered.map(|progress| self.with_every_selector(progress))
    }

    /// What no way to attest gives by itself is given to whoever is attested.
    fn with_every_selector(&self, progress: Progress) -> Progress {
        match progress {
            Progress::Attested(mut node) if self.id_is_selector => {
                node.selectors.extend(Selector::new("spiffe_id", node.id.as_str()));
                Progress::Attested(node)
            }
            progress => progress,
        }
    }

    async fn answer_one(
        &self,
        challenge: Challenge,
        response: &[u8],
        now_unix: i64,
    ) -> Result<Progress, AttestationError> {
        let node = match challenge {
            Challenge::Tpm2(challenge) => return self.judge_tpm(*challenge, response, now_unix),
            Challenge::Tpm(challenge) => self.judge_known_tpm(*challenge, response, now_unix),
            Challenge::TpmDevId(challenge) => self.judge_devid(*challenge, response, now_unix),
            Challenge::X509Pop(challenge) => self.judge_certificate(*challenge, response, now_unix),
            Challenge::SshPop(challenge) => self.judge_ssh_host(*challenge, response, now_unix),
            Challenge::HttpChallenge(challenge) => self.judge_host(*challenge).await,
            Challenge::Together(challenge) => Err(challenge.within_another()),
        };
        Ok(Progress::Attested(Box::new(node?)))
    }
}

impl NodeAttestation {
    /// A ban of a device holds for each way in which its TPM can attest. Asked before anything is verified; the change that
    /// stores the agent asks once more.
    fn refuse_banned_device(&self, ek_sha256: &[u8; 32]) -> Result<(), AttestationError> {
        match self.devices.device(ek_sha256) {
            Some(device) if device.state == DeviceState::Banned => {
                Err(AttestationError::Banned(NotAdmitted::Banned { ek_sha256: hex(ek_sha256) }))
            }
            _ => Ok(()),
        }
    }
}

impl Progress {
    fn attested(node: AttestedNode) -> Self {
        Self::Attested(Box::new(node))
    }
}
