//! Endorsement and attestation keys that are not what they must be: refused on the first message.

use ironroot_attest::node::tpm2::{Claim, Evidence};
use ironroot_attest::node::{Part, Refusal};
use ironroot_attest::structures::{KeyError, StructureError};

use crate::software_tpm::{
    AK_ATTRIBUTES, DECRYPT, Decryptor, EK_ATTRIBUTES, FIXED_PARENT, FIXED_TPM, NO_DA, PublicFields, RESTRICTED,
    SENSITIVE_DATA_ORIGIN, SHA1, SHA256, SIGN, SigningKey, SoftwareTpm, USER_WITH_AUTH, Unique,
};

fn refusal_of(evidence: &Evidence) -> Refusal {
    Claim::parse(&evidence.to_json()).map(|_| ()).expect_err("this key must be refused")
}

fn refusal_of_ak(change: impl FnOnce(&mut PublicFields)) -> Refusal {
    let mut tpm = SoftwareTpm::new();
    change(&mut tpm.ak_public);
    refusal_of(&tpm.evidence())
}

fn refusal_of_ek(ek: Decryptor, change: impl FnOnce(&mut PublicFields)) -> Refusal {
    let mut tpm = SoftwareTpm::with(ek, SigningKey::p256());
    change(&mut tpm.ek_public);
    refusal_of(&tpm.evidence())
}

/// Rows 3, 4, 6, 7: unrestricted, from outside, duplicable, imported; and keys that do more than attest.
//= TPM-03 TPM-04 TPM-06 TPM-07 FLT-T8
#[test]
fn refuses_an_attestation_key_with_the_wrong_attributes() {
    for attributes in [
        AK_ATTRIBUTES & !RESTRICTED,
        AK_ATTRIBUTES & !FIXED_TPM,
        AK_ATTRIBUTES & !FIXED_PARENT,
        AK_ATTRIBUTES & !SENSITIVE_DATA_ORIGIN,
        AK_ATTRIBUTES & !SIGN,
        AK_ATTRIBUTES | DECRYPT,
        AK_ATTRIBUTES | 0x800,
        AK_ATTRIBUTES | 0x8_0000,
        SIGN | USER_WITH_AUTH,
        SIGN | USER_WITH_AUTH | NO_DA | RESTRICTED | SENSITIVE_DATA_ORIGIN,
        0,
    ] {
        let refusal = refusal_of_ak(|ak| ak.attributes = attributes);
        assert_eq!(refusal, Refusal::NotAnAttestationKey { attributes });
    }
}

#[test]
fn refuses_an_attestation_key_without_scheme() {
    assert_eq!(refusal_of_ak(|ak| ak.scheme = None), Refusal::AkWithoutScheme);
}

//= TPM-27
#[test]
fn refuses_an_rsa_key_longer_than_any_that_is_taken_before_it_looks_at_it() {
    let modulus = vec![0xff; 513];
    let refusal = refusal_of_ek(Decryptor::rsa(), |ek| ek.unique = Unique::Rsa { bits: 4104, exponent: 0, modulus });
    let error = StructureError::TooLong { bytes: 513, limit: 512 };
    assert_eq!(refusal, Refusal::Structure { part: Part::EndorsementKey, error });
}

#[test]
fn refuses_reserved_attribute_bits() {
    let attributes = AK_ATTRIBUTES | 0x8000_0000;
    let refusal = refusal_of_ak(|ak| ak.attributes = attributes);
    assert_eq!(
        refusal,
        Refusal::Structure { part: Part::AttestationKey, error: StructureError::Attributes(attributes) }
    );
}

#[test]
fn refuses_an_endorsement_key_that_is_no_restricted_decryption_key() {
    for attributes in [
        EK_ATTRIBUTES & !RESTRICTED,
        EK_ATTRIBUTES & !DECRYPT,
        EK_ATTRIBUTES & !FIXED_TPM,
        EK_ATTRIBUTES & !FIXED_PARENT,
        EK_ATTRIBUTES & !SENSITIVE_DATA_ORIGIN,
        EK_ATTRIBUTES | SIGN,
    ] {
        let refusal = refusal_of_ek(Decryptor::p256(), |ek| ek.attributes = attributes);
        assert_eq!(refusal, Refusal::NotAnEndorsementKey { attributes });
    }
    let refusal = refusal_of_ek(Decryptor::p256(), |ek| ek.symmetric_bits = None);
    assert_eq!(refusal, Refusal::NotAnEndorsementKey { attributes: EK_ATTRIBUTES });
}

/// Row 24.
//= TPM-24
#[test]
fn refuses_weak_algorithms() {
    let structure = |error| Refusal::Structure { part: Part::AttestationKey, error };
    assert_eq!(refusal_of_ak(|ak| ak.name_hash = SHA1), structure(StructureError::HashAlgorithm(SHA1)));
    let refusal = refusal_of_ak(|ak| ak.scheme = Some((0x0018, SHA1)));
    assert_eq!(refusal, structure(StructureError::HashAlgorithm(SHA1)));
    let p192 = Unique::Ecc { curve: 0x0001, x: vec![1; 24], y: vec![1; 24] };
    assert_eq!(refusal_of_ak(|ak| ak.unique = p192), structure(StructureError::EccCurve(1)));
    let rsa1024 = Unique::Rsa { bits: 1024, exponent: 0, modulus: vec![0xff; 128] };
    let refusal = refusal_of_ak(|ak| {
        ak.kind = 0x0001;
        ak.unique = rsa1024;
        ak.scheme = Some((0x0014, SHA256));
    });
    assert_eq!(refusal, Refusal::Key { part: Part::AttestationKey, error: KeyError::RsaBits(1024) });
}

