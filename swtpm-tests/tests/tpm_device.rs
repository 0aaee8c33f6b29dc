//! What the agent asks of its TPM, done by a software TPM and judged by other code than that which asked.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use ironroot_attest::ek_certificate::EkCertificate;
use ironroot_attest::node::tpm2::{PcrHash, PcrSelection};
use ironroot_attest::structures::{Attest, Attested, Public, PublicKey, Signature, make_credential};
use ironroot_attest::tpm::{
    Chip, DEFAULT_COUNTER_INDEX, EndorsementKey, KeyBlob, MAX_SEALED_BYTES, Tpm, TpmAddress, TpmError,
};
use ironroot_lab::manufacturer::{EkKind, Manufacturer, ek_public_key};
use ironroot_lab::swtpm::Swtpm;
use spki::SubjectPublicKeyInfoRef;
use tss_esapi::attributes::NvIndexAttributesBuilder;
use tss_esapi::constants::NvIndexType;
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle, PcrHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Digest, DigestValues, MaxNvBuffer, NvPublicBuilder};

fn chip() -> Swtpm {
    Swtpm::start().expect("swtpm starts")
}

fn open(chip: &Swtpm) -> Tpm {
    Tpm::open_blocking(chip.address()).expect("the TPM answers")
}

/// Runs one job and gives its result.
fn run<T: Send + 'static>(tpm: &Tpm, job: impl FnOnce(&mut Chip) -> Result<T, TpmError> + Send + 'static) -> T {
    tpm.run_blocking("test", job).expect("the job succeeds")
}

fn run_err<T: Send + 'static>(
    tpm: &Tpm,
    job: impl FnOnce(&mut Chip) -> Result<T, TpmError> + Send + 'static,
) -> TpmError {
    tpm.run_blocking("test", job).err().expect("the job fails")
}

fn pcrs(text: &str) -> PcrSelection {
    text.parse().expect("legal PCR selection")
}

/// Extends a PCR as firmware does.
fn extend(chip: &Swtpm, pcr: PcrHandle) {
    let mut values = DigestValues::new();
    values.set(HashingAlgorithm::Sha256, Digest::try_from([0x5a; 32].as_slice()).expect("a digest"));
    let mut esys = chip.esys().expect("the TPM answers");
    esys.execute_with_session(Some(AuthSession::Password), |esys| esys.pcr_extend(pcr, values)).expect("extends");
}

fn certified_key(ek: &EndorsementKey) -> PublicKey {
    EkCertificate::parse(&ek.certificates[0]).expect("an EK certificate").key().clone()
}

/// Makes a credential for `ak` as a server does, and lets the chip open it.
fn activates(tpm: &Tpm, ek: &EndorsementKey, ak: &KeyBlob) {
    let (ek, ak_public) = (Public::parse(&ek.public).expect("EK"), Public::parse(&ak.public).expect("AK"));
    let credential = make_credential(&ek, ak_public.name(), &[7; 32]).expect("credential");
    let ak = ak.clone();
    let secret =
        run(tpm, move |chip| chip.activate_credential(&ak, &credential.id_object, &credential.encrypted_secret));
    assert_eq!(&secret[..], [7; 32]);
}

fn quotes(tpm: &Tpm, ak: &KeyBlob, selection: PcrSelection) -> Attest {
    let blob = ak.clone();
    let quote = run(tpm, move |chip| chip.quote(&blob, &[3; 32], PcrHash::Sha256, selection));
    let ak = Public::parse(&ak.public).expect("AK");
    assert!(Signature::parse(&quote.signature).expect("signature").is_by(ak.key(), &quote.attest));
    assert!(quote.pcr_values.iter().map(|(index, _)| *index).eq(selection.indices()));
    let attest = Attest::parse(&quote.attest).expect("TPMS_ATTEST");
    assert_eq!(attest.extra_data(), [3; 32]);
    attest
}

#[test]
fn gives_the_certified_p256_endorsement_key_and_the_makers_chain() {
    let (chip, maker) = (chip(), Manufacturer::new("Toy").expect("a maker"));
    let certificate = maker.certify(&chip).expect("certified");
    let ek = run(&open(&chip), Chip::endorsement_key);

    assert_eq!(ek.certificates, [certificate, maker.issuing_der()]);
    let public = Public::parse(&ek.public).expect("EK");
    assert_eq!(*public.key(), certified_key(&ek));
    assert_eq!(*public.key(), ek_public_key(&chip, EkKind::P256).expect("EK"));
    assert_eq!(public.attributes().bits(), 0x0003_00b2);
}

