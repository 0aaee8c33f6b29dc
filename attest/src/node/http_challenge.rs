//! Attestation type "http_challenge": a node that serves a nonce by HTTP under the name that it says it has, as SPIRE has it.
//!
//! ```text
//!  agent                                                        server
//!  Claim      host, agent, port                        ───►     Claim ─ policy
//!             nonce                                    ◄───     Challenge
//!  a word     ───►                  GET http://host:port/.well-known/…/challenge ─► body ─ is_answered_by ─► attested
//! ```
//! What is proven: whoever answers at that name and port has talked to us. Nothing is bound to a key, and any user of the node may
//! open a port above 1023. The message and the challenge are SPIRE's, byte for byte.
//!
//! Source: SPIRE pkg/common/plugin/httpchallenge, pkg/server/plugin/nodeattestor/httpchallenge.

use std::net::Ipv4Addr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Refusal;
use super::json::{decode_within, encode};

/// Attestation type on the wire, and the type of the selectors that it gives.
pub const ATTESTATION_TYPE: &str = "http_challenge";
/// Bytes of a nonce. Source: SPIRE.
pub const NONCE_BYTES: usize = 32;
/// Longest body that is read, bytes: a nonce in base64, and a line end. Source: SPIRE.
pub const MAX_BODY_BYTES: usize = 64;
/// Ports below are root's on most systems. Source: SPIRE.
pub const FIRST_USER_PORT: u16 = 1024;

/// Longest first message, bytes: a name, another one, a port.
const MAX_CLAIM_BYTES: usize = 2048;
/// Longest challenge, bytes.
const MAX_CHALLENGE_BYTES: usize = 512;
/// Longest nonce that an agent serves, bytes.
const MAX_NONCE_TEXT_BYTES: usize = 128;
/// Longest name of a host. Source: RFC 1035, 2.3.4.
const MAX_HOST_BYTES: usize = 253;
/// Longest name of an agent. Source: SPIRE.
const MAX_AGENT_BYTES: usize = 32;

/// Why a message is refused, or an answer is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HttpChallengeRefusal {
    /// It is no such message.
    #[error(transparent)]
    Message(#[from] Refusal),
    /// No name of a host, or one that another name means as well: two spellings would be two agents.
    #[error("{0:?} is no name of a host in lower case: letters, digits, \"-\" and dots between them, no port")]
    Host(String),
    /// This machine, whichever it is.
    #[error("you can not use localhost as a hostname")]
    Localhost,
    /// Not a name of an agent.
    #[error("agent name is not valid")]
    Agent,
    /// There is none.
    #[error("port is invalid")]
    Port,
    /// Something else was served.
    #[error("expected nonce was not found in HTTP response")]
    Nonce,
}

/// Where a node says that it can be asked. Nothing is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    host: String,
    agent: String,
    port: u16,
}

/// What the node is to serve.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge(String);

#[derive(Serialize, Deserialize)]
struct ClaimJson {
    hostname: String,
    agentname: String,
    port: i64,
}

#[derive(Serialize, Deserialize)]
struct ChallengeJson {
    nonce: String,
}

impl Claim {
    /// What a node says of itself. `host`: a name in lower case; `agent`: begins with a letter, then letters, digits and "-".
    pub fn new(host: &str, agent: &str, port: u16) -> Result<Self, HttpChallengeRefusal> {
        check_host(host)?;
        let mut letters = agent.bytes();
        let is_name = letters.next().is_some_and(|first| first.is_ascii_alphabetic())
            && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == b'-');
        match (is_name && agent.len() <= MAX_AGENT_BYTES, port) {
            (false, _) => Err(HttpChallengeRefusal::Agent),
            (true, 0) => Err(HttpChallengeRefusal::Port),
            (true, _) => Ok(Self { host: host.to_owned(), agent: agent.to_owned(), port }),
        }
    }

    /// Parses the first message.
    pub fn from_json(json: &[u8]) -> Result<Self, HttpChallengeRefusal> {
        let ClaimJson { hostname, agentname, port } = decode_within(json, MAX_CLAIM_BYTES)?;
        Self::new(&hostname, &agentname, u16::try_from(port).map_err(|_| HttpChallengeRefusal::Port)?)
    }

    /// The first message.
    pub fn to_json(&self) -> Vec<u8> {
        let (hostname, agentname) = (self.host.clone(), self.agent.clone());
        encode(&ClaimJson { hostname, agentname, port: self.port.into() })
    }

    /// The host's name: what the agent is called by.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Where it is to be asked.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What is to be asked for there.
    pub fn path(&self) -> String {
        format!("/.well-known/spiffe/nodeattestor/http_challenge/{}/challenge", self.agent)
    }
}

impl Challenge {
    /// Of a nonce that is fresh from a cryptographic random source and used once.
    pub fn new(nonce: [u8; NONCE_BYTES]) -> Self {
        Self(URL_SAFE.encode(nonce))
    }

    /// Parses the challenge.
    pub fn from_json(json: &[u8]) -> Result<Self, HttpChallengeRefusal> {
        let ChallengeJson { nonce } = decode_within(json, MAX_CHALLENGE_BYTES)?;
        match nonce.len() <= MAX_NONCE_TEXT_BYTES && !nonce.is_empty() && nonce.bytes().all(|b| b.is_ascii_graphic()) {
            true => Ok(Self(nonce)),
            false => Err(HttpChallengeRefusal::Nonce),
        }
    }

