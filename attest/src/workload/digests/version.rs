//! A file as it was written last.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::stat::FileStat;

use crate::workload::wide::wide;

/// A file younger than this may still change within one tick of its timestamps, so its hash is not remembered.
const SETTLED: Duration = Duration::from_secs(2);

/// A file as it was written last: a change of content changes this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::workload) struct FileVersion {
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
            ino: wide(stat.st_ino),
            size: wide(stat.st_size),
            modified: (wide(stat.st_mtime), wide(stat.st_mtime_nsec)),
            changed: (wide(stat.st_ctime), wide(stat.st_ctime_nsec)),
        }
    }

    pub fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(self.changed.0).is_ok_and(|changed| changed + SETTLED.as_secs() < now.as_secs())
    }
}

#[cfg(test)]
impl FileVersion {
    /// The same, had it been written in 2001.
    pub fn as_of_long_ago(self) -> Self {
        Self { changed: (1_000_000_000, 0), ..self }
    }

    /// The same of another file.
    pub fn of_inode(self, ino: u64) -> Self {
        Self { ino, ..self }
    }
}
