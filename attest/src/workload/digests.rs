//! SHA-256 and fs-verity digests of executables: remembered per version of the file, failures too, and made within the bounds of its user.
//!
//! ```text
//!  known? ─► answer          else: the user's turn (one hash at a time, a share of a core) ─► known by now? ─► hash ─► remember
//! ```

mod fs_verity;
mod kinds;
mod memory;
mod turns;
mod version;

use std::fs::File;
use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use nix::sys::stat::fstat;
use tracing::debug;

use super::withheld::Withheld;
use fs_verity::FsVerity;
pub(super) use kinds::{DigestDemand, FileDigests};
use memory::Memory;
use turns::Turns;
pub(super) use version::FileVersion;

/// What could not be hashed is not tried again for this long, unless the file changes. Longer than a busy start of a
/// device lasts, since that may have been the reason.
const FAILURE_KEPT: Duration = Duration::from_secs(120);
const CHUNK_BYTES: usize = 64 * 1024;

/// Hashes and what is known about them.
#[derive(Debug, Default)]
pub(super) struct Digests {
    memory: Mutex<Memory>,
    turns: Turns,
}

impl Digests {
    /// What is `wanted` of `file`, which is at its start and was of `version` when it was opened, at the cost of `uid`. It is read once.
    pub fn of(
        &self,
        uid: u32,
        file: &File,
        version: FileVersion,
        wanted: DigestDemand,
        deadline: Instant,
    ) -> Result<FileDigests, Withheld> {
        if let Some(answer) = self.known(&version, wanted) {
            return answer;
        }
        let turn = self.turns.take(uid, deadline)?;
        // The turn before may have been for the same file.
        if let Some(answer) = self.known(&version, wanted) {
            return answer;
        }
        let hashed = hash(uid, file, wanted, deadline);
        drop(turn);
        let changed = FileVersion::of(&fstat(file).map_err(|errno| Withheld::Read(errno.into()))?) != version;
        match &hashed {
            _ if changed => return Err(Withheld::Changed),
            Ok(digests) if version.is_settled() => self.remember(uid, version, *digests),
            Ok(_) => {}
            Err(_) => {
                let now = Instant::now();
                self.memory().remember_failure(uid, version, now + FAILURE_KEPT, now);
            }
        }
        hashed
    }

    fn known(&self, version: &FileVersion, wanted: DigestDemand) -> Option<Result<FileDigests, Withheld>> {
        let known = self.memory().recall(version, Instant::now())?;
        match known.digests.satisfy(wanted) {
            true => Some(Ok(known.digests)),
            false => known.failed_until.map(|_| Err(Withheld::FailedBefore)),
        }
    }

