//! The `telemetry` block, in SPIRE's keys. Source: SPIRE, doc/telemetry/telemetry_config.md.

use std::path::PathBuf;
use std::time::Duration;

use ironroot_api::tls::KeyExchanges;
use nix::unistd::gethostname;

use super::Page;
use super::filters::Filters;
use super::otlp::{self, Otlp};
use super::statsd::Collector;
use crate::serving_certificate::CertificateFiles;
use crate::settings::{Section, places};

/// A scrape that comes later than this looks at the certificate's files.
const FILES_FRESH: Duration = Duration::from_secs(1);

/// What the operator wants to see, and under which names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// Where Prometheus asks, if it does.
    pub prometheus: Option<Prometheus>,
    /// Where they are sent.
    pub collectors: Vec<Collector>,
    /// `MetricPrefix`, before SPIRE's names.
    prefix: String,
    /// `EnableHostnameLabel`: the label `host`.
    has_host: bool,
    /// `EnableTrustDomainLabel`: the label `trust_domain`.
    has_trust_domain: bool,
    /// `AllowedPrefixes` and its like.
    filters: Filters,
}

/// Where the exporter listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prometheus {
    /// Host name or address.
    pub host: String,
    /// Port; 0 lets the kernel choose.
    pub port: u16,
    /// How it proves who it is; in the clear if there is nothing.
    pub tls: Option<MetricsTls>,
}

/// What the exporter shows over TLS, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsTls {
    /// Its certificate.
    pub files: CertificateFiles,
    /// The CAs of whoever may ask; everybody may if there are none.
    pub client_ca: Option<PathBuf>,
    /// What links may agree on.
    pub key_exchanges: KeyExchanges,
}

impl Telemetry {
    /// The same, whose listener is to agree on one of these key exchanges.
    pub fn agreeing_on(mut self, exchanges: KeyExchanges) -> Self {
        let tls = self.prometheus.iter_mut().flat_map(|prometheus| &mut prometheus.tls);
        tls.for_each(|tls| tls.key_exchanges = exchanges);
        self
    }

    /// An empty page of the program whose metrics SPIRE calls `spire_…` (`spire_server`) and that we call `own` (`ironroot_server`).
    pub fn page(&self, own: &'static str, trust_domain: &str) -> Page {
        let host = gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        let host = self.has_host.then_some(("host", host));
        let trust_domain = self.has_trust_domain.then(|| ("trust_domain", sanitised(trust_domain)));
        let constants: Vec<_> = host.into_iter().chain(trust_domain).collect();
        Page::new(&self.prefix, own, &constants).filtered(self.filters.clone())
    }
}

/// A label's value as SPIRE shows it: `example.org` as `example_org`. Source: SPIRE, pkg/common/telemetry/sanitize.go.
pub fn sanitised(value: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(first) = rest.chars().next() {
        if is_word(first) {
            text.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            text.push('_');
            let after = rest.trim_start_matches(|c| !is_word(c));
            rest = after.strip_prefix('_').unwrap_or(after);
        }
    }
    text
}

/// Reads the top-level `telemetry` block of `root`: metrics if it has Prometheus or collectors, and traces if it has a collector for them. `prefix`:
/// what SPIRE puts before its names.
pub fn read_telemetry(root: &Section<'_>, program: &str, prefix: &str) -> (Option<Telemetry>, Option<Otlp>) {
    let section = root.block("telemetry");
    let why = format!("not supported by {program}: send metrics to Statsd or DogStatsd, or let Prometheus fetch them");
    section.refuse_unless_empty("M3", &why);
    section.no_meaning(program, &["InMem"]);
    let prefix = section.parsed("MetricPrefix", metric_name).unwrap_or_else(|| prefix.to_owned());
    let has_host = section.boolean("EnableHostnameLabel").unwrap_or(true);
    let has_trust_domain = section.boolean("EnableTrustDomainLabel").unwrap_or(false);
    let filters = Filters::read(&section);
    let prometheus = read_prometheus(&section.block("Prometheus"), program);
    let collectors = Collector::read_all(&section);
    let traces = otlp::read(&section.block("otlp"));
    section.finish();
    let is_shown = prometheus.is_some() || !collectors.is_empty();
    let telemetry = Telemetry { prometheus, collectors, prefix, has_host, has_trust_domain, filters };
    let metrics = is_shown.then_some(telemetry);
    (metrics, traces)
}

