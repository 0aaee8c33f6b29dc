//! A software TPM behind a unix socket: where Go programs find one (go-tpm connects anew for each command).

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Instant;

use super::{GET_TEST_RESULT, POLL, START_DEADLINE, Swtpm};
use crate::child::{dies_with_us, spawn};

/// A chip whose TCP ports are shut, and that answers at a unix socket instead. Dropped: killed and forgotten.
#[derive(Debug)]
pub struct UnixSwtpm {
    socket: PathBuf,
    process: Child,
    /// Holds the state.
    _chip: Swtpm,
}

impl Swtpm {
    /// Powers the chip off, and on again behind a unix socket.
    pub fn behind_unix_socket(mut self) -> io::Result<UnixSwtpm> {
        self.stop()?;
        let socket = self.state().join("tpm.sock");
        let mut command = dies_with_us("swtpm");
        command
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", self.state().display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.log())?);
        let chip = UnixSwtpm { process: spawn(command)?, _chip: self, socket };
        chip.wait_ready()?;
        Ok(chip)
    }
}

impl UnixSwtpm {
    /// Where it answers.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    fn wait_ready(&self) -> io::Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        while Instant::now() < deadline {
            // Any complete answer that is not TPM_RC_INITIALIZE.
            if self.transmit(&GET_TEST_RESULT).is_ok_and(|r| r.len() >= 10 && r[6..10] != [0, 0, 1, 0]) {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "swtpm does not answer at its unix socket"))
    }

    fn transmit(&self, command: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.write_all(command)?;
        let mut response = vec![0; 4096];
        let length = stream.read(&mut response)?;
        response.truncate(length);
        Ok(response)
    }
}

impl Drop for UnixSwtpm {
    fn drop(&mut self) {
        // Nothing better can be done about an error here.
        let _ = self.process.kill().and_then(|()| self.process.wait());
    }
}
