//! A challenge that is out, and the judgement of its answer.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroizing;

use super::attested::Proven;
use super::{
    AdmittedEk, AttestedTpm, BootState, CHALLENGE_SECONDS, CertifiedKey, ClockReading, Expectation, PcrHash,
    PcrSelection, Response, binding, boot, ima,
};
use crate::node::{Part, Refusal};
use crate::structures::{Attest, Attested, Attributes, ClockInfo, Hash, Public, PublicKey, Quote, Scheme, Signature};

/// A challenge that waits for its one answer.
pub struct Pending {
    admitted: AdmittedEk,
    expectation: Expectation,
    pcr_bank: PcrHash,
    /// Those that are quoted: the ones that were asked for, and those that a list of files is held against.
    pcrs: PcrSelection,
    secret: Zeroizing<[u8; 32]>,
    binding: [u8; 32],
    issued_unix: i64,
}

impl Pending {
    /// Judges the answer. `response`: the message as received. `now_unix`: UNIX seconds, by the clock of the challenge.
    ///
    /// In this order, and each step only after the one before: time, activation secret, signature of the quote, what it
    /// says, PCR values, the log that led to them, clock and counters, then the same for the certified key.
    pub fn complete(self, response: &[u8], now_unix: i64) -> Result<AttestedTpm, Refusal> {
        self.check_time(now_unix)?;
        let response = Response::from_json(response)?;
        //= TPM-05 TPM 2.0 Part 3, TPM2_ActivateCredential: "the TPM has validated the parameters"
        //= TPM-11 TPM 2.0 Part 1, Credential Protection: "each attestation has a random one, compared in constant time"
        verify_slices_are_equal(&response.secret, &self.secret[..]).map_err(|_| Refusal::WrongSecret)?;
        let quote = self.check_attest(Part::Quote, &response.quote, &response.quote_signature)?;
        let Attested::Quote(registers) = quote.attested() else {
            return Err(Refusal::AttestationKind(Part::Quote));
        };
        let expected = (self.pcr_bank, self.pcrs);
        check_pcrs(expected, self.ak_scheme()?.hash(), registers, &response.pcr_values)?;
        let quoted = response.pcr_values;
        let ima = ima::judge(self.expectation.ima_log, self.admitted.has_ima_log, self.pcr_bank, &quoted);
        let wanted = |(index, _): &(u8, Vec<u8>)| self.expectation.pcrs.contains(*index);
        let pcrs: Vec<_> = quoted.into_iter().filter(wanted).collect();
        let log = boot::judge(self.expectation.event_log, response.event_log.as_deref(), self.pcr_bank, &pcrs)?;
        let clock = ClockReading::from(quote.clock());
        self.expectation.last_seen.map_or(Ok(()), |last_seen| clock.check_follows(&last_seen))?;
        let key_is_resident = self.check_key(response.key.as_ref())?;
        let proven = Proven {
            clock,
            firmware_version: quote.firmware_version(),
            boot: BootState { bank: self.pcr_bank, pcrs, log },
            ima,
            key_is_resident,
        };
        Ok(AttestedTpm::new(self.admitted, proven))
    }

    pub(super) fn new(
        admitted: AdmittedEk,
        expectation: Expectation,
        (pcr_bank, pcrs): (PcrHash, PcrSelection),
        (nonce, secret): ([u8; 32], [u8; 32]),
        issued_unix: i64,
    ) -> Self {
        //= TPM-09 TPM 2.0 Part 2, TPMS_ATTEST: "the nonce is bound to the trust domain"
        let binding = binding(&expectation.trust_domain, &nonce, &expectation.csr_spki_der);
        Self { admitted, expectation, pcr_bank, pcrs, secret: Zeroizing::new(secret), binding, issued_unix }
    }

    fn check_time(&self, now_unix: i64) -> Result<(), Refusal> {
        let seconds = now_unix.saturating_sub(self.issued_unix);
        if (0..=CHALLENGE_SECONDS).contains(&seconds) {
            return Ok(());
        }
        Err(Refusal::ChallengeExpired { seconds, limit: CHALLENGE_SECONDS })
    }

    fn ak_scheme(&self) -> Result<Scheme, Refusal> {
        self.admitted.ak.scheme().ok_or(Refusal::AkWithoutScheme)
    }

