//! A server and an agent, each of either make.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use ironroot_api::pb::workload::X509svidResponse;
use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, binary, expect_within,
};
use ironroot_lab::spire::{SpireAgent, SpireServer, Times, spire_binary};
use ironroot_lab::workload_client;
use tokio::runtime::Runtime;
use tonic::Status;

/// Who made a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    Ironroot,
    Spire,
}

/// A server of either make.
pub enum AnyServer {
    Ours(Server),
    Spires(SpireServer),
}

impl AnyServer {
    pub fn start(maker: Maker, times: Times) -> Self {
        Self::start_with(maker, times, "")
    }

    /// As [`start`](Self::start), with further blocks of the plugins.
    pub fn start_with(maker: Maker, times: Times, plugins: &str) -> Self {
        match maker {
            Maker::Ironroot => Self::Ours(Server::start(&ServerOptions {
                ca_ttl: times.ca,
                agent_ttl: times.agent,
                x509_svid_ttl: times.x509_svid,
                plugins: plugins.to_owned(),
                ..ServerOptions::default()
            })),
            Maker::Spire => Self::Spires(SpireServer::start_with(times, plugins)),
        }
    }

    pub fn port(&self) -> u16 {
        match self {
            Self::Ours(server) => server.port(),
            Self::Spires(server) => server.port(),
        }
    }

    pub fn log(&self) -> String {
        match self {
            Self::Ours(server) => server.log(),
            Self::Spires(server) => server.log(),
        }
    }

    /// `kill -9`, and up again.
    pub fn crash(&mut self) {
        match self {
            Self::Ours(server) => (server.kill(), server.restart()).1,
            Self::Spires(server) => (server.kill(), server.restart()).1,
        }
    }

    /// `kill -9`; [`crash`](Self::crash) brings it up again.
    pub fn kill(&mut self) {
        match self {
            Self::Ours(server) => server.kill(),
            Self::Spires(server) => server.kill(),
        }
    }

    fn socket(&self) -> PathBuf {
        match self {
            Self::Ours(server) => server.socket(),
            Self::Spires(server) => server.socket(),
        }
    }

    /// Asks this server with the command line of `maker`; whatever the outcome.
    pub fn output(&self, maker: Maker, arguments: &[&str]) -> Output {
        let program = match maker {
            Maker::Ironroot => binary("ironroot-server"),
            Maker::Spire => spire_binary("spire-server"),
        };
        let mut command = Command::new(program);
        command.args(arguments).arg("-socketPath").arg(self.socket()).output().expect("it starts")
    }

    /// The same; what it printed, or a panic with what it said.
    pub fn cli(&self, maker: Maker, arguments: &[&str]) -> String {
        let output = self.output(maker, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{maker:?} {arguments:?}: {said}\n{}", self.log());
        String::from_utf8(output.stdout).expect("text")
    }

    /// A fresh join token; whoever attests with it also serves what is below `/node`.
    pub fn token(&self, maker: Maker) -> String {
        let alias = format!("spiffe://{TRUST_DOMAIN}/node");
        let text = self.cli(maker, &["token", "generate", "-spiffeID", &alias, "-output", "json"]);
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        json["value"].as_str().expect("a token").to_owned()
    }

    /// Registers what this process gets below `/node`; the entry's ID.
    pub fn create_own_entry(&self, maker: Maker, path: &str, more: &[&str]) -> String {
        let uid = format!("unix:uid:{}", nix::unistd::geteuid());
        let (parent, id) = (format!("spiffe://{TRUST_DOMAIN}/node"), format!("spiffe://{TRUST_DOMAIN}{path}"));
        let arguments =
            ["entry", "create", "-output", "json", "-parentID", &parent, "-spiffeID", &id, "-selector", &uid];
        let text = self.cli(maker, &[&arguments, more].concat());
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        json["results"][0]["entry"]["id"].as_str().expect("an entry ID").to_owned()
    }
}

/// An agent of either make, keys on disk.
pub enum AnyAgent {
    Ours(Device),
    Spires(SpireAgent),
}

impl AnyAgent {
    pub fn new(maker: Maker) -> Self {
        match maker {
            Maker::Ironroot => Self::Ours(Device::without_tpm()),
            Maker::Spire => Self::Spires(SpireAgent::new()),
        }
    }

