//! Primary keys: used where somebody made them persistent, else made once and kept as a saved context.
//!
//! Making an RSA key takes a chip seconds to minutes, loading a context milliseconds. A saved context is of use until the
//! TPM is reset; then the key is made again.

use tracing::debug;
use tss_esapi::constants::CapabilityType;
use tss_esapi::handles::{KeyHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::structures::CapabilityData;

use super::connection::{Connection, NO_SESSION};
use super::error::TpmError;
use super::known::Persistent;
use super::loaded::Loaded;
use super::primary::{Primary, is_of_template};

/// First persistent handle.
const FIRST_PERSISTENT: u32 = 0x8100_0000;
/// Persistent handles asked for; the profile demands seven, chips hold some ten more.
const MAX_PERSISTENT: u32 = 254;

impl Connection {
    /// `primary`, made from its template.
    pub fn made(&mut self, primary: Primary) -> Result<Loaded, TpmError> {
        if let Some(loaded) = self.load_made(primary)? {
            return Ok(loaded);
        }
        let key = self.create_primary(primary.hierarchy(), &primary.template()?)?;
        self.save_later(primary, key.handle, key.public.clone(), key.name.clone());
        Ok(key)
    }

    /// `primary` at its persistent handle, if there is one whose public part is the template's.
    pub fn persistent(&mut self, primary: Primary) -> Result<Option<Loaded>, TpmError> {
        let known = self.primaries().persistent.iter().find(|(known, _)| *known == primary).map(|(_, key)| key.clone());
        let key = match known {
            Some(key) => key,
            None => {
                let key = self.look_for_persistent(primary)?;
                self.primaries().persistent.push((primary, key.clone()));
                key
            }
        };
        Ok(key.map(|Persistent { handle, public, name }| Loaded { handle, public, name, in_slot: false }))
    }

    /// The key of these that has this name; persistent ones first.
    pub fn named(&mut self, primary: Primary, name: &[u8]) -> Result<Option<Loaded>, TpmError> {
        if let Some(key) = self.persistent(primary)?.filter(|key| key.name == name) {
            self.note_use(primary);
            return Ok(Some(key));
        }
        let key = self.made(primary)?;
        if key.name == name {
            return Ok(Some(key));
        }
        self.release(&key)?;
        Ok(None)
    }

    /// Notes that the persistent `primary` is what is worked with.
    pub fn note_use(&mut self, primary: Primary) {
        let (handle, used) = (primary.persistent_handle(), &mut self.primaries().used);
        if !used.contains(&handle) {
            used.push(handle);
        }
    }

    /// The persistent handles that keys were taken from.
    pub fn persistent_handles_used(&mut self) -> Vec<u32> {
        self.primaries().used.clone()
    }

    /// A handle that has gone, or holds another key by now, is looked for again.
    pub fn forget_persistent(&mut self) {
        let forgotten = std::mem::take(self.primaries());
        for (_, key) in forgotten.persistent {
            if let Some(key) = key {
                self.close(key.handle.into());
            }
        }
    }

    fn load_made(&mut self, primary: Primary) -> Result<Option<Loaded>, TpmError> {
        self.save_made();
        let Some(at) = self.primaries().made.iter().position(|(made, _)| *made == primary) else { return Ok(None) };
        let context = self.primaries().made[at].1.context.clone();
        match self.command("TPM2_ContextLoad", NO_SESSION, |esys| esys.context_load(context.clone())) {
            Ok(object) => {
                self.keep(object);
                let made = &self.primaries().made[at].1;
                let (public, name) = (made.public.clone(), made.name.clone());
                Ok(Some(Loaded { handle: KeyHandle::from(object), public, name, in_slot: true }))
            }
            Err(error) if error.is_about_the_connection() => Err(error),
            // The TPM was reset since, or the hierarchy cleared: making the key shows which.
            Err(error) => {
                debug!(%error, "a primary key's saved context is of no use any more");
                self.primaries().made.swap_remove(at);
                Ok(None)
            }
        }
    }

    fn look_for_persistent(&mut self, primary: Primary) -> Result<Option<Persistent>, TpmError> {
        let number = primary.persistent_handle();
        if !self.persistent_handles()?.contains(&number) {
            return Ok(None);
        }
        let handle = PersistentTpmHandle::new(number).map_err(|e| TpmError::of("TPM2_ReadPublic", e))?;
        let (handle, name) = self.command("TPM2_ReadPublic", NO_SESSION, |esys| {
            let object = esys.tr_from_tpm_public(TpmHandle::Persistent(handle))?;
            Ok((object, esys.tr_get_name(object)?.value().to_vec()))
        })?;
        let key = KeyHandle::from(handle);
        let (public, _, _) = self.command("TPM2_ReadPublic", NO_SESSION, |esys| esys.read_public(key))?;
        //= FLT-T11 chip faults: "what is found is compared before it is used"
        if is_of_template(&public, &primary.template()?) {
            return Ok(Some(Persistent { handle: key, public, name }));
        }
        debug!(handle = format_args!("{number:#x}"), "a persistent key is of another template and is not used");
        self.close(handle);
        Ok(None)
    }

    fn persistent_handles(&mut self) -> Result<Vec<u32>, TpmError> {
        match &self.primaries().handles {
            Some(handles) => Ok(handles.clone()),
            None => self.ask_for_persistent_handles(),
        }
    }

    /// All persistent handles as the chip tells them now, which are then known.
    pub fn ask_for_persistent_handles(&mut self) -> Result<Vec<u32>, TpmError> {
        let (data, _) = self.command("TPM2_GetCapability", NO_SESSION, |esys| {
            esys.get_capability(CapabilityType::Handles, FIRST_PERSISTENT, MAX_PERSISTENT)
        })?;
        let CapabilityData::Handles(handles) = data else {
            return Err(TpmError::Malformed { command: "TPM2_GetCapability", reason: "not a list of handles" });
        };
        let handles: Vec<u32> = handles.into_inner().into_iter().map(u32::from).collect();
        self.primaries().handles = Some(handles.clone());
        Ok(handles)
    }
}
