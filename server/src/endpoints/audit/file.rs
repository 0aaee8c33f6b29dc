//! The audit's lines in a file of their own, one JSON object a line; and what happens when they cannot be written.

use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ironroot_api::utc;
use ironroot_shell::clock::wall_unix;
use ironroot_shell::logging::{LogOutput, LoggingError, json_line};
use ironroot_shell::telemetry::Counter;
use serde_json::{Value, json};
use tracing::{error, info};

/// Every line is handed to the kernel before the call goes on.
#[derive(Debug)]
pub struct AuditFile {
    output: LogOutput,
    is_required: bool,
    trouble: Mutex<Option<Trouble>>,
    lost: Counter,
}

/// The disk is asked again so long after it refused a line: callers who try again cost it no more.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The last line was not written.
#[derive(Debug)]
struct Trouble {
    why: String,
    asked: Instant,
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

    /// Whether nothing may go on now. Asks the disk again, by a line, but not for each caller.
    pub(super) fn must_not_go_on(&self) -> bool {
        if !self.is_required {
            return false;
        }
        let asked = self.trouble().as_ref().map(|trouble| trouble.asked);
        let is_due = asked.map_or_else(|| !self.output.has_its_name(), |asked| asked.elapsed() >= ASKED_AGAIN_AFTER);
        if is_due {
            self.write(json!({ "status": "success", "method": "Resume" }));
        }
        self.trouble().is_some()
    }

    /// Why nothing may go on now; none if it may. As `must_not_go_on`.
    pub fn reason(&self) -> Option<String> {
        self.must_not_go_on().then(|| self.trouble().as_ref().map(|trouble| trouble.why.clone()).unwrap_or_default())
    }

    /// Where each line must be kept, it goes to the file that whoever reads it finds: one that was moved away or removed is made anew.
    fn append(&self, line: &str) -> io::Result<()> {
        if self.is_required && !self.output.has_its_name() {
            self.output.reopen()?;
        }
        self.output.append(line)
    }

    pub(super) fn write(&self, mut line: Value) {
        line["time"] = utc(wall_unix()).to_string().into();
        line["type"] = "audit".into();
        let written = self.append(&format!("{}\n", json_line(&line))).map_err(|error| {
            let path = self.output.path().unwrap_or(Path::new("")).display();
            io::Error::new(error.kind(), format!("audit_log_file {path}: {error}"))
        });
        let mut trouble = self.trouble();
        match written {
            Ok(()) => {
                if trouble.take().is_some() {
                    info!(lost = self.lost.count(), "the audit's lines are written again");
                }
            }
            Err(why) => {
                self.lost.one_more();
                let now = Trouble { why: why.to_string(), asked: Instant::now() };
                if trouble.replace(now).is_none_or(|before| before.why != why.to_string()) {
                    error!(error = %why, required = self.is_required, "the audit's lines cannot be written");
                }
            }
        }
    }

    fn trouble(&self) -> MutexGuard<'_, Option<Trouble>> {
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
        assert!(required.must_not_go_on());
        assert!((0..100).all(|_| required.must_not_go_on()));
        assert_eq!(required.lost(), 1, "a hundred callers do not ask the disk a hundred times");
        required.trouble().as_mut().expect("trouble").asked -= ASKED_AGAIN_AFTER;
        assert!(required.must_not_go_on());
        assert_eq!(required.lost(), 2, "after a while it is asked again");
        assert!(!AuditFile::open(full, false).expect("opens").must_not_go_on());
    }

    #[test]
    fn lines_that_must_be_kept_go_to_the_file_of_that_name_or_nothing_goes_on() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("audit.json");
        let file = AuditFile::open(&path, true).expect("opens");
        std::fs::remove_file(&path).expect("removed");
        assert!(!file.must_not_go_on(), "it is made anew");
        assert!(std::fs::read_to_string(&path).expect("there").contains("Resume"));
        std::fs::remove_file(&path).and_then(|()| std::fs::create_dir(&path)).expect("a directory in its place");
        assert!(file.must_not_go_on(), "without a signal");
        file.reopen();
        let reason = file.reason().expect("trouble");
        assert!(reason.contains("audit_log_file") && reason.contains("audit.json"), "{reason}");
        std::fs::remove_dir(&path).expect("removed");
        file.trouble().as_mut().expect("trouble").asked -= ASKED_AGAIN_AFTER;
        assert_eq!(file.reason(), None);
        assert!(path.is_file());
    }

    #[test]
    fn a_line_is_an_object_of_json() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("audit.json");
        let file = AuditFile::open(&path, true).expect("opens");
        file.write(json!({ "object": "a\nb" }));
        assert_eq!((file.must_not_go_on(), file.lost()), (false, 0));
        let lines = std::fs::read_to_string(&path).expect("readable");
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!((lines.len(), &lines[1]["object"], &lines[1]["type"]), (2, &"a\nb".into(), &"audit".into()));
    }
}
