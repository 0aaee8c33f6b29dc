//! One node: etcd, Patroni and PostgreSQL in a network namespace, and what can happen to it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ironroot_lab::deployment::Process;

use crate::Outcome;
use crate::proof::Authority;
use crate::shell::shell;

/// How a node is described to Patroni.
const PATRONI: &str = include_str!("../../../ha/patroni.yml");
/// Where `scripts/lab-ha` shows Patroni's Python to other users.
const PYTHON: &str = "/media/patroni/bin/python";
/// What etcd is told of all nodes.
const MEMBERS: &str = "n1=http://10.77.0.11:2380,n2=http://10.77.0.12:2380,n3=http://10.77.0.13:2380";
/// Of a log that is told.
const LAST_LINES: usize = 8;
/// The networks in which a node has an address: Patroni's, and one for each server, which can be cut off alone.
pub const NETWORKS: u8 = 4;

/// A node of that number, 1 to 3.
pub struct Node {
    number: u8,
    place: PathBuf,
    etcd: Option<Process>,
    patroni: Option<Process>,
}

/// PostgreSQL's programs, as Debian has them.
fn programs() -> Outcome<String> {
    Ok(shell("ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1")?.trim().to_owned())
}

impl Node {
    /// Its namespace with an address in each network, and its files below `lab`.
    pub fn make(number: u8, lab: &Path, authority: &Authority) -> Outcome<Self> {
        let node = Self { number, place: lab.join(format!("n{number}")), etcd: None, patroni: None };
        let name = node.name();
        shell(&format!(
            "ip netns add {name}; ip -n {name} link set lo up
             ip link add v{number} type veth peer name eth0 netns {name}; ip link set v{number} master br0 up
             for network in 0 1 2 3; do ip -n {name} addr add 10.77.$network.1{number}/24 dev eth0; done
             ip -n {name} link set eth0 up"
        ))?;
        fs::create_dir(&node.place)?;
        let addresses: Vec<_> = (0..NETWORKS).map(|network| node.address(network).to_string()).collect();
        authority.prove(addresses.clone(), &node.place)?;
        let told = PATRONI
            .replace("@NAME@", &name)
            .replace("@LISTEN@", &addresses.join(","))
            .replace("@ADDRESS@", &node.address(0).to_string())
            .replace("@PLACE@", &node.place.display().to_string())
            .replace("@ROOTS@", &lab.join("roots.pem").display().to_string())
            .replace("@PROGRAMS@", &programs()?);
        fs::write(node.place.join("patroni.yml"), told)?;
        shell(&format!("chown -R postgres: {}", node.place.display()))?;
        Ok(node)
    }

    /// As etcd and Patroni call it.
    pub fn name(&self) -> String {
        format!("n{}", self.number)
    }

