//! An Envoy's question: what it names of the caller's identities and bundles.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_api::pb::discovery::{DiscoveryRequest, DiscoveryResponse};
use ironroot_shell::logging::{clipped, in_moderation};
use ironroot_text::hex::hex;
use tonic::{Status, Streaming};
use tracing::{debug, warn};

use super::conversation::{Conversation, Said, Validation, Wanted};
use super::resource::{Resource, is_of_bundles, named};
use super::{SdsConfig, SecretsApi};
use crate::endpoints::admission::{About, Admission};
use crate::endpoints::caller::Known;
use crate::endpoints::serving::{Heard, NEVER, Question, Seen};

/// Bytes of randomness in a nonce, which tells an answer from older ones on one stream. Source: SPIRE.
const NONCE_BYTES: usize = 4;
/// Names written into one line of the log.
const MAX_LOGGED_NAMES: usize = 8;
/// What the log says at DEBUG, in moderation.
const SENDING: &str = "sending secrets to an Envoy";
const STALE: &str = "an Envoy spoke of an older answer";

/// What is open on a stream.
pub(super) struct Stream {
    requests: Streaming<DiscoveryRequest>,
    conversation: Conversation,
    config: Arc<SdsConfig>,
    log: Log,
}

/// One request, which is answered once.
pub(super) struct OneRequest {
    wanted: Wanted,
    config: Arc<SdsConfig>,
}

/// Where it is told what an Envoy did not take.
struct Log {
    admission: Admission,
    uid: u32,
    pid: i32,
}

impl Stream {
    pub fn new(requests: Streaming<DiscoveryRequest>, api: &SecretsApi, caller: &Known) -> Self {
        let (uid, pid) = (caller.peer.uid(), caller.peer.pid());
        let log = Log { admission: api.serving.admission().clone(), uid, pid };
        let conversation = Conversation::new(default_validation(&api.config));
        Self { requests, conversation, config: api.config.clone(), log }
    }
}

impl OneRequest {
    pub fn new(request: DiscoveryRequest, config: &Arc<SdsConfig>) -> Result<Self, Status> {
        Ok(Self { wanted: Wanted::by(request, default_validation(config))?, config: config.clone() })
    }
}

impl Question for Stream {
    type Answer = DiscoveryResponse;
    type View = Vec<Resource>;
    const METHOD: &'static str = "StreamSecrets";
    const WHAT: &'static str = "Envoy's secrets";

    fn is_asked(&self) -> bool {
        self.conversation.wanted().is_some()
    }

    fn wants_svids(&self) -> bool {
        self.conversation.wanted().is_some_and(|wanted| wants_svids(wanted, &self.config))
    }

    fn view(&self, seen: &Seen<'_>) -> Result<(Vec<Resource>, Duration), Status> {
        let wanted = self.conversation.wanted().ok_or_else(|| Status::internal("nothing was asked for yet"))?;
        view(wanted, &self.config, seen)
    }

    fn is_same(&self, sent: &Vec<Resource>, now: &Vec<Resource>) -> bool {
        is_same(sent, now)
    }

    fn named<'a>(&self, view: &'a Vec<Resource>) -> Option<Vec<&'a str>> {
        Some(spiffe_ids(view))
    }

    fn answer(&mut self, view: &Vec<Resource>) -> DiscoveryResponse {
        let nonce = nonce();
        let version = self.conversation.answer(nonce.clone()).to_string();
        let type_url = self.conversation.wanted().map(|wanted| wanted.type_url.clone()).unwrap_or_default();
        let (uid, pid, count) = (self.log.uid, self.log.pid, view.len());
        if let Some(pass) = in_moderation(SENDING) {
            debug!(uid, pid, version, count, suppressed = pass.suppressed, "{SENDING}");
        }
        DiscoveryResponse { version_info: version, resources: resources(view), type_url, nonce }
    }

    async fn heard(&mut self) -> Result<Heard, Status> {
        loop {
            let Some(request) = self.requests.message().await? else { return Ok(Heard::Ended) };
            if self.conversation.is_rejection(&request) {
                self.log.rejected(&request);
            }
            match self.conversation.hear(request)? {
                Said::Asked => return Ok(Heard::Asked),
                Said::Took => {}
                Said::Stale => self.log.stale(),
            }
        }
    }
}

impl Question for OneRequest {
    type Answer = DiscoveryResponse;
    type View = Vec<Resource>;
    const METHOD: &'static str = "FetchSecrets";
    const WHAT: &'static str = "Envoy's secrets";

    fn wants_svids(&self) -> bool {
        wants_svids(&self.wanted, &self.config)
    }

    fn view(&self, seen: &Seen<'_>) -> Result<(Vec<Resource>, Duration), Status> {
        view(&self.wanted, &self.config, seen)
    }

    fn is_same(&self, sent: &Vec<Resource>, now: &Vec<Resource>) -> bool {
        is_same(sent, now)
    }

