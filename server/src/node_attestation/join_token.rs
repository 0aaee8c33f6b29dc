//! Join tokens: secrets that let one node attest, once.

use ironroot_api::csr::Csr;
use ironroot_attest::SelectorSet;
use thiserror::Error;

use super::{AttestationError, AttestedNode, Fault, JOIN_TOKEN, NodeAttestation};
use crate::store::ShownToken;

/// Why a join token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JoinTokenRefusal {
    /// Unknown, used, or never made.
    #[error("join token does not exist or has already been used")]
    Unknown,
    /// Past its time.
    #[error("join token has expired")]
    Expired,
}

impl JoinTokenRefusal {
    pub(super) fn fault(self) -> Fault {
        Fault::Message
    }
}

/// The token, as it was sent.
#[derive(Debug)]
pub struct Evidence<'a>(&'a [u8]);

impl<'a> Evidence<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self(payload)
    }
}

impl NodeAttestation {
    /// The token is used up before anything else is looked at: of any number of parallel attestations one wins.
    pub(super) async fn join(
        &self,
        Evidence(token): Evidence<'_>,
        csr: Csr,
        now_unix: i64,
    ) -> Result<AttestedNode, AttestationError> {
        let token = std::str::from_utf8(token).map_err(|_| JoinTokenRefusal::Unknown)?;
        match self.store.take_join_token(token, now_unix).await? {
            ShownToken::Taken => {}
            ShownToken::Expired => return Err(JoinTokenRefusal::Expired.into()),
            ShownToken::Unknown => return Err(JoinTokenRefusal::Unknown.into()),
        }
        Ok(AttestedNode {
            id: self.trust_domain.id_with_path(&format!("/spire/agent/{JOIN_TOKEN}/{token}"))?,
            attestation_type: JOIN_TOKEN,
            selectors: SelectorSet::default(),
            can_reattest: false,
            csr,
            device: None,
        })
    }
}
