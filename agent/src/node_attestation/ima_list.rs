//! The kernel's list of the files it measured (IMA): looked for before each attestation, read from where the server asks. It grows all
//! the while, so no copy will do.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ironroot_attest::ima::read_part;
use ironroot_attest::tpm::TpmAddress;
use nix::fcntl::OFlag;
use tracing::{info, warn};

/// Where the kernel shows it, whatever it calls the chip whose register it extends: the first one.
const SHOWN_AT: &str = "/sys/kernel/security/ima/binary_runtime_measurements";

/// Where the list may be, and what was said of it: the same is not said at each attestation.
#[derive(Clone, Debug)]
pub struct ImaListFile {
    path: Option<PathBuf>,
    told: Arc<Mutex<Option<String>>>,
}

impl ImaListFile {
    /// At that path; nowhere if it is not to be looked for.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path, told: Arc::default() }
    }

    /// Whether there is a list that can be read. A device without one attests without it.
    pub(super) async fn is_there(&self) -> bool {
        let Some(path) = self.path.clone() else { return false };
        let Ok(opened) = tokio::task::spawn_blocking(move || open(&path)).await else { return false };
        let said = opened.as_ref().err().map(ToString::to_string);
        if self.is_news(said.as_ref())
            && let (Err(error), Some(path)) = (&opened, &self.path)
        {
            let (file, error_text) = (path.display(), error.to_string());
            match error.kind() == io::ErrorKind::NotFound {
                true => {
                    info!(%file, "the kernel measures no files (IMA), or securityfs is not mounted: there is no list to send")
                }
                false => {
                    warn!(%file, error = error_text, "the list of measured files (IMA) cannot be read: the device attests without it; the kernel shows it to root and its group alone")
                }
            }
        }
        opened.is_ok()
    }

    /// The entries behind the first `known`, as many as travel at once; none if it cannot be read any more.
    pub(super) async fn part(&self, known: u64) -> Vec<u8> {
        let Some(path) = self.path.clone() else { return Vec::new() };
        let read = move || open(&path).and_then(|list| read_part(BufReader::new(list), known));
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(part)) => part,
            Ok(Err(error)) => {
                warn!(%error, "the list of measured files (IMA) cannot be read");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }

    fn is_news(&self, said: Option<&String>) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = told.as_ref() != said;
        *told = said.cloned();
        is_news
    }
}

/// Where the list of a device with that chip is; nowhere for a chip that the kernel does not know.
pub(crate) fn default_path(tpm: &TpmAddress) -> Option<PathBuf> {
    matches!(tpm, TpmAddress::Device(_)).then(|| SHOWN_AT.into())
}

fn open(path: &std::path::Path) -> io::Result<File> {
    // Without O_NONBLOCK, opening a pipe would wait for its writer.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_list_is_read_from_where_it_is_asked_for_and_what_is_wrong_is_said_once() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("list");
        let list = ImaListFile::new(Some(path.clone()));
        assert!(!list.is_there().await && !ImaListFile::new(None).is_there().await);
        let said = list.told.lock().expect("no panic").clone();
        assert!(said.is_some() && !list.is_news(said.as_ref()));
        assert!(list.part(0).await.is_empty());
        let entry = [&[10, 0, 0, 0][..], &[1; 20], &[3, 0, 0, 0], b"a-b", &[2, 0, 0, 0, 7, 7]].concat();
        std::fs::write(&path, [&entry[..], &entry, &entry[..9]].concat()).expect("written");
        assert!(list.is_there().await && list.is_news(said.as_ref()));
        assert_eq!(list.part(0).await, [&entry[..], &entry].concat(), "whole entries");
        assert_eq!(list.part(1).await, entry);
        assert!(list.part(2).await.is_empty() && list.part(u64::MAX).await.is_empty());
        std::fs::remove_file(&path).expect("removed");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        assert!(!list.is_there().await, "nothing is waited for");
    }

    #[test]
    fn the_list_is_the_kernels_where_the_chip_is() {
        let of = |address: &str| default_path(&address.parse().expect("legal"));
        assert_eq!(of("/dev/tpmrm0"), Some(PathBuf::from(SHOWN_AT)));
        assert_eq!(of("swtpm:host=127.0.0.1,port=2321"), None);
    }
}
