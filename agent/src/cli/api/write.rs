//! SVIDs into files.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use der::pem::{self, LineEnding};
use ironroot_api::certificate::Certificate;
use ironroot_shell::command_line::CommandError;
use zeroize::Zeroizing;

use super::svid::WorkloadSvids;

/// Modes of what is written: a key is its owner's, certificates are everybody's. Source: SPIRE.
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// Writes `svid.N.pem`, `svid.N.key`, `bundle.N.pem` and `federated_bundle.N.M.pem` and says so.
pub(super) fn write(svids: &WorkloadSvids, directory: &Path) -> Result<String, CommandError> {
    let mut said = String::new();
    for (n, svid) in svids.svids.iter().enumerate() {
        let mut put = |what: &str, name: String, content: &[u8], mode: u32| {
            let path = directory.join(name);
            writeln!(said, "Writing {what} to file {}.", path.display()).expect("writing to a string cannot fail");
            replace(&path, content, mode).map_err(|source| CommandError::File { doing: "write", path, source })
        };
        let key = Zeroizing::new(encode("PRIVATE KEY", &svid.key)?);
        put(&format!("SVID #{n}"), format!("svid.{n}.pem"), &encode_all(&svid.chain)?, CERTIFICATE_MODE)?;
        put(&format!("key #{n}"), format!("svid.{n}.key"), key.as_bytes(), KEY_MODE)?;
        put(&format!("bundle #{n}"), format!("bundle.{n}.pem"), &encode_all(&svid.bundle)?, CERTIFICATE_MODE)?;
        for (m, (trust_domain, bundle)) in svids.federated.iter().enumerate() {
            let what = format!("federated bundle #{m} for trust domain {trust_domain}");
            put(&what, format!("federated_bundle.{n}.{m}.pem"), &encode_all(bundle)?, CERTIFICATE_MODE)?;
        }
    }
    Ok(said)
}

/// Puts a complete file in the place of the old one; a reader sees either.
fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary: PathBuf = path.with_file_name(name);
    let written = write_new(&temporary, content, mode).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The file may not even be there; the first error is the one that tells.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn encode_all(certificates: &[Certificate]) -> Result<Vec<u8>, CommandError> {
    let encoded: Result<String, CommandError> =
        certificates.iter().map(|certificate| encode("CERTIFICATE", certificate.der())).collect();
    encoded.map(String::into_bytes)
}

fn encode(label: &'static str, der: &[u8]) -> Result<String, CommandError> {
    let wrong = |error| CommandError::Malformed(format!("the agent's answer cannot be written as PEM: {error}"));
    pem::encode_string(label, LineEnding::LF, der).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_replaces_a_readable_file_and_is_the_owners_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("svid.0.key");
        fs::write(&path, "old").expect("written");
        replace(&path, b"new", KEY_MODE).expect("replaced");
        assert_eq!(fs::read(&path).expect("read"), b"new");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, KEY_MODE);
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
        assert!(replace(&dir.path().join("absent/x"), b"", KEY_MODE).is_err());
    }
}
