//! Taking up what an earlier run left.

use std::time::Instant;

use rustls_pki_types::CertificateDer;
use tracing::{info, warn};

use super::schedule::{overdue_unix, renewal_in, unit};
use super::{Agent, Memory, Synchronizer, chain};
use crate::agent_record::AgentRecord;
use crate::sealed_cache::{CacheRefusal, CachedIdentities, SealedFile};
use crate::server_answers::{TrustBundle, restored_agent_svid};

impl Synchronizer {
    /// Takes up what is kept, identities first, and publishes them at once: the offline start. What cannot be used is
    /// logged once and costs a new attestation, nothing else.
    pub async fn restore(&mut self) {
        match &mut self.parts.memory {
            Memory::Sealed(memory) => match memory.cache().open().await {
                Ok(Some(file)) => self.restore_sealed(&file).await,
                Ok(None) => info!("there is no sealed cache yet"),
                Err(refusal) => warn_refused(&refusal),
            },
            Memory::Plain { directory, .. } => match AgentRecord::read(directory) {
                Ok(Some(record)) => self.restore_record(record),
                Ok(None) => {}
                Err(error) => warn!(error = %chain(&error), "the agent's record is not used"),
            },
        }
    }

    async fn restore_sealed(&mut self, file: &SealedFile) {
        let trust_domain = self.parts.trust_domain.clone();
        let Memory::Sealed(memory) = &mut self.parts.memory else { return };
        let (mut refused, mut time) = (None, None);
        match memory.cache().identities(file, &trust_domain).await {
            Ok(cached) => self.restore_identities(cached),
            Err(refusal) => refused = Some(refusal),
        }
        let Memory::Sealed(memory) = &mut self.parts.memory else { return };
        match memory.cache().record(file).await {
            Ok(record) => {
                time = record.time;
                self.restore_record(record);
            }
            // One cause, one warning: what spoils both sections is told once.
            Err(refusal) => refused = refused.or(Some(refusal)),
        }
        match refused {
            Some(refusal) => warn_refused(&refusal),
            None => self.finish_interrupted_write(file).await,
        }
        if let Some(record) = time {
            self.parts.time.restore(record, self.parts.keys.tpm_clock().await);
        }
    }

    async fn finish_interrupted_write(&mut self, file: &SealedFile) {
        let Memory::Sealed(memory) = &mut self.parts.memory else { return };
        if let Err(error) = memory.cache().finish_interrupted_write(file).await {
            warn!(error = %chain(&error), "an older sealed cache could still be put back");
        }
    }

    fn restore_identities(&mut self, cached: CachedIdentities) {
        self.parts.time.restore(cached.time, None);
        let now_unix = self.parts.time.now_unix();
        self.synced_unix = cached.synced_unix;
        self.restore_bundle(cached.bundle);
        let entries = cached.entries.len();
        self.ledger.restore(cached.entries, Instant::now(), now_unix);
        self.withdraw_if_too_old();
        // A cache that was written before the first sync knows no entries, not that there are none.
        self.ready = cached.synced_unix > 0;
        self.publish();
        info!(entries, synced_unix = self.synced_unix, "identities restored from the sealed cache");
    }

    fn restore_record(&mut self, record: AgentRecord) {
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
        let overdue_unix = overdue_unix(svid.not_after_unix, lifetime);
        info!(spiffe_id = %svid.spiffe_id, "agent certificate restored");
        self.agent = Some(Agent { svid, reattestable: record.reattestable, due, overdue_unix, refused: false });
    }
}

/// The one warning that a cache is not used.
fn warn_refused(refusal: &CacheRefusal) {
    warn!(error = %chain(refusal), "the sealed cache is refused; identities come from the server again");
}