    /// Its address in that network.
    pub fn address(&self, network: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, network, 10 + self.number)
    }

    /// Starts what does not run.
    pub fn start(&mut self) -> Outcome<()> {
        self.start_etcd();
        if self.patroni.as_mut().is_none_or(|patroni| !patroni.runs()) {
            let told = self.place.join("patroni.yml").display().to_string();
            self.patroni = Some(self.run(PYTHON, &["-m", "patroni", &told], "patroni.log"));
        }
        Ok(())
    }

    fn start_etcd(&mut self) {
        if self.etcd.as_mut().is_some_and(Process::runs) {
            return;
        }
        let (name, at, data) = (self.name(), self.address(0), self.place.join("etcd").display().to_string());
        let (peers, clients) = (format!("http://{at}:2380"), format!("http://{at}:2379"));
        let arguments = [
            ["--name", &name],
            ["--data-dir", &data],
            ["--listen-peer-urls", &peers],
            ["--initial-advertise-peer-urls", &peers],
            ["--listen-client-urls", &clients],
            ["--advertise-client-urls", &clients],
            ["--initial-cluster", MEMBERS],
            ["--initial-cluster-state", "new"],
            ["--heartbeat-interval", "100"],
            ["--election-timeout", "1000"],
            ["--logger", "zap"],
            ["--log-level", "warn"],
        ];
        self.etcd = Some(self.run("etcd", arguments.as_flattened(), "etcd.log"));
    }

    fn run(&self, program: &str, arguments: &[&str], log: &str) -> Process {
        let (name, home) = (self.name(), format!("HOME={}", self.place.display()));
        let inside =
            ["netns", "exec", &name, "setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "env"];
        let inside = inside.into_iter().chain([&*home, "LC_ALL=C.UTF-8", program]).chain(arguments.iter().copied());
        let inside: Vec<_> = inside.map(str::to_owned).collect();
        Process::start(Path::new("ip"), &inside, &[], &self.place.join(log))
    }

    fn signal(&self, signal: &str, of: &str) -> Outcome<()> {
        let name = self.name();
        shell(&format!(
            "for pid in $(ip netns pids {name}); do grep -qE '{of}' /proc/$pid/comm 2>/dev/null && kill -{signal} $pid || true; done"
        ))?;
        Ok(())
    }

    /// `kill -9` of Patroni and PostgreSQL: the machine is gone.
    pub fn kill(&mut self) -> Outcome<()> {
        self.signal("KILL", "python|patroni")?;
        self.signal("KILL", "postgres")?;
        self.patroni = None;
        Ok(())
    }

    /// `kill -9` of PostgreSQL alone.
    pub fn crash(&self) -> Outcome<()> {
        self.signal("KILL", "postgres")
    }

    /// Stops everything where it is, or lets it go on.
    pub fn freeze(&self, frozen: bool) -> Outcome<()> {
        self.signal(if frozen { "STOP" } else { "CONT" }, ".")
    }

    /// Stops etcd where it is, or lets it go on.
    pub fn freeze_etcd(&self, frozen: bool) -> Outcome<()> {
        self.signal(if frozen { "STOP" } else { "CONT" }, "etcd")
    }

    /// Cuts it off from everybody: connections go silent.
    pub fn cut(&self) -> Outcome<()> {
        self.filter(
            "add chain inet lab i { type filter hook input priority 0; policy drop; }
             add rule inet lab i iif lo accept
             add chain inet lab o { type filter hook output priority 0; policy drop; }
             add rule inet lab o oif lo accept",
        )
    }

    /// What PostgreSQL says to other nodes is lost from now on: their standbys lag.
    pub fn lag(&self) -> Outcome<()> {
        self.filter(
            "add chain inet lab o { type filter hook output priority 0; policy accept; }
             add rule inet lab o ip daddr { 10.77.0.11, 10.77.0.12, 10.77.0.13 } tcp sport 5432 drop",
        )
    }

    fn filter(&self, rules: &str) -> Outcome<()> {
        shell(&format!("ip netns exec {} nft -f - <<X\nadd table inet lab\n{rules}\nX", self.name()))?;
        Ok(())
    }

    /// Undoes [`cut`](Self::cut) and [`lag`](Self::lag).
    pub fn heal(&self) -> Outcome<()> {
        shell(&format!("ip netns exec {} nft delete table inet lab 2>/dev/null || true", self.name()))?;
        Ok(())
    }

    /// What Patroni answers: status line, headers and body.
    pub fn ask(&self, path: &str) -> Option<String> {
        self.say("GET", path, "").ok()
    }

    fn say(&self, method: &str, path: &str, body: &str) -> std::io::Result<String> {
        const PATIENCE: Duration = Duration::from_secs(1);
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((self.address(0), 8008)), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// What Patroni has logged last.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(self.place.join("patroni.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        format!("{}:\n{}\n", self.name(), lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"))
    }

    /// Whether it is the one that takes writes.
    pub fn is_primary(&self) -> bool {
        self.ask("/primary").is_some_and(|answer| answer.starts_with("HTTP/1.0 200"))
    }

    /// What the statements answer, by the superuser's hand.
    pub fn sql(&self, database: &str, text: &str) -> Outcome<String> {
        let (name, place) = (self.name(), self.place.display());
        let text = text.replace('\'', "'\\''");
        let said = shell(&format!(
            "ip netns exec {name} setpriv --reuid=postgres --regid=postgres --clear-groups \
             psql -X -q -t -A -v ON_ERROR_STOP=1 -h {place} -d {database} -c '{text}'"
        ))?;
        Ok(said.trim().to_owned())
    }

    /// Changes settings of the cluster, in JSON, as `patronictl edit-config` does.
    pub fn set(&self, settings: &str) -> Outcome<()> {
        let answer = self.say("PATCH", "/config", settings)?;
        if answer.starts_with("HTTP/1.0 200") { Ok(()) } else { Err(answer.into()) }
    }
}
