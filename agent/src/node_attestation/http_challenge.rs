//! `NodeAttestor "http_challenge"`: the device serves a nonce by HTTP, at the name that it says it has, while it attests.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use ironroot_attest::node::http_challenge::{
    ATTESTATION_TYPE, Challenge, Claim, FIRST_USER_PORT, HttpChallengeRefusal,
};
use ironroot_shell::listen;
use ironroot_shell::local_http::{self, answer};
use ironroot_shell::settings::Section;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

/// The attestation type.
pub(super) const TYPE: &str = ATTESTATION_TYPE;

/// What an agent is called among those of its host, unless the file says otherwise. Source: SPIRE.
const DEFAULT_AGENT_NAME: &str = "default";
/// SPIRE's agent must answer something.
const ANSWER: &[u8] = b"\n";

/// Where the device can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName {
    host: String,
    agent: String,
    /// Where it listens; 0: wherever the kernel gives a port.
    port: u16,
    /// Where the server is to ask, if a proxy stands between.
    advertised_port: Option<u16>,
}

/// Why it could not be asked.
#[derive(Debug, Error)]
pub enum HttpChallengeFailure {
    /// The port is not to be had.
    #[error(
        "cannot listen on port {0} for the server's question; port of NodeAttestor \"http_challenge\" names another"
    )]
    Listen(u16, #[source] io::Error),
    /// What is to be said of this host is no name.
    #[error("this host cannot attest by its name; set hostname and agentname of NodeAttestor \"http_challenge\"")]
    Claim(#[source] HttpChallengeRefusal),
    /// The server's challenge is none.
    #[error("the server's challenge cannot be answered")]
    Challenge(#[source] HttpChallengeRefusal),
}

/// Reads the keys that `NodeAttestor "http_challenge"` has.
pub(super) fn read(data: &Section<'_>) -> Option<HostName> {
    let given = data.string("hostname").filter(|host| !host.is_empty());
    let host = given.or_else(|| nix::unistd::gethostname().ok()?.into_string().ok());
    let agent = data.string("agentname").filter(|name| !name.is_empty());
    let port = data.port("port", 0).unwrap_or(0);
    let advertised_port = data.port("advertised_port", 0).filter(|port| *port > 0);
    let hint = "this machine does not say what it is called: give the name that the server finds it by";
    let host = data.required("hostname", host, hint)?;
    let name = HostName { host, agent: agent.unwrap_or_else(|| DEFAULT_AGENT_NAME.to_owned()), port, advertised_port };
    if let Err(refusal) = name.claim(1) {
        let key = if refusal == HttpChallengeRefusal::Agent { "agentname" } else { "hostname" };
        data.mistake(key, refusal.to_string());
        return None;
    }
    Some(name)
}

impl HostName {
    /// Whether it listens on a port of the operator's choice, or is asked at one.
    pub(super) fn has_port(&self) -> bool {
        self.port != 0 || self.advertised_port.is_some()
    }

    /// Whether it listens on a port below 1024.
    pub(super) fn has_port_of_root(&self) -> bool {
        (1..FIRST_USER_PORT).contains(&self.port)
    }

    fn claim(&self, port: u16) -> Result<Claim, HttpChallengeRefusal> {
        Claim::new(&self.host, &self.agent, self.advertised_port.unwrap_or(port))
    }

    /// Listens: what answers for the time of one attestation.
    pub(super) async fn prover(&self) -> Result<Prover, HttpChallengeFailure> {
        let failed = |error| HttpChallengeFailure::Listen(self.port, error);
        let listener = bind(self.port).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let claim = self.claim(port).map_err(HttpChallengeFailure::Claim)?;
        Ok(Prover { claim, listener: std::sync::Mutex::new(Some(listener)), serving: OnceCell::new() })
    }
}

/// On all addresses of either family, or of the one that this machine has.
async fn bind(port: u16) -> io::Result<TcpListener> {
    match listen::tcp((Ipv6Addr::UNSPECIFIED, port)).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse && error.kind() != io::ErrorKind::PermissionDenied => {
            listen::tcp((Ipv4Addr::UNSPECIFIED, port)).await
        }
        bound => bound,
    }
}

/// Listens from the first message on, and serves the nonce until it is dropped.
pub(super) struct Prover {
    claim: Claim,
    listener: std::sync::Mutex<Option<TcpListener>>,
    serving: OnceCell<JoinSet<()>>,
}

impl Prover {
    /// The first message.
    pub(super) fn evidence(&self) -> Vec<u8> {
        self.claim.to_json()
    }

    /// The answer to a challenge, which is served by HTTP from then on.
    pub(super) async fn respond(&self, challenge: &[u8]) -> Result<Vec<u8>, HttpChallengeFailure> {
        let challenge = Challenge::from_json(challenge).map_err(HttpChallengeFailure::Challenge)?;
        self.serving.get_or_init(|| async { self.serve(&challenge) }).await;
        Ok(ANSWER.to_vec())
    }

    fn serve(&self, challenge: &Challenge) -> JoinSet<()> {
        let mut serving = JoinSet::new();
        let listener = self.listener.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(listener) = listener {
            let (path, body) = (self.claim.path(), challenge.body());
            serving.spawn(local_http::serve("http_challenge", listener, move |method, asked| {
                let is_asked = method == http::Method::GET && asked == path;
                let (status, text) = match is_asked {
                    true => (http::StatusCode::OK, body.clone()),
                    false => (http::StatusCode::NOT_FOUND, String::new()),
                };
                std::future::ready(answer(status, "text/plain; charset=utf-8", text))
            }));
        }
        serving
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn ask(port: u16, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.expect("sent");
        let mut said = String::new();
        stream.read_to_string(&mut said).await.expect("an answer");
        said
    }

    #[tokio::test]
    async fn the_nonce_is_served_at_its_path_alone_and_while_the_device_attests() {
        let name = HostName { host: "p1".to_owned(), agent: "a".to_owned(), port: 0, advertised_port: Some(80) };
        let prover = name.prover().await.expect("a port");
        assert_eq!(prover.evidence(), br#"{"hostname":"p1","agentname":"a","port":80}"#);
        let port = prover.listener.lock().unwrap().as_ref().unwrap().local_addr().unwrap().port();
        let challenge = Challenge::new([7; 32]);
        assert_eq!(prover.respond(&challenge.to_json()).await.expect("served"), ANSWER);
        let said = ask(port, "/.well-known/spiffe/nodeattestor/http_challenge/a/challenge").await;
        assert!(said.starts_with("HTTP/1.1 200 OK") && said.ends_with(&challenge.body()), "{said}");
        assert!(ask(port, "/").await.starts_with("HTTP/1.1 404"));
        assert!(matches!(prover.respond(b"{}").await, Err(HttpChallengeFailure::Challenge(_))));
        drop(prover);
        let closes = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), closes).await.expect("nobody listens any more");
    }
}
