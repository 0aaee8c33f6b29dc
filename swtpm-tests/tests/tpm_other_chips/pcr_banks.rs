//! Chips with other PCR banks than SHA-256.

use ironroot_attest::node::Refusal;
use ironroot_attest::node::tpm2::PcrHash;
use ironroot_attest::tpm::{Chip, TpmError, TpmSettings};
use ironroot_lab::swtpm::Swtpm;

use crate::bench::{attest_with, chip, open, run, run_err};

const SHA1: u16 = 0x0004;
const SHA256: u16 = 0x000b;
const SHA384: u16 = 0x000c;

fn chip_with(banks: &[u16]) -> Swtpm {
    let mut chip = chip();
    chip.allocate_pcr_banks(banks).expect("allocated");
    chip
}

#[test]
fn a_chip_with_sha384_alone_attests_where_the_server_accepts_that() {
    let chip = chip_with(&[SHA384]);
    let tpm = open(chip.address());
    assert_eq!(run(&tpm, Chip::active_banks), [PcrHash::Sha384]);
    let attested = attest_with(&tpm, vec![PcrHash::Sha256, PcrHash::Sha384]).expect("accepted");
    let selector = format!("tpm2:pcr:sha384:7:{}", "0".repeat(96));
    assert!(attested.selectors().iter().any(|found| found.to_string() == selector), "{:?}", attested.selectors());
    let refused = attest_with(&tpm, vec![PcrHash::Sha256]).expect_err("refused");
    assert!(matches!(&refused, Refusal::PcrBank { offered, .. } if offered == "sha384"), "{refused}");
}

#[test]
fn sha1_is_refused_in_words_unless_the_server_says_so() {
    let tpm_chip = chip_with(&[SHA1]);
    let tpm = open(tpm_chip.address());
    for accepted in [vec![PcrHash::Sha256], vec![PcrHash::Sha256, PcrHash::Sha384, PcrHash::Sha512]] {
        let refused = attest_with(&tpm, accepted).expect_err("refused").to_string();
        assert!(refused.contains("PCR banks sha1 active") && refused.contains("pcr_banks"), "{refused}");
    }
    attest_with(&tpm, vec![PcrHash::Sha256, PcrHash::Sha1]).expect("an operator's decision");
}

#[test]
fn a_chip_with_several_banks_quotes_the_one_that_the_server_prefers() {
    let chip = chip_with(&[SHA1, SHA256, SHA384]);
    let tpm = open(chip.address());
    assert_eq!(run(&tpm, Chip::active_banks), [PcrHash::Sha256, PcrHash::Sha384, PcrHash::Sha1]);
    for (accepted, expected) in [
        (vec![PcrHash::Sha384, PcrHash::Sha256], "pcr:sha384:0"),
        (vec![PcrHash::Sha256, PcrHash::Sha384], "pcr:sha256:0"),
    ] {
        let attested = attest_with(&tpm, accepted).expect("accepted");
        assert!(attested.selectors().iter().any(|found| found.to_string().contains(expected)));
    }
}

#[test]
fn secrets_are_sealed_to_an_active_bank_but_to_sha1_only_when_told() {
    let boot = || "0,7".parse().expect("legal");
    let sha384 = chip_with(&[SHA384]);
    let tpm = open(sha384.address());
    let sealed = run(&tpm, move |chip| chip.seal(b"secret", boot()));
    let blob = sealed.clone();
    run(&tpm, move |chip| chip.unseal(&blob, boot()));
    extend_sha384(&sha384);
    let error = run_err(&tpm, move |chip| chip.unseal(&sealed, boot()));
    assert!(matches!(error, TpmError::WrongPolicy(_)), "sealed to nothing: {error}");

    let sha1 = chip_with(&[SHA1]);
    let error = run_err(&open(sha1.address()), move |chip| chip.seal(b"secret", boot()));
    assert!(error.to_string().contains("active banks: sha1"), "{error}");
    let told = TpmSettings { sealing_bank: Some(PcrHash::Sha1), ..TpmSettings::from(sha1.address()) };
    let tpm = open(told);
    let sealed = run(&tpm, move |chip| chip.seal(b"secret", boot()));
    run(&tpm, move |chip| chip.unseal(&sealed, boot()));
}

fn extend_sha384(chip: &Swtpm) {
    use tss_esapi::handles::PcrHandle;
    use tss_esapi::interface_types::algorithm::HashingAlgorithm;
    use tss_esapi::interface_types::session_handles::AuthSession;
    use tss_esapi::structures::{Digest, DigestValues};
    let mut values = DigestValues::new();
    values.set(HashingAlgorithm::Sha384, Digest::try_from([0x5a; 48].as_slice()).expect("a digest"));
    let mut esys = chip.esys().expect("ESYS");
    esys.execute_with_session(Some(AuthSession::Password), |esys| esys.pcr_extend(PcrHandle::Pcr7, values))
        .expect("extends");
}
