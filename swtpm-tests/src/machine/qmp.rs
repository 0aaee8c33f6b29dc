//! QEMU's controls: one JSON object a line, events in between.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::deployment::wait_for;

/// Longest that an answer may take.
const ANSWER: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects as soon as QEMU listens.
    pub(super) fn connect(path: &Path, deadline: Duration) -> io::Result<Self> {
        let stream = wait_for(deadline, || UnixStream::connect(path).ok());
        let stream = stream.ok_or_else(|| io::Error::other("its controls cannot be reached"))?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut qmp = Self { stream: BufReader::new(stream) };
        qmp.read()?;
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// What QEMU answers, or its words for why not.
    pub(super) fn execute(&mut self, command: &str, arguments: &Value) -> io::Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments }).to_string() + "\n";
        self.stream.get_mut().write_all(request.as_bytes())?;
        loop {
            let answer = self.read()?;
            if let Some(error) = answer.get("error") {
                return Err(io::Error::other(format!("{command}: {error}")));
            }
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
        }
    }

    fn read(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::Error::other("the machine has ended"));
        }
        serde_json::from_str(&line).map_err(io::Error::other)
    }
}
