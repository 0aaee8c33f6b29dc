//! Nodes that answer by HTTP at the name that they say they have, as SPIRE's `http_challenge` asks for it.

mod fetch;
mod questions;

use std::sync::Arc;

use ironroot_api::csr::Csr;
use ironroot_attest::Selector;
use ironroot_attest::node::http_challenge::{ATTESTATION_TYPE, Claim, FIRST_USER_PORT, HttpChallengeRefusal};
use ironroot_shell::logging::in_moderation;
use regex::Regex;
use thiserror::Error;
use tracing::info;

pub use questions::Questions;

use super::fresh::fresh;
use super::{AttestationError, AttestedNode, Fault, NodeAttestation, Progress, Proof};

/// The attestation type.
pub(super) const TYPE: &str = ATTESTATION_TYPE;
/// What the log says, in moderation: strangers name hosts.
const NOT_SERVED: &str = "a host that is to attest does not serve its nonce";

/// What this server asks of a host.
#[derive(Debug)]
pub struct HttpChallengePolicy {
    /// What names must match, one of them; none: every name may.
    pub names: Vec<Regex>,
    /// Which ports are asked.
    pub ports: Ports,
    /// Whether a name attests once: later whoever can open a port there might be somebody else.
    pub first_use: bool,
    /// Places for those that are asked.
    pub questions: Arc<Questions>,
}

/// Ports that nodes may answer at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Each.
    All,
    /// Those that root alone opens: below 1024.
    OfRoot,
    /// This one.
    Only(u16),
    /// This one, if it is below 1024.
    OnlyOfRoot(u16),
}

/// Why a host is not attested.
#[derive(Debug, Error)]
pub enum HttpChallengeServerRefusal {
    /// Its message, or what it served.
    #[error(transparent)]
    Evidence(#[from] HttpChallengeRefusal),
    /// No pattern of the operator's has that name.
    #[error("the requested hostname is not allowed to connect")]
    Name,
    /// Another port is required.
    #[error("port {0} is not allowed to be used by this server")]
    Port(u16),
    /// Any user of the host could have opened it.
    #[error("port {0} is not allowed to be >= {FIRST_USER_PORT}")]
    UserPort(u16),
    /// The host did not serve the nonce. Why is in this server's log alone: whoever asks is to learn nothing of other hosts.
    #[error("challenge verification failed: nothing at that host, port and path answers with the nonce")]
    NotServed,
}

/// Where a node says that it can be asked, and what is asked of it.
#[derive(Debug)]
pub struct Evidence<'a> {
    claim: Claim,
    policy: &'a Arc<HttpChallengePolicy>,
}

/// An attestation that waits for the node to serve the nonce.
#[derive(Debug)]
pub struct Challenge {
    claim: Claim,
    asked: ironroot_attest::node::http_challenge::Challenge,
    policy: Arc<HttpChallengePolicy>,
    csr: Csr,
}

impl<'a> Evidence<'a> {
    pub(super) fn read(
        payload: &[u8],
        policy: &'a Arc<HttpChallengePolicy>,
    ) -> Result<Self, HttpChallengeServerRefusal> {
        Ok(Self { claim: Claim::from_json(payload)?, policy })
    }
}

impl HttpChallengePolicy {
    fn check(&self, claim: &Claim) -> Result<(), HttpChallengeServerRefusal> {
        self.ports.check(claim.port())?;
        let is_allowed = self.names.is_empty() || self.names.iter().any(|name| name.is_match(claim.host()));
        is_allowed.then_some(()).ok_or(HttpChallengeServerRefusal::Name)
    }
}

impl Ports {
    fn check(self, port: u16) -> Result<(), HttpChallengeServerRefusal> {
        match self {
            Self::Only(required) | Self::OnlyOfRoot(required) if port != required => {
                Err(HttpChallengeServerRefusal::Port(port))
            }
            Self::OfRoot | Self::OnlyOfRoot(_) if port >= FIRST_USER_PORT => {
                Err(HttpChallengeServerRefusal::UserPort(port))
            }
            _ => Ok(()),
        }
    }
}

