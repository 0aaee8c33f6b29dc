//! SHA-256 of executables, remembered per version of the file.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{Context, SHA256};
use nix::sys::stat::{FileStat, fstat};

use super::executable::Withheld;

/// Most files remembered. One costs about 150 bytes.
const MAX_REMEMBERED: usize = 512;
/// A file younger than this may still change within one tick of its timestamps, so its hash is not remembered.
const SETTLED: Duration = Duration::from_secs(2);
const CHUNK_BYTES: usize = 64 * 1024;

/// A file as it was written last: a change of content changes this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileVersion {
    dev: u64,
    ino: u64,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileVersion {
    pub fn of(stat: &FileStat) -> Self {
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(self.changed.0).is_ok_and(|changed| changed + SETTLED.as_secs() < now.as_secs())
    }
}

/// The memory.
#[derive(Debug, Default)]
pub(super) struct Digests(Mutex<HashMap<FileVersion, [u8; 32]>>);

impl Digests {
    /// The SHA-256 of `file`, which is at its start and was of `version` when it was opened.
    pub fn of(&self, file: &File, version: FileVersion, deadline: Instant) -> Result<[u8; 32], Withheld> {
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&version) {
            return Ok(*known);
        }
        let digest = hash(file, deadline)?;
        let after = fstat(file).map_err(|errno| Withheld::Read(errno.into()))?;
        if FileVersion::of(&after) != version {
            return Err(Withheld::Changed);
        }
        if version.is_settled() {
            self.remember(version, digest);
        }
        Ok(digest)
    }

    fn remember(&self, version: FileVersion, digest: [u8; 32]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_REMEMBERED {
            // Forgetting everything is the cheapest way to stay small; a device runs far fewer programs than this.
            known.clear();
        }
        known.insert(version, digest);
    }
}

fn hash(mut file: &File, deadline: Instant) -> Result<[u8; 32], Withheld> {
    let (mut context, mut chunk) = (Context::new(&SHA256), vec![0; CHUNK_BYTES]);
    loop {
        match file.read(&mut chunk).map_err(Withheld::Read)? {
            0 => break,
            n => context.update(&chunk[..n]),
        }
        if Instant::now() > deadline {
            return Err(Withheld::TooSlow);
        }
    }
    Ok(context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;
    use std::io::Write;

    use super::*;

    /// SHA-256 of "abc". Source: FIPS 180-4 examples.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

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
        let digest = digests.of(&open, young, soon()).expect("hashes");
        assert_eq!(digest.map(|b| format!("{b:02x}")).concat(), ABC);
        assert!(!young.is_settled());
        assert!(digests.0.lock().expect("unpoisoned").is_empty(), "it may change within this tick");

        let settled = FileVersion { changed: (1_000_000_000, 0), ..young };
        digests.remember(settled, [7; 32]);
        assert_eq!(digests.of(&open, settled, soon()).expect("remembers"), [7; 32]);
    }

    #[test]
    fn a_file_that_changes_under_the_hash_has_none() {
        let named = file(b"abc");
        let open = File::open(named.path()).expect("opens");
        let before = version(&open);
        let times = FileTimes::new().set_modified(UNIX_EPOCH);
        File::options().write(true).open(named.path()).and_then(|f| f.set_times(times)).expect("touches");
        assert!(matches!(Digests::default().of(&open, before, soon()), Err(Withheld::Changed)));
    }

    #[test]
    fn gives_up_on_ten_gibibytes_at_the_deadline() {
        let named = file(b"");
        named.as_file().set_len(10 << 30).expect("sparse");
        let open = File::open(named.path()).expect("opens");
        let began = Instant::now();
        let deadline = began + Duration::from_millis(20);
        assert!(matches!(Digests::default().of(&open, version(&open), deadline), Err(Withheld::TooSlow)));
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn memory_stays_bounded() {
        let digests = Digests::default();
        let open = File::open("/proc/self/status").expect("opens");
        for ino in 0..5_000 {
            digests.remember(FileVersion { ino, ..version(&open) }, [0; 32]);
        }
        assert!(digests.0.lock().expect("unpoisoned").len() <= MAX_REMEMBERED);
    }
}
