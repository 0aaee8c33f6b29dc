//! Credentials: whatever key of a fitting kind wraps them, its chip opens them; and no other is made.

use ironroot_attest::structures::{CredentialError, Public, make_credential};
use ironroot_fuzz::cases;
use ironroot_fuzz::proptest::prelude::*;

use crate::software_tpm::{Decryptor, EK_ATTRIBUTES, PublicFields, SHA256, SHA384, SigningKey, name};

/// An endorsement key with this many bits of AES, none for TPM_ALG_NULL.
fn endorsement_key(key: &Decryptor, symmetric_bits: Option<u16>) -> PublicFields {
    let hash = if key.is_p384() { SHA384 } else { SHA256 };
    PublicFields { symmetric_bits, ..PublicFields::storage(key.unique(), hash, EK_ATTRIBUTES) }
}

fn public(fields: &PublicFields) -> Public {
    Public::parse(&fields.marshal()).expect("parses")
}

fn attestation_key() -> PublicFields {
    PublicFields::signing(&SigningKey::p256(), EK_ATTRIBUTES)
}

proptest! {
    #![proptest_config(cases(128))]

    /// Lengths around those of blocks and digests come as often as all others.
    #[test]
    fn a_credential_opens_in_the_chip_that_it_was_made_for(
        kind in 0..3usize,
        bits in prop_oneof![Just(128u16), Just(192), Just(256)],
        length in prop_oneof![1..=48usize, Just(1), 13..=17usize, 29..=32usize],
        byte in any::<u8>(),
    ) {
        let key = [Decryptor::p256, Decryptor::p384, Decryptor::rsa][kind]();
        let fields = endorsement_key(&key, Some(bits));
        let digest_bytes = if key.is_p384() { 48 } else { 32 };
        let (object, secret) = (attestation_key(), vec![byte; length]);
        let made = make_credential(&public(&fields), public(&object).name(), &secret);
        if length > digest_bytes {
            prop_assert_eq!(made, Err(CredentialError::Unsuitable));
            return Ok(());
        }
        let made = made.expect("fits");
        let opened = key.activate(&fields, &name(&object), &made.id_object, &made.encrypted_secret);
        prop_assert_eq!(opened, Some(secret));
        let elsewhere = key.activate(&fields, &name(&attestation_key()), &made.id_object, &made.encrypted_secret);
        prop_assert_eq!(elsewhere, None, "another object is loaded");
    }
}

#[test]
fn no_credential_is_made_for_a_key_without_aes_or_of_an_empty_or_too_long_secret() {
    for (key, digest_bytes) in [(Decryptor::p256(), 32), (Decryptor::p384(), 48), (Decryptor::rsa(), 32)] {
        let (object, unsuitable) = (public(&attestation_key()), Err(CredentialError::Unsuitable));
        let ek = public(&endorsement_key(&key, Some(128)));
        assert!(make_credential(&ek, object.name(), &vec![7; digest_bytes]).is_ok());
        assert_eq!(make_credential(&ek, object.name(), &vec![7; digest_bytes + 1]), unsuitable);
        assert_eq!(make_credential(&ek, object.name(), &[]), unsuitable);
        let without = public(&endorsement_key(&key, None));
        assert_eq!(make_credential(&without, object.name(), &[7; 32]), unsuitable);
    }
}
