//! Join tokens: secrets that let one node attest, once.

use ironroot_api::csr::Csr;
use ironroot_attest::SelectorSet;
use thiserror::Error;

use super::{AttestationError, AttestedNode, Fault, JOIN_TOKEN, NodeAttestation, Proof};
use crate::registry::RegistryError;
use crate::store::{ShownToken, Transaction};

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

    fn unless_good(shown: ShownToken) -> Result<(), Self> {
        match shown {
            ShownToken::Good => Ok(()),
            ShownToken::Expired => Err(Self::Expired),
            ShownToken::Unknown => Err(Self::Unknown),
        }
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

/// A join token that was good when it was shown. Others may have shown it as well.
#[derive(Clone)]
pub struct UnspentToken(String);

impl UnspentToken {
    /// Spends it, in the transaction that stores its agent: of any number who have shown it exactly one gets in, and the token of
    /// one who does not is as it was.
    pub(crate) fn spend(&self, tx: &Transaction<'_>, now_unix: i64) -> Result<(), RegistryError> {
        Ok(JoinTokenRefusal::unless_good(tx.spend_join_token(&self.0, now_unix)?)?)
    }
}

impl std::fmt::Debug for UnspentToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UnspentToken(..)")
    }
}

impl NodeAttestation {
    /// Looks at the token and changes nothing: the change that stores the agent spends it.
    pub(super) async fn join(
        &self,
        Evidence(token): Evidence<'_>,
        csr: Csr,
        now_unix: i64,
    ) -> Result<AttestedNode, AttestationError> {
        let token = std::str::from_utf8(token).map_err(|_| JoinTokenRefusal::Unknown)?;
        JoinTokenRefusal::unless_good(self.store.join_token(token, now_unix).await?)?;
        Ok(AttestedNode {
            id: self.trust_domain.id_with_path(&format!("/spire/agent/{JOIN_TOKEN}/{token}"))?,
            attestation_type: JOIN_TOKEN.into(),
            selectors: SelectorSet::default(),
            can_reattest: false,
            csr,
            proof: Proof::JoinToken(UnspentToken(token.to_owned())),
        })
    }
}
