//! `doctor`: whether this machine, now, has what the server needs.

mod beside;
mod ca_keys;
mod token;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ironroot_api::unix_socket;
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::doctor::{Findings, disk_space, listener_is_free, name_resolves, port_is_free};
use ironroot_shell::command_line::{CommandError, ConfigFile, Output, Reply, block_on};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::connection::PACKAGED_SOCKET;
use super::run::Flags;
use crate::config::{KeyManagerConfig, OidcListener, ServerConfig, UpstreamConfig};
use crate::endpoints::REASON_METADATA;
use crate::store::Location;
use crate::token_exchange::KeySource;

/// How long a server that runs may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The clock of no machine that runs this is before then, UNIX seconds (2026-01-01).
const EARLIEST: i64 = 1_767_225_600;

/// Looks whether this machine has what the server needs: token, PIN, data store, ports, disk, names; says what to do next.
#[derive(Debug, Args)]
#[command(
    after_help = "Run it as the daemon's user, whether the server runs or not: nothing is changed. What validate finds in the file, it \
        finds too. The token is logged in to as the server would do it: its flags are read first, and a PIN is not sent to one that says that \
        few tries are left; one that is wrong costs one try. With -noLogin none is sent. Exit code 1: there is a fault.

Example: ironroot-server doctor -config /etc/ironroot/server.conf
Example: ironroot-server doctor -config /etc/ironroot/server.conf -output json"
)]
pub(super) struct Doctor {
    #[command(flatten)]
    file: ConfigFile<Flags>,
    /// Send the token no PIN
    #[arg(long = "noLogin")]
    no_login: bool,
    /// Form of the answer: pretty or json
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    output: Output,
}

impl Doctor {
    pub(super) fn execute(self) -> ExitCode {
        let answer = block_on(async { Ok(self.look().await.reply()) });
        Reply::print(&answer, self.output)
    }

    async fn look(&self) -> Findings {
        let mut findings = Findings::default();
        let read = self.file.load(ServerConfig::validate);
        let Some(config) = findings.configuration(read, "ironroot-server") else { return findings };
        findings.good("configuration", format!("trust domain {}", config.trust_domain));
        let runs = look_at_server(&mut findings, &config.socket_path).await;
        look_at_disks(&mut findings, &config);
        look_at_ports(&mut findings, &config, runs);
        look_at_names(&mut findings, &config);
        look_at_clock(&mut findings, wall_unix());
        beside::look_at_store(&mut findings, &config);
        beside::look_at_above(&mut findings, &config);
        beside::look_at_ceremony(&mut findings, &config);
        beside::look_at_web(&mut findings, &config, wall_unix());
        look_at_keys(&mut findings, &config, self.no_login).await;
        findings
    }
}

/// Whether the server runs.
async fn look_at_server(findings: &mut Findings, socket: &Path) -> bool {
    let asked = tokio::time::timeout(PATIENCE, ask(socket)).await;
    let next = "ironroot-server healthcheck; journalctl -u ironroot-server -n 50";
    match asked {
        Ok(Ok(None)) => findings.good("server", "it runs, and is healthy"),
        Ok(Ok(Some(why))) => findings.fault("server", format!("it runs, and is not healthy: {why}"), next),
        Ok(Err(_)) if !socket.exists() => findings.good("server", "it does not run"),
        Ok(Err(error)) => {
            let says = format!("its admin socket {} does not answer this user: {}", socket.display(), error.message());
            findings.doubtful(
                "server",
                says,
                "as root or the daemon's user; if the server does not run, the socket is an old one",
            );
            return false;
        }
        Err(_) => findings.fault("server", format!("it runs, and has not answered for {} s", PATIENCE.as_secs()), next),
    }
    socket.exists()
}

/// Why the server that runs is not healthy; none if it is.
async fn ask(socket: &Path) -> Result<Option<String>, CommandError> {
    let channel = unix_socket::connect(socket).await.map_err(CommandError::unreachable(PACKAGED_SOCKET))?;
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await?;
    if answer.get_ref().status() == ServingStatus::Serving {
        return Ok(None);
    }
    let reason = answer.metadata().get_bin(REASON_METADATA).and_then(|reason| reason.to_bytes().ok());
    Ok(Some(
        reason.map_or_else(|| "it does not say why".to_owned(), |reason| String::from_utf8_lossy(&reason).into_owned()),
    ))
}

