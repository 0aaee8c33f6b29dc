//! A real Alertmanager (Debian's) on the configuration that is shipped, and who hears of alerts by it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tempfile::TempDir;

use crate::deployment::{DEADLINE, Process, expect_within, free_port};
use crate::prometheus::monitoring;

/// Where the configuration's receivers are, as it is shipped.
const RECEIVERS: &str = "http://localhost:8099/";

/// What a receiver was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `pager` or `tickets`.
    pub receiver: String,
    /// The names of the alerts that fire, in alphabetical order.
    pub alerts: Vec<String>,
}

/// An Alertmanager that waits a second where the configuration says longer; ended on drop.
#[derive(Debug)]
pub struct Alertmanager {
    directory: TempDir,
    port: u16,
    heard: Arc<Mutex<Vec<Message>>>,
    _process: Process,
}

impl Alertmanager {
    /// Runs on the shipped configuration; `changed` may change its text.
    ///
    /// # Panics
    /// If it does not start: `scripts/setup --tests` installs it.
    pub fn start(changed: impl FnOnce(String) -> String) -> Self {
        let directory = tempfile::Builder::new().prefix("alertmanager-").tempdir().expect("directory");
        let at = |name: &str| directory.path().join(name);
        let (receiver, heard) = listen();
        let text = std::fs::read_to_string(monitoring().join("alertmanager.yml")).expect("the configuration");
        let text = changed(text).replace(RECEIVERS, &format!("http://127.0.0.1:{receiver}/"));
        let text =
            text.replace("group_wait: 30s", "group_wait: 1s").replace("group_interval: 5m", "group_interval: 1s");
        std::fs::write(at("alertmanager.yml"), text).expect("written");
        let port = free_port();
        let arguments = [
            format!("--config.file={}", at("alertmanager.yml").display()),
            format!("--storage.path={}", at("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--cluster.listen-address=".to_owned(),
        ];
        let program = Path::new("/usr/bin/prometheus-alertmanager");
        let process = Process::start(program, &arguments, &[], &at("alertmanager.log"));
        let manager = Self { directory, port, heard, _process: process };
        let answers = || crate::metrics::get(port, "/-/ready").is_some();
        expect_within(DEADLINE, "Alertmanager answers", || manager.log(), answers);
        manager
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("alertmanager.log")).unwrap_or_default()
    }

    /// What `amtool` says, asked of this one.
    ///
    /// # Panics
    /// If it fails.
    pub fn amtool(&self, arguments: &[&str]) -> String {
        let mut amtool = Command::new("amtool");
        amtool.args(arguments).arg(format!("--alertmanager.url=http://127.0.0.1:{}", self.port));
        let output = amtool.output().expect("amtool: scripts/setup --tests installs it");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Has an alert of the rules fire, as Prometheus would.
    pub fn fire(&self, name: &str, severity: &str, part: &str, instance: &str) {
        let label = |name: &str, value: &str| format!("{name}={value}");
        let labels = [label("severity", severity), label("part", part), label("instance", instance)];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        self.amtool(&[&["alert", "add", &label("alertname", name)], labels.as_slice()].concat());
    }

    /// What was sent until now, in the order in which it came.
    pub fn heard(&self) -> Vec<Message> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the receiver has heard of these alerts in one message.
    pub fn expect(&self, receiver: &str, alerts: &[&str]) {
        let wanted =
            Message { receiver: receiver.to_owned(), alerts: alerts.iter().map(|&name| name.to_owned()).collect() };
        let state = || format!("{:?}\n{}", self.heard(), self.log());
        expect_within(DEADLINE, &format!("{wanted:?}"), state, || self.heard().contains(&wanted));
    }
}

/// A listener for what is sent, and where that is kept.
fn listen() -> (u16, Arc<Mutex<Vec<Message>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let heard: Arc<Mutex<Vec<Message>>> = Arc::default();
    let kept = heard.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever sends half of a message is not heard.
            let message = receive(stream);
            kept.lock().unwrap_or_else(PoisonError::into_inner).extend(message);
        }
    });
    (port, heard)
}

fn receive(stream: TcpStream) -> Option<Message> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let receiver = first.split(' ').nth(1)?.trim_start_matches('/').to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").ok()?;
    let body: Value = serde_json::from_slice(&body).ok()?;
    let firing = body["alerts"].as_array()?.iter().filter(|alert| alert["status"] == "firing");
    let mut alerts: Vec<String> =
        firing.filter_map(|alert| Some(alert["labels"]["alertname"].as_str()?.to_owned())).collect();
    alerts.sort();
    Some(Message { receiver, alerts })
}
