//! Boot states that the operator has signed: whose signature counts, and the files on this device.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ironroot_attest::node::tpm2::{PcrHash, PcrSelection};
use ironroot_attest::pcr_policy::{
    AuthenticPolicy, MAX_POLICY_FILE_BYTES, PolicyAuthority, SignedPolicy, SignedPolicyRefusal,
};
use ironroot_shell::describe;
use thiserror::Error;
use tracing::warn;

use crate::durable_file;

/// Most policies of a directory that are read: an operator signs one for each version of firmware that is still on its way.
pub const MAX_POLICY_FILES: usize = 64;
/// Most names of a directory that are looked at.
const MAX_NAMES: usize = 4096;

/// Who signs boot states, and where the signed ones are. Nothing of it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedStates {
    /// The operator's public key.
    pub authority: PolicyAuthority,
    /// Files `*.json`, one policy each.
    pub directory: PathBuf,
}

/// Why a file in the directory does not count.
#[derive(Debug, Error)]
pub enum PolicyFileRefusal {
    /// The disk does not give it.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
    /// Of more than [`MAX_POLICY_FILES`] the last ones by name count.
    #[error("there are more than {MAX_POLICY_FILES} files; remove those of firmware that is gone")]
    TooMany,
    /// It is read, and not believed.
    #[error(transparent)]
    Policy(#[from] SignedPolicyRefusal),
}

/// A policy that counts, and the file that it is in.
#[derive(Clone, Debug)]
pub struct PolicyFile {
    /// Its name in the directory.
    pub name: String,
    /// What it says.
    pub policy: AuthenticPolicy,
}

/// What the directory holds.
#[derive(Debug, Default)]
pub struct PolicyFiles {
    /// Signed by the operator's key, about the registers that the cache is sealed to.
    pub good: Vec<PolicyFile>,
    /// The others.
    pub refused: Vec<(String, PolicyFileRefusal)>,
}

impl SignedStates {
    /// Reads the directory; one that is not there has no files. Blocks.
    pub fn read(&self, bank: PcrHash, pcrs: PcrSelection) -> PolicyFiles {
        let mut files = PolicyFiles::default();
        let names = match names(&self.directory) {
            Ok(names) => names,
            Err(error) => {
                files.refused.push((self.directory.display().to_string(), PolicyFileRefusal::Io(error)));
                return files;
            }
        };
        for (place, name) in names.into_iter().rev().enumerate() {
            let shown = name.to_string_lossy().into_owned();
            if place == MAX_POLICY_FILES {
                files.refused.push((shown, PolicyFileRefusal::TooMany));
                break;
            }
            match self.read_file(&self.directory.join(name), bank, pcrs) {
                Ok(policy) => files.good.push(PolicyFile { name: shown, policy }),
                Err(refusal) => files.refused.push((shown, refusal)),
            }
        }
        files
    }

    fn read_file(&self, path: &Path, bank: PcrHash, pcrs: PcrSelection) -> Result<AuthenticPolicy, PolicyFileRefusal> {
        let bytes = match durable_file::read(path, MAX_POLICY_FILE_BYTES) {
            Ok(bytes) => bytes.ok_or_else(|| PolicyFileRefusal::Io(io::ErrorKind::NotFound.into()))?,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(SignedPolicyRefusal::TooLarge)?,
            Err(error) => return Err(PolicyFileRefusal::Io(error)),
        };
        let policy = SignedPolicy::parse(&bytes)?.authenticate(&self.authority)?;
        policy.about(bank, pcrs)?;
        Ok(policy)
    }
}

/// The names that a policy may have, in order.
fn names(directory: &Path) -> io::Result<BTreeSet<OsString>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    let name = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name());
    let is_policy = |name: &io::Result<OsString>| {
        name.as_ref().map_or(true, |name| Path::new(name).extension().is_some_and(|e| e == "json"))
    };
    entries.take(MAX_NAMES).map(name).filter(is_policy).collect()
}

/// What was said of files: each refusal once.
#[derive(Debug, Default)]
pub struct Told(BTreeSet<(String, String)>);

impl Told {
    /// Warns of what is new, and forgets what is gone.
    pub fn tell(&mut self, directory: &Path, refused: &[(String, PolicyFileRefusal)]) {
        let now: BTreeSet<_> = refused.iter().map(|(file, why)| (file.clone(), describe(why))).collect();
        for (file, error) in now.difference(&self.0) {
            let directory = directory.display().to_string();
            warn!(directory, file, error, "a signed boot policy does not count");
        }
        self.0 = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The generator of P-256 as a public key.
    const KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt
6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==
-----END PUBLIC KEY-----
";

    fn states(directory: &Path) -> SignedStates {
        let authority = PolicyAuthority::from_pem(KEY).expect("the generator of P-256");
        SignedStates { authority, directory: directory.to_owned() }
    }

    fn read(directory: &Path) -> PolicyFiles {
        states(directory).read(PcrHash::Sha256, "7".parse().expect("legal"))
    }

    #[test]
    fn a_directory_that_is_not_there_has_no_files_and_one_that_is_none_is_told() {
        let directory = tempfile::tempdir().expect("directory");
        let nothing = read(&directory.path().join("none"));
        assert!(nothing.good.is_empty() && nothing.refused.is_empty());
        let file = directory.path().join("file");
        fs::write(&file, b"").expect("written");
        assert!(matches!(&read(&file).refused[..], [(_, PolicyFileRefusal::Io(_))]));
    }

    #[test]
    fn files_that_are_no_policies_are_refused_by_name_and_others_are_left_alone() {
        let directory = tempfile::tempdir().expect("directory");
        let put = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).expect("written");
        put("notes.txt", b"not looked at");
        put("cut.json", b"{\"format\":");
        put("huge.json", &vec![b' '; MAX_POLICY_FILE_BYTES + 1]);
        fs::create_dir(directory.path().join("folder.json")).expect("made");
        std::os::unix::fs::symlink("/etc/hostname", directory.path().join("link.json")).expect("linked");
        let refused: Vec<_> = read(directory.path()).refused;
        let said = |name: &str| &refused.iter().find(|(file, _)| file == name).expect("refused").1;
        use SignedPolicyRefusal::{Malformed, TooLarge};
        assert!(matches!(said("cut.json"), PolicyFileRefusal::Policy(Malformed(_))));
        assert!(matches!(said("huge.json"), PolicyFileRefusal::Policy(TooLarge)));
        assert!(matches!(said("folder.json"), PolicyFileRefusal::Policy(TooLarge)));
        assert!(matches!(said("link.json"), PolicyFileRefusal::Io(_)));
        assert_eq!(refused.len(), 4);
    }

    #[test]
    fn of_too_many_files_the_last_ones_by_name_are_read() {
        let directory = tempfile::tempdir().expect("directory");
        for number in 0..MAX_POLICY_FILES + 3 {
            fs::write(directory.path().join(format!("{number:03}.json")), b"{}").expect("written");
        }
        let refused = read(directory.path()).refused;
        assert_eq!(refused.len(), MAX_POLICY_FILES + 1);
        let (name, last) = refused.last().expect("some");
        assert!(name == "002.json" && matches!(last, PolicyFileRefusal::TooMany), "{name} {last}");
    }
}