#[test]
fn uses_the_rsa_endorsement_key_where_only_that_is_certified() {
    let (chip, maker) = (chip(), Manufacturer::new("Toy").expect("a maker"));
    maker.certify_rsa(&chip).expect("certified");
    let tpm = open(&chip);
    let ek = run(&tpm, Chip::endorsement_key);
    assert_eq!(*Public::parse(&ek.public).expect("EK").key(), certified_key(&ek));
    assert!(certified_key(&ek).is_rsa());

    let ak = run(&tpm, Chip::create_attestation_key);
    activates(&tpm, &ek, &ak);
    quotes(&tpm, &ak, pcrs("0,7"));

    // The maker's service adds the P-256 certificate: new keys go under that EK, the old AK still works.
    maker.certify(&chip).expect("certified");
    let tpm = open(&chip);
    let new_ek = run(&tpm, Chip::endorsement_key);
    assert!(!certified_key(&new_ek).is_rsa());
    quotes(&tpm, &ak, pcrs("0"));
    activates(&tpm, &new_ek, &run(&tpm, Chip::create_attestation_key));
}

#[test]
fn a_chip_without_certificates_has_a_p256_endorsement_key() {
    let chip = chip();
    let ek = run(&open(&chip), Chip::endorsement_key);
    assert!(ek.certificates.is_empty());
    assert!(!Public::parse(&ek.public).expect("EK").key().is_rsa());
}

//= TPM-33
#[test]
fn the_attestation_key_is_restricted_and_a_child_of_the_endorsement_key() {
    let chip = chip();
    let tpm = open(&chip);
    let (ek, ak) = (run(&tpm, Chip::endorsement_key), run(&tpm, Chip::create_attestation_key));
    let (ek_public, ak_public) = (Public::parse(&ek.public).expect("EK"), Public::parse(&ak.public).expect("AK"));
    assert_eq!(ak_public.attributes().bits(), 0x0005_0472);
    activates(&tpm, &ek, &ak);

    let attest = quotes(&tpm, &ak, pcrs("0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"));
    let parent = ek_public.qualified_name_in_endorsement_hierarchy();
    assert_eq!(*attest.qualified_signer(), ak_public.qualified_name_under(&parent));
}

#[test]
fn a_quote_of_no_pcr_still_proves_the_clock() {
    let chip = chip();
    let tpm = open(&chip);
    let ak = run(&tpm, Chip::create_attestation_key);
    let quoted = quotes(&tpm, &ak, PcrSelection::NONE).clock();
    let blob = ak.clone();
    let clock = run(&tpm, move |chip| chip.clock(&blob));
    assert_eq!((clock.reset_count, clock.restart_count), (quoted.reset_count, quoted.restart_count));
    assert!(clock.clock_ms >= quoted.clock);
}

//= TPM-18
#[test]
fn the_clock_counts_resets() {
    let mut chip = chip();
    let tpm = open(&chip);
    let ak = run(&tpm, Chip::create_attestation_key);
    let read = |ak: &KeyBlob| {
        let ak = ak.clone();
        run(&tpm, move |chip| chip.clock(&ak))
    };
    let first = read(&ak);
    chip.power_cycle().expect("power cycle");
    let second = read(&ak);
    chip.reset().expect("reset");
    assert_eq!(second.reset_count, first.reset_count + 1);
    assert_eq!(read(&ak).reset_count, first.reset_count + 2);
}

//= TPM-10
#[test]
fn refuses_a_credential_for_another_attestation_key() {
    let chip = chip();
    let tpm = open(&chip);
    let ek = Public::parse(&run(&tpm, Chip::endorsement_key).public).expect("EK");
    let (mine, other) = (run(&tpm, Chip::create_attestation_key), run(&tpm, Chip::create_attestation_key));
    let name = Public::parse(&other.public).expect("AK").name().clone();
    let credential = make_credential(&ek, &name, &[7; 32]).expect("credential");
    let error =
        run_err(&tpm, move |chip| chip.activate_credential(&mine, &credential.id_object, &credential.encrypted_secret));
    assert!(matches!(error, TpmError::ForeignKey(_)), "{error}");
    assert!(error.to_string().contains("TPM2_ActivateCredential: TPM_RC_INTEGRITY (0x1df)"), "{error}");
}

#[test]
fn certifies_a_signing_key_that_signs_for_tls() {
    let chip = chip();
    let tpm = open(&chip);
    let (ak, key) = (run(&tpm, Chip::create_attestation_key), run(&tpm, Chip::create_signing_key));
    let public = Public::parse(&key.public).expect("key");
    assert_eq!(public.attributes().bits(), 0x0004_0472);

    let (ak_blob, key_blob) = (ak.clone(), key.clone());
    let (attest, signature) = run(&tpm, move |chip| chip.certify(&key_blob, &ak_blob, &[9; 32]));
    let ak = Public::parse(&ak.public).expect("AK");
    assert!(Signature::parse(&signature).expect("signature").is_by(ak.key(), &attest));
    let attest = Attest::parse(&attest).expect("TPMS_ATTEST");
    assert_eq!(attest.extra_data(), [9; 32]);
    assert!(matches!(attest.attested(), Attested::Certify { name } if name == public.name()));

    let message = b"TLS 1.3, client CertificateVerify";
    let hash: [u8; 32] = digest(&SHA256, message).as_ref().try_into().expect("32 bytes");
    let spki = key.spki_der().expect("P-256");
    let spki = SubjectPublicKeyInfoRef::try_from(spki.as_slice()).expect("SPKI");
    // Scalars with leading zeros or high bits are one in two: the encoding is tried on many.
    for _ in 0..32 {
        let blob = key.clone();
        let signature = run(&tpm, move |chip| chip.sign_digest(&blob, &hash));
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, spki.subject_public_key.raw_bytes())
            .verify(message, &signature)
            .expect("the signature verifies");
    }
}

