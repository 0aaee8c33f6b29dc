//! Three servers on one database.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ironroot_lab::deployment::{AgentOptions, Device, Server, ServerOptions, wait_for};
use ironroot_lab::manufacturer::Manufacturer;

use crate::Outcome;
use crate::cluster::Cluster;
use crate::shell::shell;

const NAMES: [&str; 3] = ["north", "south", "west"];
const PATIENCE: Duration = Duration::from_secs(60);

/// The servers, and the database that they share.
pub struct Fleet {
    pub servers: Vec<Server>,
    pub database: String,
}

impl Fleet {
    /// Starts them on a new database.
    pub fn start(cluster: &mut Cluster) -> Outcome<Self> {
        Self::start_by(cluster, None, "20s")
    }

    /// The same by another build of the server, or with SVIDs of another lifetime.
    pub fn start_by(cluster: &mut Cluster, program: Option<&Path>, svid_ttl: &'static str) -> Outcome<Self> {
        let database = cluster.create_database()?;
        let servers = (0..).zip(NAMES).map(|(number, name)| {
            let mut server = Server::prepare(&ServerOptions {
                x509_svid_ttl: svid_ttl,
                ..options(name, cluster.connection_string(&database, number))
            });
            server.run_by(program.map(PathBuf::from));
            server.restart();
            server
        });
        let fleet = Self { servers: servers.collect(), database };
        let one =
            || fleet.servers.iter().all(|server| server.bundle_pem().matches("BEGIN CERT").count() == NAMES.len());
        wait_for(PATIENCE, || one().then_some(())).ok_or("the servers have not one bundle")?;
        Ok(fleet)
    }

    /// An enrolled device whose user `uid` has an identity at every server.
    pub fn device(&self, uid: u32, options: &AgentOptions) -> Outcome<Device> {
        let mut device = Device::manufacture(&Manufacturer::new("Toy")?);
        let server = &self.servers[0];
        server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
        server.create_entry(&device.agent_id(), "/workload", &[&format!("unix:uid:{uid}")], &[]);
        device.provision(server, options);
        device.start();
        device.expect_identity(uid);
        Ok(device)
    }

    /// Whether no server runs any more.
    pub fn all_ended(&mut self) -> bool {
        self.servers.iter_mut().all(|server| server.process().is_none_or(|process| !process.runs()))
    }

    /// What a server has said when it ended.
    pub fn last_words(&self) -> String {
        self.servers[0].log().lines().last().unwrap_or_default().to_owned()
    }

    /// What that server says of its health.
    pub fn says(&self, at: usize) -> String {
        let said = self.servers[at].cli_output(&["healthcheck"]);
        String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned()
    }

    /// Has an entry made at each server, and waits until all have it.
    pub fn expect_all_work(&self, path: &str) -> Outcome<()> {
        for (at, server) in self.servers.iter().enumerate() {
            let path = format!("{path}-by-{at}");
            server.create_entry("spiffe://lab.example/host", &path, &["unix:uid:1"], &[]);
            let known = || self.servers.iter().all(|server| server.cli(&["entry", "show"]).contains(&path));
            wait_for(PATIENCE, || known().then_some(())).ok_or_else(|| format!("not all servers know {path}"))?;
        }
        self.expect_healthy()
    }

    /// Whether that server says that nothing is wrong.
    pub fn is_healthy(&self, at: usize) -> bool {
        self.servers[at].cli_output(&["healthcheck"]).status.success()
    }

    /// Waits until all are.
    pub fn expect_healthy(&self) -> Outcome<()> {
        let all = || (0..self.servers.len()).all(|at| self.is_healthy(at));
        wait_for(2 * PATIENCE, || all().then_some(())).ok_or_else(|| "a server does not get well alone".into())
    }

    /// Lets that server see no database any more, or again.
    pub fn cut_from_database(&self, at: u8, cut: bool) -> Outcome<()> {
        let line = match cut {
            true => format!(
                "nft -f - <<X\nadd table inet lab\nadd chain inet lab o {{ type filter hook output priority 0; }}\n\
                 add rule inet lab o ip daddr 10.77.{}.0/24 drop\nX",
                at + 1
            ),
            false => "nft delete table inet lab".to_owned(),
        };
        shell(&line).map(drop)
    }

    /// Lets nobody reach that server's port any more, or again.
    pub fn cut_from_agents(&self, at: usize, cut: bool) -> Outcome<()> {
        let line = match cut {
            true => format!(
                "nft -f - <<X\nadd table inet lab\nadd chain inet lab i {{ type filter hook input priority 0; }}\n\
                 add rule inet lab i tcp dport {} drop\nX",
                self.servers[at].port()
            ),
            false => "nft delete table inet lab".to_owned(),
        };
        shell(&line).map(drop)
    }
}

fn options(name: &str, connection_string: String) -> ServerOptions {
    ServerOptions {
        server_lines: format!("server_name = \"{name}\""),
        postgres: Some(connection_string),
        ..ServerOptions::default()
    }
}
