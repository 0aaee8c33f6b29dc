//! The server, as an agent would first speak to it; and the clock, by its certificate.

use std::time::Duration;

use ironroot_api::TrustDomain;
use ironroot_api::pb::bundle::GetBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_api::tls::KeyExchanges;
use ironroot_api::utc;
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::doctor::Findings;
use ironroot_shell::command_line::{counted, describe};

use crate::bundle_source::{BundleSource, Occasion};
use crate::config::{Bootstrap, ServerConfig};
use crate::server_channel::{ChannelError, Doubt, Server, ServerRefusal};
use crate::trusted_time::TrustedTime;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// How far a clock may be behind the server's certificate without a word, seconds: servers date certificates ten seconds back.
const MAX_BEHIND_SECONDS: i64 = 60;

/// What is looked at, with the server's name where it has one.
pub(super) fn about(what: &str, server: &ServerConfig) -> String {
    server.name.as_ref().map_or_else(|| what.to_owned(), |name| format!("{what} {name}"))
}

pub(super) async fn look(
    findings: &mut Findings,
    (trust_domain, key_exchanges): (&TrustDomain, KeyExchanges),
    config: &ServerConfig,
) {
    let Bootstrap::TrustBundle(source) = &config.bootstrap else {
        let next = "trust_bundle_path, with what ironroot-server bundle show prints";
        return findings.doubtful(
            about("trust bundle", config),
            "there is none: whoever answers first is believed",
            next,
        );
    };
    let time = TrustedTime::new();
    let server = Server::new(&config.address, config.port, trust_domain, time.clone()).agreeing_on(key_exchanges);
    let occasion = Occasion {
        trust_domain,
        server: server.host_and_port(),
        is_rebootstrap: false,
        attempts: 1,
        began_unix: wall_unix(),
        time: &TrustedTime::new(),
        exchanges: key_exchanges,
    };
    let bundle = match source.bundle(&occasion).await {
        Ok(bundle) => bundle,
        Err(error) => {
            let next = next_step(source);
            return findings.fault(about("trust bundle", config), describe(&error), next);
        }
    };
    findings.good(
        about("trust bundle", config),
        format!("{} has {}", place(source), counted(bundle.authorities().len(), "authority", "authorities")),
    );
    let asked = async {
        let channel = server.bootstrap(bundle.anchors().clone(), Doubt::Refused).await?;
        Ok::<_, ChannelError>(BundleClient::new(channel).get_bundle(GetBundleRequest::default()).await)
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(Ok(_))) => {
            findings
                .good(about("server", config), format!("{} proves that it is the trust domain's", server.address()));
            match behind(wall_unix(), time.now_unix()) {
                Some(says) => findings.doubtful(about("clock", config), says, "timedatectl; and on the server: date"),
                None => {
                    let says = format!("{}: the server's certificate is valid then", utc(wall_unix()));
                    findings.good(about("clock", config), says);
                }
            }
        }
        Ok(Ok(Err(status))) => {
            let says = format!("{} is there, and does not give its bundle: {}", server.address(), status.message());
            findings.fault(about("server", config), says, "on the server: ironroot-server healthcheck");
        }
        Ok(Err(error)) => refused(findings, (config, &server), &error),
        Err(_) => findings.fault(
            about("server", config),
            format!("{} has not answered for {} s", server.address(), PATIENCE.as_secs()),
            reach(&server),
        ),
    }
}

/// Where the bundle is, for people.
fn place(source: &BundleSource) -> String {
    match source {
        BundleSource::File { path, .. } => path.display().to_string(),
        BundleSource::Web { url, .. } => url.to_string(),
        BundleSource::Socket { socket, .. } | BundleSource::WorkloadApi { socket } => socket.display().to_string(),
    }
}

/// What to do where there is none.
fn next_step(source: &BundleSource) -> String {
    match source {
        BundleSource::File { path, .. } => format!("on the server: ironroot-server bundle show; as {}", path.display()),
        BundleSource::Web { url, .. } => format!("curl -v {url}"),
        BundleSource::Socket { url, socket, .. } => format!("curl -v --unix-socket {} {url}", socket.display()),
        BundleSource::WorkloadApi { socket } => {
            format!(
                "ironroot-agent api fetch x509 -socketPath {}, as the user that this agent runs as",
                socket.display()
            )
        }
    }
}

/// What is to be said of a clock that is behind what the server's certificate has shown meanwhile: an agent goes by the later of the two.
fn behind(clock: i64, known: i64) -> Option<String> {
    (known.saturating_sub(clock) > MAX_BEHIND_SECONDS).then(|| {
        format!(
            "this device's clock says {}, the server's certificate begins {}: the clock is behind, and an agent goes by the server's time",
            utc(clock),
            utc(known)
        )
    })
}

fn refused(findings: &mut Findings, (config, server): (&ServerConfig, &Server), error: &ChannelError) {
    match error {
        error if error.is_doubt() => {
            let next =
                "timedatectl; and on the server: date; an agent asks the server for a fresh signature and goes on";
            findings.fault(about("clock", config), describe(error), next);
        }
        ChannelError::Refused(ServerRefusal::OtherTrustDomain { found, .. }) => {
            let next = format!(
                "trust_domain = \"{}\" in this configuration, if that is the server that is meant; else server_address",
                found.trust_domain()
            );
            findings.fault(about("server", config), describe(error), next);
        }
        ChannelError::Refused(_) => {
            let next = "the bundle is of another or an older server: on it, ironroot-server bundle show";
            findings.fault(about("server", config), describe(error), next);
        }
        // The server is asked without the agent's key.
        ChannelError::Connect(_) | ChannelError::Key(_) => {
            findings.fault(about("server", config), describe(error), reach(server))
        }
    }
}

fn reach(server: &Server) -> String {
    format!("is a server started there, and does a firewall let this device reach {}?", server.address())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_behind_the_servers_certificate_is_told() {
        let told = behind(1_000_000_000, 1_000_086_400).expect("a day");
        assert!(told.contains("this device's clock says 2001-09-09T01:46:40Z"), "{told}");
        assert!(told.contains("begins 2001-09-10T01:46:40Z"), "{told}");
        for right in [1_000_086_400 - MAX_BEHIND_SECONDS, 1_000_086_400, 1_000_090_000] {
            assert_eq!(behind(right, 1_000_086_400), None);
        }
    }
}
