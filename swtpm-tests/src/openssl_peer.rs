//! OpenSSL 3.5 or newer as the other side of workloads and of the server: it knows ML-DSA, and shares no code with what we link.

use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use ironroot_api::certificate::Certificate;
use ironroot_api::tls::{KeyExchanges, ServerTrust, SvidResolver, TrustAnchors, client_config, provider};
use ironroot_api::{SpiffeId, TrustDomain};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::deployment::{DEADLINE, Fetched, TRUST_DOMAIN, free_port, wait_for};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A program `openssl` of that version.
#[derive(Clone, Debug)]
pub struct OpenSsl(PathBuf);

/// Ended on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl OpenSsl {
    /// The program at this path.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.0);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// `openssl verify`: the chain of what a workload fetched leads to the bundle that came with it.
    pub fn verify(&self, fetched: &Fetched) -> Outcome<String> {
        let [chain, _, bundle] = files(fetched);
        let mut command = self.command(&["verify", "-x509_strict"]);
        let output = command.arg("-CAfile").arg(bundle).arg("-untrusted").arg(&chain).arg(&chain).output()?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
        if output.status.success() { Ok(said) } else { Err(format!("openssl verify: {said}").into()) }
    }

    /// Dials our server at this port of this machine, and believes what `bundle_pem` proves. What it says of the connection.
    pub fn dial(&self, port: u16, bundle_pem: &Path) -> Outcome<String> {
        let at = format!("127.0.0.1:{port}");
        let mut command = self.command(&["s_client", "-brief", "-alpn", "h2", "-verify_return_error", "-connect", &at]);
        let output = command.arg("-CAfile").arg(bundle_pem).output()?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        match said.contains("Verification: OK") {
            true => Ok(said),
            false => Err(format!("openssl does not believe our server: {said}").into()),
        }
    }

    /// Serves with what one workload fetched, and asks for a certificate; a peer on rustls dials with what another one did. Each believes
    /// what its own bundle proves, and a line goes there and back.
    pub async fn meet(&self, listener: &Fetched, dialer: &Fetched) -> Outcome<()> {
        let port = free_port();
        let [chain, key, bundle] = files(listener);
        let mut command = self.command(&["s_server", "-rev", "-tls1_3", "-Verify", "5", "-verify_return_error"]);
        command.arg("-accept").arg(format!("127.0.0.1:{port}")).arg("-CAfile").arg(bundle).arg("-key").arg(key);
        command.arg("-cert").arg(&chain).arg("-cert_chain").arg(&chain);
        let mut server = Running(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?);
        let socket = wait_for(DEADLINE, || TcpStream::connect(("127.0.0.1", port)).ok()).ok_or("it does not listen")?;
        let met = echo(socket, dialer).await;
        let _ = server.0.kill();
        let mut said = String::new();
        server.0.stderr.take().ok_or("no stderr")?.read_to_string(&mut said)?;
        met.map_err(|error| format!("rustls and OpenSSL do not meet: {error}; OpenSSL says: {said}").into())
    }
}

async fn echo(socket: TcpStream, dialer: &Fetched) -> Outcome<()> {
    socket.set_nonblocking(true)?;
    let [chain, key, bundle] = files(dialer);
    let ders = |path| -> Outcome<Vec<CertificateDer<'static>>> {
        Ok(Certificate::parse_pem(&std::fs::read_to_string(path)?)?.iter().map(|one| one.der().clone()).collect())
    };
    let anchors = TrustAnchors::new(TrustDomain::new(TRUST_DOMAIN)?, &ders(bundle)?)?;
    let shown =
        SvidResolver::new(CertifiedKey::from_der(ders(chain)?, PrivateKeyDer::from_pem_file(key)?, &provider())?);
    let trust = ServerTrust::Bundle { anchors, expected: SpiffeId::parse(&dialer.ids[0])? };
    let dials = TlsConnector::from(Arc::clone(&client_config(trust, shown, KeyExchanges::default())));
    let mut stream = dials.connect(ServerName::try_from("workload")?, tokio::net::TcpStream::from_std(socket)?).await?;
    stream.write_all(b"ironroot\n").await?;
    let mut answer = [0; 9];
    stream.read_exact(&mut answer).await?;
    if &answer == b"toornori\n" { Ok(()) } else { Err("another line came back".into()) }
}

/// Chain, key and bundle, as `api fetch` writes them.
fn files(fetched: &Fetched) -> [PathBuf; 3] {
    ["svid.0.pem", "svid.0.key", "bundle.0.pem"].map(|name| fetched.directory.join(name))
}
