//! The firmware's log of what it measured: read before each attestation, sent if the server asks.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ironroot_attest::event_log::MAX_LOG_BYTES;
use ironroot_attest::tpm::TpmAddress;
use nix::fcntl::OFlag;
use tracing::{info, warn};

/// Where the kernel shows the log, for a chip it has as `tpmN`.
const SECURITYFS: &str = "/sys/kernel/security";

/// Name of the copy that the agent's unit makes before it starts the agent, in the service's runtime directory: the kernel shows
/// the log to root and its group alone.
const COPY: &str = "boot-log";

/// Where the log may be, and what was said of it: the same is not said at each attestation.
#[derive(Clone, Debug)]
pub struct BootLogFile {
    paths: Vec<PathBuf>,
    told: Arc<Mutex<Option<String>>>,
}

impl BootLogFile {
    /// At the first of `paths` that can be read; none if it is not to be looked for.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, told: Arc::default() }
    }

    /// The log, if it can be read. A device without one attests without it.
    pub(super) async fn read(&self) -> Option<Vec<u8>> {
        let paths = self.paths.clone();
        // The kernel gives it at once, but it is a file all the same.
        match tokio::task::spawn_blocking(move || read_first(&paths)).await.ok()?? {
            Ok(log) => {
                self.tell(None, |_| {});
                Some(log)
            }
            Err((path, error)) => {
                let (file, is_absent) = (path.display(), error.kind() == io::ErrorKind::NotFound);
                self.tell(Some(error.to_string()), |error| match is_absent {
                    true => info!(%file, "this boot was not measured by firmware, or securityfs is not mounted: there is no boot log to send"),
                    false => warn!(%file, error, "the boot log cannot be read: the device attests without it; the kernel shows it to root and its group alone"),
                });
                None
            }
        }
    }

    /// Says it, unless it was said before.
    fn tell(&self, what: Option<String>, say: impl FnOnce(&str)) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != what {
            if let Some(what) = &what {
                say(what);
            }
            *told = what;
        }
    }
}

/// Where the log of that chip is: in the service's runtime directory, or where the kernel shows it. Nowhere for a chip that the
/// kernel does not know.
pub(crate) fn default_paths(tpm: &TpmAddress) -> Vec<PathBuf> {
    paths_in(tpm, std::env::var_os("RUNTIME_DIRECTORY").as_deref())
}

/// `runtime`: the service's directories, the first one first, as systemd lists them.
fn paths_in(tpm: &TpmAddress, runtime: Option<&OsStr>) -> Vec<PathBuf> {
    let Some(shown) = shown_at(tpm) else { return Vec::new() };
    let copy = runtime.and_then(|all| std::env::split_paths(all).next()).map(|directory| directory.join(COPY));
    copy.into_iter().chain([shown]).collect()
}

fn shown_at(tpm: &TpmAddress) -> Option<PathBuf> {
    let TpmAddress::Device(device) = tpm else { return None };
    let name = device.file_name()?.to_str()?;
    let number = name.strip_prefix("tpmrm").or_else(|| name.strip_prefix("tpm"))?;
    let is_number = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| Path::new(SECURITYFS).join(format!("tpm{number}")).join("binary_bios_measurements"))
}

/// The first that there is, or why it cannot be read; none if there is nowhere to look.
fn read_first(paths: &[PathBuf]) -> Option<Result<Vec<u8>, (PathBuf, io::Error)>> {
    let mut outcome = None;
    for path in paths {
        match read(path) {
            Ok(log) => return Some(Ok(log)),
            Err(error) => outcome = Some(Err((path.clone(), error))),
        }
    }
    outcome
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Without O_NONBLOCK, opening a pipe would wait for its writer.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut log = Vec::new();
    file.take(MAX_LOG_BYTES as u64 + 1).read_to_end(&mut log)?;
    match log.len() {
        0 => Err(io::Error::new(io::ErrorKind::NotFound, "it is empty")),
        bytes if bytes > MAX_LOG_BYTES => {
            Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {MAX_LOG_BYTES} bytes")))
        }
        _ => Ok(log),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_waited_for_where_the_log_should_be() {
        let directory = tempfile::tempdir().expect("directory");
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        for path in [&pipe, directory.path()] {
            let refused = read(path).expect_err("no regular file");
            assert_eq!(refused.to_string(), "it is not a regular file");
        }
    }

    #[test]
    fn the_log_of_a_chip_is_where_the_kernel_shows_it() {
        let paths =
            |address: &str, runtime: Option<&str>| paths_in(&address.parse().expect("legal"), runtime.map(OsStr::new));
        for (device, number) in [("/dev/tpmrm0", "tpm0"), ("/dev/tpm0", "tpm0"), ("/dev/tpmrm12", "tpm12")] {
            let expected = PathBuf::from(format!("/sys/kernel/security/{number}/binary_bios_measurements"));
            assert_eq!(paths(device, None), vec![expected.clone()], "{device}");
            let copy = PathBuf::from("/run/ironroot-agent/boot-log");
            assert_eq!(paths(device, Some("/run/ironroot-agent:/run/other")), [copy, expected], "{device}");
        }
        for other in ["/dev/tpmrm", "/dev/my-chip", "/dev/tpmrm0x", "swtpm:host=127.0.0.1,port=2321"] {
            assert_eq!(paths(other, Some("/run/ironroot-agent")), <[PathBuf; 0]>::default(), "{other}");
        }
    }

    #[tokio::test]
    async fn a_log_is_read_whole_or_not_at_all_and_what_is_wrong_is_said_once() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("log");
        let file = BootLogFile::new(vec![directory.path().join("copy"), path.clone()]);
        let told = || file.told.lock().expect("no panic").clone();
        assert_eq!(BootLogFile::new(Vec::new()).read().await, None);
        assert_eq!(file.read().await, None);
        file.tell(Some(told().expect("told")), |said| panic!("said again: {said}"));
        for (bytes, is_read) in [(1, true), (0, false), (MAX_LOG_BYTES, true), (MAX_LOG_BYTES + 1, false)] {
            std::fs::write(&path, vec![7; bytes]).expect("written");
            assert_eq!(file.read().await, is_read.then(|| vec![7; bytes]), "{bytes}");
            assert_eq!(told().is_none(), is_read, "{bytes}");
        }
    }
}
