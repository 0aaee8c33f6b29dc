//! `doctor`: whether this device, now, has what the agent needs.

mod server;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ironroot_api::pb::agent_status::GetStatusRequest;
use ironroot_api::pb::agent_status::status_client::StatusClient;
use ironroot_api::unix_socket;
use ironroot_attest::tpm::{Tpm, TpmAddress};
use ironroot_shell::command_line::doctor::{Findings, disk_space, listener_is_free, name_resolves};
use ironroot_shell::command_line::{ConfigFile, Output, Reply, block_on, describe};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::run::Flags;
use super::status::servers;
use crate::config::{AgentConfig, TpmConfig, unreachable_docker};
use crate::report::Stands;
use crate::run::tpm_settings;

const PROGRAM: &str = "ironroot-agent";
/// How long an agent that runs may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks whether this device has what the agent needs: TPM, server, clock, sockets, disk; says what to do next.
#[derive(Debug, Args)]
#[command(
    after_help = "Run it as the daemon's user, whether the agent runs or not: nothing is changed, and nothing is proven to the server. What \
        validate finds in the file, it finds too. Exit code 1: there is a fault.

Example: ironroot-agent doctor -config /etc/ironroot/agent.conf
Example: ironroot-agent doctor -config /etc/ironroot/agent.conf -output json"
)]
pub(super) struct Doctor {
    #[command(flatten)]
    file: ConfigFile<Flags>,
    /// Form of the answer: pretty or json
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    output: Output,
}

impl Doctor {
    pub(super) fn execute(self) -> ExitCode {
        Reply::print(&block_on(async { Ok(self.look().await.reply()) }), self.output)
    }

    async fn look(&self) -> Findings {
        let mut findings = Findings::default();
        let Some(config) = self.read(&mut findings) else { return findings };
        let runs = look_at_agent(&mut findings, &config.socket_path, config.admin_socket_path.as_deref()).await;
        disk_space(&mut findings, "disk of data_dir", &config.data_dir);
        look_at_ports(&mut findings, &config, runs);
        look_at_docker(&mut findings, &config);
        if let Some(tpm) = config.tpm() {
            look_at_tpm(&mut findings, tpm, &config, runs).await;
        }
        for server in &config.servers {
            let about = server::about("name of the server", server);
            name_resolves(&mut findings, &about, &server.address, server.port);
            server::look(&mut findings, (&config.trust_domain, config.key_exchanges), server).await;
        }
        findings
    }

    /// The configuration. A place that it names and that cannot be used keeps nobody from looking at the rest; text that is no
    /// configuration does.
    fn read(&self, findings: &mut Findings) -> Option<AgentConfig> {
        let looked_at = findings.configuration(self.file.load(AgentConfig::validate), PROGRAM);
        if let Some(config) = &looked_at {
            findings.good("configuration", format!("trust domain {}", config.trust_domain));
            config.warnings.iter().for_each(|warning| findings.doubtful("configuration", warning, ""));
        }
        looked_at.or_else(|| self.file.load(AgentConfig::load).ok())
    }
}

/// Whether the agent runs.
async fn look_at_agent(findings: &mut Findings, socket: &Path, admin: Option<&Path>) -> bool {
    let asked = async {
        let channel = unix_socket::connect(socket).await.ok()?;
        let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await.ok()?;
        Some(answer.get_ref().status() == ServingStatus::Serving)
    };
    let next = "ironroot-agent status; journalctl -u ironroot-agent -n 50";
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Some(serves)) => match (standing(admin).await, serves) {
            (Some(Trouble::CastOut(why)), _) => {
                findings.fault("agent", format!("it runs, and serves nothing: {why}"), next);
            }
            (Some(Trouble::Fails(why)), true) => {
                findings.doubtful("agent", format!("it runs, serves what it has, and fails: {why}"), next);
            }
            (Some(Trouble::Fails(why)), false) => {
                findings.doubtful("agent", format!("it runs, and has nothing to serve: {why}"), next);
            }
            (None, true) => findings.good("agent", "it runs, and serves what it has"),
            (None, false) => findings.doubtful("agent", "it runs, and has nothing to serve, or not yet", next),
        },
        Ok(None) if socket.exists() => {
            let says = format!("{} does not answer: the agent does not run, or refuses this user", socket.display());
            findings.doubtful("agent", says, "systemctl status ironroot-agent");
            return false;
        }
        Ok(None) => {
            findings.good("agent", "it does not run");
            return false;
        }
        Err(_) => findings.fault("agent", format!("it has not answered for {} s", PATIENCE.as_secs()), next),
    }
    true
}

/// What keeps an agent that runs from its work, in its own words.
enum Trouble {
    /// It may have no identities.
    CastOut(String),
    /// What it tries does not succeed.
    Fails(String),
}

/// How the agent stands with its servers; none where nothing is wrong, or there is nobody to ask.
async fn standing(admin: Option<&Path>) -> Option<Trouble> {
    let admin = admin?;
    let asked = async {
        let mut client = StatusClient::new(unix_socket::connect(admin).await.ok()?);
        client.get_status(GetStatusRequest {}).await.ok()
    };
    let status = tokio::time::timeout(PATIENCE, asked).await.ok()??.into_inner();
    let is_out = |standing: &str| [Stands::Banned, Stands::Evicted].iter().any(|out| out.word() == standing);
    // Of several servers one that serves is enough.
    let servers = servers(&status);
    if let Some(out) = servers.first().filter(|_| servers.iter().all(|server| is_out(&server.standing))) {
        return Some(Trouble::CastOut(format!("its server says that it is {}", out.standing)));
    }
    let failing = servers.iter().find(|server| server.failures > 0)?;
    Some(Trouble::Fails(failing.last_failure.clone()))
}

fn look_at_ports(findings: &mut Findings, config: &AgentConfig, runs: bool) {
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

fn look_at_docker(findings: &mut Findings, config: &AgentConfig) {
    let Some(docker) = &config.containers.docker else { return };
    match unreachable_docker(docker) {
        None => findings.good("docker", "it can be asked for containers"),
        Some(why) => findings.doubtful("docker", why, format!("ls -l {}; id", docker.docker_socket.display())),
    }
}

async fn look_at_tpm(findings: &mut Findings, tpm: &TpmConfig, config: &AgentConfig, runs: bool) {
    if runs && !matches!(tpm.address, TpmAddress::Device(_)) {
        let says = format!("not looked at: {} has one user at a time, the agent that runs", tpm.address);
        return findings.doubtful("TPM", says, "ironroot-agent status");
    }
    let settings = match tpm_settings(tpm, config) {
        Ok(settings) => settings,
        Err(error) => {
            let next = "ls -l of the password's file: it is its owner's alone (chmod 600), who is the daemon's user";
            return findings.fault("password of the TPM", describe(&error), next);
        }
    };
    let described = async { Tpm::open(settings).await?.run("describe the TPM", |chip| chip.describe()).await };
    match described.await {
        Ok(chip) => findings.good("TPM", format!("{} answers: {} {}", tpm.address, chip.manufacturer, chip.model)),
        Err(error) => findings.fault("TPM", describe(&error), next_for_tpm(&tpm.address)),
    }
}

fn next_for_tpm(address: &TpmAddress) -> String {
    match address {
        TpmAddress::Device(path) => {
            format!(
                "ls -l {}; it belongs to group tss, and so must the daemon's user; dmesg | grep -i tpm",
                path.display()
            )
        }
        TpmAddress::Swtpm { .. } | TpmAddress::Mssim { .. } => format!("is a software TPM started at {address}?"),
    }
}
