//! The two slots of the agent's key, and the attestation key beside them.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ironroot_attest::tpm::{KeyBlob, Tpm};
use ironroot_shell::describe;
use tracing::{error, warn};
use zeroize::Zeroizing;

use super::spire_keys::SpireKeys;
use super::{AgentKey, KeyError, SoftwareKey, TokenHeldKey, TpmKey};
use crate::durable_file;
use crate::token::LazyToken;
use crate::trusted_time::TpmClock;

/// Largest key file accepted, bytes.
const MAX_KEY_FILE_BYTES: usize = 16 * 1024;

/// Where keys are made and kept.
#[derive(Clone)]
pub enum KeyPlace {
    /// Made in the chip; the wrapped blobs are kept in the data directory.
    Tpm {
        /// The chip that makes the key and alone can load it again.
        tpm: Tpm,
        /// The data directory, nobody's but the agent's.
        directory: PathBuf,
    },
    /// Made in a PKCS#11 token; their names and public halves are kept in the data directory.
    Token {
        /// The token that makes the key and alone signs with it.
        token: LazyToken,
        /// How the labels of the keys begin: the agent's own in this token.
        label: String,
        /// The data directory, nobody's but the agent's.
        directory: PathBuf,
    },
    /// SPIRE's `keys.json`, mode 0600, in this directory.
    Disk {
        /// The data directory, nobody's but the agent's.
        directory: PathBuf,
    },
    /// Nowhere: a restart needs a new attestation.
    Memory,
}

/// What a fresh key is worth where the disk does not take it, because it is full or read-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: an agent that loses the key of its only certificate never comes back to its server.
    Surely,
    /// A life until the next restart, after which the agent attests again.
    IfPossible,
}

/// Whose keys a store keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOf {
    /// The agent's own, which it shows its server.
    Agent,
    /// Those of its CA.
    LocalAuthority,
    /// Those that sign JWT-SVIDs beside its CA.
    LocalJwtAuthority,
}

impl KeyOf {
    /// How the names of its files begin.
    fn stem(self) -> &'static str {
        match self {
            Self::Agent => "agent-svid",
            Self::LocalAuthority => "local-authority",
            Self::LocalJwtAuthority => "jwt-authority",
        }
    }
}

/// Two slots for a key of the agent's.
pub struct KeyStore {
    place: KeyPlace,
    of: KeyOf,
    slots: [Slot; 2],
    current: Option<usize>,
    attestation_key: Option<KeyBlob>,
}

enum Slot {
    Empty,
    Key(AgentKey),
    /// There is a file, but no key can be read from it. It is not touched where the certificate that belongs to it may be the only way
    /// back to the server, and set aside where another is wanted and it is not.
    Unreadable,
}

