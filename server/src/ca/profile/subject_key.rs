//! The key of an authority as certificates are made for it.

use ironroot_api::issuing::SubjectKey;

use crate::keys::Key;

impl<'a> From<&'a Key> for SubjectKey<'a> {
    fn from(key: &'a Key) -> Self {
        Self::new(key.spki_der(), key.public_key())
    }
}
