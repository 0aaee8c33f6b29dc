//! A shell in the guest, on its second serial port: `swtpm-tests/image` puts it there, in images for tests alone.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::deployment::wait_for;

/// What the guest says when its shell listens.
const READY: &str = "LAB-READY";
/// Longest that a command may take.
const COMMAND: Duration = Duration::from_secs(120);

/// One command after the other.
#[derive(Debug)]
pub struct Shell {
    stream: UnixStream,
    heard: String,
    ready: bool,
    commands: u32,
}

impl Shell {
    /// Connects as soon as QEMU listens, before the guest speaks.
    pub(super) fn connect(path: &Path, deadline: Duration) -> io::Result<Self> {
        let stream = wait_for(deadline, || UnixStream::connect(path).ok());
        let stream = stream.ok_or_else(|| io::Error::other("its second serial port cannot be reached"))?;
        Ok(Self { stream, heard: String::new(), ready: false, commands: 0 })
    }

    pub(super) fn wait_ready(&mut self, deadline: Duration) -> io::Result<()> {
        if !self.ready {
            self.hear_until(READY, deadline)?;
            self.ready = true;
        }
        Ok(())
    }

    /// What the command prints, standard error too; an error that shows it if it fails.
    pub fn run(&mut self, command: &str) -> io::Result<String> {
        let (said, code) = self.try_run(command)?;
        if code == "0" { Ok(said) } else { Err(io::Error::other(format!("{command}: exit {code}: {said}"))) }
    }

    /// What the command prints, and its exit code.
    pub fn try_run(&mut self, command: &str) -> io::Result<(String, String)> {
        self.commands += 1;
        // In two pieces, so that an echo of the line is not taken for the end.
        let end = format!("LAB-END-{}", self.commands);
        self.send(&format!("{{ {command}\n}} 2>&1; printf '\\nLAB-END''-%s %s\\n' {} $?", self.commands))?;
        let said = self.hear_until(&format!("{end} "), COMMAND)?;
        let code = self.hear_until("\n", COMMAND)?;
        Ok((said.replace('\r', "").trim().to_owned(), code.trim().to_owned()))
    }

    /// Runs the command again and again until `wanted` says yes to what it prints.
    pub fn expect(
        &mut self,
        claim: &str,
        command: &str,
        deadline: Duration,
        wanted: impl Fn(&str, bool) -> bool,
    ) -> io::Result<String> {
        let until = Instant::now() + deadline;
        loop {
            let (said, code) = self.try_run(command)?;
            if wanted(&said, code == "0") {
                return Ok(said);
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!("not within {deadline:?}: {claim}: {said}")));
            }
            self.run("sleep 0.3")?;
        }
    }

    /// A line, whose answer nobody waits for.
    pub fn send(&mut self, line: &str) -> io::Result<()> {
        self.stream.write_all(line.as_bytes())?;
        self.stream.write_all(b"\n")
    }

    /// What is heard before `mark`; what comes behind it stays for the next.
    fn hear_until(&mut self, mark: &str, deadline: Duration) -> io::Result<String> {
        let until = Instant::now() + deadline;
        loop {
            if let Some(at) = self.heard.find(mark) {
                let rest = self.heard.split_off(at + mark.len());
                let mut said = std::mem::replace(&mut self.heard, rest);
                said.truncate(at);
                return Ok(said);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::other(format!("the guest's shell does not say {mark:?}, but: {}", self.heard)));
            }
            self.stream.set_read_timeout(Some(left))?;
            self.hear()?;
        }
    }

    fn hear(&mut self) -> io::Result<()> {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(io::Error::other("the machine has ended")),
            Ok(count) => {
                self.heard.push_str(&String::from_utf8_lossy(&bytes[..count]));
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
