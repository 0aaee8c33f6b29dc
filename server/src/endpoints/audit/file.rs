//! The audit's lines in a file of their own, one JSON object a line; and what happens when they cannot be written.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ironroot_api::utc;
use ironroot_shell::clock::wall_unix;
use ironroot_shell::logging::{LogOutput, LoggingError};
use ironroot_shell::telemetry::Counter;
use serde_json::{Value, json};
use tracing::{error, info};

/// Every line is handed to the kernel before the call goes on.
#[derive(Debug)]
pub struct AuditFile {
    output: LogOutput,
    is_required: bool,
    /// Why the last line was not written.
    trouble: Mutex<Option<String>>,
    lost: Counter,
}

impl AuditFile {
    /// Opens it for appending, and writes the line of a start: so it is known from the first call on whether lines are written.
    /// `is_required`: nothing is changed or signed while they are not.
    pub fn open(path: &Path, is_required: bool) -> Result<Self, LoggingError> {
        let output = LogOutput::open(Some(path))?;
        let file = Self { output, is_required, trouble: Mutex::default(), lost: Counter::default() };
        file.write(json!({ "status": "success", "method": "Start" }));
        Ok(file)
    }

    /// Opens the name again, as after a rotation.
    pub fn reopen(&self) {
        self.output.reopen_and_say();
        self.write(json!({ "status": "success", "method": "Reopen" }));
    }

    /// Lines that were not written.
    pub fn lost(&self) -> u64 {
        self.lost.count()
    }

    /// Why nothing may go on now; none if it may. Asks the disk again each time, by a line.
    pub(super) fn must_not_go_on(&self) -> Option<String> {
        if !self.is_required || self.trouble().is_none() {
            return None;
        }
        self.write(json!({ "status": "success", "method": "Resume" }));
        self.trouble().clone()
    }

    pub(super) fn write(&self, mut line: Value) {
        line["time"] = utc(wall_unix()).to_string().into();
        line["type"] = "audit".into();
        let written = self.output.append(&format!("{line}\n"));
        let mut trouble = self.trouble();
        match written {
            Ok(()) => {
                if trouble.take().is_some() {
                    info!(lost = self.lost.count(), "the audit's lines are written again");
                }
            }
            Err(why) => {
                self.lost.one_more();
                if trouble.replace(why.to_string()).is_none() {
                    error!(error = %why, required = self.is_required, "the audit's lines cannot be written");
                }
            }
        }
    }

    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_cannot_be_written_stop_what_must_have_them_and_nothing_else() {
        let full = Path::new("/dev/full");
        let required = AuditFile::open(full, true).expect("opens");
        assert!(required.must_not_go_on().is_some_and(|why| why.contains("space")));
        assert_eq!(AuditFile::open(full, false).expect("opens").must_not_go_on(), None);
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("audit.json");
        let file = AuditFile::open(&path, true).expect("opens");
        file.write(json!({ "object": "a\nb" }));
        assert_eq!((file.must_not_go_on(), file.lost()), (None, 0));
        let lines = std::fs::read_to_string(&path).expect("readable");
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!((lines.len(), &lines[1]["object"], &lines[1]["type"]), (2, &"a\nb".into(), &"audit".into()));
    }
}
