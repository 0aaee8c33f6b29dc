//! Writing into a chip's NV as its maker does: by platform authorization, readable by all.

use tss_esapi::Context;
use tss_esapi::attributes::NvIndexAttributesBuilder;
use tss_esapi::constants::CapabilityType;
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{CapabilityData, MaxNvBuffer, NvPublic, NvPublicBuilder};

use super::LabResult;

/// Bytes written at once; every TPM takes as many.
const CHUNK: usize = 512;

/// Who may read an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Everybody, as with the certificates of real chips.
    All,
    /// The owner and the platform.
    Owner,
    /// The platform alone.
    Platform,
}

/// Defines `index` anew with `content`.
pub fn write(esys: &mut Context, index: u32, content: &[u8]) -> LabResult<()> {
    define(esys, index, Readers::All, Some(content))
}

/// Defines `index` anew; without `content` nothing is written.
pub fn define(esys: &mut Context, index: u32, readers: Readers, content: Option<&[u8]>) -> LabResult<()> {
    let handle = NvIndexTpmHandle::new(index)?;
    if is_defined(esys, index)? {
        let old = NvIndexHandle::from(esys.tr_from_tpm_public(TpmHandle::from(handle))?);
        with_password(esys, |esys| esys.nv_undefine_space(Provision::Platform, old))?;
    }
    let public = certificate_index(handle, readers, content.map_or(1000, <[u8]>::len))?;
    let mut object = with_password(esys, |esys| esys.nv_define_space(Provision::Platform, None, public))?.into();
    for (number, chunk) in content.unwrap_or_default().chunks(CHUNK).enumerate() {
        let (data, offset) = (MaxNvBuffer::try_from(chunk)?, u16::try_from(number * CHUNK)?);
        with_password(esys, |esys| esys.nv_write(NvAuth::Platform, NvIndexHandle::from(object), data, offset))?;
    }
    esys.tr_close(&mut object)?;
    Ok(())
}

/// For all readers: the attributes that the EK certificate indices of real chips have (0x62072001 once written).
fn certificate_index(handle: NvIndexTpmHandle, readers: Readers, length: usize) -> LabResult<NvPublic> {
    let attributes = NvIndexAttributesBuilder::new()
        .with_pp_write(true)
        .with_write_define(true)
        .with_pp_read(true)
        .with_owner_read(readers != Readers::Platform)
        .with_auth_read(readers == Readers::All)
        .with_no_da(true)
        .with_platform_create(true)
        .build()?;
    Ok(NvPublicBuilder::new()
        .with_nv_index(handle)
        .with_index_name_algorithm(HashingAlgorithm::Sha256)
        .with_index_attributes(attributes)
        .with_data_area_size(length)
        .build()?)
}

fn is_defined(esys: &mut Context, index: u32) -> LabResult<bool> {
    let (data, _) = esys.get_capability(CapabilityType::Handles, index, 1)?;
    match data {
        CapabilityData::Handles(handles) => Ok(handles.into_inner().into_iter().any(|h| u32::from(h) == index)),
        _ => Err("not a list of handles".into()),
    }
}

fn with_password<T>(
    esys: &mut Context,
    call: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
) -> tss_esapi::Result<T> {
    esys.execute_with_session(Some(AuthSession::Password), call)
}
