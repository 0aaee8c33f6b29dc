//! Private keys in this process, and in a file: whoever reads either has them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ironroot_hsm::KeyKind;

use super::error::KeyError;
use super::file::KeyFile;
use super::software::SoftwareKey;

/// Keys by their IDs: `KeyManager "memory"`, and, with a file, `KeyManager "disk"`.
#[derive(Clone)]
pub struct SoftwareKeys {
    file: Option<KeyFile>,
    keys: Arc<Mutex<BTreeMap<String, Arc<SoftwareKey>>>>,
    /// Held while the file is written, so that whoever looks for a key waits for no disk.
    writing: Arc<Mutex<()>>,
}

impl SoftwareKeys {
    /// None yet; gone when the process ends.
    pub fn in_memory() -> Self {
        Self { file: None, keys: Arc::default(), writing: Arc::default() }
    }

    /// Those of the file; none if there is no file yet. Blocks.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let file = KeyFile::at(path);
        let keys = file.read()?.into_iter().map(|(id, key)| (id, Arc::new(key))).collect();
        Ok(Self { file: Some(file), keys: Arc::new(Mutex::new(keys)), writing: Arc::default() })
    }

    /// Where they are kept; none: in memory only.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(KeyFile::path)
    }

    /// The key of this ID.
    pub fn find(&self, id: &str) -> Option<Arc<SoftwareKey>> {
        self.lock().get(id).cloned()
    }

    /// Makes a key of this ID, in the place of one that is there; it is in the file on return. Blocks.
    pub fn generate(&self, id: &str, kind: KeyKind) -> Result<Arc<SoftwareKey>, KeyError> {
        let key = Arc::new(SoftwareKey::generate(kind)?);
        self.change(|keys| keys.insert(id.to_owned(), Arc::clone(&key)))?;
        Ok(key)
    }

    /// Forgets a key, in the file too; whether there was one. Blocks.
    pub fn destroy(&self, id: &str) -> Result<bool, KeyError> {
        if self.find(id).is_none() {
            return Ok(false);
        }
        self.change(|keys| keys.remove(id)).map(|gone| gone.is_some())
    }

    /// On disk first; in memory only then.
    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Arc<SoftwareKey>>) -> T) -> Result<T, KeyError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = self.lock().clone();
        let changed = change(&mut next);
        if let Some(file) = &self.file {
            file.replace(next.iter().map(|(id, key)| (id.as_str(), &**key)))?;
        }
        *self.lock() = next;
        Ok(changed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<SoftwareKey>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SoftwareKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path() {
            Some(path) => write!(f, "SoftwareKeys({})", path.display()),
            None => f.write_str("SoftwareKeys(in memory)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
        VerificationAlgorithm,
    };
    use ironroot_api::MlDsa;
    use ironroot_api::csr::Spki;

    use super::*;

    #[test]
    fn keys_of_every_kind_sign_and_are_the_same_after_a_restart() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("keys.json");
        let keys = SoftwareKeys::open(&path).expect("no file is no error");
        let kinds: [(KeyKind, &'static dyn VerificationAlgorithm); 7] = [
            (KeyKind::EcP256, &ECDSA_P256_SHA256_FIXED),
            (KeyKind::EcP384, &ECDSA_P384_SHA384_FIXED),
            (KeyKind::Rsa2048, &RSA_PKCS1_2048_8192_SHA256),
            (KeyKind::Rsa4096, &RSA_PKCS1_2048_8192_SHA256),
            (KeyKind::MlDsa(MlDsa::MlDsa44), MlDsa::MlDsa44.verification()),
            (KeyKind::MlDsa(MlDsa::MlDsa65), MlDsa::MlDsa65.verification()),
            (KeyKind::MlDsa(MlDsa::MlDsa87), MlDsa::MlDsa87.verification()),
        ];
        for (kind, algorithm) in kinds {
            let made = keys.generate("key", kind).expect("made");
            let found = SoftwareKeys::open(&path).expect("read").find("key").expect("there");
            assert_eq!((found.kind(), found.spki_der()), (kind, made.spki_der()));
            assert_eq!(Spki::parse(found.spki_der()).expect("a key").key(), found.public_key());
            let signature = found.sign(b"message").expect("signs");
            UnparsedPublicKey::new(algorithm, made.public_key()).verify(b"message", &signature).expect("its own");
        }
        assert!(keys.destroy("key").expect("written") && !keys.destroy("key").expect("nothing to do"));
        assert!(SoftwareKeys::open(&path).expect("read").find("key").is_none());
    }

    #[test]
    fn a_key_that_could_not_be_written_is_not_used() {
        let directory = tempfile::tempdir().expect("directory");
        let keys = SoftwareKeys::open(&directory.path().join("absent/keys.json")).expect("no file is no error");
        keys.generate("key", KeyKind::EcP256).expect_err("there is no such directory");
        assert!(keys.find("key").is_none());
        let memory = SoftwareKeys::in_memory();
        memory.generate("key", KeyKind::EcP256).expect("nothing is written");
        assert!(memory.find("key").is_some());
    }
}