#[test]
fn a_blob_survives_storage_as_json() {
    let chip = chip();
    let tpm = open(&chip);
    let key = run(&tpm, Chip::create_signing_key);
    let json = serde_json::to_string(&key).expect("JSON");
    let read: KeyBlob = serde_json::from_str(&json).expect("JSON");
    assert_eq!(read, key);
    run(&tpm, move |chip| chip.sign_digest(&read, &[1; 32]));
}

#[test]
fn unseals_after_a_power_cycle_but_not_after_a_pcr_changed() {
    let mut chip = chip();
    let tpm = open(&chip);
    let boot = pcrs("0,4,7");
    let sealed = run(&tpm, move |chip| chip.seal(b"key of the cache", boot));
    let unseal = |selection: PcrSelection| {
        let sealed = sealed.clone();
        tpm.run_blocking("unseal", move |chip| chip.unseal(&sealed, selection))
    };

    chip.power_cycle().expect("power cycle");
    assert_eq!(&unseal(boot).expect("unsealed")[..], b"key of the cache");
    extend(&chip, PcrHandle::Pcr5);
    assert_eq!(&unseal(boot).expect("unsealed")[..], b"key of the cache");

    extend(&chip, PcrHandle::Pcr7);
    let error = unseal(boot).expect_err("PCR 7 changed");
    assert!(matches!(error, TpmError::WrongPolicy(_)), "{error}");
    assert!(error.to_string().contains("TPM2_Unseal: TPM_RC_POLICY_FAIL (0x99d)"), "{error}");

    // Asking for fewer PCRs than it was sealed to gains nothing.
    let error = unseal(pcrs("0,4")).expect_err("sealed to three PCRs");
    assert!(matches!(error, TpmError::WrongPolicy(_)), "{error}");
}

#[test]
fn seals_up_to_the_size_that_every_chip_takes() {
    let chip = chip();
    let tpm = open(&chip);
    for length in [1, 32, MAX_SEALED_BYTES] {
        let sealed = run(&tpm, move |chip| chip.seal(&vec![0xa5; length], PcrSelection::NONE));
        let secret = run(&tpm, move |chip| chip.unseal(&sealed, PcrSelection::NONE));
        assert_eq!(secret[..], vec![0xa5; length]);
    }
    for length in [0, MAX_SEALED_BYTES + 1] {
        let error = run_err(&tpm, move |chip| chip.seal(&vec![0xa5; length], PcrSelection::NONE));
        assert!(matches!(error, TpmError::Argument(_)), "{error}");
    }
}

//= FLT-T4
#[test]
fn another_chip_opens_nothing() {
    let (mine, thief) = (chip(), chip());
    let tpm = open(&mine);
    let sealed = run(&tpm, |chip| chip.seal(b"secret", PcrSelection::NONE));
    let (ak, key) = (run(&tpm, Chip::create_attestation_key), run(&tpm, Chip::create_signing_key));

    let (thief, stolen) = (open(&thief), sealed.clone());
    let errors = [
        run_err(&thief, move |chip| chip.unseal(&stolen, PcrSelection::NONE)),
        run_err(&thief, move |chip| chip.quote(&ak, &[0; 32], PcrHash::Sha256, PcrSelection::NONE)),
        run_err(&thief, move |chip| chip.sign_digest(&key, &[0; 32])),
    ];
    for error in errors {
        assert!(matches!(error, TpmError::ForeignParent), "{error}");
    }
    // With the name of the thief's own root key written into it, the chip itself refuses.
    let root = run(&thief, Chip::create_signing_key).parent;
    let error =
        run_err(&thief, move |chip| chip.unseal(&KeyBlob { parent: root, ..sealed.clone() }, PcrSelection::NONE));
    assert!(matches!(error, TpmError::ForeignKey(_)), "{error}");
}

