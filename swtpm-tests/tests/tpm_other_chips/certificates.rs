//! Which endorsement key a device is known by, whatever stands in its NV.

use ironroot_attest::tpm::{
    Chip, EndorsementChoice, EndorsementKind, HierarchyPassword, RememberedEndorsement, TpmSettings,
};
use ironroot_lab::manufacturer::{
    CHAIN_INDEX, EkKind, EkProfile, Manufacturer, P256_CERTIFICATE_INDEX, P384_CERTIFICATE_INDEX,
    RSA_CERTIFICATE_INDEX, Readers, define_index, ek_public_key, ek_sha256_of, write_index,
};
use ironroot_lab::swtpm::Swtpm;

use crate::bench::{attest, chip, endorsement_key, open, run};

fn maker() -> Manufacturer {
    Manufacturer::new("Toy").expect("a maker")
}

fn kind_of(chip: &Swtpm) -> EndorsementKind {
    endorsement_key(chip).identity.kind
}

fn hash(chip: &Swtpm, kind: EkKind) -> [u8; 32] {
    ek_sha256_of(chip, kind).expect("an EK")
}

#[test]
fn an_index_that_was_never_written_is_as_good_as_none() {
    // Case a: the P-256 index defined only, the RSA certificate in place.
    let chip_a = chip();
    maker().certify_rsa(&chip_a).expect("certified");
    define_index(&chip_a, P256_CERTIFICATE_INDEX, Readers::All, None).expect("defined");
    let ek = endorsement_key(&chip_a);
    assert_eq!((ek.identity.kind, ek.certificates.len()), (EndorsementKind::Rsa2048, 2));
    // Case b: the RSA index never written, nothing else.
    let chip_b = chip();
    define_index(&chip_b, RSA_CERTIFICATE_INDEX, Readers::All, None).expect("defined");
    let ek = endorsement_key(&chip_b);
    assert_eq!((ek.identity.kind, ek.certificates.len()), (EndorsementKind::P256, 0));
    // Case c: a chain index never written, the EK certificate in place.
    let chip_c = chip();
    let certificate = maker().certify(&chip_c).expect("certified");
    define_index(&chip_c, CHAIN_INDEX, Readers::All, None).expect("defined");
    assert_eq!(endorsement_key(&chip_c).certificates, [certificate]);
    for chip in [chip_a, chip_b, chip_c] {
        attest(&open(chip.address()));
    }
}

#[test]
fn an_index_that_only_the_platform_may_read_is_as_good_as_none() {
    let chip = chip();
    let certificate = maker().certify_rsa(&chip).expect("certified");
    define_index(&chip, RSA_CERTIFICATE_INDEX, Readers::Platform, Some(&certificate)).expect("defined");
    let ek = endorsement_key(&chip);
    assert_eq!((ek.identity.kind, ek.certificates.len()), (EndorsementKind::P256, 0));
    attest(&open(chip.address()));
}

#[test]
fn an_index_that_the_owner_may_read_is_read_as_the_owner() {
    let chip = chip();
    let certificate = maker().certify(&chip).expect("certified");
    define_index(&chip, P256_CERTIFICATE_INDEX, Readers::Owner, Some(&certificate)).expect("defined");
    assert_eq!(endorsement_key(&chip).certificates[0], certificate);
}

//= FLT-T9
#[test]
fn garbage_in_an_index_does_not_change_who_the_device_is() {
    let chip = chip();
    let maker = maker();
    maker.certify_rsa(&chip).expect("certified");
    let before = endorsement_key(&chip);
    assert_eq!(before.identity.kind, EndorsementKind::Rsa2048);
    // A certificate that parses, for a key elsewhere.
    let stranger = ek_public_key(&self::chip(), EkKind::P256).expect("a key");
    let foreign = maker.issue(&stranger, &EkProfile::default()).expect("issued");
    for content in [vec![0; 64], vec![0xff; 64], b"\x30\x03\x02\x01\x05".to_vec(), b"no certificate".to_vec(), foreign]
    {
        write_index(&chip, P256_CERTIFICATE_INDEX, &content).expect("written");
        assert_eq!(endorsement_key(&chip), before);
    }
}

#[test]
fn a_device_keeps_the_key_it_is_known_by() {
    let chip = chip();
    let maker = maker();
    let known = endorsement_key(&chip).identity;
    assert_eq!(known.kind, EndorsementKind::P256);
    // Somebody adds a certificate for another kind, genuine even.
    maker.certify_rsa(&chip).expect("certified");
    assert_eq!(kind_of(&chip), EndorsementKind::Rsa2048, "a device that never attested");
    let remembering = TpmSettings { remembered: Some(known), ..TpmSettings::from(chip.address()) };
    assert_eq!(run(&open(remembering), Chip::endorsement_key).identity, known);
    // What was known of another chip is of no use here.
    let other = RememberedEndorsement { kind: EndorsementKind::P256, ek_sha256: [7; 32] };
    let mistaken = TpmSettings { remembered: Some(other), ..TpmSettings::from(chip.address()) };
    assert_eq!(run(&open(mistaken), Chip::endorsement_key).identity.kind, EndorsementKind::Rsa2048);
}

#[test]
fn the_operators_word_wins() {
    let chip = chip();
    maker().certify(&chip).expect("certified");
    for (kind, lab) in [
        (EndorsementKind::P256, EkKind::P256),
        (EndorsementKind::Rsa2048, EkKind::Rsa2048),
        (EndorsementKind::P384, EkKind::P384),
    ] {
        let set = TpmSettings { endorsement: EndorsementChoice::Only(kind), ..TpmSettings::from(chip.address()) };
        let tpm = open(set);
        let ek = run(&tpm, Chip::endorsement_key);
        assert_eq!((ek.identity.kind, ek.identity.ek_sha256), (kind, hash(&chip, lab)));
        assert_eq!(ek.certificates.is_empty(), kind != EndorsementKind::P256);
        attest(&tpm);
    }
}

#[test]
fn a_p384_endorsement_key_with_its_certificate_attests() {
    let chip = chip();
    let certificate = maker().certify_as(&chip, EkKind::P384, &EkProfile::default()).expect("certified");
    let tpm = open(chip.address());
    let ek = run(&tpm, Chip::endorsement_key);
    assert_eq!((ek.identity.kind, &ek.certificates[0]), (EndorsementKind::P384, &certificate));
    assert_eq!(ek.identity.ek_sha256, hash(&chip, EkKind::P384));
    attest(&tpm);
    let ak = run(&tpm, Chip::create_attestation_key);
    run(&tpm, move |chip| chip.clock(&ak));
    assert_eq!(chip.left_loaded().expect("the chip answers"), [0u32; 0]);
    // RSA-2048 goes before it: chips with both were enrolled by that.
    maker().certify_rsa(&chip).expect("certified");
    assert_eq!(kind_of(&chip), EndorsementKind::Rsa2048);
    write_index(&chip, RSA_CERTIFICATE_INDEX, &[0; 100]).expect("written");
    write_index(&chip, P384_CERTIFICATE_INDEX, &certificate).expect("written");
    assert_eq!(kind_of(&chip), EndorsementKind::P384);
}

#[test]
fn a_settings_password_is_not_printed() {
    let settings = TpmSettings::from(chip().address());
    assert!(format!("{settings:?}").contains("redacted"));
    assert_eq!(settings.owner_password, HierarchyPassword::default());
}
