//! Taking up what an earlier run left.

use std::sync::Arc;
use std::time::Instant;

use ironroot_shell::describe;
use tracing::{info, warn};

use super::publish::Kept;
use super::schedule::unit;
use super::standing::{Agent, Standing};
use super::{Memory, Synchronizer};
use crate::agent_record::AgentRecord;
use crate::sealed_cache::{CacheRefusal, CachedIdentities, SealedFile};
use crate::server_answers::{TrustBundle, restored_agent_svid};
use crate::trusted_time::{boot_id, utc};

/// What the chip says of the boot that the record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Boot {
    /// Nothing else than the record.
    AsRecorded,
    /// Its registers are not as they were, whatever the kernel's boot ID: it was reset, or more was measured.
    Otherwise,
}

impl Synchronizer {
    /// Takes up what is kept, identities first, and publishes them at once: the offline start. What cannot be used is
    /// logged once and costs a new attestation, nothing else.
    pub async fn restore(&mut self) {
        if !self.is_banned_from_before() {
            self.take_up_what_is_kept().await;
        }
        let (bundle, authority) = (self.bundle.as_deref(), self.parts.local_authority.iter_mut());
        authority.for_each(|authority| authority.disown_unused_keys(bundle));
        self.report();
    }

    async fn take_up_what_is_kept(&mut self) {
        match &mut self.parts.memory {
            Memory::Sealed(memory) => match memory.cache().open().await {
                Ok(Some(file)) => self.restore_sealed(&file).await,
                Ok(None) => info!(server = self.parts.server.address(), "there is no sealed cache yet"),
                Err(refusal) => self.refuse_cache(&refusal),
            },
            Memory::Plain { directory, .. } => match AgentRecord::read(directory, &self.parts.trust_domain) {
                Ok(Some(record)) => self.restore_record(record, Boot::AsRecorded),
                Ok(None) => {}
                Err(error) => warn!(error = %describe(&error), "the agent's record is not used"),
            },
        }
    }

    async fn restore_sealed(&mut self, file: &SealedFile) {
        let trust_domain = self.parts.trust_domain.clone();
        let Memory::Sealed(memory) = &mut self.parts.memory else { return };
        let (mut refused, mut time, mut boot) = (None, None, Boot::AsRecorded);
        match memory.cache().identities(file, &trust_domain).await {
            Ok(cached) => {
                memory.note_taken_up();
                self.restore_identities(cached);
            }
            Err(refusal) => {
                if refusal.is_about_the_boot() {
                    boot = Boot::Otherwise;
                }
                refused = Some(refusal);
            }
        }
        let Memory::Sealed(memory) = &mut self.parts.memory else { return };
        match memory.cache().record(file, &trust_domain).await {
            Ok(record) => {
                time = record.time.clone();
                self.restore_record(record, boot);
            }
            // One cause, one warning: what spoils both sections is told once.
            Err(refusal) => refused = refused.or(Some(refusal)),
        }
        match refused {
            Some(refusal) => self.refuse_cache(&refusal),
            None => self.finish_interrupted_write(file).await,
        }
        self.seal_anew_if_due();
        if let Some(record) = time {
            self.parts.time.restore(&record, self.parts.keys.tpm_clock().await);
            // The chip may know of more time that has passed.
            self.publish();
        }
    }

    /// What opened is written again at once where it is to be sealed otherwise; older copies become worthless.
    fn seal_anew_if_due(&mut self) {
        let Memory::Sealed(memory) = &mut self.parts.memory else { return };
        let is_due = memory.cache().is_to_be_sealed_anew();
        self.changes.any |= is_due;
        self.changes.must_not_be_lost |= is_due;
        self.changes.must_not_be_undone |= is_due;
    }

    fn refuse_cache(&self, refusal: &CacheRefusal) {
        let server = self.parts.server.address();
        warn!(error = %describe(refusal), server, "the sealed cache is refused; identities come from the server again");
        self.parts.counted.note_cache_refused(self.parts.number, refusal.word(), Instant::now());
    }

    async fn finish_interrupted_write(&mut self, file: &SealedFile) {
        let Memory::Sealed(memory) = &mut self.parts.memory else { return };
        if let Err(error) = memory.cache().finish_interrupted_write(file).await {
            warn!(error = %describe(&error), "an older sealed cache could still be put back");
        }
    }

