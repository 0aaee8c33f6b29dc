//! What is known about the hashes of files. One user's many files push out its own, not another's.

use std::collections::HashMap;
use std::time::Instant;

use super::kinds::FileDigests;
use super::version::FileVersion;

/// Most files remembered. One costs about 250 bytes.
const MAX_REMEMBERED: usize = 512;

/// What is known about one version of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub digests: FileDigests,
    /// What is not among them could not be made, and is not tried again before then.
    pub failed_until: Option<Instant>,
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
        let failed_until = remembered.known.failed_until.filter(|end| *end > now);
        Some(Known { failed_until, ..remembered.known })
    }

    /// Remembers what `uid` paid for, beside what was known.
    pub fn remember(&mut self, uid: u32, version: FileVersion, digests: FileDigests, now: Instant) {
        let digests = digests.or(self.known(&version));
        self.insert(uid, version, Known { digests, failed_until: None }, now);
    }

    /// Remembers that `uid` paid for nothing. What was known stays known.
    pub fn remember_failure(&mut self, uid: u32, version: FileVersion, until: Instant, now: Instant) {
        let digests = self.known(&version);
        self.insert(uid, version, Known { digests, failed_until: Some(until) }, now);
    }

    fn known(&self, version: &FileVersion) -> FileDigests {
        self.0.get(version).map(|remembered| remembered.known.digests).unwrap_or_default()
    }

    fn insert(&mut self, uid: u32, version: FileVersion, known: Known, now: Instant) {
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

    fn sha256(byte: u8) -> FileDigests {
        FileDigests { sha256: Some([byte; 32]), fs_verity: None }
    }

    fn version(ino: u64) -> FileVersion {
        let open = File::open("/proc/self/status").expect("opens");
        FileVersion::of(&fstat(&open).expect("stats")).of_inode(ino)
    }

    #[test]
    fn one_users_files_push_out_its_own_and_stay_bounded() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        memory.remember(1, version(1), sha256(1), now);
        for ino in 2..5_000 {
            memory.remember(2, version(ino), sha256(2), now + Duration::from_millis(ino));
        }
        assert_eq!(memory.0.len(), MAX_REMEMBERED);
        let kept = memory.recall(&version(1), now).expect("the other user's is still there");
        assert_eq!(kept.digests, sha256(1));
        assert!(memory.recall(&version(2), now).is_none() && memory.recall(&version(4_999), now).is_some());
    }

    #[test]
    fn a_failure_is_remembered_for_a_while_and_for_that_version_only() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let end = now + Duration::from_secs(60);
        memory.remember_failure(1, version(1), end, now);
        let failed_until =
            |memory: &mut Memory, now| memory.recall(&version(1), now).and_then(|known| known.failed_until);
        assert_eq!(failed_until(&mut memory, now + Duration::from_secs(59)), Some(end));
        assert!(memory.recall(&version(2), now).is_none());
        assert_eq!(failed_until(&mut memory, end), None);
    }

    #[test]
    fn one_digest_more_and_a_failure_to_make_it_leave_those_that_are_known() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let end = now + Duration::from_secs(60);
        memory.remember(1, version(1), sha256(1), now);
        memory.remember_failure(2, version(1), end, now);
        let failed = Known { digests: sha256(1), failed_until: Some(end) };
        assert_eq!(memory.recall(&version(1), now), Some(failed));
        let fs_verity = FileDigests { sha256: None, fs_verity: Some([2; 32]) };
        memory.remember(1, version(1), fs_verity, now);
        let both = Known { digests: fs_verity.or(sha256(1)), failed_until: None };
        assert_eq!(memory.recall(&version(1), now), Some(both));
    }
}
