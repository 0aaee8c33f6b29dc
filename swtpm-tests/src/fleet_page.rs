//! The fleet page of a server of the lab, and a browser of few words.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use tempfile::TempDir;

use crate::child;
use crate::deployment::{DEADLINE, Server, binary, wait_for};

/// `ironroot-server console`, running.
#[derive(Debug)]
pub struct FleetPage {
    child: Child,
    directory: TempDir,
    links: usize,
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Of HTTP.
    pub status: u16,
    /// As they came, in lower case.
    pub head: String,
    /// As it came.
    pub body: String,
}

impl FleetPage {
    /// The console of `server` on a port that is free, with further arguments.
    pub fn start(server: &Server, more: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let output = File::create(directory.path().join("out")).expect("log file opened");
        let program = binary("ironroot-server");
        let mut command = child::dies_with_us(program.to_str().expect("the lab's paths are UTF-8"));
        command.args(["console", "-port", "0", "-socketPath"]).arg(server.socket()).args(more);
        command.stdin(Stdio::piped()).stdout(output.try_clone().expect("handle")).stderr(output);
        let child = child::spawn(command).expect("ironroot-server starts");
        Self { child, directory, links: 0 }
    }

    /// The next link that it prints: the first at its start, one more for each [`FleetPage::enter`].
    pub fn link(&mut self) -> String {
        self.links += 1;
        let nth = self.links - 1;
        let link = || self.said().lines().filter(|line| line.starts_with("http://")).nth(nth).map(str::to_owned);
        wait_for(DEADLINE, link).unwrap_or_else(|| panic!("no link: {}", self.said()))
    }

    /// Presses Enter.
    pub fn enter(&mut self) {
        self.child.stdin.as_mut().expect("piped").write_all(b"\n").expect("it reads");
    }

    /// What it has printed.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.out()).unwrap_or_default()
    }

    fn out(&self) -> PathBuf {
        self.directory.path().join("out")
    }
}

impl Drop for FleetPage {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a link leads: its address (`127.0.0.1:8182`) and path.
pub fn parts(link: &str) -> (&str, &str) {
    let rest = link.strip_prefix("http://").expect("a link");
    let slash = rest.find('/').expect("a path");
    rest.split_at(slash)
}

/// Asks `address` for what `request` says, a method and a path, with these lines of a head, and that body.
pub fn ask(address: &str, request: &str, head: &[&str], body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("settable");
    let head: String = head.iter().map(|line| format!("{line}\r\n")).collect();
    let length = body.len();
    let text = format!("{request} HTTP/1.1\r\n{head}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("answered");
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}