fn read_prometheus(section: &Section<'_>, program: &str) -> Option<Prometheus> {
    if !section.is_present() {
        return None;
    }
    let host = section.host("host").unwrap_or_else(|| "localhost".to_owned());
    if !["localhost", "127.0.0.1", "::1"].contains(&host.as_str()) {
        section
            .warn("host", "whoever reaches that address reads the metrics: names of nobody, but numbers of everything");
    }
    let port = section.required("port", section.port("port", 0), "give the port that Prometheus asks, such as 9988");
    port.iter().for_each(|port| section.listens("port", &host, *port));
    let tls = section.block("tls");
    let is_secured = tls.is_present();
    let tls = read_tls(&tls, program);
    section.finish();
    let tls = if is_secured { Some(tls?) } else { None };
    Some(Prometheus { host, port: port?, tls })
}

fn read_tls(section: &Section<'_>, program: &str) -> Option<MetricsTls> {
    for key in ["use_spire_svid", "authorized_spiffe_ids"] {
        let why =
            format!("not supported by {program}: give cert_file and key_file, and client_ca_file to say who may ask");
        section.refuse_unless_empty(key, &why);
    }
    if !section.is_present() {
        return None;
    }
    let file = |key: &str| {
        let path = section.path(key);
        path.iter().for_each(|path| section.look(key, || places::readable_file(path)));
        path
    };
    let certificate =
        section.required("cert_file", file("cert_file"), "give the PEM file with the listener's certificate");
    let key = section.required("key_file", file("key_file"), "give the PEM file with the certificate's private key");
    let client_ca = file("client_ca_file");
    section.finish();
    let files = CertificateFiles { certificate: certificate?, key: key?, sync_interval: FILES_FRESH };
    Some(MetricsTls { files, client_ca, key_exchanges: KeyExchanges::default() })
}

fn metric_name(text: &str) -> Result<String, &'static str> {
    let is_begun = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let is_legal = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match is_begun && is_legal {
        true => Ok(text.to_owned()),
        false => Err("a metric's name has letters, digits and '_', and begins with no digit"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tonic::Code;

    use super::*;
    use crate::settings::Settings;
    use crate::telemetry::{Calls, Kind};

    /// The lines of a page that the block of this text gives, for one gauge.
    fn shown(block: &str) -> String {
        let text = format!("telemetry {{ Prometheus {{ port = 9988 }} {block} }}");
        let settings = Settings::parse(Path::new("x.conf"), &text).expect("HCL");
        let read = settings.check(|root| read_telemetry(root, "ironroot-server", "spire_server").0);
        let telemetry = read.expect("sound").value;
        let mut page = telemetry.page("ironroot_server", "example.org");
        page.own("agents", Kind::Gauge, "Agents").sample(&[], 2.0);
        page.spire_calls("rpc", "Calls", &called());
        page.into_text()
    }

    fn called() -> Calls {
        let calls = Calls::default();
        calls.ended(Code::Ok, Duration::ZERO);
        calls
    }

    #[test]
    fn names_and_labels_are_as_the_block_says() {
        let default = shown("");
        assert!(default.contains("spire_server_rpc{host=\"") && !default.contains("trust_domain="), "{default}");
        let bare = shown("EnableHostnameLabel = false MetricPrefix = \"acme\"");
        assert!(
            bare.contains("acme_rpc{status=") && !bare.contains("spire_server") && !bare.contains("host="),
            "{bare}"
        );
        let named = shown("EnableTrustDomainLabel = true");
        assert!(named.contains("trust_domain=\"example_org\""), "{named}");
        let filtered = shown("BlockedPrefixes = [\"ironroot_server\"] AllowedLabels = [\"status\"]");
        assert!(filtered.contains("spire_server_rpc{status=\"OK\"} 1"), "{filtered}");
        assert!(!filtered.contains("ironroot_server") && !filtered.contains("host="), "{filtered}");
    }

    #[test]
    fn labels_are_shown_as_spire_shows_them() {
        for (value, wanted) in
            [("example.org", "example_org"), ("1.16.0-dev-unk", "1_16_0_dev_unk"), ("a._b", "a_b"), ("", "")]
        {
            assert_eq!(sanitised(value), wanted, "{value}");
        }
    }
}
