//! Stand-ins for docker, podman and a kubelet, that say what they are told to say.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivateKeyDer;
use tempfile::TempDir;

/// What to say to a question, whose head is the argument; the connection then stays until the other side ends it, unless the flag says
/// that this side does.
pub type Answer = (Vec<u8>, bool);

/// A daemon; its thread ends with the test.
pub struct Daemon {
    pub directory: TempDir,
    asked: Arc<Mutex<Vec<String>>>,
    pub port: u16,
}

/// An answer with this body.
pub fn ok(body: &str) -> Answer {
    (format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes(), true)
}

impl Daemon {
    /// On a unix socket.
    pub fn on_socket(answer: impl FnMut(&str) -> Answer + Send + 'static) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("daemon.sock")).expect("binds");
        let asked = Arc::default();
        let heard = Arc::clone(&asked);
        let mut answer = answer;
        thread::spawn(move || {
            for stream in listener.incoming() {
                converse(stream.expect("accepts"), &heard, &mut answer);
            }
        });
        Self { directory, asked, port: 0 }
    }

    /// On a TCP port of this machine, with TLS if there is a configuration for it.
    pub fn on_port(tls: Option<Arc<ServerConfig>>, answer: impl FnMut(&str) -> Answer + Send + 'static) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = listener.local_addr().expect("bound").port();
        let asked = Arc::default();
        let heard = Arc::clone(&asked);
        let mut answer = answer;
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("accepts");
                match &tls {
                    None => converse(stream, &heard, &mut answer),
                    Some(config) => {
                        let connection = ServerConnection::new(config.clone()).expect("a configuration");
                        converse(StreamOwned::new(connection, stream), &heard, &mut answer);
                    }
                }
            }
        });
        Self { directory, asked, port }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("daemon.sock")
    }

    /// The heads of what was asked since this was last called.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().expect("whole"))
    }
}

/// Whoever gives up before the end has heard enough.
fn converse(mut stream: impl Read + Write, heard: &Mutex<Vec<String>>, answer: &mut impl FnMut(&str) -> Answer) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let (bytes, ends) = answer(&head);
    heard.lock().expect("whole").push(head);
    if stream.write_all(&bytes).is_ok() && !ends {
        while stream.read(&mut byte).is_ok_and(|n| n > 0) {}
    }
}

/// An authority, and a kubelet's certificate of it for `name`.
pub struct Cluster {
    pub authority_pem: String,
    pub server: Arc<ServerConfig>,
    /// A client's certificate and key, PEM.
    pub client: (String, String),
}

impl Cluster {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).expect("signs");
        let issuer = Issuer::new(params, key);
        let leaf = |names: Vec<String>| {
            let key = KeyPair::generate().expect("a key");
            let certificate = CertificateParams::new(names).expect("names").signed_by(&key, &issuer).expect("signs");
            (certificate, key)
        };
        let (certificate, key) = leaf(vec![name.to_owned()]);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .expect("a pair");
        let (certificate, key) = leaf(vec!["agent".to_owned()]);
        let client = (certificate.pem(), key.serialize_pem());
        Self { authority_pem: authority.pem(), server: Arc::new(server), client }
    }
}

/// A file in `directory` that nobody else may read.
pub fn private_file(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).expect("writes");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("closes it");
    path
}