    fn restore_identities(&mut self, cached: CachedIdentities) {
        self.parts.time.restore(&cached.time, None);
        self.synced_unix = cached.synced_unix;
        self.kept = Kept::now(cached.synced_unix, &self.parts.time.moment());
        self.restore_bundle(cached.bundle);
        self.federated = cached.federated;
        self.parts.heads.restore(&cached.issuance_heads);
        let entries = cached.entries.len();
        self.ledger.restore(cached.entries, Instant::now(), &self.parts.time.moment(), unit);
        self.replace_what_was_tainted();
        self.withdraw_if_too_old();
        // A cache that was written before the first sync knows no entries, not that there are none.
        if cached.synced_unix > 0 {
            self.publish_anyway();
        }
        info!(entries, synced = utc(self.synced_unix), "identities restored from the sealed cache");
    }

    pub(super) fn restore_record(&mut self, record: AgentRecord, boot: Boot) {
        if let Some(time) = &record.time {
            self.parts.time.restore(time, None);
        }
        if let Some(bundle) = record.bundle.clone().filter(|_| self.bundle.is_none()) {
            self.restore_bundle(bundle);
        }
        self.newest_authority = self.newest_authority.max(record.newest_authority.unwrap_or(i64::MIN));
        self.restore_certificate(&record, boot);
        self.distrust.restore(record.disbelieved_since, self.parts.time.now_unix());
        self.restore_local_authority(&record);
        self.restore_jwt_key(&record);
    }

    /// What was marked when the process ended is marked again: the server's bundle is no news.
    fn replace_what_was_tainted(&mut self) {
        let Some(bundle) = self.bundle.clone().filter(|bundle| bundle.has_tainted()) else { return };
        let moment = self.parts.time.moment();
        self.ledger.mark_untrusted(bundle.untainted_anchors(), Instant::now(), &moment);
        self.replace_certificate_if_untrusted(&bundle);
    }

    fn restore_bundle(&mut self, bundle: Arc<TrustBundle>) {
        self.anchors.follow(bundle.anchors());
        self.newest_authority = self.newest_authority.max(bundle.newest_not_before());
        self.bundle = Some(bundle);
    }

    fn restore_certificate(&mut self, record: &AgentRecord, boot: Boot) {
        let Some(bundle) = self.bundle.as_deref().filter(|_| !record.chain.is_empty()) else { return };
        let chain_der = record.chain.iter().map(Vec::as_slice);
        let moment = self.parts.time.moment();
        let svid = match restored_agent_svid(chain_der, record.left, bundle, &moment) {
            Ok(svid) => svid,
            Err(refusal) => {
                info!(error = %describe(&refusal), "the stored agent certificate is not usable any more");
                return;
            }
        };
        if moment.remaining(&svid.lifetime) <= 0 {
            let ended = utc(svid.lifetime.span().not_after);
            info!(ended, clock = moment.in_words(), "the stored agent certificate has ended");
            return;
        }
        if !self.parts.keys.adopt(&svid.spki_der) {
            warn!(spiffe_id = %svid.spiffe_id, "the key of the stored agent certificate is missing");
            return;
        }
        let lifetime = svid.lifetime.span().length();
        info!(spiffe_id = %svid.spiffe_id, "agent certificate restored");
        self.show_certificate(&svid);
        let mut agent = Agent::new(svid, record.reattestable, lifetime, Instant::now(), &moment);
        self.attested_boot.clone_from(&record.attested_boot);
        //= TPM-44 TCG PC Client Platform Firmware Profile: "every boot is quoted anew"
        if record.reattestable && (boot == Boot::Otherwise || self.has_booted_since()) {
            info!(
                "the last attestation was of another boot, or it is not known of which: what was started is to be proven anew"
            );
            agent.replace_now(Instant::now());
        }
        self.standing = Standing::Attested(agent);
        self.replace_what_was_tainted();
    }

    /// Whether what the server knows of a chip's registers is of an earlier boot. The certificate serves meanwhile, and for as long
    /// as the server is away.
    fn has_booted_since(&self) -> bool {
        self.parts.attestor.proves_boot() && self.attested_boot != boot_id()
    }
}