    /// Starts one with an admin socket and further lines of the agent's block, which attests with a token.
    pub fn started_with(maker: Maker, server: &AnyServer, lines: &str) -> Self {
        let (bundle, token) = (server.cli(Maker::Spire, &["bundle", "show"]), server.token(Maker::Spire));
        match maker {
            Maker::Ironroot => {
                let mut device = Device::without_tpm();
                let socket = device.admin_socket();
                let agent_lines = format!("admin_socket_path = \"{}\"\n{lines}", socket.display());
                let join_token = Some(token);
                let options = AgentOptions { join_token, agent_lines, key_manager: "disk", ..AgentOptions::default() };
                device.provision_with_bundle(&bundle, server.port(), &options);
                device.start();
                Self::Ours(device)
            }
            Maker::Spire => {
                let mut agent = SpireAgent::new().with_admin_socket(lines);
                agent.provision(&bundle, server.port());
                agent.start(Some(&token));
                Self::Spires(agent)
            }
        }
    }

    /// The admin socket of one that has it.
    pub fn admin_socket(&self) -> PathBuf {
        match self {
            Self::Ours(device) => device.admin_socket(),
            Self::Spires(agent) => agent.admin_socket(),
        }
    }

    /// Starts it (again): with a token if it has to attest.
    pub fn start(&mut self, server: &AnyServer, join_token: Option<&str>) {
        let bundle = server.cli(Maker::Spire, &["bundle", "show"]);
        match self {
            Self::Ours(device) => {
                let join_token = Some(join_token.unwrap_or_default().to_owned());
                let options = AgentOptions { join_token, key_manager: "disk", ..AgentOptions::default() };
                device.provision_with_bundle(&bundle, server.port(), &options);
                device.start();
            }
            Self::Spires(agent) => {
                agent.provision(&bundle, server.port());
                agent.start(join_token);
            }
        }
    }

    /// Starts it with another node attestor than that of tokens.
    pub fn start_with(&mut self, server: &AnyServer, node_attestor: &str) {
        let bundle = server.cli(Maker::Spire, &["bundle", "show"]);
        match self {
            Self::Ours(device) => {
                let node_attestor = Some(node_attestor.to_owned());
                let options = AgentOptions { node_attestor, key_manager: "disk", ..AgentOptions::default() };
                device.provision_with_bundle(&bundle, server.port(), &options);
                device.start();
            }
            Self::Spires(agent) => {
                agent.provision_with(&bundle, server.port(), node_attestor);
                agent.start(None);
            }
        }
    }

    pub fn kill(&mut self) {
        match self {
            Self::Ours(device) => device.kill_agent(),
            Self::Spires(agent) => agent.kill(),
        }
    }

    pub fn socket(&self) -> PathBuf {
        match self {
            Self::Ours(device) => device.socket(),
            Self::Spires(agent) => agent.socket(),
        }
    }

    pub fn data_directory(&self) -> PathBuf {
        match self {
            Self::Ours(device) => device.data_directory(),
            Self::Spires(agent) => agent.data_directory(),
        }
    }

    pub fn log(&self) -> String {
        match self {
            Self::Ours(device) => device.log(),
            Self::Spires(agent) => agent.log(),
        }
    }

    /// What this process is served now.
    pub fn fetch(&self, runtime: &Runtime) -> Result<X509svidResponse, Status> {
        let answer = runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(5), workload_client::fetch(&self.socket())).await
        });
        answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in 5 s")))
    }

    /// Waits until this process has an identity.
    pub fn expect_identity(&self, runtime: &Runtime) -> X509svidResponse {
        let socket = self.socket();
        let served = runtime.block_on(workload_client::first_svid(&socket, Instant::now(), DEADLINE));
        served.unwrap_or_else(|status| panic!("nothing served: {status}\n{}", self.log())).0
    }

    /// Waits until nothing is served any more.
    pub fn expect_nothing(&self, runtime: &Runtime, claim: &str) {
        expect_within(DEADLINE, claim, || self.log(), || self.fetch(runtime).is_err());
    }
}
