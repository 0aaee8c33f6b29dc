//! Where the agent stands with each of its servers. A server that has a name in the configuration is a label.

use std::time::Instant;

use ironroot_api::certificate::Certificate;
use ironroot_shell::telemetry::{Kind, Page};

use super::flag;
use crate::counted::Counted;
use crate::report::{Report, Sought, Stands};
use crate::server_number::ServerNumber;

/// A family of gauges, and what it shows of a server; nothing where there is nothing to show.
type Gauge = (&'static str, &'static str, fn(&Report, i64) -> Option<f64>);

const GAUGES: [Gauge; 5] = [
    ("sync_failures", "Turns that failed since the last that did not", |report, _| Some(f64::from(report.failures))),
    ("last_sync_age_seconds", "How long ago the server last confirmed everything, s", |report, now_unix| {
        (report.synced_unix > 0).then(|| (now_unix - report.synced_unix).max(0) as f64)
    }),
    ("told_of_changes", "1 if the server tells of changes", |report, _| Some(flag(report.is_told_of_changes))),
    ("certificate_ends_seconds", "How long the agent's own certificate is good for still, s", |report, now_unix| {
        let leaf = report.chain.as_ref()?.iter().next()?;
        Some((Certificate::parse(&leaf).ok()?.not_after_unix() - now_unix) as f64)
    }),
    ("cache_sealed", "1 if identities are kept sealed to the chip", |report, _| Some(flag(report.is_cache_sealed))),
];

/// `now_unix`: UNIX seconds.
pub(super) fn write(page: &mut Page, reports: &[Report], now_unix: i64) {
    let mut standing = page.own("standing", Kind::Gauge, "1 where the agent stands with its server");
    for (report, stands) in reports.iter().flat_map(|report| Stands::ALL.map(|stands| (report, stands))) {
        let labels: Vec<_> = name(report).into_iter().chain([("standing", stands.word())]).collect();
        standing.about(&labels, flag(stands == report.stands));
    }
    for (family, help, value) in GAUGES {
        let mut gauge = page.own(family, Kind::Gauge, help);
        for report in reports {
            if let Some(value) = value(report, now_unix) {
                gauge.about(name(report).as_slice(), value);
            }
        }
    }
}

/// The same of what is sought.
type OfSought = (&'static str, &'static str, fn(Sought) -> f64);

/// Whether the servers are believed, as SPIRE's agent says it: since when and how often what proves one has been sought, by whether it is the first time.
pub(super) fn write_sought(page: &mut Page, reports: &[Report]) {
    let mut done = page.spire("bootstrapped", Kind::Gauge, "1 if the server is known and believed");
    for report in reports {
        // Before the first turn there is no bundle, and nothing was sought yet.
        let is_known = report.bundle.is_some() && report.sought.is_none();
        done.about(name(report).as_slice(), flag(is_known));
    }
    let families: [OfSought; 2] = [
        ("bootstrap_seconds", "Since when it is not, UNIX s; 0: it is", |sought| sought.since_unix as f64),
        ("bootstrap_attempts", "How often the configured trust bundle was asked for since", |sought| {
            sought.attempts.into()
        }),
    ];
    for (family, help, value) in families {
        let mut gauge = page.spire(family, Kind::Gauge, help);
        for report in reports {
            let sought = report.sought.unwrap_or(Sought { is_again: true, since_unix: 0, attempts: 0 });
            let mode = if sought.is_again { "rebootstrap" } else { "bootstrap" };
            let labels: Vec<_> = name(report).into_iter().chain([("mode", mode)]).collect();
            gauge.about(&labels, value(sought));
        }
    }
}

/// The servers' caches that were not used at the start.
pub(super) fn write_refused_caches(page: &mut Page, reports: &[Report], counted: &Counted, now: Instant) {
    let numbered = ServerNumber::up_to(reports.len()).zip(reports);
    let refused: Vec<_> =
        numbered.filter_map(|(number, report)| Some((report, counted.cache_refused(number, now)?))).collect();
    if refused.is_empty() {
        return;
    }
    let help = "1 if the sealed cache was not used at the start, and why, until it is written anew and ten minutes have passed";
    let mut gauge = page.own("cache_refused", Kind::Gauge, help);
    for (report, why) in refused {
        let labels: Vec<_> = name(report).into_iter().chain([("why", why)]).collect();
        gauge.about(&labels, 1.0);
    }
}

/// An agent with one server has the series that it had before there could be several.
fn name(report: &Report) -> Option<(&'static str, &str)> {
    (!report.name.is_empty()).then_some(("server", report.name.as_str()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use ironroot_api::TrustDomain;
    use ironroot_shell::settings::Settings;
    use ironroot_shell::telemetry::read_telemetry;

    use super::*;
    use crate::server_answers::TrustBundle;

    fn bundle() -> Arc<TrustBundle> {
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&rcgen::KeyPair::generate().expect("key")).expect("root");
        let td = TrustDomain::new("td").expect("legal");
        Arc::new(TrustBundle::new(&td, [(&root.der()[..], false)]).expect("an authority"))
    }

    #[test]
    fn of_several_servers_each_that_has_a_name_is_a_label() {
        let settings = Settings::parse(
            Path::new("agent.conf"),
            "telemetry { EnableHostnameLabel = false Prometheus { port = 1 } }",
        )
        .expect("HCL");
        let telemetry =
            settings.check(|root| read_telemetry(root, "ironroot-agent", "spire_agent").0).expect("sound").value;
        let mut page = telemetry.page("ironroot_agent", "td");
        let report = |name: &str, failures| Report { name: name.to_owned(), failures, ..Report::default() };
        let (reports, counted, now) = ([report("", 0), report("south", 3)], Counted::default(), Instant::now());
        write(&mut page, &reports, 0);
        let sought = Sought { is_again: true, since_unix: 1_800_000_000, attempts: 3 };
        let known = |report: &Report| Report { bundle: Some(bundle()), ..report.clone() };
        let again = Report { sought: Some(sought), ..known(&reports[1]) };
        write_sought(&mut page, &[known(&reports[0]), again, report("unmet", 0)]);
        for (number, why) in ServerNumber::up_to(2).zip(["other_boot", "other_chip"]) {
            counted.note_cache_refused(number, why, now);
        }
        write_refused_caches(&mut page, &reports, &counted, now);
        let text = page.into_text();
        for line in [
            "ironroot_agent_sync_failures 0",
            "ironroot_agent_sync_failures{server=\"south\"} 3",
            "spire_agent_bootstrapped 1",
            "spire_agent_bootstrapped{server=\"south\"} 0",
            "spire_agent_bootstrapped{server=\"unmet\"} 0",
            "spire_agent_bootstrap_attempts{mode=\"rebootstrap\"} 0",
            "spire_agent_bootstrap_seconds{server=\"south\",mode=\"rebootstrap\"} 1800000000",
            "spire_agent_bootstrap_attempts{server=\"south\",mode=\"rebootstrap\"} 3",
            "ironroot_agent_cache_refused{why=\"other_boot\"} 1",
            "ironroot_agent_cache_refused{server=\"south\",why=\"other_chip\"} 1",
            "ironroot_agent_standing{server=\"south\",standing=\"new\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
