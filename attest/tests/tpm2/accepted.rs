//! What an honest TPM gets.

use aws_lc_rs::digest::{SHA256, digest};
use ironroot_attest::node::Refusal;
use ironroot_attest::node::tpm2::{
    Admission, Claim, ClockReading, Evidence, Expectation, PcrHash, PcrSelection, list_banks,
};

use crate::attempt::{Attempt, NONCE, SECRET};
use crate::manufacturer::{Manufacturer, NOW};
use crate::software_tpm::{Decryptor, SigningKey, SoftwareTpm, pcr_value, quote_info};

#[test]
fn accepts_every_kind_of_key_that_chips_have() {
    let eks = [Decryptor::p256 as fn() -> Decryptor, Decryptor::p384, Decryptor::rsa];
    let aks = [SigningKey::p256 as fn() -> SigningKey, SigningKey::p384, SigningKey::rsa];
    for (ek, ak) in eks.into_iter().flat_map(|ek| aks.map(|ak| (ek, ak))) {
        let attempt = Attempt::by(SoftwareTpm::with(ek(), ak()));
        attempt.verdict(|_| {}).expect("an honest TPM is accepted");
    }
}

#[test]
fn says_what_was_proven() {
    let attempt = Attempt::new();
    let attested = attempt.verdict(|_| {}).expect("accepted");
    let hash = digest(&SHA256, &attempt.tpm.ek.spki_der());
    assert_eq!(&attested.ek_sha256()[..], hash.as_ref());
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(attested.agent_path(), format!("/spire/agent/tpm2/{hash}"));
    assert_eq!(attested.clock(), ClockReading { clock_ms: 1_000_000, reset_count: 7, restart_count: 1, safe: true });
    assert_eq!(attested.firmware_version(), 0x2016_0511_0016_2800);
    assert_eq!(attested.boot_id(), "5b2a6c0e-11aa-4a57-8d5b-0d6f5d2a9c11");
    assert!(attested.key_is_resident());
    let mut expected =
        vec![format!("tpm2:ek:sha256:{hash}"), "tpm2:fw:2016051100162800".into(), "tpm2:key:resident".into()];
    for index in [0, 2, 4, 7] {
        let value: String = pcr_value(index).iter().map(|byte| format!("{byte:02x}")).collect();
        expected.push(format!("tpm2:pcr:sha256:{index}:{value}"));
    }
    let selectors: Vec<String> = attested.selectors().iter().map(ToString::to_string).collect();
    assert_eq!(selectors, expected);
}

#[test]
fn a_verified_certificate_adds_its_selectors_and_an_enrolled_one_does_not() {
    let attempt = Attempt::new();
    let manufacturer = Manufacturer::new("Toy");
    let mut evidence = attempt.tpm.evidence();
    evidence.ek_certificates = manufacturer.certify(&attempt.tpm.ek.spki_der());
    let roots = manufacturer.roots();
    let claim = Claim::parse(&evidence.to_json()).expect("well-formed");
    let enrolled = Admission::Enrolled { ek_sha256: claim.ek_sha256() };
    for (admission, selectors) in [(Admission::Manufacturer { roots: &roots, now_unix: NOW }, 10), (enrolled, 7)] {
        let admitted = claim.clone().admit(admission).expect("admitted");
        let (pending, challenge) =
            admitted.challenge(attempt.expectation.clone(), NONCE, SECRET, NOW).expect("challenged");
        let attested = pending.complete(&attempt.respond(&challenge).to_json(), NOW).expect("accepted");
        assert_eq!(attested.selectors().len(), selectors);
        for text in ["tpm2:manufacturer:IFX", "tpm2:model:SLB 9670", "tpm2:ek:issuer:cn:Toy EK CA"] {
            assert_eq!(attested.selectors().contains(&text.parse().expect("legal")), selectors == 10, "{text}");
        }
    }
}

#[test]
fn a_key_outside_the_tpm_is_accepted_where_policy_allows_it() {
    let mut attempt = Attempt::new();
    attempt.expectation.require_resident_key = false;
    let attested = attempt.verdict_on(|response| response.key = None).expect("accepted");
    assert!(!attested.key_is_resident());
    assert!(!attested.selectors().contains(&"tpm2:key:resident".parse().expect("legal")));
}

#[test]
fn a_quote_of_no_pcr_proves_the_rest() {
    let mut attempt = Attempt::new();
    attempt.expectation.pcrs = PcrSelection::NONE;
    // None of which this chip has active: of no matter, since none is quoted.
    attempt.expectation.pcr_banks = vec![PcrHash::Sha384];
    let no_bank = quote_info(&[], digest(&SHA256, b"").as_ref());
    for lie in [None, Some(no_bank)] {
        let verdict = attempt.verdict(|draft| draft.quote.info = lie.unwrap_or_else(|| draft.quote.info.clone()));
        assert_eq!(verdict.expect("accepted").selectors().len(), 3);
    }
}

#[test]
fn a_reading_that_follows_the_last_one_is_accepted() {
    let mut attempt = Attempt::new();
    attempt.expectation.last_seen =
        Some(ClockReading { clock_ms: 1_005_000, reset_count: 7, restart_count: 1, safe: true });
    attempt.verdict(|_| {}).expect("a clock some seconds back is what a power cut leaves");
}

#[test]
fn the_bank_asked_for_is_the_first_preferred_that_the_chip_has() {
    let attempt = Attempt::new();
    let asked = |offered: &[PcrHash], accepted: &[PcrHash]| {
        let evidence = Evidence { pcr_banks: offered.to_vec(), ..attempt.tpm.evidence() };
        let claim = Claim::parse(&evidence.to_json()).expect("parses");
        let ek_sha256 = claim.ek_sha256();
        let admitted = claim.admit(Admission::Enrolled { ek_sha256 }).expect("enrolled");
        let expectation = Expectation { pcr_banks: accepted.to_vec(), ..attempt.expectation.clone() };
        admitted.challenge(expectation, NONCE, SECRET, NOW).map(|(_, challenge)| challenge.pcr_bank)
    };
    let (sha1, sha256, sha384) = (PcrHash::Sha1, PcrHash::Sha256, PcrHash::Sha384);
    assert_eq!(asked(&[sha256, sha384], &[sha384, sha256]), Ok(sha384));
    assert_eq!(asked(&[sha256], &[sha384, sha256]), Ok(sha256));
    let refusal = Refusal::PcrBank { offered: list_banks(&[sha1]), accepted: list_banks(&[sha256]) };
    assert_eq!(asked(&[sha1], &[sha256]), Err(refusal));
}