impl KeyStore {
    /// Reads what is kept. A file that cannot be read is logged; the store then works with the other slot.
    pub fn open(place: KeyPlace, of: KeyOf) -> Self {
        let mut store = Self { place, of, slots: [Slot::Empty, Slot::Empty], current: None, attestation_key: None };
        if let KeyPlace::Disk { directory } = &store.place {
            // If this fails, so will reading below or writing later, and that is told.
            let _ = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        }
        for slot in 0..2 {
            store.slots[slot] = store.read_slot(slot).unwrap_or_else(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                error!(%error, cause, "an agent key cannot be read; repair or remove its file");
                Slot::Unreadable
            });
        }
        if let KeyPlace::Tpm { directory, .. } = &store.place {
            // Only a cache: a new one is made when this one is missing or damaged.
            store.attestation_key = read_blob(&attestation_key_path(directory)).unwrap_or_default();
        }
        store
    }

    /// The slot that holds the key `spki_der` becomes current; whether there is one.
    pub fn adopt(&mut self, spki_der: &[u8]) -> bool {
        let holds = |slot: &Slot| matches!(slot, Slot::Key(key) if key.spki_der() == spki_der);
        self.current = self.slots.iter().position(holds);
        self.current.is_some()
    }

    /// The keys of both slots, as far as they can be read.
    pub fn kept(&self) -> impl Iterator<Item = &AgentKey> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Key(key) => Some(key),
            Slot::Empty | Slot::Unreadable => None,
        })
    }

    /// The key of the current certificate.
    pub fn current(&self) -> Option<&AgentKey> {
        match self.slots[self.current?] {
            Slot::Key(ref key) => Some(key),
            Slot::Empty | Slot::Unreadable => None,
        }
    }

    /// A fresh key, kept in the slot that the current certificate does not use.
    pub async fn prepare(&mut self, keep: Keep) -> Result<AgentKey, KeyError> {
        let slot = self.free_slot(keep)?;
        let key = match &self.place {
            KeyPlace::Tpm { tpm, .. } => AgentKey::Tpm(Arc::new(TpmKey::generate(tpm).await?)),
            KeyPlace::Token { token, label, .. } => {
                AgentKey::Token(TokenHeldKey::replace(token, &format!("{label}-{}", slot_name(slot))).await?)
            }
            KeyPlace::Disk { .. } | KeyPlace::Memory => AgentKey::Software(Arc::new(SoftwareKey::generate()?)),
        };
        let (place, of, made) = (self.place.clone(), self.of, key.clone());
        match on_disk(move || write_slot(&place, of, slot, &made)).await {
            Err(error) if keep == Keep::IfPossible => {
                let helps = remedy(&error);
                warn!(error = %describe(&error), "the agent's new key is in memory only: {helps}; after a restart the agent attests again");
            }
            written => written?,
        }
        self.slots[slot] = Slot::Key(key.clone());
        Ok(key)
    }

    /// A slot that neither the current certificate uses nor an unreadable file, if there is one.
    fn free_slot(&mut self, keep: Keep) -> Result<usize, KeyError> {
        let free = |slot: &usize| Some(*slot) != self.current && !matches!(self.slots[*slot], Slot::Unreadable);
        if let Some(slot) = (0..2).find(free) {
            return Ok(slot);
        }
        // Only unreadable ones: perhaps the operator has repaired or removed the file by now.
        let slot = self.current.map_or(0, |current| 1 - current);
        self.slots[slot] = match self.read_slot(slot) {
            Ok(found) => found,
            // With a certificate of the other slot's key, or another to be had by attesting, it is no way back.
            Err(error) if self.current.is_some() || keep == Keep::IfPossible => {
                self.set_aside(error, keep)?;
                Slot::Empty
            }
            Err(error) => return Err(error),
        };
        Ok(slot)
    }

    /// Takes a file that holds no key out of the way, for who wants to look at it. Where that fails, an agent that can attest again goes on
    /// without the disk.
    fn set_aside(&self, unreadable: KeyError, keep: Keep) -> Result<(), KeyError> {
        // One key of several in a file is replaced alone: the others may be the current one.
        if matches!(&self.place, KeyPlace::Disk { directory } if SpireKeys::holds_it_among_others(directory, &unreadable))
        {
            return Ok(());
        }
        let moved = match &unreadable {
            KeyError::Content(path) | KeyError::File { path, .. } => {
                let aside = aside(path);
                fs::rename(path, &aside).map(|()| aside).ok()
            }
            _ => None,
        };
        match moved {
            Some(aside) => {
                warn!(aside = %aside.display(), error = %describe(&unreadable), "a key file that cannot be read is set aside; there is another key");
                Ok(())
            }
            None if keep == Keep::IfPossible => Ok(()),
            None => Err(unreadable),
        }
    }

    /// The attestation key: restricted, a child of the endorsement key named `ek_name`. Made once and kept wrapped, because
    /// making one takes seconds on slow chips; made anew when the device uses another endorsement key.
    pub async fn attestation_key(&mut self, tpm: &Tpm, ek_name: &[u8]) -> Result<KeyBlob, KeyError> {
        if let Some(blob) = self.attestation_key.as_ref().filter(|blob| blob.parent == ek_name) {
            return Ok(blob.clone());
        }
        let blob = tpm.run("create attestation key", |chip| chip.create_attestation_key()).await;
        let blob = blob.map_err(KeyError::Tpm)?;
        if let KeyPlace::Tpm { directory, .. } = &self.place {
            let (path, made) = (attestation_key_path(directory), blob.clone());
            if let Err(error) = on_disk(move || write_blob(&path, &made)).await {
                let helps = remedy(&error);
                warn!(error = %describe(&error), "the attestation key is in memory only: {helps}; after a restart it is made anew");
            }
        }
        self.attestation_key = Some(blob.clone());
        Ok(blob)
    }

    /// The chip no longer takes the attestation key (it was cleared or replaced): the next one is made anew.
    pub fn forget_attestation_key(&mut self) {
        self.attestation_key = None;
    }

    /// The chip's clock, attested by an attestation key that is already there; `None` without one, or without a chip.
    pub async fn tpm_clock(&self) -> Option<TpmClock> {
        let (KeyPlace::Tpm { tpm, .. }, Some(ak)) = (&self.place, self.attestation_key.clone()) else { return None };
        let reading = tpm.run("read clock", move |chip| chip.clock(&ak)).await.ok()?;
        Some(TpmClock { clock_ms: reading.clock_ms, reset_count: reading.reset_count })
    }

    /// Destroys the keys of both slots, where they are and what is noted of them.
    pub async fn wipe(&mut self) -> Result<(), KeyError> {
        (self.slots, self.current) = ([Slot::Empty, Slot::Empty], None);
        if let KeyPlace::Token { token, label, .. } = &self.place {
            for slot in 0..2 {
                TokenHeldKey::destroy(token, &format!("{label}-{}", slot_name(slot))).await?;
            }
        }
        let (place, of) = (self.place.clone(), self.of);
        on_disk(move || remove_slots(&place, of)).await
    }

    fn read_slot(&self, slot: usize) -> Result<Slot, KeyError> {
        let key = match &self.place {
            KeyPlace::Memory => None,
            KeyPlace::Tpm { tpm, directory } => match read_blob(&slot_path(directory, self.of, slot, "tpm"))? {
                Some(blob) => Some(AgentKey::Tpm(Arc::new(TpmKey::new(tpm.clone(), blob)?))),
                None => None,
            },
            KeyPlace::Token { token, directory, .. } => {
                let path = slot_path(directory, self.of, slot, "token");
                let key = |note: Vec<u8>| TokenHeldKey::from_note(token, &note).ok_or(KeyError::Content(path.clone()));
                read_file(&path)?.map(key).transpose()?.map(AgentKey::Token)
            }
            KeyPlace::Disk { directory } => {
                read_disk_slot(directory, slot)?.map(|key| AgentKey::Software(Arc::new(key)))
            }
        };
        Ok(key.map_or(Slot::Empty, Slot::Key))
    }
}

