//! What is known about the hashes of files. One user's many files push out its own, not another's.

use std::collections::HashMap;
use std::time::Instant;

use super::version::FileVersion;

/// Most files remembered. One costs about 200 bytes.
const MAX_REMEMBERED: usize = 512;

/// What is known about one version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Its SHA-256.
    Digest([u8; 32]),
    /// It could not be hashed, and is not tried again before then.
    FailedUntil(Instant),
}

#[derive(Debug)]
struct Remembered {
    known: Known,
    uid: u32,
    used: Instant,
}

/// At most [`MAX_REMEMBERED`] files.
#[derive(Debug, Default)]
pub(super) struct Memory(HashMap<FileVersion, Remembered>);

impl Memory {
    pub fn recall(&mut self, version: &FileVersion, now: Instant) -> Option<Known> {
        let remembered = self.0.get_mut(version)?;
        remembered.used = now;
        match remembered.known {
            Known::FailedUntil(end) if end <= now => None,
            known => Some(known),
        }
    }

    /// Remembers what `uid` paid for.
    pub fn remember(&mut self, uid: u32, version: FileVersion, known: Known, now: Instant) {
        if self.0.len() >= MAX_REMEMBERED && !self.0.contains_key(&version) {
            self.forget_one();
        }
        self.0.insert(version, Remembered { known, uid, used: now });
    }

    /// What has not been asked for longest, of the user that has most.
    fn forget_one(&mut self) {
        let mut counts: HashMap<u32, usize> = HashMap::new();
        self.0.values().for_each(|remembered| *counts.entry(remembered.uid).or_default() += 1);
        let Some(largest) = counts.into_iter().max_by_key(|(uid, count)| (*count, *uid)).map(|(uid, _)| uid) else {
            return;
        };
        let theirs = self.0.iter().filter(|(_, remembered)| remembered.uid == largest);
        if let Some(oldest) = theirs.min_by_key(|(_, remembered)| remembered.used).map(|(version, _)| *version) {
            self.0.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use nix::sys::stat::fstat;

    use super::*;

    fn version(ino: u64) -> FileVersion {
        let open = File::open("/proc/self/status").expect("opens");
        FileVersion::of(&fstat(&open).expect("stats")).of_inode(ino)
    }

    #[test]
    fn one_users_files_push_out_its_own_and_stay_bounded() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        memory.remember(1, version(1), Known::Digest([1; 32]), now);
        for ino in 2..5_000 {
            memory.remember(2, version(ino), Known::Digest([2; 32]), now + Duration::from_millis(ino));
        }
        assert_eq!(memory.0.len(), MAX_REMEMBERED);
        assert_eq!(memory.recall(&version(1), now), Some(Known::Digest([1; 32])), "the other user's is still there");
        assert!(memory.recall(&version(2), now).is_none() && memory.recall(&version(4_999), now).is_some());
    }

    #[test]
    fn a_failure_is_remembered_for_a_while_and_for_that_version_only() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let end = now + Duration::from_secs(60);
        memory.remember(1, version(1), Known::FailedUntil(end), now);
        assert!(memory.recall(&version(1), now + Duration::from_secs(59)).is_some());
        assert!(memory.recall(&version(2), now).is_none());
        assert!(memory.recall(&version(1), end).is_none());
    }
}
