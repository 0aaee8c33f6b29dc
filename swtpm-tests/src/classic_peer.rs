//! A TLS peer that knows no post-quantum key exchange: OpenSSL's own programs, bound to X25519.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::deployment::{DEADLINE, expect_within, free_port};
use crate::web_certificate::WebCertificate;

const GROUP: &str = "X25519";

/// What OpenSSL's client says of a connection to that port of this machine, and whether it came to one.
pub fn dial(port: u16) -> (bool, String) {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-groups", GROUP, "-connect", &format!("127.0.0.1:{port}")]).stdin(Stdio::null());
    let output = command.output().expect("openssl is installed");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (said.contains(&format!("Server Temp Key: {GROUP}")), said)
}

/// OpenSSL's server, until it is dropped.
#[derive(Debug)]
pub struct ClassicServer {
    child: Child,
    port: u16,
    web: WebCertificate,
}

impl ClassicServer {
    /// Listens on a port of this machine.
    pub fn start() -> Self {
        let (web, port) = (WebCertificate::new(), free_port());
        let [certificate, key] = web.certificate_and_key();
        let mut command = Command::new("openssl");
        command.args(["s_server", "-quiet", "-groups", GROUP, "-accept", &port.to_string(), "-cert"]).arg(certificate);
        command.arg("-key").arg(key).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("openssl is installed");
        let listens = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        expect_within(DEADLINE, "openssl listens", String::new, listens);
        Self { child, port, web }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What its certificate leads to, for `SSL_CERT_FILE`.
    pub fn authority(&self) -> PathBuf {
        self.web.authority()
    }
}

impl Drop for ClassicServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
