//! Attestation keys that are used again, wrapped by the chip: made once, because a slow chip takes minutes for an RSA key. Only a cache:
//! a new one is made when it is missing or damaged.

use std::path::Path;

use ironroot_attest::tpm::{AttestationKeyBirth, KeyBlob};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::warn;

use crate::durable_file;

/// Largest file accepted, bytes: an RSA key's takes 3 KiB, 4 KiB with its birth.
const MAX_FILE_BYTES: usize = 16 * 1024;

/// What is kept of a key, as JSON.
pub(super) trait Kept: Serialize + DeserializeOwned + Send + 'static {
    /// Name of the file in the data directory.
    const FILE_NAME: &'static str;

    /// The name of the endorsement key that it was made under.
    fn parent(&self) -> &[u8];
}

/// Of `tpm_devid`.
impl Kept for KeyBlob {
    const FILE_NAME: &'static str = "devid-attestation-key.tpm";

    fn parent(&self) -> &[u8] {
        &self.parent
    }
}

/// Of `tpm`, which shows how the key was made.
impl Kept for AttestationKeyBirth {
    const FILE_NAME: &'static str = "tpm-attestation-key.tpm";

    fn parent(&self) -> &[u8] {
        &self.key.parent
    }
}

/// The key that was made under the endorsement key of that name.
pub(super) async fn read<K: Kept>(directory: &Path, ek_name: &[u8]) -> Option<K> {
    let path = directory.join(K::FILE_NAME);
    let bytes = blocking(move || durable_file::read(&path, MAX_FILE_BYTES)).await.ok()??;
    serde_json::from_slice::<K>(&bytes).ok().filter(|key| key.parent() == ek_name)
}

/// Keeps it for the next attestation. A disk that does not take it costs the time to make another.
pub(super) async fn write<K: Kept>(directory: &Path, key: &K) {
    let path = directory.join(K::FILE_NAME);
    let bytes = serde_json::to_vec(key).expect("byte strings always serialise");
    if let Err(error) = blocking(move || durable_file::replace(&path, &bytes)).await {
        let helps = durable_file::remedy(&error);
        warn!(file = K::FILE_NAME, %error, "the attestation key is not kept: {helps}; it is made anew the next time");
    }
}

/// It is of no use any more.
pub(super) async fn forget<K: Kept>(directory: &Path) {
    let path = directory.join(K::FILE_NAME);
    if let Err(error) = blocking(move || durable_file::remove(&path)).await {
        warn!(file = K::FILE_NAME, %error, "an attestation key of no use cannot be removed");
    }
}

/// A disk may be slow: not on the thread that serves workloads.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("reading and writing a file does not panic")
}
