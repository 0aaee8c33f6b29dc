//! The public templates of all keys made here. Every one of ours has noDA: a power cut after the use of a key without it
//! counts as a failed authorization, and three of those lock the chip.

use tss_esapi::abstraction::AsymmetricAlgorithmSelection;
use tss_esapi::abstraction::ek::create_ek_public_from_default_template_2;
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::structures::{
    Digest, EccPoint, EccScheme, HashScheme, KeyDerivationFunctionScheme, KeyedHashScheme, Public, PublicBuilder,
    PublicEccParameters, PublicKeyRsa, PublicKeyedHashParameters, PublicRsaParameters, RsaExponent, RsaScheme,
    SymmetricDefinitionObject,
};

use super::endorsement_kind::EndorsementKind;
use super::error::TpmError;

/// Templates of the TCG EK Credential Profile (level 0, §B.3 and B.4): the keys that manufacturers certify.
pub fn endorsement_key(kind: EndorsementKind) -> Result<Public, TpmError> {
    let algorithm = match kind {
        EndorsementKind::Rsa2048 => AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048),
        EndorsementKind::Rsa3072 => AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa3072),
        EndorsementKind::Rsa4096 => AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa4096),
        EndorsementKind::P256 => AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP256),
        EndorsementKind::P384 => AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP384),
    };
    create_ek_public_from_default_template_2(algorithm, None).map_err(|e| TpmError::of("EK template", e))
}

/// Storage root key: template H-2 of TCG TPM 2.0 Provisioning Guidance §7.5.1, P-256, empty unique, attributes
/// 0x00030472.
pub fn storage_root_key() -> Result<Public, TpmError> {
    let attributes = in_this_chip().with_user_with_auth(true).with_restricted(true).with_decrypt(true);
    p256(attributes, SymmetricDefinitionObject::AES_128_CFB, EccScheme::Null)
}

/// Attestation key: restricted, signs only what the TPM itself made.
pub fn attestation_key() -> Result<Public, TpmError> {
    let attributes = in_this_chip().with_user_with_auth(true).with_restricted(true).with_sign_encrypt(true);
    p256(attributes, SymmetricDefinitionObject::Null, ecdsa_sha256())
}

/// As [`storage_root_key`], of RSA: template H-1 of the same page.
pub fn rsa_storage_root_key() -> Result<Public, TpmError> {
    let attributes = in_this_chip().with_user_with_auth(true).with_restricted(true).with_decrypt(true);
    rsa2048(attributes, SymmetricDefinitionObject::AES_128_CFB, RsaScheme::Null)
}

/// As [`attestation_key`], of RSA: SPIRE's server takes no other kind.
pub fn rsa_attestation_key() -> Result<Public, TpmError> {
    let attributes = in_this_chip().with_user_with_auth(true).with_restricted(true).with_sign_encrypt(true);
    rsa2048(attributes, SymmetricDefinitionObject::Null, rsassa_sha256())
}

/// As [`signing_key`], of RSA.
pub fn rsa_signing_key() -> Result<Public, TpmError> {
    let attributes = in_this_chip().with_user_with_auth(true).with_sign_encrypt(true);
    rsa2048(attributes, SymmetricDefinitionObject::Null, rsassa_sha256())
}

/// A key for TLS: signs any SHA-256 digest.
pub fn signing_key() -> Result<Public, TpmError> {
    let attributes = in_this_chip().with_user_with_auth(true).with_sign_encrypt(true);
    p256(attributes, SymmetricDefinitionObject::Null, ecdsa_sha256())
}

/// A sealed secret that only `policy` opens: userWithAuth is clear, so no password does.
pub fn sealed_object(policy: Digest) -> Result<Public, TpmError> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_admin_with_policy(true)
        .with_no_da(true);
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes.build().map_err(bad_template)?)
        .with_auth_policy(policy)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Digest::default())
        .build()
        .map_err(bad_template)
}

/// Made in this chip, never leaves it, no dictionary attack protection (authorization is empty anyway).
//= TPM-34 TPM 2.0 Part 2, TPMA_OBJECT: "The object is not subject to dictionary attack protections."
fn in_this_chip() -> ObjectAttributesBuilder {
    ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_no_da(true)
}

