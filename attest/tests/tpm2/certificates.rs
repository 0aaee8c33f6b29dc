//! The profile of an endorsement key certificate and its chain: one test per reason to refuse.

use ironroot_attest::ek_certificate::{EkCertificate, EkCertificateError, ManufacturerRoots, TpmModel};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::manufacturer::{Manufacturer, NOW, ca, directory_name, ek_params};
use crate::software_tpm::Decryptor;

/// The verdict on a certificate that its trusted manufacturer wrote with these changes.
fn verdict(change: impl FnOnce(&mut CertificateParams)) -> Result<TpmModel, EkCertificateError> {
    verdict_on(Manufacturer::new("Toy"), change, |_| {})
}

/// The same, and then the chain is tampered with.
fn verdict_on(
    manufacturer: Manufacturer,
    change: impl FnOnce(&mut CertificateParams),
    tamper: impl FnOnce(&mut Vec<Vec<u8>>),
) -> Result<TpmModel, EkCertificateError> {
    let spki = Decryptor::p256().spki_der();
    let mut params = ek_params(&spki);
    change(&mut params);
    let mut chain = manufacturer.certify_with(&spki, params);
    tamper(&mut chain);
    EkCertificate::parse(&chain[0])?.verify(&chain[1..], &manufacturer.roots(), NOW).cloned()
}

//= TPM-22
#[test]
fn accepts_what_the_profile_asks_for_and_says_which_tpm_it_is() {
    let model = verdict(|_| {}).expect("accepted");
    let expected = ("IFX", "SLB 9670", "id:00070055");
    assert_eq!((model.manufacturer.as_str(), model.model.as_str(), model.version.as_str()), expected);
}

#[test]
fn usages_may_be_absent() {
    verdict(|params| params.extended_key_usages.clear()).expect("accepted");
    verdict(|params| params.key_usages.clear()).expect("accepted");
    verdict(|params| params.is_ca = IsCa::NoCa).expect("accepted");
}

//= TPM-21
#[test]
fn refuses_an_expired_certificate() {
    let refused = verdict(|params| params.not_after = date_time_ymd(2025, 1, 1));
    assert_eq!(refused, Err(EkCertificateError::Expired));
}

//= TPM-21
#[test]
fn refuses_a_certificate_of_the_future() {
    let refused = verdict(|params| params.not_before = date_time_ymd(2030, 1, 1));
    assert_eq!(refused, Err(EkCertificateError::NotYetValid));
}

#[test]
fn refuses_a_ca_certificate() {
    let refused = verdict(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert_eq!(refused, Err(EkCertificateError::IsCa));
}

#[test]
fn refuses_another_extended_key_usage() {
    let refused = verdict(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    assert_eq!(refused, Err(EkCertificateError::ExtendedKeyUsage));
}

#[test]
fn refuses_the_key_usage_of_a_signer() {
    for usages in [
        vec![KeyUsagePurpose::DigitalSignature],
        vec![KeyUsagePurpose::KeyEncipherment],
        vec![KeyUsagePurpose::KeyAgreement, KeyUsagePurpose::KeyCertSign],
        vec![KeyUsagePurpose::KeyAgreement, KeyUsagePurpose::CrlSign],
    ] {
        let refused = verdict(|params| params.key_usages = usages);
        assert_eq!(refused, Err(EkCertificateError::KeyUsage));
    }
}

#[test]
fn refuses_a_certificate_that_does_not_name_a_tpm() {
    let names = [("2.23.133.2.1", "id:49465800"), ("2.23.133.2.2", "SLB 9670"), ("2.23.133.2.3", "id:00070055")];
    for (missing, what) in ["manufacturer", "model", "version"].into_iter().enumerate() {
        let others: Vec<_> =
            names.into_iter().enumerate().filter(|(i, _)| *i != missing).map(|(_, name)| name).collect();
        let refused = verdict(|params| params.custom_extensions = vec![directory_name(&others)]);
        assert_eq!(refused, Err(EkCertificateError::TpmAttribute(what)));
    }
    let twice = [names[0], names[0], names[1], names[2]];
    let refused = verdict(|params| params.custom_extensions = vec![directory_name(&twice)]);
    assert_eq!(refused, Err(EkCertificateError::TpmAttribute("manufacturer")));
    let refused = verdict(|params| params.custom_extensions.clear());
    assert_eq!(refused, Err(EkCertificateError::TpmAttribute("manufacturer")));
}

#[test]
fn refuses_a_malformed_or_repeated_extension() {
    let garbage = || CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![0x30, 0x7f]);
    let refused = verdict(|params| params.custom_extensions = vec![garbage()]);
    assert_eq!(refused, Err(EkCertificateError::Extension("subjectAltName")));
    let refused = verdict(|params| params.custom_extensions.push(params.custom_extensions[0].clone()));
    assert_eq!(refused, Err(EkCertificateError::Extension("subjectAltName")));
}

#[test]
fn refuses_a_certificate_before_version_3() {
    let refused = verdict_on(Manufacturer::new("Toy"), |_| {}, |chain| patch(&mut chain[0], &[2, 1, 2], &[2, 1, 1]));
    assert_eq!(refused, Err(EkCertificateError::Version));
}

/// Row 23.
//= TPM-23
#[test]
fn refuses_sha1() {
    let sha256_with_rsa = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
    let sha1_with_rsa = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05];
    let manufacturer = Manufacturer::with_keys("Toy", &rcgen::PKCS_RSA_SHA256);
    let refused = verdict_on(
        manufacturer,
        |_| {},
        |chain| {
            patch(&mut chain[0], &sha256_with_rsa, &sha1_with_rsa);
            patch(&mut chain[0], &sha256_with_rsa, &sha1_with_rsa);
        },
    );
    assert_eq!(refused, Err(EkCertificateError::SignatureAlgorithm));
}