#[test]
fn refuses_a_damaged_blob() {
    let chip = chip();
    let tpm = open(&chip);
    let mut sealed = run(&tpm, |chip| chip.seal(b"secret", PcrSelection::NONE));
    let middle = sealed.private.len() / 2;
    sealed.private[middle] ^= 1;
    let error = run_err(&tpm, move |chip| chip.unseal(&sealed, PcrSelection::NONE));
    assert!(matches!(error, TpmError::ForeignKey(_)), "{error}");
}

#[test]
fn a_damaged_blob_is_never_sent() {
    let chip = chip();
    let tpm = open(&chip);
    let key = run(&tpm, Chip::create_signing_key);
    let cut = KeyBlob { public: key.public[..9].to_vec(), ..key.clone() };
    let long = KeyBlob { private: vec![0; 70_000], ..key };
    for blob in [cut, long] {
        let error = run_err(&tpm, move |chip| chip.sign_digest(&blob, &[0; 32]));
        assert!(matches!(error, TpmError::Argument(_)), "{error}");
    }
}

#[test]
fn the_counter_only_goes_up() {
    let mut chip = chip();
    let tpm = open(&chip);
    let read = || run(&tpm, |chip| chip.counter_read(DEFAULT_COUNTER_INDEX, None));
    let increment = || run(&tpm, |chip| chip.counter_increment(DEFAULT_COUNTER_INDEX, None));
    assert_eq!(read(), None);
    let mut last = increment();
    for _ in 0..3 {
        chip.power_cycle().expect("power cycle");
        assert_eq!(read(), Some(last));
        let next = increment();
        assert!(next > last);
        last = next;
    }
    // Whoever deletes it to set it back finds that the next one starts above it.
    delete_counter(&chip);
    assert_eq!(read(), None);
    assert!(increment() > last);
}

/// Undefines the counter, as whoever has the owner's password can.
fn delete_counter(chip: &Swtpm) {
    let mut esys = chip.esys().expect("the TPM answers");
    let index = NvIndexTpmHandle::new(DEFAULT_COUNTER_INDEX).expect("an NV index");
    let handle = esys.tr_from_tpm_public(TpmHandle::from(index)).expect("defined");
    esys.execute_with_session(Some(AuthSession::Password), |esys| {
        esys.nv_undefine_space(Provision::Owner, NvIndexHandle::from(handle))
    })
    .expect("deleted");
}

//= FLT-T11
#[test]
fn an_index_that_can_be_set_to_any_number_is_no_counter() {
    let chip = chip();
    let attributes = NvIndexAttributesBuilder::new().with_nv_index_type(NvIndexType::Ordinary);
    let attributes = attributes.with_auth_read(true).with_auth_write(true).with_owner_write(true).build();
    let public = NvPublicBuilder::new()
        .with_nv_index(NvIndexTpmHandle::new(DEFAULT_COUNTER_INDEX).expect("an NV index"))
        .with_index_name_algorithm(HashingAlgorithm::Sha256)
        .with_index_attributes(attributes.expect("legal attributes"))
        .with_data_area_size(8)
        .build();
    let mut esys = chip.esys().expect("the TPM answers");
    esys.execute_with_session(Some(AuthSession::Password), |esys| {
        let index = esys.nv_define_space(Provision::Owner, None, public.expect("a legal index"))?;
        let value = MaxNvBuffer::try_from(7u64.to_be_bytes().to_vec())?;
        esys.nv_write(NvAuth::NvIndex(index), index, value, 0)
    })
    .expect("written");
    drop(esys);
    let error = run_err(&open(&chip), |chip| chip.counter_read(DEFAULT_COUNTER_INDEX, None));
    assert!(matches!(error, TpmError::Argument(_)), "{error}");
}

#[test]
fn reads_pcr_values_in_order() {
    let chip = chip();
    let tpm = open(&chip);
    extend(&chip, PcrHandle::Pcr12);
    let values = run(&tpm, |chip| chip.pcr_values(PcrHash::Sha256, pcrs("0,1,2,3,4,5,6,8,9,10,11,12,15")));
    assert_eq!(values.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 15]);
    let extended = digest(&SHA256, &[[0; 32], [0x5a; 32]].concat());
    for (index, value) in values {
        assert_eq!(value, if index == 12 { extended.as_ref().to_vec() } else { vec![0; 32] });
    }
}

#[tokio::test]
async fn serves_async_callers_too() {
    let chip = chip();
    let tpm = Tpm::open(chip.address()).await.expect("the TPM answers");
    let jobs = (0..20).map(|_| tpm.run("sign", |chip| chip.create_signing_key()));
    let mut keys = Vec::new();
    for job in jobs {
        keys.push(job.await.expect("a key").public);
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 20);
}

#[test]
fn refuses_the_address_of_a_unix_socket() {
    let error = "swtpm:path=/run/swtpm.sock".parse::<TpmAddress>().expect_err("the library would take another TPM");
    assert!(error.to_string().contains("swtpm:host=127.0.0.1,port=2321"), "{error}");
}
