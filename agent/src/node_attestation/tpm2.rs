//! `NodeAttestor "tpm2"`: the device's side.

use std::path::{Path, PathBuf};

use ironroot_api::TrustDomain;
use ironroot_attest::node::Refusal;
use ironroot_attest::node::tpm2::{
    ATTESTATION_TYPE, CertifiedKey, Challenge, Evidence, ImaRequest, PcrHash, Response, binding,
};
use ironroot_attest::tpm::{Chip, EndorsementKey, KeyBlob, Tpm, TpmError};
use thiserror::Error;

use super::{BootLogFile, ImaListFile, endorsement_record};
use crate::agent_key::{AgentKey, KeyError, KeyStore};
use crate::config::TpmConfig;
use crate::trusted_time::boot_id;

/// The attestation type.
pub(super) const TYPE: &str = ATTESTATION_TYPE;

/// What a server says to a first message that offers a boot log, if it knows none. Source: serde's words for a field that is not
/// known, in the answers of our servers before.
const UNKNOWN_FIELD: &str = "unknown field `event_log`";
/// The same of one that offers a list of measured files.
const UNKNOWN_IMA_FIELD: &str = "unknown field `ima_log`";

/// Why the device's TPM did not attest.
#[derive(Debug, Error)]
pub enum Tpm2Failure {
    /// The chip did not do its part.
    #[error("the TPM could not {0}")]
    Chip(&'static str, #[source] TpmError),
    /// The attestation key could not be made or kept.
    #[error("the agent's key could not be used")]
    Key(#[from] KeyError),
    /// The server's challenge does not parse.
    #[error("the server's challenge is unusable")]
    Challenge(#[source] Refusal),
}

impl Tpm2Failure {
    /// Whether the attestation key is of another chip, or of before this one was cleared.
    pub(super) fn is_foreign_key(&self) -> bool {
        matches!(self, Self::Chip(_, TpmError::ForeignKey(_) | TpmError::ForeignParent))
    }
}

/// The device's TPM, open.
#[derive(Clone, Debug)]
pub struct Device {
    /// The thread that owns the chip, shared with the sealed cache and the agent's key.
    pub tpm: Tpm,
    /// Where what is kept for one server lies.
    pub directory: PathBuf,
    /// Where it is noted which endorsement key the device is known by: the chip's, whichever server asks.
    pub notes: PathBuf,
    /// The firmware's log of what it measured.
    pub boot_log: BootLogFile,
    /// The kernel's list of the files that it measured.
    pub ima_list: ImaListFile,
}

impl Device {
    /// The chip that `config` names, opened; what is for one server is kept in `directory`, what is for all in `notes`.
    pub(super) fn on(config: &TpmConfig, tpm: Tpm, directory: &Path, notes: &Path) -> Self {
        let boot_log = BootLogFile::new(config.event_log.clone());
        let ima_list = ImaListFile::new(config.ima_log.clone());
        Self { tpm, directory: directory.to_owned(), notes: notes.to_owned(), boot_log, ima_list }
    }

    pub(super) async fn prover(&self, keys: &mut KeyStore, trust_domain: &TrustDomain) -> Result<Prover, Tpm2Failure> {
        let what = "read its endorsement key";
        let read = self.tpm.run(what, |chip| Ok((chip.endorsement_key()?, chip.active_banks()?))).await;
        let (endorsement_key, pcr_banks) = read.map_err(|error| Tpm2Failure::Chip(what, error))?;
        let attestation_key = keys.attestation_key(&self.tpm, &endorsement_key.name).await?;
        let (device, trust_domain) = (self.clone(), trust_domain.as_str().to_owned());
        let event_log = self.boot_log.read().await;
        let has_ima_list = self.ima_list.is_there().await;
        Ok(Prover { device, endorsement_key, pcr_banks, attestation_key, event_log, has_ima_list, trust_domain })
    }
}

/// Proves this device's TPM: what it is, what booted, and that the agent's key lives in it.
pub(super) struct Prover {
    device: Device,
    endorsement_key: EndorsementKey,
    pcr_banks: Vec<PcrHash>,
    attestation_key: KeyBlob,
    event_log: Option<Vec<u8>>,
    has_ima_list: bool,
    trust_domain: String,
}

impl Prover {
    /// Notes what the server knows this device by.
    pub(super) async fn remember(&self) {
        endorsement_record::remember(&self.device.tpm, &self.device.notes, self.endorsement_key.identity).await;
    }

    /// A server of before boot logs, or of before lists of files, refuses the whole message for the one field that it does not know.
    pub(super) fn offers_less_after(&mut self, refusal: &str) -> bool {
        let had_list = self.has_ima_list;
        if refusal.contains(UNKNOWN_FIELD) {
            self.has_ima_list = false;
            return self.event_log.take().is_some();
        }
        self.has_ima_list &= !refusal.contains(UNKNOWN_IMA_FIELD);
        had_list != self.has_ima_list
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
            event_log: self.event_log.is_some(),
            ima_log: self.has_ima_list,
        };
        evidence.to_json()
    }

    /// The answer to a challenge, for the key that the certificate was asked for.
    pub(super) async fn respond(&self, challenge: &[u8], key: &AgentKey) -> Result<Vec<u8>, Tpm2Failure> {
        // Read after the quote: every file that was measured before it is in the list by then.
        if let Ok(ImaRequest { known }) = ImaRequest::from_json(challenge) {
            return Ok(self.device.ima_list.part(known).await);
        }
        let Challenge { credential, secret, nonce, pcrs, pcr_bank, event_log } =
            Challenge::from_json(challenge).map_err(Tpm2Failure::Challenge)?;
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
            event_log: self.event_log.clone().filter(|_| event_log),
        };
        Ok(response.to_json())
    }

    /// The attestation key's word that the agent's key is in the same chip, if it is.
    async fn certified(&self, key: &AgentKey, binding: [u8; 32]) -> Result<Option<CertifiedKey>, Tpm2Failure> {
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
    ) -> Result<T, Tpm2Failure> {
        let ak = self.attestation_key.clone();
        self.device.tpm.run(what, move |chip| job(chip, &ak)).await.map_err(|error| Tpm2Failure::Chip(what, error))
    }
}
