//! The log, read and proven by whoever may read its files; the server may be writing meanwhile.

use std::collections::VecDeque;
use std::path::Path;

use super::chain::{Head, Record};
use super::error::LogError;
use super::{kept, segment};

/// What was read and found to hang together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What comes before the oldest record that is kept.
    pub before: Head,
    /// With the newest.
    pub head: Head,
    /// How many were read.
    pub records: u64,
}

/// Reads every segment in `directory`, the oldest first, and gives each record to `take`; none if there is no log.
pub fn read(directory: &Path, mut take: impl FnMut(&Record, &Head)) -> Result<Option<Reading>, LogError> {
    let mut reading: Option<Reading> = None;
    let (segments, _) = segment::list_begun(directory)?;
    for path in segments {
        let mut records = 0;
        let (before, head, _) = segment::read(&path, |record, head| {
            records += 1;
            take(&record, &head);
        })?;
        reading = Some(match reading {
            Some(so_far) if so_far.head != before => return Err(LogError::Gap(path)),
            Some(so_far) => Reading { head, records: so_far.records + records, ..so_far },
            None => Reading { before, head, records },
        });
    }
    Ok(reading)
}

/// Of the newest records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    /// When the newest was written, UNIX seconds.
    pub at: i64,
    /// How far the data store had come when those were written that say so, of the newest epoch; none if none does.
    pub revision: Option<i64>,
}

/// What the newest records say; none if there are none. Only the newest segment with records is read.
pub fn read_newest(directory: &Path) -> Result<Option<Newest>, LogError> {
    if !directory.is_dir() {
        return Ok(None);
    }
    let (segments, _) = segment::list_begun(directory)?;
    for path in segments.iter().rev() {
        let mut last: Option<(u64, Newest)> = None;
        segment::read(path, |Record { body, .. }, _| {
            let of_before = last.filter(|(epoch, _)| *epoch == body.epoch).and_then(|(_, newest)| newest.revision);
            last = Some((body.epoch, Newest { at: body.at, revision: body.revision.or(of_before) }));
        })?;
        if let Some((_, newest)) = last {
            return Ok(Some(newest));
        }
    }
    Ok(None)
}

/// The last `count` records.
pub fn read_last(directory: &Path, count: usize) -> Result<Vec<Record>, LogError> {
    let mut last = Last::new(count);
    read(directory, |record, _| last.push(record))?;
    Ok(last.0.into())
}

/// The last `count` records of what operators did, also those whose segments are gone.
pub fn read_last_kept(directory: &Path, count: usize) -> Result<Vec<Record>, LogError> {
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let (mut last, mut until) = (Last::new(count), 0);
    kept::read_kept(directory, |record| {
        until = record.body.sequence;
        last.push(record);
    })?;
    read(directory, |record, _| {
        if record.body.sequence > until && kept::is_kept(record) {
            last.push(record);
        }
    })?;
    Ok(last.0.into())
}

/// As many records as are wanted, the newest.
struct Last(VecDeque<Record>, usize);

impl Last {
    fn new(count: usize) -> Self {
        Self(VecDeque::with_capacity(count.min(1024)), count)
    }

    fn push(&mut self, record: &Record) {
        if self.1 == 0 {
            return;
        }
        if self.0.len() == self.1 {
            self.0.pop_front();
        }
        self.0.push_back(record.clone());
    }
}