fn write_slot(place: &KeyPlace, of: KeyOf, slot: usize, key: &AgentKey) -> Result<(), KeyError> {
    match (place, key) {
        (KeyPlace::Tpm { directory, .. }, AgentKey::Tpm(key)) => {
            write_blob(&slot_path(directory, of, slot, "tpm"), key.blob())
        }
        (KeyPlace::Token { directory, .. }, AgentKey::Token(key)) => {
            write_file(&slot_path(directory, of, slot, "token"), &key.note())
        }
        (KeyPlace::Disk { directory }, AgentKey::Software(key)) => {
            SpireKeys::read(directory)?.put(directory, slot, key)?;
            let old = slot_path(directory, of, slot, "key");
            durable_file::remove(&old).map_err(|error| KeyError::File { path: old, error })
        }
        _ => Ok(()),
    }
}

fn remove_slots(place: &KeyPlace, of: KeyOf) -> Result<(), KeyError> {
    let (directory, extension) = match place {
        KeyPlace::Tpm { directory, .. } => (directory, "tpm"),
        KeyPlace::Token { directory, .. } => (directory, "token"),
        // A directory of this agent's before it had SPIRE's file has two of these.
        KeyPlace::Disk { directory } => {
            SpireKeys::destroy(directory)?;
            (directory, "key")
        }
        KeyPlace::Memory => return Ok(()),
    };
    let slots = (0..2).map(|slot| slot_path(directory, of, slot, extension));
    slots.flat_map(|path| [aside(&path), path]).try_for_each(remove)
}

/// What helps where a key could not be written.
fn remedy(error: &KeyError) -> &'static str {
    match error {
        KeyError::File { error, .. } => durable_file::remedy(error),
        _ => "see to its file",
    }
}

