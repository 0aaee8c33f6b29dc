//! NV indices.

use tss_esapi::constants::{CapabilityType, PropertyTag};
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle, ObjectHandle, TpmHandle};
use tss_esapi::interface_types::resource_handles::NvAuth;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::CapabilityData;
use tss_esapi::tss2_esys::TPM2_MAX_NV_BUFFER_SIZE;

use super::connection::{Connection, NO_SESSION};
use super::error::TpmError;
use super::hierarchy::KeyHierarchy;
use super::response_code as rc;

/// Handles asked for at once. A chip has a few dozen NV indices.
const MAX_INDICES: u32 = 254;
/// What a chip reads at once if it does not say (TPM_PT_NV_BUFFER_MAX), bytes: the smallest that the PC Client profile allows.
const SMALLEST_NV_BUFFER: u32 = 512;

impl Connection {
    /// The defined NV indices from `first` on.
    pub fn nv_indices(&mut self, first: u32) -> Result<Vec<u32>, TpmError> {
        let (data, _) = self.command("TPM2_GetCapability", NO_SESSION, |esys| {
            esys.get_capability(CapabilityType::Handles, first, MAX_INDICES)
        })?;
        match data {
            CapabilityData::Handles(handles) => Ok(handles.into_inner().into_iter().map(u32::from).collect()),
            _ => Err(TpmError::Malformed { command: "TPM2_GetCapability", reason: "not a list of handles" }),
        }
    }

    /// Runs `body` with the library's handle of a defined NV index.
    pub fn with_nv_index<T>(
        &mut self,
        index: u32,
        body: impl FnOnce(&mut Self, NvIndexHandle) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let object = self.nv_object(index)?;
        let result = body(self, NvIndexHandle::from(object));
        self.close(object);
        result
    }

    /// As [`with_nv_index`](Self::with_nv_index); `None` where nothing is defined at `index`.
    pub fn with_nv_index_if_defined<T>(
        &mut self,
        index: u32,
        body: impl FnOnce(&mut Self, NvIndexHandle) -> Result<T, TpmError>,
    ) -> Result<Option<T>, TpmError> {
        let object = match self.nv_object(index) {
            Ok(object) => object,
            Err(error) if error.is(rc::HANDLE) => return Ok(None),
            Err(error) => return Err(error),
        };
        let result = body(self, NvIndexHandle::from(object));
        self.close(object);
        result.map(Some)
    }

    fn nv_object(&mut self, index: u32) -> Result<ObjectHandle, TpmError> {
        let tpm_handle = TpmHandle::from(nv_index(index)?);
        self.command("TPM2_NV_ReadPublic", NO_SESSION, |esys| esys.tr_from_tpm_public(tpm_handle))
    }

    /// The whole content of `index`, read with its empty auth value, or as the owner where that alone is allowed.
    pub fn nv_read_all(&mut self, index: u32, limit: usize) -> Result<Vec<u8>, TpmError> {
        let chunk = self.property(PropertyTag::NvBufferMax)?.unwrap_or(SMALLEST_NV_BUFFER).min(TPM2_MAX_NV_BUFFER_SIZE);
        self.with_nv_index(index, |tpm, handle| {
            let (public, _) = tpm.command("TPM2_NV_ReadPublic", NO_SESSION, |esys| esys.nv_read_public(handle))?;
            let size = public.data_size();
            if size > limit {
                return Err(TpmError::Malformed { command: "TPM2_NV_ReadPublic", reason: "the index is too long" });
            }
            let attributes = public.attributes();
            let as_owner = attributes.owner_read() && !attributes.auth_read();
            let mut content = Vec::with_capacity(size);
            while content.len() < size {
                let length = (size - content.len()).min(chunk as usize) as u16;
                let part = tpm.nv_read(handle, as_owner, length, content.len() as u16)?;
                if part.len() != usize::from(length) {
                    return Err(TpmError::Malformed { command: "TPM2_NV_Read", reason: "fewer bytes than asked for" });
                }
                content.extend(part);
            }
            Ok(content)
        })
    }

    fn nv_read(
        &mut self,
        handle: NvIndexHandle,
        as_owner: bool,
        length: u16,
        offset: u16,
    ) -> Result<Vec<u8>, TpmError> {
        let read = |tpm: &mut Self, who: NvAuth, session| {
            let sessions = (Some(session), None, None);
            tpm.command("TPM2_NV_Read", sessions, |esys| esys.nv_read(who, handle, length, offset))
        };
        let part = if as_owner {
            self.authorized_by(KeyHierarchy::Owner, |tpm, session| read(tpm, NvAuth::Owner, session))
        } else {
            read(self, NvAuth::NvIndex(handle), AuthSession::Password)
        };
        Ok(part?.value().to_vec())
    }
}

/// `index` as an NV handle, 0x01000000 to 0x01ffffff.
pub fn nv_index(index: u32) -> Result<NvIndexTpmHandle, TpmError> {
    NvIndexTpmHandle::new(index).map_err(|_| TpmError::Argument("an NV index lies from 0x01000000 to 0x01ffffff"))
}
