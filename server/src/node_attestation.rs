//! Drives one attestation to an [`AttestedNode`]: join tokens, and TPM evidence judged by `ironroot_attest`.
//!
//! ```text
//!  begin(type, payload, CSR) ─► Attested | Challenge(bytes) ─► answer(response) ─► Attested
//! ```

mod tpm2;

use std::sync::Arc;

use ironroot_api::csr::Csr;
use ironroot_api::{SpiffeId, SpiffeIdError, TrustDomain};
use ironroot_attest::SelectorSet;
use ironroot_attest::node::Refusal;
use ironroot_attest::node::tpm2::{ATTESTATION_TYPE, Claim, ClockReading};
use thiserror::Error;

pub use tpm2::{NodeAdmission, Tpm2Challenge, Tpm2Policy};

use crate::devices::{DeviceError, Devices};
use crate::registry::Registry;
use crate::store::{Store, StoreError};

/// The attestation type of join tokens.
pub const JOIN_TOKEN: &str = "join_token";

/// Why a node is not attested.
#[derive(Debug, Error)]
pub enum AttestationError {
    /// A type that is not configured.
    #[error("attestation type {0:?} is not configured on this server")]
    Type(String),
    /// Unknown, used, or never made.
    #[error("join token does not exist or has already been used")]
    JoinTokenUnknown,
    /// Past its time; it is used up all the same.
    #[error("join token has expired")]
    JoinTokenExpired,
    /// The evidence is refused.
    #[error("TPM evidence refused: {0}")]
    Refused(#[from] Refusal),
    /// The endorsement key is not in the device registry.
    #[error("device {ek_sha256} is not enrolled: import it, or approve it, and attest again")]
    NotEnrolled {
        /// SHA-256 of the endorsement key, hex.
        ek_sha256: String,
    },
    /// The device waits for an operator.
    #[error("device {ek_sha256} waits for approval: ironroot-server device approve {ek_sha256}")]
    ApprovalPending {
        /// SHA-256 of the endorsement key, hex.
        ek_sha256: String,
    },
    /// An operator shut the device or the agent out.
    #[error("agent {0} is banned")]
    Banned(String),
    /// The identity would not be a legal agent ID.
    #[error("node has no legal agent ID")]
    AgentId(#[from] SpiffeIdError),
    /// The device registry could not be read or written.
    #[error("device registry failed")]
    Devices(#[from] DeviceError),
    /// The store could not be read or written.
    #[error("store failed")]
    Store(#[from] StoreError),
}

/// A node whose identity has been proven, with the key its certificate will carry. Made only here.
#[derive(Debug)]
#[must_use]
pub struct AttestedNode {
    id: SpiffeId,
    attestation_type: &'static str,
    selectors: SelectorSet,
    can_reattest: bool,
    csr: Csr,
    device: Option<ProvenDevice>,
}

impl AttestedNode {
    /// The agent's SPIFFE ID, derived from what was proven.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// `join_token` or `tpm2`.
    pub fn attestation_type(&self) -> &'static str {
        self.attestation_type
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

    /// The TPM, for nodes that proved one.
    pub fn device(&self) -> Option<ProvenDevice> {
        self.device
    }
}

/// A TPM whose endorsement key has been proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProvenDevice {
    /// SHA-256 of the endorsement key's SPKI.
    pub ek_sha256: [u8; 32],
    /// The TPM's clock.
    pub clock: ClockReading,
    /// Whether its manufacturer's word enrols it; otherwise it must be in the registry still.
    pub may_be_new: bool,
}

/// What a node's first message says, by its attestation type.
#[derive(Debug)]
pub enum Evidence<'a> {
    /// The token.
    JoinToken(&'a [u8]),
    /// What the TPM claims, and what is asked of it.
    Tpm2(Box<Claim>, &'a Tpm2Policy),
}

impl Evidence<'_> {
    /// The device that it claims to be: SHA-256 of its endorsement key.
    pub fn device(&self) -> Option<[u8; 32]> {
        match self {
            Self::JoinToken(_) => None,
            Self::Tpm2(claim, _) => Some(claim.ek_sha256()),
        }
    }
}

/// Where an attestation stands.
#[derive(Debug)]
pub enum Progress {
    /// Proven.
    Attested(Box<AttestedNode>),
    /// The node must answer these bytes.
    Challenge(Box<Tpm2Challenge>, Vec<u8>),
}

/// The attestors of this server and the facts they consult.
#[derive(Debug)]
pub struct NodeAttestation {
    trust_domain: TrustDomain,
    store: Store,
    registry: Arc<Registry>,
    devices: Arc<Devices>,
    tpm2: Option<Tpm2Policy>,
    join_tokens: JoinTokens,
}

/// Whether join tokens attest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinTokens {
    /// They are configured, or nothing is.
    Accepted,
    /// Other ways are configured, and this is not among them.
    Refused,
}

impl NodeAttestation {
    /// `tpm2`: the policy for TPM evidence, or none to refuse that type.
    pub fn new(
        trust_domain: TrustDomain,
        store: Store,
        registry: Arc<Registry>,
        devices: Arc<Devices>,
        tpm2: Option<Tpm2Policy>,
        join_tokens: JoinTokens,
    ) -> Self {
        Self { trust_domain, store, registry, devices, tpm2, join_tokens }
    }

    /// Reads a node's first message. Nothing is believed or looked up yet.
    pub fn read<'a>(&'a self, kind: &str, payload: &'a [u8]) -> Result<Evidence<'a>, AttestationError> {
        match (kind, &self.tpm2) {
            (JOIN_TOKEN, _) if self.join_tokens == JoinTokens::Accepted => Ok(Evidence::JoinToken(payload)),
            (ATTESTATION_TYPE, Some(policy)) => Ok(Evidence::Tpm2(Box::new(Claim::parse(payload)?), policy)),
            (other, _) => Err(AttestationError::Type(other.chars().take(64).collect())),
        }
    }

    /// Begins with what a node's first message says.
    pub async fn begin(&self, evidence: Evidence<'_>, csr: Csr, now_unix: i64) -> Result<Progress, AttestationError> {
        match evidence {
            Evidence::JoinToken(token) => {
                self.join_token(token, csr, now_unix).await.map(|n| Progress::Attested(Box::new(n)))
            }
            Evidence::Tpm2(claim, policy) => {
                let (challenge, bytes) = self.tpm2_begin(policy, *claim, csr, now_unix).await?;
                Ok(Progress::Challenge(Box::new(challenge), bytes))
            }
        }
    }

    /// Goes on with the node's answer to a challenge.
    pub async fn answer(
        &self,
        challenge: Tpm2Challenge,
        response: &[u8],
        now_unix: i64,
    ) -> Result<AttestedNode, AttestationError> {
        self.tpm2_complete(challenge, response, now_unix).await
    }

    /// The token is used up before anything else is looked at: of any number of parallel attestations one wins.
    async fn join_token(&self, payload: &[u8], csr: Csr, now_unix: i64) -> Result<AttestedNode, AttestationError> {
        let token = std::str::from_utf8(payload).map_err(|_| AttestationError::JoinTokenUnknown)?;
        let expires_at = self.store.take_join_token(token).await?.ok_or(AttestationError::JoinTokenUnknown)?;
        if expires_at <= now_unix {
            return Err(AttestationError::JoinTokenExpired);
        }
        let id = self.trust_domain.id_with_path(&format!("/spire/agent/{JOIN_TOKEN}/{token}"))?;
        self.refuse_banned(&id)?;
        Ok(AttestedNode {
            id,
            attestation_type: JOIN_TOKEN,
            selectors: SelectorSet::default(),
            can_reattest: false,
            csr,
            device: None,
        })
    }

    fn refuse_banned(&self, id: &SpiffeId) -> Result<(), AttestationError> {
        match self.registry.agent(id) {
            Some(agent) if agent.banned => Err(AttestationError::Banned(id.to_string())),
            _ => Ok(()),
        }
    }
}
