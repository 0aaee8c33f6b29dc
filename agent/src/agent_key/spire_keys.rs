//! `keys.json`, the file of SPIRE's disk KeyManager, read and written, so that either agent can take over the other's
//! directory.
//!
//! JSON with tabs, IDs in order, each key the base64 of its PKCS#8 DER. Which of the IDs is current is not written down: it
//! is the one whose public key the certificate names. Source: SPIRE, pkg/agent/plugin/keymanager/disk/disk.go.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ironroot_text::secret_file::{self, Readers, SecretFileError};
use serde::{Deserialize, Serialize};
use serde_json::ser::{PrettyFormatter, Serializer};
use zeroize::{Zeroize, Zeroizing};

use super::store::aside;
use super::{KeyError, SoftwareKey};
use crate::durable_file;

/// Name of the file in the KeyManager's directory.
const FILE_NAME: &str = "keys.json";
/// Largest file accepted, bytes.
const MAX_FILE_BYTES: usize = 64 * 1024;
/// The IDs of the agent's key, one for each slot. Source: SPIRE, pkg/agent/plugin/keymanager/v1.go, ForSVID.
const IDS: [&str; 2] = ["agent-svid-A", "agent-svid-B"];

/// The file's content. Other keys than the agent's are left as they are.
#[derive(Default, Deserialize, Serialize)]
pub(super) struct SpireKeys {
    #[serde(default)]
    keys: BTreeMap<String, String>,
}

impl Drop for SpireKeys {
    fn drop(&mut self) {
        self.keys.values_mut().for_each(Zeroize::zeroize);
    }
}

impl SpireKeys {
    /// Reads the file; empty if there is none.
    pub fn read(directory: &Path) -> Result<Self, KeyError> {
        let path = path(directory);
        let bytes = match secret_file::read(&path, MAX_FILE_BYTES, Readers::Owner) {
            Err(SecretFileError::Io { error, .. }) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            read => read?,
        };
        serde_json::from_slice(&bytes).map_err(|_| KeyError::Content(path))
    }

    /// Whether `unreadable` is about one key of a file that can be read.
    pub fn holds_it_among_others(directory: &Path, unreadable: &KeyError) -> bool {
        matches!(unreadable, KeyError::Content(of) if *of == path(directory)) && Self::read(directory).is_ok()
    }

    /// The key in `slot`, 0 or 1.
    pub fn slot(&self, directory: &Path, slot: usize) -> Result<Option<SoftwareKey>, KeyError> {
        let Some(text) = self.keys.get(IDS[slot]) else { return Ok(None) };
        let der = STANDARD.decode(text).map(Zeroizing::new);
        let key = der.ok().and_then(|der| SoftwareKey::parse_pkcs8(&der));
        key.map(Some).ok_or_else(|| KeyError::Content(path(directory)))
    }

    /// Puts `key` into `slot` and replaces the file.
    pub fn put(mut self, directory: &Path, slot: usize, key: &SoftwareKey) -> Result<(), KeyError> {
        self.keys.insert(IDS[slot].to_owned(), STANDARD.encode(key.pkcs8().pkcs8_der()));
        let path = path(directory);
        durable_file::replace(&path, &self.to_json()).map_err(|error| KeyError::File { path, error })
    }

    /// Destroys the keys of both slots, and what was set aside of them. A file that holds nothing else goes, and one that cannot be read:
    /// it may hold them.
    pub fn destroy(directory: &Path) -> Result<(), KeyError> {
        let path = path(directory);
        let remove = |path: PathBuf| durable_file::remove(&path).map_err(|error| KeyError::File { path, error });
        match Self::read(directory) {
            Ok(keys) => keys.remove(directory)?,
            Err(KeyError::Secret(SecretFileError::Io { path, error })) => return Err(KeyError::File { path, error }),
            Err(_) => remove(path.clone())?,
        }
        remove(aside(&path))
    }

    fn remove(mut self, directory: &Path) -> Result<(), KeyError> {
        IDS.iter().for_each(|id| drop(self.keys.remove(*id).map(Zeroizing::new)));
        let path = path(directory);
        let written = match self.keys.is_empty() {
            true => durable_file::remove(&path),
            false => durable_file::replace(&path, &self.to_json()),
        };
        written.map_err(|error| KeyError::File { path, error })
    }

