//! The files that a ceremony leaves: none is ever written over.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use der::pem::{self, LineEnding};
use ironroot_api::certificate::Certificate;
use ironroot_shell::command_line::CommandError;

use super::facts::hash_of_file;
use super::transcript::{Transcript, line};

/// Certificates and transcripts are no secrets.
const MODE: u32 = 0o644;

/// Files of one name in one directory: NAME.pem, NAME-transcript.txt, NAME-transcript.json.
pub(super) struct Outputs {
    directory: PathBuf,
    name: &'static str,
}

impl Outputs {
    /// Makes the directory. Refused if one of the files is there: before anything is made or signed.
    pub(super) fn prepare(directory: &Path, name: &'static str) -> Result<Self, CommandError> {
        fs::create_dir_all(directory).map_err(failed("make", directory))?;
        let outputs = Self { directory: directory.to_owned(), name };
        for path in [outputs.certificate(), outputs.transcript("txt"), outputs.transcript("json")] {
            if path.exists() {
                let there = format!(
                    "{} is there already, and is not written over: give -out another directory",
                    path.display()
                );
                return Err(CommandError::Usage(there));
            }
        }
        Ok(outputs)
    }

    /// Where the certificate is.
    pub(super) fn certificate(&self) -> PathBuf {
        self.directory.join(format!("{}.pem", self.name))
    }

    /// Writes the certificate, then both forms of the transcript, which has the certificate's file in it.
    pub(super) fn write(&self, certificate: &Certificate, mut transcript: Transcript) -> Result<String, CommandError> {
        let pem = pem_of(certificate);
        put(&self.certificate(), pem.as_bytes())?;
        let path = self.certificate();
        transcript
            .section("Files", vec![line(&path.display().to_string(), format!("SHA-256 {}", hash_of_file(&path)))]);
        let text = transcript.text();
        put(&self.transcript("txt"), text.as_bytes())?;
        put(&self.transcript("json"), format!("{:#}\n", transcript.json()).as_bytes())?;
        Ok(text)
    }

    fn transcript(&self, extension: &str) -> PathBuf {
        self.directory.join(format!("{}-transcript.{extension}", self.name))
    }
}

/// PEM of a certificate.
pub(super) fn pem_of(certificate: &Certificate) -> String {
    pem::encode_string("CERTIFICATE", LineEnding::LF, certificate.der()).expect("some kilobytes are PEM")
}

/// Writes a new file.
pub(super) fn put(path: &Path, content: &[u8]) -> Result<(), CommandError> {
    let written = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path);
    written.and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all())).map_err(failed("write", path))
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CommandError {
    let path = path.to_owned();
    move |source| CommandError::File { doing, path, source }
}
