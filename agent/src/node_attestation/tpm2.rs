//! The device's side of attestation type "tpm2".

use ironroot_attest::node::tpm2::{CertifiedKey, Challenge, Evidence, PcrHash, Response, binding};
use ironroot_attest::tpm::{Chip, EndorsementKey, KeyBlob, RememberedEndorsement, Tpm, TpmError};

use super::AttestationError;
use crate::agent_key::{AgentKey, KeyStore};
use crate::trusted_time::boot_id;

/// Proves this device's TPM: what it is, what booted, and that the agent's key lives in it.
pub(super) struct Prover {
    tpm: Tpm,
    endorsement_key: EndorsementKey,
    pcr_banks: Vec<PcrHash>,
    attestation_key: KeyBlob,
    trust_domain: String,
}

impl Prover {
    pub(super) async fn new(tpm: Tpm, keys: &mut KeyStore, trust_domain: &str) -> Result<Self, AttestationError> {
        let what = "read its endorsement key";
        let read = tpm.run(what, |chip| Ok((chip.endorsement_key()?, chip.active_banks()?))).await;
        let (endorsement_key, pcr_banks) = read.map_err(|error| AttestationError::Tpm(what, error))?;
        let attestation_key = keys.attestation_key(&tpm, &endorsement_key.name).await?;
        Ok(Self { tpm, endorsement_key, pcr_banks, attestation_key, trust_domain: trust_domain.to_owned() })
    }

    /// What the server knows this device by.
    pub(super) fn identity(&self) -> RememberedEndorsement {
        self.endorsement_key.identity
    }

    /// The first message.
    pub(super) fn evidence(&self) -> Vec<u8> {
        let evidence = Evidence {
            ek_certificates: self.endorsement_key.certificates.clone(),
            ek_public: self.endorsement_key.public.clone(),
            ak_public: self.attestation_key.public.clone(),
            // The server only compares it.
            boot_id: boot_id(),
            pcr_banks: self.pcr_banks.clone(),
        };
        evidence.to_json()
    }

    /// The answer to a challenge, for the key that the certificate was asked for.
    pub(super) async fn respond(&self, challenge: &[u8], key: &AgentKey) -> Result<Vec<u8>, AttestationError> {
        let Challenge { credential, secret, nonce, pcrs, pcr_bank } =
            Challenge::from_json(challenge).map_err(AttestationError::Challenge)?;
        let binding = binding(&self.trust_domain, &nonce, key.spki_der());
        let secret = self
            .ask("activate the credential", move |chip, ak| chip.activate_credential(ak, &credential, &secret))
            .await?;
        let quote = self.ask("quote its PCRs", move |chip, ak| chip.quote(ak, &binding, pcr_bank, pcrs)).await?;
        let response = Response {
            secret: secret.to_vec(),
            quote: quote.attest,
            quote_signature: quote.signature,
            pcr_values: quote.pcr_values,
            key: self.certified(key, binding).await?,
        };
        Ok(response.to_json())
    }

    /// The attestation key's word that the agent's key is in the same chip, if it is.
    async fn certified(&self, key: &AgentKey, binding: [u8; 32]) -> Result<Option<CertifiedKey>, AttestationError> {
        let AgentKey::Tpm(key) = key else { return Ok(None) };
        let blob = key.blob().clone();
        let certify = move |chip: &mut Chip, ak: &KeyBlob| chip.certify(&blob, ak, &binding);
        let (attest, signature) = self.ask("certify the agent's key", certify).await?;
        Ok(Some(CertifiedKey { public: key.blob().public.clone(), attest, signature }))
    }

    async fn ask<T: Send + 'static>(
        &self,
        what: &'static str,
        job: impl FnOnce(&mut Chip, &KeyBlob) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, AttestationError> {
        let ak = self.attestation_key.clone();
        self.tpm.run(what, move |chip| job(chip, &ak)).await.map_err(|error| AttestationError::Tpm(what, error))
    }
}
