//! Taking up what an earlier run left.

use std::time::Instant;

use rustls_pki_types::CertificateDer;
use tracing::{info, warn};

use super::schedule::{renewal_in, unit};
use super::{Agent, Synchronizer, chain};
use crate::agent_record::AgentRecord;
use crate::sealed_cache::CachedIdentities;
use crate::server_answers::{TrustBundle, restored_agent_svid};

impl Synchronizer {
    /// Takes up cached identities and publishes them at once: the offline start.
    pub fn restore_identities(&mut self, cached: CachedIdentities) {
        self.parts.time.restore(cached.time, None);
        let now_unix = self.parts.time.now_unix();
        self.synced_unix = cached.synced_unix;
        self.restore_bundle(cached.bundle);
        let entries = cached.entries.len();
        self.ledger.restore(cached.entries, Instant::now(), now_unix);
        self.withdraw_if_too_old();
        self.publish();
        info!(entries, synced_unix = self.synced_unix, "identities restored from the sealed cache");
    }

    /// Takes up what the agent knew of itself. What is not usable any more costs a new attestation, nothing else.
    pub fn restore_record(&mut self, record: AgentRecord) {
        if let Some(time) = record.time {
            self.parts.time.restore(time, None);
        }
        if self.bundle.is_none() && !record.authorities.is_empty() {
            let authorities = record.authorities.iter().map(|(der, tainted)| (der.as_slice(), *tainted));
            match TrustBundle::new(&self.parts.trust_domain, authorities) {
                Ok(bundle) => self.restore_bundle(bundle),
                Err(refusal) => warn!(error = %chain(&refusal), "the stored trust bundle is not used"),
            }
        }
        self.restore_certificate(&record);
    }

    fn restore_bundle(&mut self, bundle: TrustBundle) {
        let authorities: Vec<CertificateDer<'static>> = bundle.authorities().cloned().collect();
        if self.anchors.replace(&authorities).is_ok() {
            self.bundle = Some(bundle);
        }
    }

    fn restore_certificate(&mut self, record: &AgentRecord) {
        let Some(bundle) = self.bundle.as_ref().filter(|_| !record.chain.is_empty()) else { return };
        let chain_der = record.chain.iter().map(Vec::as_slice);
        let svid = match restored_agent_svid(chain_der, bundle, &self.parts.time) {
            Ok(svid) => svid,
            Err(refusal) => {
                info!(error = %chain(&refusal), "the stored agent certificate is not usable any more");
                return;
            }
        };
        if !self.parts.keys.adopt(&svid.spki_der) {
            warn!(spiffe_id = %svid.spiffe_id, "the key of the stored agent certificate is missing");
            return;
        }
        let remaining = svid.not_after_unix - self.parts.time.now_unix();
        let lifetime = svid.not_after_unix - svid.not_before_unix;
        let due = Instant::now() + renewal_in(remaining, lifetime, unit());
        info!(spiffe_id = %svid.spiffe_id, "agent certificate restored");
        self.agent = Some(Agent { svid, reattestable: record.reattestable, due });
    }
}
