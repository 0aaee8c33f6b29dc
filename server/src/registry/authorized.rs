//! What an agent may serve: proof that the registry said so.

use std::sync::Arc;

use ironroot_api::entry::RegistrationEntry;

/// An entry that the registry found among those an agent may serve. Only the registry makes one.
#[derive(Clone, Debug)]
pub struct AuthorizedEntry {
    entry: Arc<RegistrationEntry>,
}

impl AuthorizedEntry {
    pub(super) fn new(entry: Arc<RegistrationEntry>) -> Self {
        Self { entry }
    }

    /// The entry.
    pub fn entry(&self) -> &RegistrationEntry {
        &self.entry
    }
}
