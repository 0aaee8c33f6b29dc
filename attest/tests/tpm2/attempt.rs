//! One attestation from the first message to the verdict, with a place to lie at each step.

use ironroot_attest::node::Refusal;
use ironroot_attest::node::tpm2::{
    Admission, AttestedTpm, CertifiedKey, Challenge, Claim, EventLogPolicy, Expectation, PcrHash, Pending, Response,
    binding,
};

use crate::manufacturer::NOW;
use crate::software_tpm::{AttestFields, SoftwareTpm};

pub const NONCE: [u8; 32] = [0x5a; 32];
pub const SECRET: [u8; 32] = [0xc3; 32];
pub const TRUST_DOMAIN: &str = "example.org";

/// A device and what the server expects of it; enrolled.
pub struct Attempt {
    pub tpm: SoftwareTpm,
    pub expectation: Expectation,
}

/// The second message before it is signed.
pub struct Draft {
    pub secret: Vec<u8>,
    pub quote: AttestFields,
    pub pcr_values: Vec<(u8, Vec<u8>)>,
    pub certify: AttestFields,
}

impl Attempt {
    pub fn new() -> Self {
        Self::by(SoftwareTpm::new())
    }

    pub fn by(tpm: SoftwareTpm) -> Self {
        let expectation = Expectation {
            trust_domain: TRUST_DOMAIN.into(),
            csr_spki_der: tpm.leaf.spki_der(),
            pcrs: "0,2,4,7".parse().expect("legal"),
            pcr_banks: vec![PcrHash::Sha256],
            event_log: EventLogPolicy::Verified,
            ima_log: EventLogPolicy::Ignored,
            require_resident_key: true,
            last_seen: None,
        };
        Self { tpm, expectation }
    }

    /// The first message is judged and answered.
    pub fn begin(&self) -> Result<(Pending, Challenge), Refusal> {
        let claim = Claim::parse(&self.tpm.evidence().to_json())?;
        let ek_sha256 = claim.ek_sha256();
        let admitted = claim.admit(Admission::Enrolled { ek_sha256 })?;
        admitted.challenge(self.expectation.clone(), NONCE, SECRET, NOW)
    }

    /// An honest second message.
    pub fn respond(&self, challenge: &Challenge) -> Response {
        self.respond_with(challenge, |_| {})
    }

    /// A second message that `lie` changes before it is signed.
    pub fn respond_with(&self, challenge: &Challenge, lie: impl FnOnce(&mut Draft)) -> Response {
        let extra_data = binding(TRUST_DOMAIN, &challenge.nonce, &self.tpm.leaf.spki_der());
        let mut draft = Draft {
            secret: self.tpm.activate(challenge).expect("our credential"),
            quote: self.tpm.quote(&extra_data, challenge.pcrs.mask()),
            pcr_values: challenge.pcrs.indices().map(|n| (n, self.tpm.pcrs[usize::from(n)].to_vec())).collect(),
            certify: self.tpm.certify(&extra_data, &self.tpm.leaf_public),
        };
        lie(&mut draft);
        let (quote, attest) = (draft.quote.marshal(), draft.certify.marshal());
        Response {
            secret: draft.secret,
            quote_signature: self.tpm.ak.sign(&quote),
            quote,
            pcr_values: draft.pcr_values,
            key: Some(CertifiedKey {
                public: self.tpm.leaf_public.marshal(),
                signature: self.tpm.ak.sign(&attest),
                attest,
            }),
            event_log: self.tpm.event_log.clone().filter(|_| challenge.event_log),
        }
    }

    /// The verdict on an attestation whose second message `lie` changes before it is signed.
    pub fn verdict(&self, lie: impl FnOnce(&mut Draft)) -> Result<AttestedTpm, Refusal> {
        let (pending, challenge) = self.begin()?;
        pending.complete(&self.respond_with(&challenge, lie).to_json(), NOW + 2)
    }

    /// The verdict on an attestation whose second message `lie` changes after it is signed.
    pub fn verdict_on(&self, lie: impl FnOnce(&mut Response)) -> Result<AttestedTpm, Refusal> {
        let (pending, challenge) = self.begin()?;
        let mut response = self.respond(&challenge);
        lie(&mut response);
        pending.complete(&response.to_json(), NOW + 2)
    }
}

/// The refusal of a verdict that must be one.
pub fn refusal(verdict: Result<AttestedTpm, Refusal>) -> Refusal {
    verdict.expect_err("this attestation must be refused")
}
