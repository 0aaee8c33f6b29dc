//! Which endorsement key this device is known by: a line in a file of its own, written after each attestation that changed it.
//!
//! Not secret, and not believed for anything but this: of several keys that the chip can show, the one that the server knows
//! is shown again, whatever certificates somebody puts into the chip meanwhile.

use std::path::Path;

use ironroot_attest::tpm::{EndorsementKind, RememberedEndorsement, Tpm};
use tracing::warn;

use crate::durable_file;

/// Name of the file in the data directory: the kind, a space, the hash in hex.
const FILE_NAME: &str = "endorsement-key";
/// Largest file accepted, bytes: a kind and 64 digits take under 80.
const MAX_FILE_BYTES: usize = 128;

/// What was noted; none if nothing was, or it cannot be read.
pub fn remembered(directory: &Path) -> Option<RememberedEndorsement> {
    match durable_file::read(&directory.join(FILE_NAME), MAX_FILE_BYTES) {
        Ok(None) => None,
        Ok(Some(bytes)) => {
            let remembered = std::str::from_utf8(&bytes).ok().and_then(parse);
            if remembered.is_none() {
                warn!(file = FILE_NAME, "the note of the device's endorsement key does not parse and is not used");
            }
            remembered
        }
        Err(error) => {
            warn!(file = FILE_NAME, %error, "the note of the device's endorsement key cannot be read and is not used");
            None
        }
    }
}

/// Notes it for this run and the next ones. A disk that does not take it costs nothing now.
pub(super) async fn remember(tpm: &Tpm, directory: &Path, identity: RememberedEndorsement) {
    // A chip that is away is told when it matters again: the file has it then.
    let told = tpm.run("remember the endorsement key", move |chip| {
        chip.remember_endorsement(identity);
        Ok(())
    });
    let _ = told.await;
    let directory = directory.to_owned();
    let written = tokio::task::spawn_blocking(move || write(&directory, identity)).await;
    if let Ok(Err(error)) = written {
        warn!(file = FILE_NAME, %error, "the device's endorsement key cannot be noted");
    }
}

fn write(directory: &Path, identity: RememberedEndorsement) -> std::io::Result<()> {
    let (path, line) = (directory.join(FILE_NAME), format(&identity));
    // Flash wears: the same line is not written twice.
    match durable_file::read(&path, MAX_FILE_BYTES) {
        Ok(Some(present)) if present == line.as_bytes() => Ok(()),
        _ => durable_file::replace(&path, line.as_bytes()),
    }
}

fn format(identity: &RememberedEndorsement) -> String {
    let hex: String = identity.ek_sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{} {hex}\n", identity.kind)
}

fn parse(line: &str) -> Option<RememberedEndorsement> {
    let (kind, hex) = line.trim().split_once(' ')?;
    let digits: Vec<u8> =
        hex.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    let ek_sha256 = (digits.len() == 64).then_some(bytes)?.try_into().ok()?;
    Some(RememberedEndorsement { kind: kind.parse::<EndorsementKind>().ok()?, ek_sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTED: RememberedEndorsement =
        RememberedEndorsement { kind: EndorsementKind::Rsa2048, ek_sha256: [0xa5; 32] };

    #[test]
    fn survives_a_restart() {
        let directory = tempfile::tempdir().expect("directory");
        assert_eq!(remembered(directory.path()), None);
        write(directory.path(), NOTED).expect("written");
        write(directory.path(), NOTED).expect("written");
        assert_eq!(remembered(directory.path()), Some(NOTED));
    }

    #[test]
    fn a_damaged_note_is_no_note() {
        let directory = tempfile::tempdir().expect("directory");
        let hash = "a5".repeat(32);
        for text in ["", "p256", &format!("p999 {hash}"), &format!("p256 {hash}00"), "p256 xyz", &"p".repeat(500)] {
            std::fs::write(directory.path().join(FILE_NAME), text).expect("written");
            assert_eq!(remembered(directory.path()), None, "{text}");
        }
        assert_eq!(parse(&format(&NOTED)), Some(NOTED));
    }
}