    fn to_json(&self) -> Zeroizing<Vec<u8>> {
        let size = self.keys.iter().map(|(id, key)| id.len() + key.len() + 16).sum::<usize>() + 64;
        let mut json = Zeroizing::new(Vec::with_capacity(size));
        let mut serializer = Serializer::with_formatter(&mut *json, PrettyFormatter::with_indent(b"\t"));
        self.serialize(&mut serializer).expect("a map of strings always serialises");
        json
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join(FILE_NAME)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_file_is_byte_for_byte_that_of_spires_key_manager() {
        let directory = tempfile::tempdir().expect("directory");
        let (a, b) = (SoftwareKey::generate().expect("key"), SoftwareKey::generate().expect("key"));
        SpireKeys::default().put(directory.path(), 1, &b).expect("written");
        SpireKeys::read(directory.path()).expect("read").put(directory.path(), 0, &a).expect("written");
        // json.MarshalIndent(data, "", "\t"): no newline at the end; encoding/json sorts the keys of a map.
        let base64 = |key: &SoftwareKey| STANDARD.encode(key.pkcs8().pkcs8_der());
        let expected = format!(
            "{{\n\t\"keys\": {{\n\t\t\"agent-svid-A\": \"{}\",\n\t\t\"agent-svid-B\": \"{}\"\n\t}}\n}}",
            base64(&a),
            base64(&b)
        );
        assert_eq!(std::fs::read_to_string(directory.path().join(FILE_NAME)).expect("file"), expected);
    }

    #[test]
    fn reads_the_keys_of_spires_agent_and_leaves_what_it_does_not_know() {
        // A P-256 key as Go's x509.MarshalPKCS8PrivateKey writes it: PKCS#8 version 0 without attributes.
        let directory = tempfile::tempdir().expect("directory");
        let go = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("key").serialize_der();
        let json = format!("{{\"keys\": {{\"agent-svid-A\": \"{}\", \"other\": \"AAAA\"}}}}", STANDARD.encode(&go));
        write(directory.path(), json.as_bytes(), 0o600);
        let keys = SpireKeys::read(directory.path()).expect("read");
        assert!(keys.slot(directory.path(), 0).expect("a key").is_some());
        assert!(keys.slot(directory.path(), 1).expect("no key is no error").is_none());
        keys.put(directory.path(), 1, &SoftwareKey::generate().expect("key")).expect("written");
        assert_eq!(SpireKeys::read(directory.path()).expect("read").keys["other"], "AAAA");
    }

    #[test]
    fn a_damaged_file_is_named() {
        let directory = tempfile::tempdir().expect("directory");
        write(directory.path(), b"damaged", 0o600);
        assert!(matches!(SpireKeys::read(directory.path()), Err(KeyError::Content(path)) if path.ends_with(FILE_NAME)));
    }

    #[test]
    fn keys_that_are_to_be_destroyed_go_with_a_file_that_cannot_be_read_and_with_what_was_set_aside() {
        let directory = tempfile::tempdir().expect("directory");
        let left = || fs::read_dir(directory.path()).expect("listed").count();
        for (content, mode) in [(&b"damaged"[..], 0o600), (b"{\"keys\": {}}", 0o640)] {
            write(directory.path(), content, mode);
            fs::write(directory.path().join("keys.json.damaged"), b"perhaps a key").expect("written");
            SpireKeys::destroy(directory.path()).expect("destroyed");
            assert_eq!(left(), 0);
        }
        let json = format!("{{\"keys\": {{\"{}\": \"AAAA\", \"other\": \"AAAA\"}}}}", IDS[0]);
        write(directory.path(), json.as_bytes(), 0o600);
        SpireKeys::destroy(directory.path()).expect("destroyed");
        let keys = SpireKeys::read(directory.path()).expect("read");
        assert_eq!(keys.keys.keys().collect::<Vec<_>>(), ["other"], "what is not this agent's stays");
    }

    #[test]
    fn a_file_that_others_have_any_right_to_is_not_used() {
        let directory = tempfile::tempdir().expect("directory");
        for mode in [0o604, 0o640, 0o620, 0o666, 0o601] {
            write(directory.path(), b"{\"keys\": {}}", mode);
            let refused = SpireKeys::read(directory.path());
            assert!(
                matches!(refused, Err(KeyError::Secret(SecretFileError::Shared(path))) if path.ends_with(FILE_NAME)),
                "{mode:o}"
            );
        }
        write(directory.path(), b"{\"keys\": {}}", 0o400);
        assert!(SpireKeys::read(directory.path()).is_ok());
    }

    fn write(directory: &Path, content: &[u8], mode: u32) {
        let path = directory.join(FILE_NAME);
        drop(fs::remove_file(&path));
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
    }
}
