//! The file of SPIRE's KeyManager "disk", read and written: JSON with tabs, IDs in order, each key the base64 of its PKCS#8 DER.
//!
//! Source: SPIRE, pkg/server/plugin/keymanager/disk/disk.go.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ironroot_shell::durable_file::sync_directory_of;
use ironroot_text::secret_file::{self, Readers, SecretFileError};
use serde::{Deserialize, Serialize};
use serde_json::ser::{PrettyFormatter, Serializer};
use zeroize::{Zeroize, Zeroizing};

use super::error::KeyFileError;
use super::software::SoftwareKey;

/// Longest key file accepted, bytes: 64 keys of RSA-4096 need 220,000; one of ML-DSA is its seed.
pub const MAX_KEY_FILE_BYTES: usize = 512 * 1024;
/// Most keys of a key file. A server of SPIRE's has two for each of its purposes, and those of its bundle endpoint.
pub const MAX_KEYS: usize = 64;
/// The file holds private keys: nobody but its owner has rights to it.
const MODE: u32 = 0o600;

/// Where keys are kept.
#[derive(Clone, Debug)]
pub struct KeyFile(PathBuf);

#[derive(Default, Deserialize, Serialize)]
struct Content {
    #[serde(default)]
    keys: BTreeMap<String, String>,
}

impl Drop for Content {
    fn drop(&mut self) {
        self.keys.values_mut().for_each(Zeroize::zeroize);
    }
}

impl KeyFile {
    /// The file at this path, which need not be there.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its keys by their IDs; none if there is no file. A file that others have rights to is refused.
    pub fn read(&self) -> Result<BTreeMap<String, SoftwareKey>, KeyFileError> {
        let Some(bytes) = self.read_bytes()? else { return Ok(BTreeMap::new()) };
        let malformed = |error: serde_json::Error| KeyFileError::Malformed {
            path: self.0.clone(),
            // Where, and not what: a message must not show a key.
            reason: format!("no such JSON at line {}, column {}", error.line(), error.column()),
        };
        let content: Content = serde_json::from_slice(&bytes).map_err(malformed)?;
        if content.keys.len() > MAX_KEYS {
            return Err(KeyFileError::TooMany { path: self.0.clone(), most: MAX_KEYS });
        }
        content.keys.iter().map(|(id, text)| Ok((id.clone(), self.key(id, text)?))).collect()
    }

    fn key(&self, id: &str, text: &str) -> Result<SoftwareKey, KeyFileError> {
        let der = STANDARD.decode(text).map(Zeroizing::new).ok();
        let damaged = || KeyFileError::Key { path: self.0.clone(), id: id.chars().take(64).collect() };
        der.and_then(|der| SoftwareKey::from_pkcs8(&der)).ok_or_else(damaged)
    }