    /// Made by a TPM, signed by this AK, over our binding, and the AK is a child of this EK.
    fn check_attest(&self, part: Part, attest: &[u8], signature: &[u8]) -> Result<Attest, Refusal> {
        let of_structure = |error| Refusal::of_structure(part, error);
        let signature = Signature::parse(signature).map_err(of_structure)?;
        //= TPM-25 TPM 2.0 Part 2, TPMT_SIGNATURE: "scheme and hash are the key's own"
        if signature.scheme() != self.ak_scheme()? {
            return Err(Refusal::SignatureAlgorithm(part));
        }
        if !signature.is_by(self.admitted.ak.key(), attest) {
            return Err(Refusal::Signature(part));
        }
        let attest = Attest::parse(attest).map_err(of_structure)?;
        //= TPM-08 TPM 2.0 Part 2, TPMS_ATTEST: "external information supplied by caller"
        //= TPM-35 TPM 2.0 Part 3, TPM2_Certify: "it is over the same nonce as the quote"
        if attest.extra_data() != self.binding {
            return Err(Refusal::AnotherBinding(part));
        }
        let ek = self.admitted.ek.qualified_name_in_endorsement_hierarchy();
        //= TPM-33 TPM 2.0 Part 1, Names: "Qualified Name of the signing key"
        if *attest.qualified_signer() != self.admitted.ak.qualified_name_under(&ek) {
            return Err(Refusal::ForeignSigner(part));
        }
        Ok(attest)
    }

    /// Whether the key of the certificate request is in the TPM; a claim that it is must hold even where nobody requires it.
    fn check_key(&self, key: Option<&CertifiedKey>) -> Result<bool, Refusal> {
        let Some(key) = key else {
            //= TPM-16 TPM 2.0 Part 3, TPM2_Certify: "the key of the certificate can be required to live in that chip"
            return if self.expectation.require_resident_key { Err(Refusal::KeyNotResident) } else { Ok(false) };
        };
        let public = Public::parse(&key.public).map_err(|error| Refusal::of_public(Part::CertifiedKey, error))?;
        let attributes = public.attributes();
        if !attributes.are(Attributes::RESIDENT | Attributes::SIGN, Attributes::DECRYPT) {
            return Err(Refusal::NotAResidentKey { attributes: attributes.bits() });
        }
        let certify = self.check_attest(Part::Certify, &key.attest, &key.signature)?;
        match certify.attested() {
            Attested::Certify { name } if name == public.name() => {}
            Attested::Certify { .. } => return Err(Refusal::CertifiedAnotherKey),
            _ => return Err(Refusal::AttestationKind(Part::Certify)),
        }
        //= TPM-36 TPM 2.0 Part 3, TPM2_Certify: "the two are compared"
        match PublicKey::from_spki_der(&self.expectation.csr_spki_der) {
            Ok(requested) if requested == *public.key() => Ok(true),
            _ => Err(Refusal::RequestForAnotherKey),
        }
    }
}

// Not derived: the secret stays out of logs.
impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("expectation", &self.expectation).finish_non_exhaustive()
    }
}

impl From<ClockInfo> for ClockReading {
    fn from(info: ClockInfo) -> Self {
        Self { clock_ms: info.clock, reset_count: info.reset_count, restart_count: info.restart_count, safe: info.safe }
    }
}

/// The selection is exactly the one asked for, and the values are the ones quoted. A quote of an inactive bank succeeds
/// with an empty selection, so whatever differs is refused.
fn check_pcrs(
    (hash, expected): (PcrHash, PcrSelection),
    quote_hash: Hash,
    quote: &Quote,
    values: &[(u8, Vec<u8>)],
) -> Result<(), Refusal> {
    //= TPM-29 TPM 2.0 Part 3, TPM2_Quote: "the selection is exactly the one that was asked for"
    let exact = match quote.banks() {
        [] => expected.is_empty(),
        [bank] => bank.hash == hash.id() && bank.mask == expected.mask(),
        _ => false,
    };
    if !exact {
        return Err(Refusal::PcrSelection { bank: hash, expected });
    }
    let whole = values.iter().all(|(_, value)| value.len() == hash.bytes());
    if !whole || !values.iter().map(|(index, _)| *index).eq(expected.indices()) {
        return Err(Refusal::PcrValues { expected });
    }
    let parts: Vec<&[u8]> = values.iter().map(|(_, value)| value.as_slice()).collect();
    if quote_hash.digest(&parts).as_ref() != quote.digest() { Err(Refusal::PcrDigest) } else { Ok(()) }
}