    fn remember(&self, uid: u32, version: FileVersion, digests: FileDigests) {
        self.memory().remember(uid, version, digests, Instant::now());
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(uid: u32, mut file: &File, wanted: DigestDemand, deadline: Instant) -> Result<FileDigests, Withheld> {
    let mut sha256 = wanted.sha256.then(|| Context::new(&SHA256));
    let mut fs_verity = wanted.fs_verity.then(FsVerity::default);
    let (mut chunk, mut bytes) = (vec![0; CHUNK_BYTES], 0);
    let began = Instant::now();
    let outcome = loop {
        match file.read(&mut chunk) {
            Err(error) => break Err(Withheld::Read(error)),
            Ok(0) => break Ok(()),
            Ok(n) => {
                sha256.iter_mut().for_each(|context| context.update(&chunk[..n]));
                fs_verity.iter_mut().for_each(|tree| tree.update(&chunk[..n]));
                bytes += n;
            }
        }
        //= FLT-A16 agent faults: "its hash is given up at a deadline"
        if Instant::now() > deadline {
            break Err(Withheld::TooSlow);
        }
    };
    debug!(uid, bytes, ms = began.elapsed().as_millis() as u64, whole = outcome.is_ok(), "hashed an executable");
    outcome?;
    let sha256 = sha256.map(|context| context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"));
    Ok(FileDigests { sha256, fs_verity: fs_verity.map(FsVerity::finish) })
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;
    use std::io::{Seek, Write};
    use std::time::UNIX_EPOCH;

    use ironroot_text::hex::hex;

    use super::*;

    /// SHA-256 of "abc". Source: FIPS 180-4 examples.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    /// What `fsverity digest` (fsverity-utils 1.5) prints of it.
    const ABC_FS_VERITY: &str = "700b6bd8510f0b4f9bac8b9cf0459151a1c4a99f467892bb4bd289a67df8e19c";
    const SHA256_ALONE: DigestDemand = DigestDemand { sha256: true, fs_verity: false };
    const BOTH: DigestDemand = DigestDemand { sha256: true, fs_verity: true };

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(content).expect("writes");
        file
    }

    fn version(file: &File) -> FileVersion {
        FileVersion::of(&fstat(file).expect("stats"))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn hashes_the_open_file_and_remembers_settled_versions_only() {
        let digests = Digests::default();
        let named = file(b"abc");
        let open = File::open(named.path()).expect("opens");
        let young = version(&open);
        let digest = digests.of(1, &open, young, SHA256_ALONE, soon()).expect("hashes");
        assert_eq!((digest.sha256.map(|hash| hex(&hash)).as_deref(), digest.fs_verity), (Some(ABC), None));
        assert!(!young.is_settled());
        assert!(digests.known(&young, SHA256_ALONE).is_none(), "it may change within this tick");

        let settled = young.as_of_long_ago();
        let kept = FileDigests { sha256: Some([7; 32]), fs_verity: None };
        digests.remember(1, settled, kept);
        assert_eq!(digests.of(2, &open, settled, SHA256_ALONE, soon()).expect("remembers"), kept);
        assert!(digests.known(&settled, BOTH).is_none(), "one does not stand for the other");
    }

    #[test]
    fn both_digests_come_of_one_reading() {
        let named = file(b"abc");
        let mut open = File::open(named.path()).expect("opens");
        let found = Digests::default().of(1, &open, version(&open), BOTH, soon()).expect("hashes");
        let texts = (found.sha256.map(|hash| hex(&hash)), found.fs_verity.map(|hash| hex(&hash)));
        assert_eq!(texts, (Some(ABC.to_owned()), Some(ABC_FS_VERITY.to_owned())));
        assert_eq!(open.stream_position().expect("seeks"), 3, "read to its end, from its start");
    }

    #[test]
    fn a_file_that_changes_under_the_hash_has_none() {
        let named = file(b"abc");
        let open = File::open(named.path()).expect("opens");
        let before = version(&open);
        let times = FileTimes::new().set_modified(UNIX_EPOCH);
        File::options().write(true).open(named.path()).and_then(|f| f.set_times(times)).expect("touches");
        assert!(matches!(Digests::default().of(1, &open, before, SHA256_ALONE, soon()), Err(Withheld::Changed)));
    }

    //= FLT-A16
    #[test]
    fn a_file_of_forty_gigabytes_is_given_up_at_the_deadline_and_read_no_second_time() {
        let named = file(b"");
        named.as_file().set_len(40 << 30).expect("sparse");
        let mut open = File::open(named.path()).expect("opens");
        let (digests, began) = (Digests::default(), Instant::now());
        let deadline = began + Duration::from_millis(20);
        assert!(matches!(digests.of(1, &open, version(&open), BOTH, deadline), Err(Withheld::TooSlow)));
        assert!(began.elapsed() < Duration::from_secs(5));
        open.rewind().expect("seeks");
        for uid in 0..100 {
            assert!(matches!(digests.of(uid, &open, version(&open), BOTH, soon()), Err(Withheld::FailedBefore)));
        }
        assert_eq!(open.stream_position().expect("seeks"), 0, "not a byte of it was read again");
    }
}
