//! What the server shows of itself to whoever fetches metrics: under SPIRE's names what SPIRE counts too, under ours the rest.
//!
//! The rooms count; here it is only read, at a scrape: see [`ironroot_shell::telemetry`].

mod authority;
mod calls;
mod fleet;

use std::sync::Arc;
use std::time::Instant;

use ironroot_hsm::Token;
use ironroot_shell::clock::wall_unix;
use ironroot_shell::telemetry::otlp::SpanCounts;
use ironroot_shell::telemetry::{Calls, Kind, Page, Telemetry};

use crate::bundle_client::Fetched;
use crate::endpoints::ServerState;
use crate::readiness::Readiness;
use crate::web_shown::WebShown;

/// An agent renews at half of its certificate's life: with less than this part of it left it is late.
const LATE_PART: i64 = 4;

/// Where what is shown is read.
#[expect(missing_docs, reason = "rooms by their names")]
pub struct Sources {
    pub server: Arc<ServerState>,
    pub readiness: Arc<Readiness>,
    /// Fetches of other trust domains' bundles.
    pub fetched: Arc<Fetched>,
    /// Renewals of the certificate that the server itself shows.
    pub svid_rotations: Arc<Calls>,
    /// The tokens whose queues are shown.
    pub tokens: Vec<Token>,
    /// What listeners show of the web's certificates.
    pub web: Vec<WebShown>,
    /// Lifetime of agents' certificates, seconds.
    pub agent_ttl_seconds: i64,
    /// Of traces, if they are sent.
    pub spans: Option<Arc<SpanCounts>>,
    /// When the process began.
    pub began: Instant,
}

impl Sources {
    /// All of it, as it is now.
    pub fn page(&self, telemetry: &Telemetry) -> Page {
        let trust_domain = self.server.trust_domain.as_str();
        let mut page = telemetry.page("ironroot_server", trust_domain);
        let now_unix = wall_unix();
        page.process(env!("CARGO_PKG_VERSION"), trust_domain, self.began.elapsed(), now_unix);
        calls::write(&mut page, self);
        authority::write(&mut page, self, now_unix);
        fleet::write(&mut page, self, now_unix);
        self.health(&mut page);
        self.spans.iter().for_each(|spans| page.spans(spans));
        page
    }

    /// An agent whose certificate has less left is late, seconds.
    pub fn late_below_seconds(&self) -> i64 {
        self.agent_ttl_seconds / LATE_PART
    }

    /// Requests that wait for a session of a token.
    pub fn waiting_for_token(&self) -> usize {
        self.tokens.iter().map(Token::waiting).sum()
    }

    fn health(&self, page: &mut Page) {
        let troubles = self.readiness.troubles();
        let is_ready = troubles.iter().all(|(_, why)| why.is_none());
        page.own("ready", Kind::Gauge, "1 if the server can do its work, as its health checks say")
            .sample(&[], flag(is_ready));
        let mut trouble = page.own("trouble", Kind::Gauge, "1 if that keeps the server from its work; /ready says why");
        troubles.iter().for_each(|(what, why)| trouble.sample(&[("what", *what)], flag(why.is_some())));
        let is_doubted = self.server.ca.clock().alarm().is_some();
        page.own("clock_doubted", Kind::Gauge, "1 if the server's clock has jumped: rotation and sweeps wait")
            .sample(&[], flag(is_doubted));
    }
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}
