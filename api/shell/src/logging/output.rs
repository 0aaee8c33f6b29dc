//! Where log lines go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use arc_swap::ArcSwap;
use nix::sys::signal::{SigSet, Signal};
use tracing_subscriber::fmt::MakeWriter;

use super::LoggingError;
use crate::printable::is_printable;

/// Mode of a new log file: other users of the machine have no business in it.
const FILE_MODE: u32 = 0o640;

/// Longest line written, bytes. Nothing we log on purpose comes near it; a value that somebody forgot to clip may. A line of
/// JSON that is cut is not JSON any more.
const MAX_LINE_BYTES: usize = 32 * 1024;

/// Standard error, or a file that can be opened anew under the same name.
#[derive(Clone, Debug)]
pub struct LogOutput {
    file: Option<Arc<LogFile>>,
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    current: ArcSwap<File>,
}

impl LogOutput {
    /// Opens `path` for appending, or takes standard error.
    pub fn open(path: Option<&Path>) -> Result<Self, LoggingError> {
        let Some(path) = path else { return Ok(Self { file: None }) };
        let file = open_for_append(path).map_err(|error| LoggingError::Open(path.to_owned(), error))?;
        Ok(Self { file: Some(Arc::new(LogFile { path: path.to_owned(), current: ArcSwap::from_pointee(file) })) })
    }

    /// Appends a line that is no event of the log's.
    pub fn append(&self, line: &str) -> io::Result<()> {
        self.make_writer().write_all(line.as_bytes())
    }

    /// Opens the file's name again, so that lines stop going to a file that was moved away. Keeps the old file if that
    /// fails.
    pub fn reopen(&self) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.current.store(Arc::new(open_for_append(&file.path)?));
        }
        Ok(())
    }

    /// [`reopen`](Self::reopen)s a file and says how that went, in the log.
    pub fn reopen_and_say(&self) {
        match self.reopen() {
            Ok(()) if self.file.is_some() => tracing::info!("log file reopened"),
            Ok(()) => {}
            Err(error) => {
                let file = self.path().unwrap_or(Path::new("")).display();
                tracing::error!(%error, %file, "could not reopen the log file, the old one stays open");
            }
        }
    }

    /// The file's name; none of standard error.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    /// Whether what is appended goes to a file that has the name still.
    pub fn has_its_name(&self) -> bool {
        let Some(file) = &self.file else { return true };
        let (open, named) = (file.current.load().metadata(), std::fs::metadata(&file.path));
        matches!((open, named), (Ok(open), Ok(named)) if (open.dev(), open.ino()) == (named.dev(), named.ino()))
    }

    /// Keeps SIGUSR2 from ending the process and, for a file, starts the thread that reopens it on the signal.
    pub(super) fn reopen_on_sigusr2(&self) -> io::Result<()> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGUSR2);
        signals.thread_block()?;
        if self.file.is_none() {
            return Ok(());
        }
        let output = self.clone();
        thread::Builder::new().name("log-reopen".to_owned()).spawn(move || {
            while signals.wait().is_ok() {
                output.reopen_and_say();
            }
        })?;
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogOutput {
    type Writer = LineWriter;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter { file: self.file.as_ref().map(|file| file.current.load_full()) }
    }
}

/// Takes one event's whole text and writes it as one line, whatever a peer put into its fields.
#[derive(Debug)]
pub struct LineWriter {
    file: Option<Arc<File>>,
}

impl Write for LineWriter {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = one_line(event);
        match &self.file {
            Some(file) => (&**file).write_all(&line)?,
            None => io::stderr().lock().write_all(&line)?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open_for_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)
}

/// `event` with every character that is not [printable](is_printable) but tabs and the closing newline written as an escape, cut at
/// [`MAX_LINE_BYTES`].
fn one_line(event: &[u8]) -> Vec<u8> {
    let body = event.strip_suffix(b"\n").unwrap_or(event);
    let shown = (0..=body.len().min(MAX_LINE_BYTES)).rev().find(|at| begins_a_character(body, *at)).unwrap_or(0);
    let mut line = Vec::with_capacity(shown + 1);
    for chunk in body[..shown].utf8_chunks() {
        //= FLT-S21 server faults: "an event is one line"
        chunk.valid().chars().for_each(|c| put(&mut line, c));
        line.extend(chunk.invalid().escape_ascii());
    }
    if shown < body.len() {
        line.extend(format!("... ({} bytes)", body.len()).bytes());
    }
    line.push(b'\n');
    line
}

fn put(line: &mut Vec<u8>, c: char) {
    match u8::try_from(c) {
        _ if c == '\t' || is_printable(c) => line.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        Ok(byte @ ..=0x7f) => line.extend(byte.escape_ascii()),
        _ => line.extend(c.escape_default().map(|c| c as u8)),
    }
}

/// Whether a character of UTF-8 begins at `at`, or nothing does: the bytes of one that follow the first are `10......`.
fn begins_a_character(text: &[u8], at: usize) -> bool {
    text.get(at).is_none_or(|byte| byte & 0xc0 != 0x80)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    //= FLT-S21
    #[test]
    fn an_event_stays_one_line() {
        let event = b"agent said \"a\nERROR forged\r\x1b[31m\0\x7f\" caf\xc3\xa9\n";
        assert_eq!(one_line(event), b"agent said \"a\\nERROR forged\\r\\x1b[31m\\x00\\x7f\" caf\xc3\xa9\n");
    }

    //= FLT-S21
    #[test]
    fn nothing_that_hides_in_a_line_or_turns_it_around_is_written_as_it_is() {
        let event = "a\tb\u{85}c\u{9b}31m\u{2028}d\u{2029}\u{202e}e\u{2066}f€\n";
        let line = "a\tb\\u{85}c\\u{9b}31m\\u{2028}d\\u{2029}\\u{202e}e\\u{2066}f€\n";
        assert_eq!(String::from_utf8(one_line(event.as_bytes())).expect("text"), line);
        assert_eq!(one_line(b"\xff\xc2"), b"\\xff\\xc2\n");
    }

    //= FLT-S21
    #[test]
    fn a_huge_event_is_cut() {
        let line = one_line(&vec![b'x'; 4 << 20]);
        assert_eq!(line, [vec![b'x'; MAX_LINE_BYTES], b"... (4194304 bytes)\n".to_vec()].concat());
        let between = one_line(&[&vec![b'x'; MAX_LINE_BYTES - 1], "€".as_bytes()].concat());
        assert_eq!(between, [vec![b'x'; MAX_LINE_BYTES - 1], b"... (32770 bytes)\n".to_vec()].concat());
    }

    #[test]
    fn a_moved_file_is_left_behind_after_reopening() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, moved) = (dir.path().join("log"), dir.path().join("log.1"));
        let output = LogOutput::open(Some(&path)).expect("opened");
        output.make_writer().write_all(b"first\n").expect("written");
        fs::rename(&path, &moved).expect("moved");
        output.make_writer().write_all(b"second\n").expect("written");
        output.reopen().expect("reopened");
        output.make_writer().write_all(b"third\n").expect("written");
        assert_eq!(fs::read_to_string(&moved).expect("read"), "first\nsecond\n");
        assert_eq!(fs::read_to_string(&path).expect("read"), "third\n");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o137, 0);
    }

    #[test]
    fn an_absent_directory_is_named() {
        let error = LogOutput::open(Some(Path::new("/nonexistent/dir/log"))).expect_err("no such directory");
        assert_eq!(error.to_string(), "cannot open the log file /nonexistent/dir/log");
    }
}
