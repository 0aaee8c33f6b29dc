//! The attestation key of `tpm`, wrapped by the chip, and how it was made: once, because a slow chip takes minutes for an RSA key.
//! Only a cache: a new one is made when it is missing or damaged.

use std::path::{Path, PathBuf};

use ironroot_attest::tpm::AttestationKeyBirth;
use tracing::warn;

use crate::durable_file;

/// Name of the file in the data directory: a key and its birth as JSON.
const FILE_NAME: &str = "tpm-attestation-key.tpm";
/// Largest file accepted, bytes: an RSA key's takes 4 KiB.
const MAX_FILE_BYTES: usize = 16 * 1024;

/// The key that was made under the endorsement key of that name.
pub(super) async fn read(directory: &Path, ek_name: &[u8]) -> Option<AttestationKeyBirth> {
    let path = path(directory);
    let bytes = blocking(move || durable_file::read(&path, MAX_FILE_BYTES)).await.ok()??;
    serde_json::from_slice::<AttestationKeyBirth>(&bytes).ok().filter(|birth| birth.key.parent == ek_name)
}

/// Keeps it for the next attestation. A disk that does not take it costs the time to make another.
pub(super) async fn write(directory: &Path, birth: AttestationKeyBirth) {
    let path = path(directory);
    let bytes = serde_json::to_vec(&birth).expect("byte strings always serialise");
    if let Err(error) = blocking(move || durable_file::replace(&path, &bytes)).await {
        warn!(file = FILE_NAME, %error, "the attestation key is not kept: make room on the disk; it is made anew the next time");
    }
}

/// It is of no use any more.
pub(super) async fn forget(directory: &Path) {
    let path = path(directory);
    if let Err(error) = blocking(move || durable_file::remove(&path)).await {
        warn!(file = FILE_NAME, %error, "an attestation key of no use cannot be removed");
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join(FILE_NAME)
}

/// A disk may be slow: not on the thread that serves workloads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("reading and writing a file does not panic")
}
