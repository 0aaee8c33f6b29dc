//! Metrics as Prometheus fetches them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The `telemetry` block of a daemon that shows its metrics on this port.
pub fn block(port: u16) -> String {
    format!("telemetry {{ Prometheus {{ host = \"127.0.0.1\" port = {port} }} }}\n")
}

/// Adds [`block`] to a configuration file.
///
/// # Panics
/// If the file cannot be read and written.
pub fn switch_on(config: &Path, port: u16) {
    let text = std::fs::read_to_string(config).expect("the configuration");
    std::fs::write(config, text + &block(port)).expect("written");
}

/// The same over TLS: `more` are further keys of the exporter's `tls` block.
///
/// # Panics
/// If the file cannot be read and written.
pub fn switch_on_tls(config: &Path, port: u16, [certificate, key]: &[PathBuf; 2], more: &str) {
    let text = std::fs::read_to_string(config).expect("the configuration");
    let (certificate, key) = (certificate.display(), key.display());
    let tls = format!("tls {{ cert_file = \"{certificate}\" key_file = \"{key}\" {more} }}");
    let block = format!("telemetry {{ Prometheus {{ host = \"127.0.0.1\" port = {port} {tls} }} }}\n");
    std::fs::write(config, text + &block).expect("written");
}

/// The page at this port; none if nobody answers.
pub fn scrape(port: u16) -> Option<String> {
    get(port, "/metrics")
}

/// What is at that path of a server on this machine; none if nobody answers with 200.
pub fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    // HTTP/1.0: the body comes in one piece.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: lab\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split(' ').nth(1).is_some_and(|status| status == "200").then(|| body.to_owned())
}

/// The value of the series that begins like this, such as `ironroot_server_agents{host="x",state="late"}`, with labels in any order: each
/// of `labels` must be there.
pub fn value(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    series(page)
        .find(|(series, _)| {
            let named = series.split('{').next().is_some_and(|found| found == name);
            named && labels.iter().all(|label| series.contains(label))
        })
        .and_then(|(_, value)| value.parse().ok())
}

/// Each series with its value.
pub fn series(page: &str) -> impl Iterator<Item = (&str, &str)> {
    page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '))
}

/// Each metric by its name, and the names of its labels.
pub fn families(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut families: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (series, _) in series(page) {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
        families.entry(name.to_owned()).or_default().extend(labels.map(|(name, _)| name.to_owned()));
    }
    families
}
