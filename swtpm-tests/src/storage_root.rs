//! The storage root key where others have made it persistent, and what may be told of it.

use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::handles::{KeyHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::structures::{
    EccParameter, EccPoint, EccScheme, KeyDerivationFunctionScheme, Public, PublicBuilder, PublicEccParameters,
    SymmetricDefinitionObject,
};
use tss_esapi::traits::Marshall;

use crate::manufacturer::{LabResult, persist};
use crate::swtpm::Swtpm;

/// Where it is expected (Provisioning Guidance §7.8).
pub const STORAGE_ROOT_HANDLE: u32 = 0x8100_0001;
/// The storage root key's template (H-2), with this byte in its unique field: 0 gives the standard's key.
pub fn storage_root(unique: u8) -> Public {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_decrypt(true)
        .build()
        .expect("attributes");
    let x = if unique == 0 { Vec::new() } else { vec![unique; 32] };
    let point = EccPoint::new(EccParameter::try_from(x.clone()).expect("x"), EccParameter::try_from(x).expect("y"));
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(PublicEccParameters::new(
            SymmetricDefinitionObject::AES_128_CFB,
            EccScheme::Null,
            EccCurve::NistP256,
            KeyDerivationFunctionScheme::Null,
        ))
        .with_ecc_unique_identifier(point)
        .build()
        .expect("template")
}

/// Makes such a key persistent, as an operating system does that uses the chip.
pub fn persist_storage_root(chip: &Swtpm, unique: u8, handle: u32) -> LabResult<()> {
    persist(&mut chip.esys()?, Hierarchy::Owner, storage_root(unique), handle)
}

/// An answer to TPM2_ReadPublic: header, outPublic, name, qualified name.
pub fn told(public: &[u8], name: &[u8]) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let body = [sized(public), sized(name), sized(name)].concat();
    let length = (10 + body.len()) as u32;
    [&[0x80, 0x01][..], &length.to_be_bytes(), &[0; 4], &body].concat()
}

/// TPMT_PUBLIC and Name of the key at a persistent handle, as the chip tells them.
pub fn public_and_name(chip: &Swtpm, handle: u32) -> LabResult<(Vec<u8>, Vec<u8>)> {
    let mut esys = chip.esys()?;
    let object = esys.tr_from_tpm_public(TpmHandle::Persistent(PersistentTpmHandle::new(handle)?))?;
    let (public, name, _) = esys.read_public(KeyHandle::from(object))?;
    Ok((public.marshall()?, name.value().to_vec()))
}