#[test]
fn refuses_a_chain_with_a_link_missing_or_broken() {
    let refused = verdict_on(Manufacturer::new("Toy"), |_| {}, |chain| chain.truncate(1));
    let (issuer, address) = ("CN=Toy EK CA".to_owned(), None);
    assert_eq!(refused, Err(EkCertificateError::IssuerMissing { issuer, address }));
    let refused = verdict_on(Manufacturer::new("Toy"), |_| {}, |chain| *chain[0].last_mut().expect("not empty") ^= 1);
    assert!(matches!(refused, Err(EkCertificateError::Untrusted(_))), "{refused:?}");
}

/// An endorsement key that could sign does not make other endorsement keys.
#[test]
fn refuses_a_certificate_issued_by_an_endorsement_key() {
    let manufacturer = Manufacturer::new("Toy");
    let signer = KeyPair::generate().expect("key");
    let mut genuine = ek_params(&Decryptor::p256().spki_der());
    genuine.distinguished_name.push(rcgen::DnType::CommonName, "a genuine chip");
    let spki = rcgen::PublicKeyData::subject_public_key_info(&signer);
    let chain = manufacturer.certify_with(&spki, genuine.clone());
    let forged_spki = Decryptor::p256().spki_der();
    let forged = crate::manufacturer::issue(&ek_params(&forged_spki), &forged_spki, &Issuer::new(genuine, signer));
    let refused = EkCertificate::parse(&forged).expect("parses").verify(&chain, &manufacturer.roots(), NOW).cloned();
    assert_eq!(refused, Err(EkCertificateError::Untrusted(webpki::Error::EndEntityUsedAsCa)));
}

//= FLT-T9
#[test]
fn refuses_a_key_that_no_chip_of_ours_has() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("key");
    let der = ca("Ed").self_signed(&key).expect("signs").der().to_vec();
    assert!(matches!(EkCertificate::parse(&der), Err(EkCertificateError::Key(_))));
}

#[test]
fn manufacturer_roots_must_be_certificates() {
    let error = |pem: &str| ManufacturerRoots::from_pem(pem).map(|_| ()).expect_err("no roots");
    assert_eq!(error(""), EkCertificateError::NoRoot);
    assert_eq!(error("no PEM at all"), EkCertificateError::NoRoot);
    assert_eq!(error("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"), EkCertificateError::Root(1));
    let bad = error("-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n");
    assert_eq!(bad, EkCertificateError::RootPem(ironroot_text::pem::PemError::Base64 { line: 1 }));
    let device = rcgen::KeyPair::generate().expect("key");
    let device =
        ek_params(&rcgen::PublicKeyData::subject_public_key_info(&device)).self_signed(&device).expect("signs");
    let said = error(&device.pem());
    assert!(matches!(said, EkCertificateError::RootNotAnAuthority(_)), "{said}");
    let open = error("----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
    assert_eq!(open, EkCertificateError::RootPem(ironroot_text::pem::PemError::Frame { line: 1 }));
}

#[test]
fn roots_of_several_manufacturers_stand_together() {
    let (first, second) = (Manufacturer::new("First"), Manufacturer::new("Second"));
    let roots = first.roots().and(second.roots());
    for manufacturer in [first, second] {
        let chain = manufacturer.certify(&Decryptor::p256().spki_der());
        EkCertificate::parse(&chain[0]).expect("parses").verify(&chain[1..], &roots, NOW).expect("accepted");
    }
}

/// Replaces the first occurrence.
fn patch(der: &mut [u8], from: &[u8], to: &[u8]) {
    let at = der.windows(from.len()).position(|window| window == from).expect("is there");
    der[at..at + to.len()].copy_from_slice(to);
}
