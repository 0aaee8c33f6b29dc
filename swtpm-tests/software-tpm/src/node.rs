//! A device with a chip in software, which answers honestly.

use std::sync::Mutex;

use ironroot_attest::ima::read_part;
use ironroot_attest::node::tpm2::{CertifiedKey, Challenge, ClockReading, ImaRequest, Response, binding};

use crate::marshal::Unique;
use crate::{AttestFields, PublicFields, SoftwareTpm};

/// A device with a chip in software, whose clock says what it is told to.
pub struct SoftwareNode {
    pub tpm: SoftwareTpm,
    pub clock: ClockReading,
    /// From where its list of measured files was asked for, each time.
    pub asked_from: Mutex<Vec<u64>>,
}

impl SoftwareNode {
    /// A chip with fresh P-256 keys, started for the first time.
    pub fn new() -> Self {
        let clock = ClockReading { clock_ms: 1_000_000, reset_count: 1, restart_count: 0, safe: true };
        Self { tpm: SoftwareTpm::new(), clock, asked_from: Mutex::default() }
    }

    /// The first message, JSON.
    pub fn evidence(&self) -> Vec<u8> {
        self.tpm.evidence().to_json()
    }

    /// The answer to a challenge, JSON, for a certificate request's P-256 key, which it says is in the chip.
    pub fn answer(&self, challenge: &[u8], trust_domain: &str, spki_der: &[u8]) -> Vec<u8> {
        if let Ok(ImaRequest { known }) = ImaRequest::from_json(challenge) {
            self.asked_from.lock().expect("no panic").push(known);
            return read_part(self.tpm.ima_list.as_deref().unwrap_or_default(), known).expect("a list");
        }
        let challenge = Challenge::from_json(challenge).expect("a challenge");
        let extra_data = binding(trust_domain, &challenge.nonce, spki_der);
        let public = self.public_of(spki_der);
        let quote = self.told(self.tpm.quote(&extra_data, challenge.pcrs.mask()));
        let attest = self.told(self.tpm.certify(&extra_data, &public));
        let response = Response {
            secret: self.tpm.activate(&challenge).expect("made for this chip"),
            quote_signature: self.tpm.ak.sign(&quote),
            quote,
            pcr_values: challenge.pcrs.indices().map(|n| (n, self.tpm.pcrs[usize::from(n)].to_vec())).collect(),
            event_log: self.tpm.event_log.clone().filter(|_| challenge.event_log),
            key: Some(CertifiedKey { public: public.marshal(), signature: self.tpm.ak.sign(&attest), attest }),
        };
        response.to_json()
    }

    /// With this chip's clock.
    fn told(&self, fields: AttestFields) -> Vec<u8> {
        let ClockReading { clock_ms, reset_count, restart_count, safe } = self.clock;
        AttestFields { clock: clock_ms, reset_count, restart_count, safe: safe.into(), ..fields }.marshal()
    }

    /// The point is the last thing in a P-256 SubjectPublicKeyInfo.
    fn public_of(&self, spki_der: &[u8]) -> PublicFields {
        let (x, y) = spki_der[spki_der.len() - 64..].split_at(32);
        let Unique::Ecc { curve, .. } = self.tpm.leaf_public.unique else { unreachable!("made on P-256") };
        PublicFields { unique: Unique::Ecc { curve, x: x.to_vec(), y: y.to_vec() }, ..self.tpm.leaf_public.clone() }
    }
}
