//! Pebble, Let's Encrypt's ACME server for tests, and names that all lead to this machine. `scripts/setup --tests` builds both.

use std::path::{Path, PathBuf};

use ironroot_api::tls::{KeyExchanges, provider};
use ironroot_server::bundle_client::fetch::{DEADLINE as FETCH_DEADLINE, EndpointProof, fetch};
use ironroot_server::facts::federation::EndpointUrl;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::deployment::{DEADLINE, Process, expect_within, expect_within_async, free_port, open_directory};
use crate::web_certificate::WebCertificate;

/// A running CA. Its certificates and accounts are in memory: a restart forgets all of them, its root too.
#[derive(Debug)]
pub struct Pebble {
    directory: TempDir,
    web: WebCertificate,
    port: u16,
    management: u16,
    dns: u16,
    process: Option<Process>,
    _names: Process,
}

impl Pebble {
    /// A CA that looks at `tls_port` of whatever name whether it is its customer's, issues for `life_seconds`, and never for
    /// `blocked.example`.
    pub fn start(tls_port: u16, life_seconds: u32) -> Self {
        let directory = tempfile::Builder::new().prefix("ironroot-pebble-").tempdir().expect("directory");
        open_directory(directory.path());
        let (web, port, management, dns) = (WebCertificate::new(), free_port(), free_port(), free_port());
        let configuration = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": web.certificate(),
            "privateKey": web.key(),
            "httpPort": 1,
            "tlsPort": tls_port,
            "domainBlocklist": ["blocked.example"],
            "keyAlgorithm": "ecdsa",
            "profiles": { "default": { "description": "what there is", "validityPeriod": life_seconds } },
        }});
        std::fs::write(directory.path().join("pebble.json"), configuration.to_string()).expect("written");
        let names = [
            format!("-dnsserver=127.0.0.1:{dns}"),
            format!("-management=127.0.0.1:{}", free_port()),
            "-defaultIPv4=127.0.0.1".to_owned(),
        ];
        let off = ["defaultIPv6", "http01", "https01", "doh", "tlsalpn01"].map(|flag| format!("-{flag}="));
        let log = directory.path().join("names.log");
        let names = Process::start(&program("pebble-challtestsrv"), &[&names[..], &off].concat(), &[], &log);
        let mut pebble = Self { directory, web, port, management, dns, process: None, _names: names };
        pebble.restart();
        pebble
    }

    /// Begins anew, knowing nobody.
    pub fn restart(&mut self) {
        self.stop();
        let arguments = [
            format!("-config={}", self.directory.path().join("pebble.json").display()),
            format!("-dnsserver=127.0.0.1:{}", self.dns),
            "-strict".to_owned(),
        ];
        let environment = [("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "5"), ("PEBBLE_AUTHZREUSE", "0")];
        let environment = environment.map(|(name, value)| (name.to_owned(), PathBuf::from(value)));
        let log = self.directory.path().join("pebble.log");
        self.process = Some(Process::start(&program("pebble"), &arguments, &environment, &log));
        let connects =
            || [self.port, self.management].map(|port| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        expect_within(DEADLINE, "pebble listens", || self.log(), || connects() == [true, true]);
    }

    /// Nobody is at its address any more.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Where it says what it can do.
    pub fn directory_url(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// What proves it, for `SSL_CERT_FILE`.
    pub fn authority(&self) -> PathBuf {
        self.web.authority()
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("pebble.log")).unwrap_or_default()
    }

    /// What its certificates lead to, since it was started.
    pub async fn roots(&self) -> RootCertStore {
        let mut authorities = RootCertStore::empty();
        authorities.add(CertificateDer::from_pem_file(self.authority()).expect("PEM")).expect("an authority");
        let proof = EndpointProof::web_with(authorities, KeyExchanges::default()).expect("authorities");
        let url = format!("https://localhost:{}/roots/0", self.management);
        let root = fetch(&EndpointUrl::parse(&url).expect("legal"), &proof, FETCH_DEADLINE).await.expect("its root");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&root).expect("PEM")).expect("a root");
        roots
    }
}

/// The certificate that 127.0.0.1:`port` shows to who asks by `name` and believes `roots`, or by no name; none if it shows none for it.
pub async fn shown(port: u16, name: &str, asks_by_name: bool, roots: RootCertStore) -> Option<CertificateDer<'static>> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.3 suites")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_sni = asks_by_name;
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let name = ServerName::try_from(name.to_owned()).expect("legal");
    let tls = TlsConnector::from(std::sync::Arc::new(config)).connect(name, tcp).await.ok()?;
    tls.get_ref().1.peer_certificates()?.first().map(|leaf| leaf.clone().into_owned())
}

/// The same, once there is one that is not `other`.
pub async fn expect_shown(
    port: u16,
    name: &str,
    roots: RootCertStore,
    other: Option<&CertificateDer<'static>>,
    explain: impl FnOnce() -> String,
) -> CertificateDer<'static> {
    let mut found = None;
    let another = async || {
        found = shown(port, name, true, roots.clone()).await.filter(|leaf| Some(leaf) != other);
        found.is_some()
    };
    expect_within_async(DEADLINE, "a certificate is shown", explain, another).await;
    found.expect("it was waited for")
}

fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/go/bin").join(name);
    assert!(path.exists(), "{} is missing: run scripts/setup --tests", path.display());
    path
}