    /// The challenge.
    pub fn to_json(&self) -> Vec<u8> {
        encode(&ChallengeJson { nonce: self.0.clone() })
    }

    /// What the node is to answer by HTTP.
    pub fn body(&self) -> String {
        format!("{}\n", self.0)
    }

    /// Whether `body` is what was asked for, with white space around it or without.
    pub fn is_answered_by(&self, body: &[u8]) -> Result<(), HttpChallengeRefusal> {
        let served = body.trim_ascii();
        verify_slices_are_equal(served, self.0.as_bytes()).map_err(|_| HttpChallengeRefusal::Nonce)
    }
}

impl std::fmt::Debug for Challenge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Challenge(..)")
    }
}

/// SPIRE takes more: what has a slash or a colon in it alone is refused there.
fn check_host(host: &str) -> Result<(), HttpChallengeRefusal> {
    let is_label = |label: &str| {
        let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(letters) && !label.starts_with('-')
    };
    let is_ambiguous = ends_in_a_number(host) && host.parse::<Ipv4Addr>().is_err();
    if host.len() > MAX_HOST_BYTES || !host.split('.').all(is_label) || is_ambiguous {
        return Err(HttpChallengeRefusal::Host(host.chars().take(64).collect()));
    }
    if host == "localhost" { Err(HttpChallengeRefusal::Localhost) } else { Ok(()) }
}

/// Whether resolvers read it as an IPv4 address, in whichever of its spellings: `127.1` and `2130706433` are 127.0.0.1, `0x7f.1` is. One
/// of them is good, four numbers from 0 to 255. Source: WHATWG URL Standard, "ends in a number checker".
fn ends_in_a_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_hexadecimal = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    is_hexadecimal || last.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_are_spires_byte_for_byte() {
        let claim = Claim::new("p1.example.com", "default", 80).expect("legal");
        assert_eq!(claim.to_json(), br#"{"hostname":"p1.example.com","agentname":"default","port":80}"#);
        assert_eq!(Claim::from_json(&claim.to_json()), Ok(claim.clone()));
        assert_eq!(claim.path(), "/.well-known/spiffe/nodeattestor/http_challenge/default/challenge");
        let challenge = Challenge::new([0xfb; NONCE_BYTES]);
        assert_eq!(challenge.to_json(), br#"{"nonce":"-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s="}"#);
        assert_eq!(Challenge::from_json(&challenge.to_json()), Ok(challenge.clone()));
        assert!(challenge.body().len() <= MAX_BODY_BYTES);
        assert_eq!(challenge.is_answered_by(challenge.body().as_bytes()), Ok(()));
        assert_eq!(challenge.is_answered_by(b""), Err(HttpChallengeRefusal::Nonce));
        assert_eq!(challenge.is_answered_by(&challenge.body().as_bytes()[1..]), Err(HttpChallengeRefusal::Nonce));
    }

    #[test]
    fn a_host_has_one_spelling_and_no_path_and_an_agent_a_short_name() {
        let host = |host: &str| Claim::new(host, "default", 80).map(drop);
        for good in ["p1", "p1.example.com", "10.1.2.3", "a_b.example"] {
            assert_eq!(host(good), Ok(()), "{good}");
        }
        // A resolver has them all for an address, and two spellings would be two agents.
        for bad in ["127.1", "2130706433", "0x7f.1", "0x7f000001", "010.1.2.3", "10.1.2.3.4", "10.1.2.256", "p1.0x"] {
            assert!(matches!(host(bad), Err(HttpChallengeRefusal::Host(_))), "{bad}");
        }
        for good in ["1.p1", "0x7f.example", "p1.x7f"] {
            assert_eq!(host(good), Ok(()), "{good}");
        }
        let long = format!("{}.example", "a".repeat(64));
        for bad in ["", ".", "a..b", "P1.example", "p1.example.", "p1/x", "p1:80", "[::1]", "a b", "-x", "é", &long] {
            assert!(matches!(host(bad), Err(HttpChallengeRefusal::Host(_))), "{bad}");
        }
        assert_eq!(host("localhost"), Err(HttpChallengeRefusal::Localhost));
        for bad in ["", "1x", "a.b", "a/b", "-", &"a".repeat(33)] {
            assert_eq!(Claim::new("p1", bad, 80), Err(HttpChallengeRefusal::Agent), "{bad}");
        }
        assert_eq!(Claim::new("p1", "a", 0), Err(HttpChallengeRefusal::Port));
        for port in ["0", "-1", "65536", "99999999999"] {
            let json = format!(r#"{{"hostname":"p1","agentname":"a","port":{port}}}"#);
            assert_eq!(Claim::from_json(json.as_bytes()), Err(HttpChallengeRefusal::Port), "{port}");
        }
        let long = vec![b' '; MAX_CLAIM_BYTES + 1];
        assert!(matches!(Claim::from_json(&long), Err(HttpChallengeRefusal::Message(_))));
        assert_eq!(Challenge::from_json(br#"{"nonce":"a b"}"#), Err(HttpChallengeRefusal::Nonce));
    }

    #[test]
    fn messages_survive_damage() {
        let claim = Claim::new("p1.example.com", "default", 80).expect("legal").to_json();
        ironroot_fuzz::Target::new("messages of http_challenge")
            .seed(claim)
            .seed(Challenge::new([1; NONCE_BYTES]).to_json())
            .survives(|bytes| {
                let _ = (Claim::from_json(bytes), Challenge::from_json(bytes));
            });
    }
}