fn remove(path: PathBuf) -> Result<(), KeyError> {
    durable_file::remove(&path).map_err(|error| KeyError::File { path, error })
}

/// Where a file is put that cannot be read.
pub(super) fn aside(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.damaged", path.display()))
}

/// From SPIRE's file, or where versions before kept it.
fn read_disk_slot(directory: &Path, slot: usize) -> Result<Option<SoftwareKey>, KeyError> {
    if let Some(key) = SpireKeys::read(directory)?.slot(directory, slot)? {
        return Ok(Some(key));
    }
    let path = slot_path(directory, KeyOf::Agent, slot, "key");
    let Some(der) = read_file(&path)?.map(Zeroizing::new) else { return Ok(None) };
    SoftwareKey::parse_pkcs8(&der).map(Some).ok_or(KeyError::Content(path))
}

/// An fsync may take a second on worn flash: not on the thread that serves workloads.
async fn on_disk(write: impl FnOnce() -> Result<(), KeyError> + Send + 'static) -> Result<(), KeyError> {
    tokio::task::spawn_blocking(write).await.unwrap_or(Err(KeyError::Crypto("finish writing a key")))
}

fn slot_path(directory: &Path, of: KeyOf, slot: usize, extension: &str) -> PathBuf {
    directory.join(format!("{}-{}.{extension}", of.stem(), slot_name(slot)))
}

fn slot_name(slot: usize) -> &'static str {
    ["a", "b"][slot]
}

fn attestation_key_path(directory: &Path) -> PathBuf {
    directory.join("attestation-key.tpm")
}

fn read_blob(path: &Path) -> Result<Option<KeyBlob>, KeyError> {
    let Some(bytes) = read_file(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|_| KeyError::Content(path.to_owned()))
}

fn write_blob(path: &Path, blob: &KeyBlob) -> Result<(), KeyError> {
    write_file(path, &serde_json::to_vec(blob).expect("two byte strings always serialise"))
}