    fn named<'a>(&self, view: &'a Vec<Resource>) -> Option<Vec<&'a str>> {
        Some(spiffe_ids(view))
    }

    /// Without version and nonce: there is no second answer. Source: SPIRE.
    fn answer(&mut self, view: &Vec<Resource>) -> DiscoveryResponse {
        let type_url = self.wanted.type_url.clone();
        DiscoveryResponse { resources: resources(view), type_url, ..DiscoveryResponse::default() }
    }
}

impl Log {
    fn stale(&self) {
        let Some(pass) = in_moderation(STALE) else { return };
        debug!(uid = self.uid, pid = self.pid, suppressed = pass.suppressed, "{STALE}");
    }

    fn rejected(&self, request: &DiscoveryRequest) {
        let Some(pass) = self.admission.should_log(self.uid, About::Secrets, Instant::now()) else { return };
        let (uid, pid, suppressed) = (self.uid, self.pid, pass.suppressed);
        let complaint = request.error_detail.as_ref().map_or("", |detail| detail.message.as_str());
        let names = listed(&request.resource_names.iter().cloned().collect());
        warn!(
            uid,
            pid,
            %names,
            error = %clipped(complaint),
            suppressed,
            "Envoy reported errors applying secrets; it keeps what it had"
        );
    }
}

fn default_validation(config: &SdsConfig) -> Validation {
    if config.disable_spiffe_cert_validation { Validation::TrustedCa } else { Validation::Spiffe }
}

fn view(wanted: &Wanted, config: &SdsConfig, seen: &Seen<'_>) -> Result<(Vec<Resource>, Duration), Status> {
    if seen.entries().is_empty() {
        expect_bundles(wanted, seen)?;
    }
    let found = named(wanted, config, &seen.whole_view()).map_err(|unknown| not_theirs(&unknown, config, seen))?;
    found.iter().try_for_each(Resource::check)?;
    Ok((found, seen.next_end_of_all().unwrap_or(NEVER)))
}

/// Whether a caller without an entry may be answered: the trust domain's bundle is public, and an Envoy that only verifies others has
/// no identity. Source: SPIRE. An agent that is cast out hears of no new authorities, and answers nobody.
fn expect_bundles(wanted: &Wanted, seen: &Seen<'_>) -> Result<(), Status> {
    if seen.all.cast_out().is_some() {
        return Err(seen.no_identity());
    }
    // Who asks for all there is is not told that it is all before that is known.
    if wanted.names.is_empty() { seen.expect_known() } else { Ok(()) }
}

/// Names that are nobody's; of identities that are late, when they come is all that can be said.
fn not_theirs(unknown: &BTreeSet<String>, config: &SdsConfig, seen: &Seen<'_>) -> Status {
    if seen.entries().is_empty() {
        if let Err(early) = seen.expect_known() {
            return early;
        }
        seen.is_nobody();
        return not_authorized(unknown);
    }
    if unknown.iter().any(|name| !is_of_bundles(name, config))
        && let Err(late) = seen.svids_last()
    {
        return late;
    }
    if let Err(unasked) = seen.attested.expect_asked() {
        return unasked;
    }
    seen.not_theirs(unknown, &listed(unknown));
    not_authorized(unknown)
}

fn not_authorized(unknown: &BTreeSet<String>) -> Status {
    // Source of the text: SPIRE; names are quoted as Go quotes a list. A header holds no more than a few.
    let named = unknown.iter().take(MAX_LOGGED_NAMES).map(|name| format!("{:?}", clipped(name).to_string()));
    let mut names = named.collect::<Vec<_>>().join(" ");
    if let Some(more) = unknown.len().checked_sub(MAX_LOGGED_NAMES).filter(|more| *more > 0) {
        names += &format!(" and {more} more");
    }
    Status::invalid_argument(format!("workload is not authorized for the requested identities [{names}]"))
}

fn wants_svids(wanted: &Wanted, config: &SdsConfig) -> bool {
    wanted.names.is_empty() || wanted.names.iter().any(|name| !is_of_bundles(name, config))
}

/// Names for a line of the log.
fn listed(names: &BTreeSet<String>) -> String {
    let more = names.len().saturating_sub(MAX_LOGGED_NAMES);
    let mut list =
        names.iter().take(MAX_LOGGED_NAMES).map(|name| clipped(name).to_string()).collect::<Vec<_>>().join(" ");
    if more > 0 {
        list += &format!(" and {more} more");
    }
    list
}

fn is_same(sent: &[Resource], now: &[Resource]) -> bool {
    sent.len() == now.len() && sent.iter().zip(now).all(|(sent, now)| sent.looks_like(now))
}

/// Of the identities in an answer.
fn spiffe_ids(view: &[Resource]) -> Vec<&str> {
    view.iter().filter_map(Resource::spiffe_id).collect()
}

fn resources(view: &[Resource]) -> Vec<prost_types::Any> {
    view.iter().map(Resource::to_any).collect()
}

fn nonce() -> String {
    let mut bytes = [0; NONCE_BYTES];
    // Not a secret: it only has to differ from the one before on its stream.
    aws_lc_rs::rand::fill(&mut bytes).expect("the kernel's random source does not fail once it has been seeded");
    hex(&bytes)
}
