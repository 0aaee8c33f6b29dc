//! What a device is asked whose DevID is vouched for.

use super::NONCE_BYTES;
use super::messages::Challenge;
use super::pending::Pending;
use super::refusal::TpmDevIdRefusal;
use super::verified::Verified;
use crate::node::Refusal;
use crate::structures::make_credential;

impl Verified {
    /// Asks for both proofs. `nonce` and `secret`: fresh from a cryptographic random source, used once. `now_unix`: UNIX seconds.
    pub fn challenge(
        self,
        nonce: [u8; NONCE_BYTES],
        secret: [u8; 32],
        now_unix: i64,
    ) -> Result<(Pending, Challenge), TpmDevIdRefusal> {
        let credential = make_credential(&self.ek, self.ak.name(), &secret).map_err(|_| Refusal::Credential)?;
        let challenge = Challenge { nonce, credential: credential.id_object, secret: credential.encrypted_secret };
        Ok((Pending::new(self, (nonce, secret), now_unix), challenge))
    }
}
