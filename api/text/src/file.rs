//! A file that somebody named, read whole and bounded.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use thiserror::Error;

use crate::{TextError, decode};

/// A file that cannot be used, and why not.
#[derive(Debug, Error)]
#[error("cannot read {name}")]
pub struct FileError {
    /// The file, or "standard input".
    pub name: String,
    /// What was wrong with it; the name is told beside it.
    #[source]
    pub problem: FileProblem,
}

/// Why a file cannot be used.
#[derive(Debug, Error)]
pub enum FileProblem {
    /// It cannot be opened or read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is longer than files of its kind may be, bytes.
    #[error("it has more than {0} bytes: is it the right file?")]
    TooLarge(usize),
    /// A directory, a device, a pipe.
    #[error("it is not a regular file")]
    NotRegular,
    /// Neither UTF-8 nor UTF-16 with a mark in front.
    #[error(transparent)]
    Text(#[from] TextError),
}

/// A file's text, decoded, and what it is called in messages.
#[derive(Clone, PartialEq, Eq)]
pub struct HumanFile {
    name: String,
    text: String,
}

impl HumanFile {
    /// A file that a command line names: `-` is standard input, and a pipe (`<(...)`) is as good as a file.
    pub fn argument(path: &Path, max_bytes: usize) -> Result<Self, FileError> {
        if path == Path::new("-") {
            return Self::named("standard input".to_owned(), read_text(io::stdin().lock(), max_bytes));
        }
        let file = File::open(path).map_err(FileProblem::from);
        Self::named(path.display().to_string(), file.and_then(|file| read_text(file, max_bytes)))
    }

    /// A file that a configuration names. Only a regular one, and symbolic links are followed; opening never waits.
    pub fn regular(path: &Path, max_bytes: usize) -> Result<Self, FileError> {
        let text = open_regular(path).and_then(|file| read_text(file, max_bytes));
        Self::named(path.display().to_string(), text)
    }

    /// The same, with what the kernel says of that very file: whose it is, and who may write into it.
    pub fn regular_with_facts(path: &Path, max_bytes: usize) -> Result<(Self, Metadata), FileError> {
        let opened = open_regular(path).and_then(|file| Ok((file.metadata()?, file)));
        let (facts, file) = opened.map_err(|problem| FileError { name: path.display().to_string(), problem })?;
        Ok((Self::named(path.display().to_string(), read_text(file, max_bytes))?, facts))
    }

    fn named(name: String, text: Result<String, FileProblem>) -> Result<Self, FileError> {
        match text {
            Ok(text) => Ok(Self { name, text }),
            Err(problem) => Err(FileError { name, problem }),
        }
    }

    /// What the file is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its text, lines ended by LF, no marks.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text alone, which no longer knows the file's name.
    pub fn into_text(self) -> String {
        self.text
    }
}

/// Only the name: such a file may hold a secret.
impl std::fmt::Debug for HumanFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HumanFile").field("name", &self.name).finish_non_exhaustive()
    }
}

fn open_regular(path: &Path) -> Result<File, FileProblem> {
    // Without O_NONBLOCK, opening a pipe would wait for its writer.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(FileProblem::NotRegular) }
}

fn read_text(reader: impl Read, max_bytes: usize) -> Result<String, FileProblem> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > max_bytes {
        return Err(FileProblem::TooLarge(max_bytes));
    }
    Ok(decode(&bytes)?.into_owned())
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::fs;

    use super::*;

    fn whole(error: &FileError) -> String {
        format!("{error}: {}", error.source().expect("a reason"))
    }

    #[test]
    fn every_error_names_the_file_and_none_its_content() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("secret.txt");
        fs::write(&path, b"1234567\xff").expect("written");
        let name = path.display().to_string();
        let refused = |path: &Path, max| whole(&HumanFile::regular(path, max).expect_err("refused"));
        assert_eq!(refused(&path, 7), format!("cannot read {name}: it has more than 7 bytes: is it the right file?"));
        assert!(refused(&path, 8).starts_with(&format!("cannot read {name}: line 1 is not UTF-8")));
        assert!(refused(directory.path(), 8).ends_with("it is not a regular file"));
        let gone = HumanFile::regular(Path::new("/nonexistent/x"), 8).expect_err("gone");
        assert!(whole(&gone).starts_with("cannot read /nonexistent/x: No such file"));
        fs::write(&path, "7654321").expect("written");
        let file = HumanFile::regular(&path, 7).expect("fits");
        assert!(!format!("{file:?}").contains("7654321"));
        assert_eq!((file.name(), file.text()), (name.as_str(), "7654321"));
    }

    #[test]
    fn a_pipe_is_an_argument_and_no_configured_file() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("pipe");
        assert!(
            matches!(HumanFile::regular(&path, 8), Err(FileError { problem: FileProblem::NotRegular, .. })),
            "and does not wait"
        );
        let writer = std::thread::spawn({
            let path = path.clone();
            move || fs::write(path, "piped\r")
        });
        assert_eq!(HumanFile::argument(&path, 8).expect("read").text(), "piped\n");
        writer.join().expect("no panic").expect("written");
    }
}
