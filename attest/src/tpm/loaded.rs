//! Objects in the chip's slots.

use tss_esapi::handles::{KeyHandle, ObjectHandle};
use tss_esapi::structures::Public;

use super::connection::{Connection, NO_SESSION};
use super::error::TpmError;

/// An object in one of the TPM's slots.
pub struct Loaded {
    pub handle: KeyHandle,
    pub public: Public,
    /// Its Name (Part 1 §16): algorithm and digest of the public area that sessions are salted to. The library computes it of that area
    /// (Esys_TR_GetName), whatever name the bus has told.
    pub name: Vec<u8>,
    /// Whether it takes a slot, which a persistent key does not.
    pub in_slot: bool,
}

impl Connection {
    /// Notes the object at `handle`, to be flushed with its task.
    pub fn loaded(&mut self, handle: KeyHandle, public: Public) -> Result<Loaded, TpmError> {
        self.keep(handle.into());
        let name = self.command("Esys_TR_GetName", NO_SESSION, |esys| esys.tr_get_name(ObjectHandle::from(handle)))?;
        Ok(Loaded { handle, public, name: name.value().to_vec(), in_slot: true })
    }

    /// Frees the slot of a key before its task ends, if it takes one.
    pub fn release(&mut self, key: &Loaded) -> Result<(), TpmError> {
        if key.in_slot { self.flush(key.handle.into()) } else { Ok(()) }
    }
}