#[test]
fn refuses_schemes_that_no_key_of_ours_has() {
    // RSAPSS, RSAES, OAEP, ECDAA, SM2, ECSCHNORR.
    for scheme in [0x0016, 0x0015, 0x0017, 0x001a, 0x001b, 0x001c] {
        let refusal = refusal_of_ak(|ak| ak.scheme = Some((scheme, SHA256)));
        let error = StructureError::Scheme(scheme);
        assert_eq!(refusal, Refusal::Structure { part: Part::AttestationKey, error });
    }
}

#[test]
fn refuses_objects_that_are_no_asymmetric_keys() {
    // KEYEDHASH, SYMCIPHER.
    for kind in [0x0008, 0x0025] {
        let refusal = refusal_of_ak(|ak| ak.kind = kind);
        let error = StructureError::ObjectType(kind);
        assert_eq!(refusal, Refusal::Structure { part: Part::AttestationKey, error });
    }
}

#[test]
fn refuses_a_storage_key_with_another_cipher() {
    let refusal = refusal_of_ek(Decryptor::p256(), |ek| ek.symmetric_bits = Some(64));
    let error = StructureError::Symmetric { algorithm: 0x0006, bits: 64 };
    assert_eq!(refusal, Refusal::Structure { part: Part::EndorsementKey, error });
}

/// Row 27.
//= TPM-27
#[test]
fn refuses_an_endorsement_key_that_is_no_valid_key() {
    let key = |error| Refusal::Key { part: Part::EndorsementKey, error };
    let refusal = refusal_of_ek(Decryptor::p256(), |ek| {
        ek.unique = Unique::Ecc { curve: 0x0003, x: vec![5; 32], y: vec![5; 32] };
    });
    assert_eq!(refusal, key(KeyError::NotOnCurve));
    // A point of P-256 is none of P-384.
    let refusal = refusal_of_ek(Decryptor::p256(), |ek| {
        let Unique::Ecc { curve, .. } = &mut ek.unique else { panic!("an ECC key") };
        *curve = 0x0004;
    });
    assert_eq!(refusal, key(KeyError::NotOnCurve));
    let refusal = refusal_of_ek(Decryptor::rsa(), |ek| {
        let Unique::Rsa { modulus, .. } = &mut ek.unique else { panic!("an RSA key") };
        modulus[0] &= 0x7f;
    });
    assert_eq!(refusal, key(KeyError::RsaModulus));
    let refusal = refusal_of_ek(Decryptor::rsa(), |ek| {
        let Unique::Rsa { exponent, .. } = &mut ek.unique else { panic!("an RSA key") };
        *exponent = 3;
    });
    let error = StructureError::RsaExponent(3);
    assert_eq!(refusal, Refusal::Structure { part: Part::EndorsementKey, error });
    let refusal = refusal_of_ek(Decryptor::rsa(), |ek| {
        let Unique::Rsa { bits, .. } = &mut ek.unique else { panic!("an RSA key") };
        *bits = 3072;
    });
    let error = StructureError::RsaModulus { bytes: 256, bits: 3072 };
    assert_eq!(refusal, Refusal::Structure { part: Part::EndorsementKey, error });
}

/// Row 28.
//= TPM-28
#[test]
fn refuses_bytes_before_and_after_the_end() {
    let tpm = SoftwareTpm::new();
    let honest = tpm.evidence();
    let longer = Evidence { ak_public: [honest.ak_public.clone(), vec![0]].concat(), ..honest.clone() };
    let error = StructureError::Trailing(1);
    assert_eq!(refusal_of(&longer), Refusal::Structure { part: Part::AttestationKey, error });
    let shorter = Evidence { ek_public: honest.ek_public[..honest.ek_public.len() - 1].to_vec(), ..honest.clone() };
    let error = StructureError::Truncated;
    assert_eq!(refusal_of(&shorter), Refusal::Structure { part: Part::EndorsementKey, error });
    let mut oversized = honest;
    oversized.ak_public[8..10].copy_from_slice(&[0xff, 0xff]);
    let error = StructureError::TooLong { bytes: 0xffff, limit: 64 };
    assert_eq!(refusal_of(&oversized), Refusal::Structure { part: Part::AttestationKey, error });
}

#[test]
fn every_refusal_reads_as_one_clause() {
    let refusals = [
        refusal_of_ak(|ak| ak.attributes = 0),
        refusal_of_ak(|ak| ak.name_hash = SHA1),
        refusal_of_ek(Decryptor::p256(), |ek| ek.attributes = SIGN),
    ];
    assert_eq!(
        refusals.map(|refusal| refusal.to_string()),
        [
            "the attestation key has attributes 0x00000000: it is not a restricted signing key made in and fixed to a TPM",
            "the attestation key is not acceptable: hash algorithm 0x0004 is not SHA-256, SHA-384 or SHA-512",
            "the endorsement key has attributes 0x00040000: it is not a restricted decryption key made in a TPM",
        ]
    );
}
