//! What the agent shows of itself to whoever fetches metrics: under SPIRE's names what SPIRE counts too, under ours the rest.
//!
//! The rooms count; here it is only read, at a scrape: see [`ironroot_shell::telemetry`].

mod standing;

use std::sync::Arc;
use std::time::Instant;

use ironroot_shell::telemetry::otlp::SpanCounts;
use ironroot_shell::telemetry::{Kind, Page, Telemetry, call_name};
use tokio::sync::watch;

use crate::counted::Counted;
use crate::endpoints::{Api, Tally};
use crate::identities::Identities;
use crate::jwt_svids::JwtSvids;
use crate::report::Reports;
use crate::trusted_time::{ClockStanding, Moment};

/// Where what is shown is read.
#[expect(missing_docs, reason = "rooms by their names")]
pub struct Sources {
    pub identities: watch::Receiver<Arc<Identities>>,
    pub reports: Reports,
    pub jwt_svids: JwtSvids,
    pub tally: Arc<Tally>,
    pub counted: Arc<Counted>,
    /// How the device proves itself, by the name of the attestor.
    pub attestor: &'static str,
    /// Of traces, if they are sent.
    pub spans: Option<Arc<SpanCounts>>,
    /// When the process began.
    pub began: Instant,
}

impl Sources {
    /// All of it, as it is now.
    pub fn page(&self, telemetry: &Telemetry) -> Page {
        let all = self.identities.borrow().clone();
        let trust_domain = all.trust_domain().to_string();
        let mut page = telemetry.page("ironroot_agent", &trust_domain);
        let now_unix = self.moment().estimate();
        page.process(env!("CARGO_PKG_VERSION"), &trust_domain, self.began.elapsed(), now_unix);
        self.write_calls(&mut page);
        self.write_loop(&mut page);
        standing::write(&mut page, &self.reports.all(), now_unix);
        standing::write_sought(&mut page, &self.reports.all());
        self.write_held(&mut page, &all);
        self.write_device(&mut page);
        self.spans.iter().for_each(|spans| page.spans(spans));
        page
    }

    /// By what the servers say: each loop has a clock of its own.
    fn moment(&self) -> Moment {
        self.jwt_svids.moment()
    }

    fn write_calls(&self, page: &mut Page) {
        for (path, calls) in self.tally.by_method() {
            page.spire_calls(&call_name(path), "Calls of this method, by how they ended", calls);
        }
        for api in Api::ALL {
            self.write_let_in(page, api);
        }
        page.spire_calls("workload_api.workload_attestation", "Callers that were looked at", &self.tally.attestations);
        // SPIRE's agent shows it once there is one.
        let over_rate: Vec<_> = self.tally.times_over_rate().collect();
        if !over_rate.is_empty() {
            let help = "Calls beyond the rates of experimental.ratelimit";
            let mut family = page.spire("workload_api.rate_limit_exceeded", Kind::Counter, help);
            over_rate.into_iter().for_each(|(method, count)| family.sample(&[("method", method)], count as f64));
        }
        let mut turned_away =
            page.own("turned_away_calls_total", Kind::Counter, "Calls that were turned away at the door");
        for (status, elapsed) in self.tally.turned_away.by_code() {
            turned_away.sample(&[("status", status)], elapsed.times() as f64);
        }
    }

    /// SPIRE's agent shows an API's once it has been called.
    fn write_let_in(&self, page: &mut Page, api: Api) {
        let (connection, connections) = match api {
            Api::Workload => ("workload_api.connection", "workload_api.connections"),
            Api::Sds => ("sds_api.connection", "sds_api.connections"),
            Api::DelegatedIdentity => ("delegated_identity_api.connection", "delegated_identity_api.connections"),
            Api::Debug => ("debug_api.connection", "debug_api.connections"),
            Api::Logger => ("logger_api.connection", "logger_api.connections"),
        };
        let (begun, under_way) = self.tally.let_in(api);
        if begun > 0 || api == Api::Workload {
            page.spire(connection, Kind::Counter, "Calls of this API that were let in").sample(&[], begun as f64);
            page.spire(connections, Kind::Gauge, "Those that are under way").sample(&[], under_way as f64);
        }
    }

    fn write_loop(&self, page: &mut Page) {
        let counted = &self.counted;
        let attestor = [("attestor", self.attestor)];
        page.spire_calls_of("node.attestor.new_svid", "Attestations of the device", &attestor, &counted.attested);
        for (name, help, calls) in [
            ("agent_svid.rotate", "Renewals of the agent's certificate", &counted.renewed),
            ("manager.sync.fetch_entries_updates", "Times that the server was asked for entries", &counted.entries),
            ("manager.sync.fetch_svids_updates", "Times that the server was asked to sign", &counted.svids),
        ] {
            page.spire_calls(name, help, calls);
        }
        let mut kept =
            page.own("kept_total", Kind::Counter, "Times that identities were to be kept on disk, by how it went");
        for (status, elapsed) in counted.kept.by_code() {
            kept.sample(&[("status", status)], elapsed.times() as f64);
        }
    }

    fn write_held(&self, page: &mut Page, all: &Identities) {
        let (entries, svids, jwt) = (all.entries().count(), all.iter().len(), self.jwt_svids.count());
        page.spire("sync_entries_total", Kind::Gauge, "Entries that the server gave").sample(&[], entries as f64);
        page.spire("sync_bundles_total", Kind::Gauge, "Trust bundles that are held")
            .sample(&[], all.bundles().count() as f64);
        let mut cached = page.spire("lru_cache_svid_map_size", Kind::Gauge, "X509-SVIDs that are held");
        cached.sample(&[("svid_type", "X509")], svids as f64);
        let mut entries_held = page.spire("lru_cache_record_map_size", Kind::Gauge, "Entries that are held");
        entries_held.sample(&[("svid_type", "X509")], entries as f64);
        page.spire("jwt_svid_cache_size", Kind::Gauge, "JWT-SVIDs that are held").sample(&[], jwt as f64);
        let own = self.moment().own();
        if let Some(end) = all.ends().map(|(_, end)| end).min() {
            page.own("svid_ends_seconds", Kind::Gauge, "How long the X509-SVID that ends first is good for still, s")
                .sample(&[], end.saturating_sub(own) as f64);
        }
    }

    /// The chip, what was booted, and the clock.
    fn write_device(&self, page: &mut Page) {
        standing::write_refused_caches(page, &self.reports.all(), &self.counted, Instant::now());
        let stands = self.moment().clock();
        let mut clock = page.own("clock", Kind::Gauge, "1 for what the device's clock is worth");
        for standing in ClockStanding::ALL {
            clock.sample(&[("standing", standing.word())], flag(standing == stands));
        }
    }
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}
