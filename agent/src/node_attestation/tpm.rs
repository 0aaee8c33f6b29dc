//! `NodeAttestor "tpm"`: the endorsement key itself, shown as the agents of a plugin of SPIRE's show it (spiffe/spire-tpm-plugin).

use ironroot_attest::node::Refusal;
use ironroot_attest::node::tpm::{ATTESTATION_TYPE, Challenge, Evidence, Response};
use ironroot_attest::structures::Public;
use ironroot_attest::tpm::{AttestationKeyBirth, Chip, EndorsementKey, TpmError};
use thiserror::Error;

use super::{Device, endorsement_record, kept_key};
use crate::pem;

/// The attestation type.
pub(super) const TYPE: &str = ATTESTATION_TYPE;

/// Why the device's TPM did not attest.
#[derive(Debug, Error)]
pub enum TpmFailure {
    /// The chip did not do its part.
    #[error("the TPM could not {0}")]
    Chip(&'static str, #[source] TpmError),
    /// The server's challenge does not parse.
    #[error("the server's challenge is unusable")]
    Challenge(#[source] Refusal),
}

impl TpmFailure {
    /// Whether the chip does not take the attestation key: it is of another chip, of before this one was cleared, or damaged.
    fn is_about_the_key(&self) -> bool {
        let Self::Chip(_, error) = self else { return false };
        matches!(
            error,
            TpmError::ForeignKey(_) | TpmError::ForeignParent | TpmError::Refused(_) | TpmError::Argument(_)
        )
    }
}

/// Proves that this device has the TPM of its endorsement key.
pub(super) struct Prover {
    device: Device,
    endorsement_key: EndorsementKey,
    birth: AttestationKeyBirth,
    evidence: Vec<u8>,
}

impl Prover {
    /// Reads the endorsement key. An attestation key that is kept is used again.
    pub(super) async fn on(device: &Device) -> Result<Self, TpmFailure> {
        let device = device.clone();
        let what = "read its endorsement key";
        let read = device.tpm.run(what, Chip::endorsement_key).await;
        let endorsement_key = read.map_err(|error| TpmFailure::Chip(what, error))?;
        let birth = match kept_key::read(&device.directory, &endorsement_key.name).await {
            Some(kept) => kept,
            None => make_attestation_key(&device).await?,
        };
        let evidence = evidence(&endorsement_key, &birth)?.to_json();
        Ok(Self { device, endorsement_key, birth, evidence })
    }

    /// The first message.
    pub(super) fn evidence(&self) -> Vec<u8> {
        self.evidence.clone()
    }

    /// The answer to a challenge.
    pub(super) async fn respond(&self, challenge: &[u8]) -> Result<Vec<u8>, TpmFailure> {
        let Challenge { credential, secret } = Challenge::from_json(challenge).map_err(TpmFailure::Challenge)?;
        let (what, ak) = ("activate the credential", self.birth.key.clone());
        let (credential, secret) = (unsized_part(&credential)?, unsized_part(&secret)?);
        let activated =
            self.device.tpm.run(what, move |chip| chip.activate_credential(&ak, &credential, &secret)).await;
        let secret = activated.map_err(|error| TpmFailure::Chip(what, error))?;
        Ok(Response { secret: secret.to_vec() }.to_json())
    }

    /// Notes what the server knows this device by.
    pub(super) async fn remember(&self) {
        endorsement_record::remember(&self.device.tpm, &self.device.notes, self.endorsement_key.identity).await;
    }

    /// What is to be noted once the conversation has failed: a key that the chip did not take is made anew the next time.
    pub(super) async fn settle(&self, failure: &TpmFailure) {
        if failure.is_about_the_key() {
            kept_key::forget::<AttestationKeyBirth>(&self.device.directory).await;
        }
    }
}

async fn make_attestation_key(device: &Device) -> Result<AttestationKeyBirth, TpmFailure> {
    let what = "make an attestation key";
    let made = device.tpm.run(what, Chip::create_certified_attestation_key).await;
    let made = made.map_err(|error| TpmFailure::Chip(what, error))?;
    kept_key::write(&device.directory, &made).await;
    Ok(made)
}

/// The certificate, if the chip holds one for this very key, then the key.
fn evidence(ek: &EndorsementKey, birth: &AttestationKeyBirth) -> Result<Evidence, TpmFailure> {
    let unusable = TpmError::Argument("its endorsement key is of no kind that is known");
    let public = Public::parse(&ek.public).map_err(|_| TpmFailure::Chip("show its endorsement key", unusable))?;
    let certificate = pem::certificates(ek.certificates.first());
    Ok(Evidence {
        ek_pem: (certificate + &pem::public_key(&public.key().to_spki_der())).into_bytes(),
        ak_public: birth.key.public.clone(),
        as_tpm12: false,
        creation_data: birth.creation_data.clone(),
        creation: birth.attest.clone(),
        creation_signature: birth.signature.clone(),
    })
}

/// What a TPM2B holds: go-attestation sends its two bytes of size along.
fn unsized_part(part: &[u8]) -> Result<Vec<u8>, TpmFailure> {
    match part.split_first_chunk::<2>() {
        Some((size, rest)) if usize::from(u16::from_be_bytes(*size)) == rest.len() => Ok(rest.to_vec()),
        _ => Err(TpmFailure::Challenge(Refusal::MessageFormat("a part of the credential has not its size".to_owned()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_credential_has_its_size_before_it() {
        assert_eq!(unsized_part(&[0, 2, 7, 8]).expect("whole"), [7, 8]);
        for wrong in [&[][..], &[0], &[0, 2, 7], &[0, 1, 7, 8], &[7, 8]] {
            assert!(matches!(unsized_part(wrong), Err(TpmFailure::Challenge(_))), "{wrong:?}");
        }
    }

    #[test]
    fn a_key_that_the_chip_does_not_take_is_made_anew_and_one_that_it_had_no_time_for_is_not() {
        let failure = |error| TpmFailure::Chip("activate the credential", error).is_about_the_key();
        assert!(failure(TpmError::ForeignParent));
        assert!(failure(TpmError::Argument("the key blob's private part is damaged")));
        assert!(!failure(TpmError::NoAnswer { what: "activate the credential", seconds: 300 }));
        assert!(!TpmFailure::Challenge(Refusal::WrongSecret).is_about_the_key());
    }
}