    /// Puts these keys in the place of what it holds: the old content or the new, never half, and on the disk on return.
    pub fn replace<'a>(&self, keys: impl Iterator<Item = (&'a str, &'a SoftwareKey)>) -> Result<(), KeyFileError> {
        let keys = keys.map(|(id, key)| (id.to_owned(), STANDARD.encode(key.pkcs8_der()))).collect();
        let json = to_json(&Content { keys });
        // As SPIRE calls it: one that a crash has left is replaced.
        let temporary = self.temporary();
        let written = write_new(&temporary, &json).and_then(|()| fs::rename(&temporary, &self.0));
        if written.is_err() {
            // The old file is untouched; a leftover would only be confusing.
            let _ = fs::remove_file(&temporary);
        }
        let synced = written.and_then(|()| sync_directory_of(&self.0));
        synced.map_err(|error| self.failed("write", error))
    }

    fn temporary(&self) -> PathBuf {
        let mut name = self.0.file_name().unwrap_or_default().to_owned();
        name.push(".tmp");
        self.0.with_file_name(name)
    }

    fn read_bytes(&self) -> Result<Option<Zeroizing<Vec<u8>>>, KeyFileError> {
        match secret_file::read(&self.0, MAX_KEY_FILE_BYTES, Readers::Owner) {
            Err(SecretFileError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => Ok(Some(read.map_err(Arc::new)?)),
        }
    }

    fn failed(&self, what: &'static str, error: io::Error) -> KeyFileError {
        KeyFileError::Io { what, path: self.0.clone(), error: Arc::new(error) }
    }
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// As Go's `json.MarshalIndent(data, "", "\t")` writes it.
fn to_json(content: &Content) -> Zeroizing<Vec<u8>> {
    let size = content.keys.iter().map(|(id, key)| id.len() + key.len() + 16).sum::<usize>() + 64;
    let mut json = Zeroizing::new(Vec::with_capacity(size));
    let mut serializer = Serializer::with_formatter(&mut *json, PrettyFormatter::with_indent(b"\t"));
    content.serialize(&mut serializer).expect("a map of strings always serialises");
    json
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use ironroot_hsm::KeyKind;

    use super::*;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, KeyFile) {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("keys.json");
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
        (directory, KeyFile::at(&path))
    }

    fn refused(content: &[u8]) -> KeyFileError {
        file(content, 0o600).1.read().expect_err("it is none")
    }

    #[test]
    fn the_file_is_byte_for_byte_that_of_spires_key_manager_and_its_owners_alone() {
        let (_directory, file) = file(b"{}", 0o600);
        let [a, b] = [(); 2].map(|()| SoftwareKey::generate(KeyKind::EcP256).expect("key"));
        fs::write(file.temporary(), "left by a crash").expect("written");
        file.replace([("x509-CA-B", &b), ("x509-CA-A", &a)].into_iter()).expect("written");
        let base64 = |key: &SoftwareKey| STANDARD.encode(key.pkcs8_der());
        let expected = format!(
            "{{\n\t\"keys\": {{\n\t\t\"x509-CA-A\": \"{}\",\n\t\t\"x509-CA-B\": \"{}\"\n\t}}\n}}",
            base64(&a),
            base64(&b)
        );
        assert_eq!(fs::read_to_string(file.path()).expect("file"), expected);
        assert_eq!(fs::metadata(file.path()).expect("file").permissions().mode() & 0o777, 0o600);
        assert!(!file.temporary().exists());
        let read: Vec<String> = file.read().expect("read").into_keys().collect();
        assert_eq!(read, ["x509-CA-A", "x509-CA-B"]);
    }

    #[test]
    fn a_file_that_others_have_any_right_to_is_refused() {
        for mode in [0o600, 0o400] {
            file(b"{}", mode).1.read().expect("ours alone");
        }
        for mode in [0o640, 0o620, 0o604, 0o602, 0o666] {
            let (_directory, file) = file(b"{}", mode);
            let refused = file.read().expect_err("not the owner's alone");
            assert!(
                matches!(&refused, KeyFileError::File(error) if matches!(**error, SecretFileError::Shared(_))),
                "{mode:o}"
            );
        }
    }

    #[test]
    fn files_that_are_damaged_too_long_or_something_else_are_refused_and_no_message_shows_a_key() {
        let key = STANDARD.encode(SoftwareKey::generate(KeyKind::EcP256).expect("key").pkcs8_der());
        let half = format!("{{\"keys\": {{\"x509-CA-A\": \"{key}\", \"x509-CA-B\": 1}}}}");
        for malformed in ["", "{", "[1]", "{\"keys\": [\"a\"]}", &half] {
            let error = refused(malformed.as_bytes());
            assert!(matches!(error, KeyFileError::Malformed { .. }), "{malformed}: {error}");
            assert!(!format!("{error} {error:?}").contains(&key));
        }
        let unknown = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("key").serialize_der();
        for damaged in [&key[..20], "-", &STANDARD.encode(unknown)] {
            let error = refused(format!("{{\"keys\": {{\"JWT-Signer-A\": \"{damaged}\"}}}}").as_bytes());
            assert!(matches!(&error, KeyFileError::Key { id, .. } if id == "JWT-Signer-A"), "{damaged}: {error}");
        }
        let many: Vec<String> = (0..=MAX_KEYS).map(|n| format!("\"{n}\": \"{key}\"")).collect();
        assert!(matches!(
            refused(format!("{{\"keys\": {{{}}}}}", many.join(",")).as_bytes()),
            KeyFileError::TooMany { .. }
        ));
        let refused = refused(&vec![b' '; MAX_KEY_FILE_BYTES + 1]);
        assert!(matches!(&refused, KeyFileError::File(error) if matches!(**error, SecretFileError::TooLarge { .. })));
        let directory = tempfile::tempdir().expect("directory");
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("pipe");
        for path in [directory.path(), &pipe] {
            let refused = KeyFile::at(path).read().expect_err("no regular file, and nothing is waited for");
            assert!(matches!(&refused, KeyFileError::File(error) if matches!(**error, SecretFileError::NotRegular(_))));
        }
    }
}
