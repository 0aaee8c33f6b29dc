//! A real Prometheus (Debian's) on the rules that are shipped.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::deployment::{DEADLINE, Process, expect_within, free_port};

/// A Prometheus that fetches every second; ended on drop.
#[derive(Debug)]
pub struct Prometheus {
    directory: TempDir,
    port: u16,
    _process: Process,
}

/// Where the rules and dashboards are.
pub fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring")
}

/// How long an alert waits before it fires here, whatever the rules say: the drill is about what they look at.
const PATIENCE: &str = "for: 1s";

impl Prometheus {
    /// Fetches from these ports of daemons, by the jobs that the rules know.
    ///
    /// # Panics
    /// If it does not start: `scripts/setup --tests` installs it.
    pub fn start(server: u16, agents: &[u16]) -> Self {
        let directory = tempfile::Builder::new().prefix("prometheus-").tempdir().expect("directory");
        let at = |name: &str| directory.path().join(name);
        let rules = std::fs::read_to_string(monitoring().join("rules.yml")).expect("the rules");
        let at_once = |line: &str| match line.trim_start().starts_with("for: ") {
            true => format!("        {PATIENCE}\n"),
            false => format!("{line}\n"),
        };
        std::fs::write(at("rules.yml"), rules.lines().map(at_once).collect::<String>()).expect("written");
        let targets =
            |ports: &[u16]| ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect::<Vec<_>>().join(", ");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\nscrape_configs:\n\
             - {{job_name: ironroot-server, static_configs: [{{targets: [{}]}}]}}\n\
             - {{job_name: ironroot-agent, static_configs: [{{targets: [{}]}}]}}\n",
            targets(&[server]),
            targets(agents)
        );
        std::fs::write(at("prometheus.yml"), config).expect("written");
        let port = free_port();
        let arguments = [
            format!("--config.file={}", at("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", at("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        let process = Process::start(Path::new("/usr/bin/prometheus"), &arguments, &[], &at("prometheus.log"));
        let prometheus = Self { directory, port, _process: process };
        expect_within(DEADLINE, "Prometheus answers", || prometheus.log(), || prometheus.ask("vector(1)").is_some());
        prometheus
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("prometheus.log")).unwrap_or_default()
    }

    /// What the query gives now: each series with its labels and value; none if it cannot be asked.
    pub fn ask(&self, query: &str) -> Option<Vec<Value>> {
        let answer = crate::metrics::get(self.port, &format!("/api/v1/query?query={}", escaped(query)))?;
        let answer: Value = serde_json::from_str(&answer).ok()?;
        answer["data"]["result"].as_array().cloned()
    }

    /// Whether an alert of that name fires.
    pub fn fires(&self, alert: &str) -> bool {
        let alerts = self.ask(&format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}"));
        alerts.is_some_and(|alerts| !alerts.is_empty())
    }

    /// Waits until the alert fires, or does not any more.
    pub fn expect(&self, alert: &str, fires: bool) {
        let state = || format!("{:?}\n{}", self.ask("ALERTS"), self.log());
        expect_within(DEADLINE * 2, &format!("{alert} fires: {fires}"), state, || self.fires(alert) == fires);
    }
}

/// A query as part of a URL.
fn escaped(query: &str) -> String {
    query.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