fn ecdsa_sha256() -> EccScheme {
    EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256))
}

fn rsassa_sha256() -> RsaScheme {
    RsaScheme::RsaSsa(HashScheme::new(HashingAlgorithm::Sha256))
}

fn rsa2048(
    attributes: ObjectAttributesBuilder,
    symmetric: SymmetricDefinitionObject,
    scheme: RsaScheme,
) -> Result<Public, TpmError> {
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Rsa)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes.build().map_err(bad_template)?)
        .with_rsa_parameters(PublicRsaParameters::new(symmetric, scheme, RsaKeyBits::Rsa2048, RsaExponent::default()))
        .with_rsa_unique_identifier(PublicKeyRsa::default())
        .build()
        .map_err(bad_template)
}

fn p256(
    attributes: ObjectAttributesBuilder,
    symmetric: SymmetricDefinitionObject,
    scheme: EccScheme,
) -> Result<Public, TpmError> {
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes.build().map_err(bad_template)?)
        .with_ecc_parameters(PublicEccParameters::new(
            symmetric,
            scheme,
            EccCurve::NistP256,
            KeyDerivationFunctionScheme::Null,
        ))
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
        .map_err(bad_template)
}

fn bad_template(error: tss_esapi::Error) -> TpmError {
    TpmError::of("key template", error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tss_esapi::traits::Marshall;

    /// PolicySecret(TPM_RH_ENDORSEMENT), EK Credential Profile §B.6.2 (PolicyA).
    const POLICY_A: &str = "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa";

    fn hex(template: Result<Public, TpmError>) -> String {
        template.expect("template").marshall().expect("marshals").iter().map(|b| format!("{b:02x}")).collect()
    }

    // Expected values written out by hand from Part 2 §12.2.4: type, nameAlg, objectAttributes, authPolicy, parameters
    // (symmetric, scheme, curve or key bits, kdf or exponent), unique.
    #[test]
    fn templates_are_the_standards_byte_for_byte() {
        assert_eq!(
            hex(endorsement_key(EndorsementKind::P256)),
            format!("0023000b000300b20020{POLICY_A}0006008000430010000300100020{0}0020{0}", "00".repeat(32))
        );
        assert_eq!(
            hex(endorsement_key(EndorsementKind::Rsa2048)),
            format!("0001000b000300b20020{POLICY_A}00060080004300100800000000000100{}", "00".repeat(256))
        );
        let policy_b = concat!(
            "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419ca",
            "cb47ba09699646150f9fc000f3f80e12"
        );
        assert_eq!(
            hex(endorsement_key(EndorsementKind::P384)),
            format!("0023000c000300f20030{policy_b}0006010000430010000400100000") + "0000"
        );
        assert_eq!(
            hex(endorsement_key(EndorsementKind::Rsa3072)),
            format!("0001000c000300f20030{policy_b}00060100004300100c00000000000000")
        );
        assert_eq!(hex(storage_root_key()), "0023000b00030472000000060080004300100003001000000000");
        assert_eq!(
            hex(rsa_storage_root_key()),
            "0001000b0003047200000006008000430010080000000000 0000".replace(' ', "")
        );
    }

    //= TPM-34
    #[test]
    fn our_keys_are_bound_to_the_chip_and_cause_no_lockout() {
        assert_eq!(hex(attestation_key()), "0023000b00050472000000100018000b0003001000000000");
        assert_eq!(hex(signing_key()), "0023000b00040472000000100018000b0003001000000000");
        assert_eq!(hex(rsa_attestation_key()), "0001000b00050472000000100014000b0800000000000000");
        assert_eq!(hex(rsa_signing_key()), "0001000b00040472000000100014000b0800000000000000");
        let policy = Digest::try_from([7u8; 32].as_slice()).expect("32 bytes");
        assert_eq!(hex(sealed_object(policy)), format!("0008000b000004920020{}00100000", "07".repeat(32)));
    }
}
