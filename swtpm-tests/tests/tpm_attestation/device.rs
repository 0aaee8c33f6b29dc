//! An honest device and a server, as values.

use aws_lc_rs::rand::fill;
use ironroot_attest::node::Refusal;
use ironroot_attest::node::tpm2::{
    Admission, CertifiedKey, Challenge, Claim, EventLogPolicy, Evidence, Expectation, PcrHash, PcrSelection, Pending,
    Response, binding,
};
use ironroot_attest::tpm::{Chip, EndorsementKey, KeyBlob, Tpm, TpmError};
use ironroot_lab::swtpm::Swtpm;

pub const TRUST_DOMAIN: &str = "fleet.example";
/// Any moment: the verifier takes the time as an argument.
pub const NOW: i64 = 1_795_000_000;

/// A device with a chip, an attestation key and a TLS key, both made by the chip.
pub struct Device {
    pub chip: Swtpm,
    pub tpm: Tpm,
    pub ek: EndorsementKey,
    pub ak: KeyBlob,
    pub key: KeyBlob,
}

impl Device {
    pub fn new() -> Device {
        Self::with_chip(Swtpm::start().expect("swtpm starts"))
    }

    pub fn with_chip(chip: Swtpm) -> Device {
        let tpm = Tpm::open_blocking(chip.address()).expect("the TPM answers");
        let (ek, ak, key) = tpm
            .run_blocking("keys", |chip| {
                Ok((chip.endorsement_key()?, chip.create_attestation_key()?, chip.create_signing_key()?))
            })
            .expect("the chip makes keys");
        Device { chip, tpm, ek, ak, key }
    }

    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Chip) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmError> {
        self.tpm.run_blocking("test", job)
    }

    pub fn evidence(&self) -> Evidence {
        Evidence {
            ek_certificates: self.ek.certificates.clone(),
            ek_public: self.ek.public.clone(),
            ak_public: self.ak.public.clone(),
            boot_id: "5a3c0d5e-6d2f-4a3e-9a4b-0d8b4a7e1c55".into(),
            pcr_banks: vec![PcrHash::Sha256],
            event_log: false,
            ima_log: false,
        }
    }

    pub fn spki(&self) -> Vec<u8> {
        self.key.spki_der().expect("P-256")
    }

    /// What a server expects of this device's certificate request.
    pub fn expectation(&self) -> Expectation {
        Expectation {
            trust_domain: TRUST_DOMAIN.into(),
            csr_spki_der: self.spki(),
            pcrs: pcrs("0,2,4,7"),
            pcr_banks: vec![PcrHash::Sha256],
            event_log: EventLogPolicy::Ignored,
            ima_log: EventLogPolicy::Ignored,
            require_resident_key: true,
            last_seen: None,
        }
    }

    /// extraData for this device's key and a challenge.
    pub fn binding(&self, challenge: &Challenge) -> [u8; 32] {
        binding(TRUST_DOMAIN, &challenge.nonce, &self.spki())
    }

    /// The honest answer.
    pub fn answer(&self, challenge: &Challenge) -> Response {
        let (ak, key, challenge, extra) =
            (self.ak.clone(), self.key.clone(), challenge.clone(), self.binding(challenge));
        self.run(move |chip| {
            let secret = chip.activate_credential(&ak, &challenge.credential, &challenge.secret)?;
            let quote = chip.quote(&ak, &extra, challenge.pcr_bank, challenge.pcrs)?;
            let (attest, signature) = chip.certify(&key, &ak, &extra)?;
            Ok(Response {
                secret: secret.to_vec(),
                quote: quote.attest,
                quote_signature: quote.signature,
                pcr_values: quote.pcr_values,
                key: Some(CertifiedKey { public: key.public, attest, signature }),
                event_log: None,
            })
        })
        .expect("the chip answers an honest challenge")
    }

    /// An honest answer to a challenge of its own, to be spoiled. Needs all slots of the chip.
    pub fn an_answer(&self) -> Response {
        let (_, challenge) = challenge(&self.evidence(), self.expectation()).expect("honest evidence");
        self.answer(&challenge)
    }
}

/// The server's first half, for a device whose endorsement key is enrolled.
pub fn challenge(evidence: &Evidence, expectation: Expectation) -> Result<(Pending, Challenge), Refusal> {
    let claim = Claim::parse(&evidence.to_json())?;
    let ek_sha256 = claim.ek_sha256();
    let admitted = claim.admit(Admission::Enrolled { ek_sha256 })?;
    let (mut nonce, mut secret) = ([0; 32], [0; 32]);
    fill(&mut nonce).expect("random bytes");
    fill(&mut secret).expect("random bytes");
    admitted.challenge(expectation, nonce, secret, NOW)
}

/// The whole story of a device that answers with what `answer` makes of the honest answer.
pub fn refusal_of(device: &Device, answer: impl FnOnce(&Challenge, Response) -> Response) -> Refusal {
    let (pending, challenge) = challenge(&device.evidence(), device.expectation()).expect("honest evidence");
    let response = answer(&challenge, device.answer(&challenge));
    pending.complete(&response.to_json(), NOW + 1).expect_err("refused")
}

pub fn pcrs(text: &str) -> PcrSelection {
    text.parse().expect("legal PCR selection")
}