fn read_file(path: &Path) -> Result<Option<Vec<u8>>, KeyError> {
    durable_file::read(path, MAX_KEY_FILE_BYTES).map_err(|error| KeyError::File { path: path.to_owned(), error })
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    durable_file::replace(path, bytes).map_err(|error| KeyError::File { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn disk(directory: &Path) -> KeyStore {
        KeyStore::open(KeyPlace::Disk { directory: directory.to_owned() }, KeyOf::Agent)
    }

    //= FLT-A2
    #[tokio::test]
    async fn a_crash_between_new_key_and_new_certificate_loses_neither_key() {
        let directory = tempfile::tempdir().expect("directory");
        let mut store = disk(directory.path());
        let first = store.prepare(Keep::Surely).await.expect("key").spki_der().to_vec();
        assert!(store.adopt(&first));
        let second = store.prepare(Keep::Surely).await.expect("key").spki_der().to_vec();
        for certified in [&first, &second] {
            let mut after_crash = disk(directory.path());
            assert!(after_crash.adopt(certified));
            assert_eq!(after_crash.current().expect("current").spki_der(), certified);
        }
        // A renewal that never came to a certificate is repeated: the current key stays.
        let third = store.prepare(Keep::Surely).await.expect("key").spki_der().to_vec();
        let mut after_crash = disk(directory.path());
        assert!(after_crash.adopt(&first) && after_crash.adopt(&third) && !after_crash.adopt(&second));
    }

    //= FLT-A26
    #[tokio::test]
    async fn a_disk_that_takes_no_key_stops_only_who_could_not_come_back_without_it() {
        let directory = tempfile::tempdir().expect("directory");
        // Where the temporary file should go: the write cannot begin.
        std::fs::create_dir(directory.path().join("keys.json.new")).expect("obstacle");
        let mut store = disk(directory.path());
        assert!(matches!(store.prepare(Keep::Surely).await, Err(KeyError::File { .. })));
        let key = store.prepare(Keep::IfPossible).await.expect("in memory");
        assert!(store.adopt(key.spki_der()));
        assert!(!disk(directory.path()).adopt(key.spki_der()), "a restart knows nothing of it");
        std::fs::remove_dir(directory.path().join("keys.json.new")).expect("room again");
        let next = store.prepare(Keep::Surely).await.expect("kept").spki_der().to_vec();
        assert!(disk(directory.path()).adopt(&next));
    }

    #[tokio::test]
    async fn memory_keys_leave_no_file() {
        let mut store = KeyStore::open(KeyPlace::Memory, KeyOf::Agent);
        let key = store.prepare(Keep::Surely).await.expect("key");
        assert!(store.adopt(key.spki_der()) && !key.is_in_hardware());
        assert!(!store.adopt(b"another key"));
        assert!(store.current().is_none());
    }

    #[tokio::test]
    async fn a_damaged_key_file_is_never_overwritten() {
        let directory = tempfile::tempdir().expect("directory");
        let damaged = slot_path(directory.path(), KeyOf::Agent, 0, "key");
        std::fs::write(&damaged, b"damaged").expect("written");
        let mut store = disk(directory.path());
        let key = store.prepare(Keep::Surely).await.expect("the other slot is free").spki_der().to_vec();
        assert!(store.adopt(&key));
        store.prepare(Keep::Surely).await.expect("there is a certificate of the other slot's key");
        assert!(disk(directory.path()).adopt(&key), "which is not touched");
        assert_eq!(std::fs::read(damaged.with_extension("key.damaged")).expect("kept"), b"damaged");
    }

    //= FLT-A2
    #[tokio::test]
    async fn of_two_keys_in_one_file_the_current_one_stays_when_the_other_cannot_be_read() {
        let directory = tempfile::tempdir().expect("directory");
        let mut store = disk(directory.path());
        let current = store.prepare(Keep::Surely).await.expect("key").spki_der().to_vec();
        let path = directory.path().join("keys.json");
        let text = std::fs::read_to_string(&path)
            .expect("a file")
            .replace("{\n\t\t", "{\n\t\t\"agent-svid-B\": \"AAAA\",\n\t\t");
        std::fs::write(&path, text).expect("written");
        let mut store = disk(directory.path());
        assert!(store.adopt(&current));
        let next = store.prepare(Keep::Surely).await.expect("in the other's place").spki_der().to_vec();
        let mut after_crash = disk(directory.path());
        assert!(after_crash.adopt(&current) && after_crash.adopt(&next), "neither is lost");
    }

    //= FLT-A2
    #[tokio::test]
    async fn key_files_that_cannot_be_read_stop_only_who_could_not_come_back_without_them() {
        for name in ["keys.json", "agent-svid-a.key"] {
            let directory = tempfile::tempdir().expect("directory");
            for name in [name, "agent-svid-b.key"] {
                std::fs::write(directory.path().join(name), b"damaged").expect("written");
                std::fs::set_permissions(directory.path().join(name), Permissions::from_mode(0o600)).expect("set");
            }
            let mut store = disk(directory.path());
            assert!(
                matches!(store.prepare(Keep::Surely).await, Err(KeyError::Content(_))),
                "perhaps the only way back"
            );
            assert_eq!(std::fs::read(directory.path().join(name)).expect("kept"), b"damaged");
            let key = store.prepare(Keep::IfPossible).await.expect("it attests again").spki_der().to_vec();
            assert!(store.adopt(&key) && disk(directory.path()).adopt(&key), "{name}: it is kept");
            assert_eq!(std::fs::read(directory.path().join(format!("{name}.damaged"))).expect("aside"), b"damaged");
        }
    }

    #[tokio::test]
    async fn keys_of_versions_before_are_read_and_move_into_spires_file() {
        let directory = tempfile::tempdir().expect("directory");
        let old = SoftwareKey::generate().expect("key");
        let path = slot_path(directory.path(), KeyOf::Agent, 0, "key");
        std::fs::write(&path, old.pkcs8().pkcs8_der()).expect("written");
        let mut store = disk(directory.path());
        assert!(store.adopt(old.spki_der()));
        for _ in 0..2 {
            let next = store.prepare(Keep::Surely).await.expect("key").spki_der().to_vec();
            assert!(disk(directory.path()).adopt(&next) && store.adopt(&next));
        }
        assert!(!path.exists(), "its slot has a newer key");
        assert!(directory.path().join("keys.json").exists());
    }
}
