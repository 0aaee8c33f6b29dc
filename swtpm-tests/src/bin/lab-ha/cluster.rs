//! Three nodes, one of them the primary, one its synchronous standby.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ironroot_lab::deployment::wait_for;
use tempfile::TempDir;

use crate::Outcome;
use crate::node::{NETWORKS, Node};
use crate::proof::Authority;
use crate::shell::shell;

/// Who owns the databases; its password.
const OWNER: &str = "ironroot";
const PASSWORD: &str = "lab-owner";
/// Longest that is waited for a failover, and for a node that comes back.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The nodes.
pub struct Cluster {
    pub nodes: Vec<Node>,
    directory: TempDir,
    databases: u32,
}

impl Cluster {
    /// Makes the bridge and the nodes, and waits until all follow.
    pub fn start() -> Outcome<Self> {
        let directory = tempfile::tempdir()?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        shell(
            "ip link add br0 type bridge; for n in 0 1 2 3; do ip addr add 10.77.$n.254/24 dev br0; done; ip link set br0 up",
        )?;
        let authority = Authority::new(&directory.path().join("roots.pem"))?;
        let nodes = (1..=3).map(|number| Node::make(number, directory.path(), &authority));
        let mut cluster = Self { nodes: nodes.collect::<Outcome<_>>()?, directory, databases: 0 };
        cluster.nodes.iter_mut().try_for_each(Node::start)?;
        cluster.expect_settled()?;
        cluster.sql("postgres", &format!("CREATE ROLE {OWNER} LOGIN PASSWORD '{PASSWORD}'"))?;
        Ok(cluster)
    }

    /// Where the lab's files are.
    pub fn place(&self) -> &Path {
        self.directory.path()
    }

    fn roots(&self) -> PathBuf {
        self.place().join("roots.pem")
    }

    /// The index of the node that takes writes.
    pub fn primary(&self) -> Option<usize> {
        self.nodes.iter().position(Node::is_primary)
    }

    /// The same, as soon as there is one that is not `but`.
    pub fn expect_primary(&self, but: Option<usize>) -> Outcome<usize> {
        let other = || self.nodes.iter().enumerate().position(|(at, node)| Some(at) != but && node.is_primary());
        wait_for(PATIENCE, other).ok_or_else(|| "no primary".into())
    }

    /// Waits for a primary and two standbys that follow it, one of them synchronously (where the cluster is so).
    pub fn expect_settled(&self) -> Outcome<()> {
        let settled = wait_for(PATIENCE, || self.is_settled().then_some(()));
        settled.ok_or_else(|| {
            let logs: String = self.nodes.iter().map(Node::last_words).collect();
            format!("the cluster does not come together\n{logs}").into()
        })
    }

    fn is_settled(&self) -> bool {
        let Some(answer) = self.primary().and_then(|at| self.nodes[at].ask("/cluster")) else { return false };
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let Ok(told) = serde_json::from_str::<serde_json::Value>(body) else { return false };
        let members = told["members"].as_array().map_or(&[][..], Vec::as_slice);
        let count = |key: &str, value: &str| members.iter().filter(|member| member[key] == value).count();
        let is_synchronous = count("role", "sync_standby") == 1 || self.is_asynchronous();
        members.len() == 3 && count("state", "streaming") == 2 && is_synchronous
    }

    fn is_asynchronous(&self) -> bool {
        self.nodes
            .iter()
            .filter_map(|node| node.ask("/config"))
            .any(|said| said.contains("\"synchronous_mode\": false"))
    }

    /// Everything runs, nothing is cut off, and the standby is synchronous again.
    pub fn mend(&mut self) -> Outcome<()> {
        for node in &mut self.nodes {
            node.heal()?;
            node.freeze(false)?;
            node.start()?;
        }
        self.expect_settled()?;
        self.set_synchronous(true)
    }

    /// Whether commits wait for a standby.
    pub fn set_synchronous(&self, on: bool) -> Outcome<()> {
        if on != self.is_asynchronous() {
            return Ok(());
        }
        self.nodes[self.expect_primary(None)?].set(&format!("{{\"synchronous_mode\": {on}}}"))?;
        let names = || self.sql("postgres", "SHOW synchronous_standby_names").unwrap_or_default();
        wait_for(PATIENCE, || (names().is_empty() != on).then_some(())).ok_or("the mode does not change")?;
        self.expect_settled()
    }

    /// What the statements answer on the primary.
    pub fn sql(&self, database: &str, text: &str) -> Outcome<String> {
        self.nodes[self.expect_primary(None)?].sql(database, text)
    }

    /// A new database, by its name.
    pub fn create_database(&mut self) -> Outcome<String> {
        self.databases += 1;
        let name = format!("db{}", self.databases);
        self.sql("postgres", &format!("CREATE DATABASE {name} OWNER {OWNER}"))?;
        Ok(name)
    }

    /// How the server of that number, from 0, connects to a database: by a network of its own.
    pub fn connection_string(&self, database: &str, server: u8) -> String {
        let network = 1 + server % (NETWORKS - 1);
        let hosts: Vec<_> = self.nodes.iter().map(|node| node.address(network).to_string()).collect();
        format!(
            "host={} user={OWNER} password={PASSWORD} dbname={database} sslmode=verify-full sslrootcert={}",
            hosts.join(","),
            self.roots().display()
        )
    }
}

/// Seconds since then, with a tenth.
pub fn seconds_since(then: Instant) -> String {
    format!("{:.1} s", then.elapsed().as_secs_f64())
}