fn look_at_disks(findings: &mut Findings, config: &ServerConfig) {
    disk_space(findings, "disk of data_dir", &config.data_dir);
    if let Location::Sqlite(file) = &config.data_store
        && let Some(directory) = file.parent().filter(|directory| !directory.starts_with(&config.data_dir))
    {
        disk_space(findings, "disk of the data store", directory);
    }
    if let Some(directory) = config.log.file.as_deref().and_then(Path::parent) {
        disk_space(findings, "disk of the log", directory);
    }
}

fn look_at_ports(findings: &mut Findings, config: &ServerConfig, runs: bool) {
    port_is_free(findings, "port of agents", config.bind_address, runs);
    if let Some(endpoint) = &config.federation.bundle_endpoint {
        port_is_free(findings, "port of the bundle", endpoint.address, runs);
    }
    if let Some(OidcListener::Https(address, _)) = config.oidc.as_ref().map(|oidc| &oidc.listener) {
        port_is_free(findings, "port of discovery", *address, runs);
    }
    if let Some(exchange) = &config.token_exchange {
        port_is_free(findings, "port of token exchange", exchange.address, runs);
    }
    let local = [
        ("port of health", config.health_checks.as_ref().map(|checks| (checks.host.as_str(), checks.port))),
        (
            "port of metrics",
            config.telemetry.as_ref().and_then(|it| it.prometheus.as_ref()).map(|it| (it.host.as_str(), it.port)),
        ),
    ];
    for (about, place) in local {
        place.into_iter().for_each(|place| listener_is_free(findings, about, place, runs));
    }
}

fn look_at_names(findings: &mut Findings, config: &ServerConfig) {
    for issuer in config.token_exchange.iter().flat_map(|exchange| &exchange.issuers) {
        if let KeySource::Discovery { url, .. } = &issuer.keys {
            name_resolves(findings, "name of a token issuer", url.host(), url.port());
        }
    }
    for peer in &config.federation.federates_with {
        name_resolves(findings, "name of a federation", peer.url.host(), peer.url.port());
    }
    if let Some(UpstreamConfig::Spire(above)) = &config.upstream {
        name_resolves(findings, "name of the server above", &above.host, above.port);
    }
}

fn look_at_clock(findings: &mut Findings, now_unix: i64) {
    let says = format!("it says {}", ironroot_api::utc(now_unix));
    match now_unix < EARLIEST {
        true => findings.fault("clock", says, "set it, and let a time service keep it: timedatectl set-ntp true"),
        false => findings.good("clock", says),
    }
}

async fn look_at_keys(findings: &mut Findings, config: &ServerConfig, no_login: bool) {
    let keys = &config.key_managers;
    let (mut tokens, mut all_are_seen) = (Vec::new(), true);
    for (about, manager) in [("token", Some(&keys.current)), ("token of before", keys.former.as_ref())] {
        match manager {
            Some(KeyManagerConfig::Pkcs11(token)) => match token::look(findings, about, token, no_login).await {
                Some(token) => tokens.push(token),
                None => all_are_seen = false,
            },
            Some(KeyManagerConfig::Disk(_) | KeyManagerConfig::Memory) => {
                all_are_seen = false;
                findings.doubtful(
                    about,
                    "the CA's keys are not in hardware: whoever can read them can issue every identity",
                    "handbook.md, Keys that are not in hardware",
                );
            }
            None => {}
        }
    }
    // A key that is in none of them may be in the one that was not seen.
    if all_are_seen {
        ca_keys::look(findings, config, &tokens).await;
    }
}

#[cfg(test)]
mod tests {
    use ironroot_shell::command_line::doctor::Verdict;

    use super::*;

    #[test]
    fn a_clock_before_this_program_was_written_is_a_fault() {
        for (now, verdict) in [(0, Verdict::Fault), (EARLIEST, Verdict::Good)] {
            let mut findings = Findings::default();
            look_at_clock(&mut findings, now);
            assert_eq!(findings.count(verdict), 1, "{findings:?}");
        }
    }
}
