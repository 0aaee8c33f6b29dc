//! The rules and dashboards that are shipped, on a real Prometheus that watches real daemons: every panel has data, every alert of the
//! drill fires when its cause comes and goes out when it has gone.

use std::process::Command;

use ironroot_lab::deployment::{AgentOptions, Device, Server, ServerOptions, expect_within, free_port};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::metrics::switch_on;
use ironroot_lab::prometheus::{Prometheus, monitoring};
use ironroot_postgres_cluster::Cluster;
use ironroot_software_tpm::BootLog;
use serde_json::Value;

const ALICE: u32 = 60_001;
const DASHBOARDS: [&str; 3] = ["executive", "on-call", "debugging"];
const GOLDEN_BOOT: &str = "aaaaaaaa-0000-0000-0000-000000000001";
const LATER_BOOT: &str = "aaaaaaaa-0000-0000-0000-000000000002";

struct Lab {
    server: Server,
    device: Device,
    prometheus: Prometheus,
}

/// A server and a measured device that are watched; certificates of agents live for 40 s.
fn lab(options: ServerOptions) -> Lab {
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let mut device = Device::manufacture(&maker);
    let mut server = Server::prepare(&ServerOptions { agent_ttl: "40s", x509_svid_ttl: "40s", ..options });
    let (server_port, agent_port) = (free_port(), free_port());
    switch_on(&server.config_path(), server_port);
    server.restart();
    server.import_devices(&format!("ek_sha256,serial,label:site\n{},SN-1,berlin\n", device.ek_sha256()));
    let parent = server.create_node_alias("/gateway", "site:berlin");
    server.create_entry(&parent, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    device.provision(&server, &AgentOptions { ..device.measured() });
    switch_on(&device.config_path(), agent_port);
    boot(&mut device, &BootLog::booted(true, b"loader"), GOLDEN_BOOT);
    device.expect_identity(ALICE);
    let prometheus = Prometheus::start(server_port, &[agent_port]);
    Lab { server, device, prometheus }
}

fn boot(device: &mut Device, log: &BootLog, boot_id: &str) {
    device.boot(log.extended(), log.bytes());
    device.start_in_boot(boot_id);
}

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool").args(arguments).current_dir(monitoring()).output();
    let output = output.expect("promtool: scripts/setup --tests installs it");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
}

#[test]
fn rules_are_what_prometheus_takes_and_each_alert_has_a_test() {
    promtool(&["check", "rules", "rules.yml"]);
    promtool(&["check", "config", "--syntax-only", "prometheus.yml"]);
    promtool(&["test", "rules", "rules_test.yml"]);
    let read = |name: &str| std::fs::read_to_string(monitoring().join(name)).expect("shipped");
    let (rules, tests) = (read("rules.yml"), read("rules_test.yml"));
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 20, "{alerts:?}");
    for alert in alerts {
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "{alert} has no test");
    }
}

/// Every query of the dashboards: their names, and the panel's.
fn panels() -> Vec<(String, String)> {
    let queries = |name: &&str| -> Vec<(String, String)> {
        let text = std::fs::read_to_string(monitoring().join(format!("{name}.json"))).expect("shipped");
        let dashboard: Value = serde_json::from_str(&text).expect("JSON");
        let panels = dashboard["panels"].as_array().expect("panels").clone();
        let of = |panel: &Value| -> Vec<(String, String)> {
            let title = format!("{name}: {}", panel["title"]);
            let targets = panel["targets"].as_array().expect("queries");
            targets.iter().map(|target| (title.clone(), target["expr"].as_str().expect("a query").to_owned())).collect()
        };
        panels.iter().flat_map(of).collect()
    };
    DASHBOARDS.iter().flat_map(queries).collect()
}

/// A panel's row in the table of panels.md, without its last column.
fn row(panel: &str, query: &str) -> String {
    format!("| {} | `{}` |", panel.replace('"', ""), query.replace('|', "\\|"))
}

/// What Prometheus said, for that column: how many series, and the first's value.
fn answered(series: &[Value]) -> String {
    let value: f64 = series[0]["value"][1].as_str().and_then(|text| text.parse().ok()).expect("a number");
    match series.len() {
        _ if !value.is_finite() => "nothing of that happened meanwhile".to_owned(),
        1 => format!("{value:.4}"),
        many => format!("{many} series, the first {value:.4}"),
    }
}

/// `IRONROOT_PANELS=FILE` has the next test write the rows anew.
#[test]
fn the_table_of_panels_has_the_queries_of_the_dashboards() {
    let page = std::fs::read_to_string(monitoring().join("panels.md")).expect("shipped");
    let there: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && line.contains("| `")).collect();
    let wanted: Vec<String> = panels().iter().map(|(panel, query)| row(panel, query)).collect();
    assert_eq!(there.len(), wanted.len(), "{there:#?}");
    for (there, wanted) in there.iter().zip(wanted) {
        let answered = there.strip_prefix(&wanted).map(|rest| rest.trim_matches([' ', '|']));
        assert!(answered.is_some_and(|answered| !answered.is_empty()), "{there}\nis not\n{wanted}");
    }
}