impl HttpChallengeServerRefusal {
    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::Evidence(HttpChallengeRefusal::Localhost | HttpChallengeRefusal::Nonce)
            | Self::Name
            | Self::NotServed => Fault::Node,
            Self::Evidence(_) | Self::Port(_) | Self::UserPort(_) => Fault::Message,
        }
    }
}

impl NodeAttestation {
    pub(super) fn challenge_host(
        &self,
        Evidence { claim, policy }: Evidence<'_>,
        csr: Csr,
    ) -> Result<Progress, HttpChallengeServerRefusal> {
        policy.check(&claim)?;
        let asked = ironroot_attest::node::http_challenge::Challenge::new(fresh());
        let bytes = asked.to_json();
        let waiting = Challenge { claim, asked, policy: policy.clone(), csr };
        Ok(Progress::Challenge(super::Challenge::HttpChallenge(Box::new(waiting)), bytes))
    }

    /// What the node answers says nothing, as in SPIRE: its host is asked.
    pub(super) async fn judge_host(
        &self,
        Challenge { claim, asked, policy, csr }: Challenge,
    ) -> Result<AttestedNode, AttestationError> {
        let served = fetch::fetch(&claim, &policy.questions).await;
        let served = served.map_err(|error| {
            let (host, port) = (claim.host(), claim.port());
            if let Some(pass) = in_moderation(NOT_SERVED) {
                let (error, suppressed) = (&error as &dyn std::error::Error, pass.suppressed);
                info!(host, port, error, suppressed, "{NOT_SERVED}");
            }
            HttpChallengeServerRefusal::NotServed
        })?;
        asked.is_answered_by(&served).map_err(|_| HttpChallengeServerRefusal::NotServed)?;
        Ok(AttestedNode {
            id: self.trust_domain.id_with_path(&format!("/spire/agent/{TYPE}/{}", claim.host()))?,
            attestation_type: TYPE.into(),
            selectors: Selector::new(TYPE, &format!("hostname:{}", claim.host())).into_iter().collect(),
            can_reattest: !policy.first_use,
            csr,
            proof: Proof::Host { first_use: policy.first_use },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(host: &str, port: u16) -> Claim {
        Claim::new(host, "default", port).expect("legal")
    }

    fn policy(names: &[&str], ports: Ports) -> HttpChallengePolicy {
        let names = names.iter().map(|name| Regex::new(name).expect("legal")).collect();
        HttpChallengePolicy { names, ports, first_use: true, questions: Arc::default() }
    }

    #[test]
    fn hosts_and_ports_that_the_operator_did_not_name_are_refused() {
        let all = policy(&[], Ports::All);
        assert!(all.check(&claim("any.example", 8080)).is_ok());
        let named = policy(&[r"^p[0-9]\.example\.com$", "^gw$"], Ports::All);
        assert!(named.check(&claim("p1.example.com", 1)).is_ok() && named.check(&claim("gw", 1)).is_ok());
        let refused = named.check(&claim("p1.example.com.evil", 1)).expect_err("not named");
        assert!(matches!(refused, HttpChallengeServerRefusal::Name) && matches!(refused.fault(), Fault::Node));
        let refused = |ports: Ports, port| ports.check(port).expect_err("refused").to_string();
        assert_eq!(refused(Ports::OfRoot, 1024), "port 1024 is not allowed to be >= 1024");
        assert_eq!(refused(Ports::Only(80), 81), "port 81 is not allowed to be used by this server");
        assert_eq!(refused(Ports::OnlyOfRoot(8080), 8080), "port 8080 is not allowed to be >= 1024");
        assert!(Ports::OfRoot.check(1023).is_ok() && Ports::Only(8080).check(8080).is_ok());
        assert!(Ports::OnlyOfRoot(80).check(80).is_ok() && Ports::All.check(65535).is_ok());
    }
}
