//! HAProxy, as a balancer of TCP connections.

use std::path::Path;

use tempfile::TempDir;

use crate::deployment::{DEADLINE, Process, expect_within, free_port};

/// Where its connections come from: not where its clients are.
pub const SOURCE: &str = "127.0.0.7";

/// A running HAProxy.
#[derive(Debug)]
pub struct Haproxy {
    process: Process,
    ports: Vec<u16>,
    _directory: TempDir,
}

impl Haproxy {
    /// Before each of these ports of loopback a port of its own; `options` are those of its lines `server`, such as `send-proxy-v2`.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(servers: &[u16], options: &str) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let ports: Vec<u16> = servers.iter().map(|_| free_port()).collect();
        let before = servers.iter().zip(&ports).map(|(server, port)| {
            format!(
                "listen before-{server}\n  bind 127.0.0.1:{port}\n  source {SOURCE}\n  server one 127.0.0.1:{server} {options}\n"
            )
        });
        let text = format!(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n{}",
            before.collect::<String>()
        );
        let (file, log) = (directory.path().join("haproxy.cfg"), directory.path().join("haproxy.log"));
        std::fs::write(&file, text).expect("written");
        let arguments = ["-db".to_owned(), "-f".to_owned(), file.display().to_string()];
        let mut process = Process::start(Path::new("/usr/sbin/haproxy"), &arguments, &[], &log);
        let listens = |port: &u16| std::net::TcpStream::connect(("127.0.0.1", *port)).is_ok();
        expect_within(DEADLINE, "HAProxy listens", String::new, || !process.runs() || ports.iter().all(listens));
        assert!(process.runs(), "HAProxy: scripts/setup --tests installs it\n{}", process.log());
        Self { process, ports, _directory: directory }
    }

    /// Where it listens, in the order of the servers behind.
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// What it has said.
    pub fn log(&self) -> String {
        self.process.log()
    }
}
