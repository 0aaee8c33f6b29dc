//! A node with a chip of its own, which attests with a key from anywhere.

use ironroot_attest::node::tpm2::{ATTESTATION_TYPE, Challenge, Claim, Evidence, PcrHash, Response, binding};
use ironroot_attest::tpm::{EndorsementKey, KeyBlob, Tpm};
use rcgen::PublicKeyData;
use tonic::Status;

use super::{Credentials, ServerClient, attest, csr, key, params};
use crate::deployment::TRUST_DOMAIN;
use crate::swtpm::Swtpm;

/// A software TPM and what an agent keeps of it.
pub struct TpmNode {
    tpm: Tpm,
    endorsement_key: EndorsementKey,
    attestation_key: KeyBlob,
    chip: Swtpm,
    /// What it says was booted; sent when it is asked for.
    pub event_log: Option<Vec<u8>>,
}

impl TpmNode {
    /// Manufactures a chip without an EK certificate.
    pub async fn new() -> Self {
        let chip = Swtpm::start().expect("swtpm (package swtpm) starts");
        let tpm = Tpm::open(chip.address()).await.expect("the TPM answers");
        let keys = tpm.run("make keys", |chip| Ok((chip.endorsement_key()?, chip.create_attestation_key()?))).await;
        let (endorsement_key, attestation_key) = keys.expect("the chip makes keys");
        Self { tpm, endorsement_key, attestation_key, chip, event_log: None }
    }

    /// Another machine with a copy of this one's chip and of what the agent keeps of it.
    pub async fn copy(&self) -> Self {
        let chip = self.chip.clone_state().expect("a copy of the chip starts");
        let tpm = Tpm::open(chip.address()).await.expect("the copy answers");
        let (endorsement_key, attestation_key) = (self.endorsement_key.clone(), self.attestation_key.clone());
        Self { tpm, endorsement_key, attestation_key, chip, event_log: self.event_log.clone() }
    }

    /// The chip.
    pub fn chip(&mut self) -> &mut Swtpm {
        &mut self.chip
    }

    /// The first message.
    pub fn evidence(&self) -> Vec<u8> {
        let evidence = Evidence {
            ek_certificates: self.endorsement_key.certificates.clone(),
            ek_public: self.endorsement_key.public.clone(),
            ak_public: self.attestation_key.public.clone(),
            boot_id: String::new(),
            pcr_banks: vec![PcrHash::Sha256],
            event_log: self.event_log.is_some(),
            ima_log: false,
        };
        evidence.to_json()
    }

    /// SHA-256 of the endorsement key's SubjectPublicKeyInfo, hex: the device's name in the registry.
    pub fn ek_sha256(&self) -> String {
        let claim = Claim::parse(&self.evidence()).expect("its own evidence");
        ironroot_text::hex::hex(&claim.ek_sha256())
    }

    /// The answer to a challenge, for the key of this SubjectPublicKeyInfo, which is not in the chip.
    pub async fn answer(&self, challenge: &[u8], spki: &[u8]) -> Vec<u8> {
        let challenge = Challenge::from_json(challenge).expect("a challenge");
        let Challenge { credential, secret, nonce, pcrs, pcr_bank, event_log } = challenge;
        let (ak, extra_data) = (self.attestation_key.clone(), binding(TRUST_DOMAIN, &nonce, spki));
        let answer = self.tpm.run("answer the challenge", move |chip| {
            let secret = chip.activate_credential(&ak, &credential, &secret)?;
            Ok((secret, chip.quote(&ak, &extra_data, pcr_bank, pcrs)?))
        });
        let (secret, quote) = answer.await.expect("the chip answers an honest challenge");
        let response = Response {
            secret: secret.to_vec(),
            quote: quote.attest,
            quote_signature: quote.signature,
            pcr_values: quote.pcr_values,
            key: None,
            event_log: self.event_log.clone().filter(|_| event_log),
        };
        response.to_json()
    }

    /// Attests with a fresh key. The server must not require resident keys.
    pub async fn attest(&self, server: &ServerClient) -> Result<Credentials, Status> {
        let key = key();
        let params = params(ATTESTATION_TYPE, self.evidence(), csr(&key, &[]));
        let spki = key.subject_public_key_info();
        let svid = attest(server.anonymous().await, params, Some((self, &spki))).await?;
        Ok(Credentials::new(&svid, &key))
    }
}