#[test]
fn every_panel_has_data_and_nothing_is_alarmed_while_all_is_well() {
    let Lab { server, device, prometheus } = lab(ServerOptions::default());
    let nine: std::collections::BTreeSet<_> = panels().into_iter().map(|(title, _)| title).collect();
    assert_eq!(nine.len(), 9, "{nine:?}");
    let mut rows = String::new();
    for (panel, query) in panels() {
        let has_data = || {
            // What happens now and then, happens: a rate needs two looks at it.
            drop(device.fetch(ALICE));
            prometheus.ask(&query).is_some_and(|series| !series.is_empty())
        };
        let explain = || format!("{query}\n{}\n{}", prometheus.log(), server.log());
        expect_within(ironroot_lab::deployment::DEADLINE, &format!("{panel} has data"), explain, has_data);
        let series = prometheus.ask(&query).expect("it has data");
        rows += &format!("{} {} |\n", row(&panel, &query), answered(&series));
    }
    if let Some(file) = std::env::var_os("IRONROOT_PANELS") {
        std::fs::write(file, rows).expect("written");
    }
    let alarmed = prometheus.ask("ALERTS{alertstate=\"firing\"}").expect("asked");
    assert!(alarmed.is_empty(), "{alarmed:?}");
}

#[test]
fn drill_the_token_is_gone_and_comes_back() {
    let options = ServerOptions { quirky_token: true, ca_ttl: "60s", ..ServerOptions::default() };
    let Lab { server, device: _device, prometheus } = lab(options);
    let quirks = server.quirks();
    quirks.set(&["gone"]);
    prometheus.expect("IronrootTokenGone", true);
    // The CA is replaced ten seconds before its end: without a token it is not, and what it has signed ends with it.
    prometheus.expect("IronrootAuthorityEnds", true);
    prometheus.expect("IronrootRotationFails", true);
    // It has ended: nothing is signed.
    prometheus.expect("IronrootCaCannotSign", true);
    quirks.set(&[]);
    for alert in ["IronrootTokenGone", "IronrootAuthorityEnds", "IronrootRotationFails", "IronrootCaCannotSign"] {
        prometheus.expect(alert, false);
    }
}

#[test]
fn drill_the_database_is_gone_and_comes_back() {
    let mut cluster = Cluster::start();
    let postgres = Some(cluster.connection_string_over_tls(&cluster.create_database()));
    let server_lines = "server_name = \"north\"".to_owned();
    let Lab { server: _server, device, prometheus } =
        lab(ServerOptions { postgres, server_lines, ..ServerOptions::default() });
    cluster.stop();
    prometheus.expect("IronrootDataStoreTakesNoChanges", true);
    assert!(device.fetch(ALICE).is_ok(), "identities are served meanwhile: {}", device.log());
    cluster.restart();
    prometheus.expect("IronrootDataStoreTakesNoChanges", false);
}

#[test]
fn drill_an_agent_is_silent_and_comes_back() {
    let Lab { server: _server, mut device, prometheus } = lab(ServerOptions::default());
    device.kill_agent();
    prometheus.expect("IronrootAgentDown", true);
    prometheus.expect("IronrootAgentsSilent", true);
    device.start_in_boot(GOLDEN_BOOT);
    prometheus.expect("IronrootAgentDown", false);
    prometheus.expect("IronrootAgentsSilent", false);
}

#[test]
fn drill_the_servers_clock_is_wrong_and_is_set_right() {
    let Lab { mut server, device: _device, prometheus } = lab(ServerOptions::default());
    server.kill();
    prometheus.expect("IronrootServerDown", true);
    server.spawn_at("+3d");
    prometheus.expect("IronrootServerDown", false);
    prometheus.expect("IronrootServerClockDoubted", true);
    server.kill();
    server.restart();
    prometheus.expect("IronrootServerClockDoubted", false);
}

#[test]
fn drill_a_device_boots_something_else_and_is_set_right() {
    let Lab { server, mut device, prometheus } = lab(ServerOptions::default());
    server.cli(&["policy", "learn", "-device", "SN-1", "-name", "golden"]);
    boot(&mut device, &BootLog::booted(false, b"loader"), LATER_BOOT);
    prometheus.expect("IronrootBootChanged", true);
    prometheus.expect("IronrootCacheRefused", true);
    boot(&mut device, &BootLog::booted(true, b"loader"), GOLDEN_BOOT);
    prometheus.expect("IronrootBootChanged", false);
    // What the other boot had sealed is refused once more, and told for a while; what was sealed since is good at the next start.
    device.expect_identity(ALICE);
    device.expect_sealed(1);
    device.start_in_boot(GOLDEN_BOOT);
    prometheus.expect("IronrootCacheRefused", false);
}
