//! Whether the server can do its work, and why not: what `/ready`, grpc.health.v1 and `healthcheck` tell.
//!
//! `/ready` is a balancer's question: is another server better than this one? A data store that several servers share is away for all of
//! them, and each goes on from memory; so that none is taken away for it, it counts for the other two alone, which people ask.
//!
//! ```text
//!  CA key: signs? (asked every ten seconds unless it just has) ─┐
//!  CA: valid now? can it be renewed? ───────────────────────────┼──► reason(): all that is wrong, or nothing
//!  audit lines that must be written: are they? ─────────────────┤
//!  data store, issuance log: did the last change reach the disk? ┘
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ironroot_shell::command_line::describe;
use ironroot_shell::health::Ready;
use tokio::time::{sleep, timeout};
use tracing::{error, info};

use crate::ca::CertificateAuthority;
use crate::endpoints::AuditFile;
use crate::issuance_log::IssuanceLog;
use crate::store::Store;

/// How often a token whose CA key has not signed meanwhile is asked to.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// How often one that failed is asked.
const TROUBLED_PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// However often callers fail, the token is asked no sooner after it was asked.
const LEAST_PAUSE: Duration = Duration::from_millis(500);
/// A token that does not answer for this time is not ready, though its callers wait longer.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);

/// What the server's work depends on.
pub struct Readiness {
    ca: Arc<CertificateAuthority>,
    store: Store,
    log: IssuanceLog,
    audit: Option<Arc<AuditFile>>,
    /// Why the token did not sign when it was last asked.
    token: Mutex<Option<String>>,
}

impl Readiness {
    /// Of a server that has just signed its own SVID.
    pub fn new(
        ca: Arc<CertificateAuthority>,
        store: Store,
        log: IssuanceLog,
        audit: Option<Arc<AuditFile>>,
    ) -> Arc<Self> {
        Arc::new(Self { ca, store, log, audit, token: Mutex::default() })
    }

    /// All that keeps the server from its work now; none if nothing does. Does not block.
    pub fn reason(&self) -> Option<String> {
        together(self.troubles().map(|(_, why)| why))
    }

    /// What the work depends on, by name, and what is wrong with it; none if nothing is.
    pub fn troubles(&self) -> [(&'static str, Option<String>); 6] {
        let token = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        [
            ("token", token.map(|why| format!("the token does not sign: {why}"))),
            ("ca", self.ca.trouble()),
            ("rotation", self.ca.rotation_trouble()),
            ("data_store", self.store.trouble().map(|why| format!("the data store takes no changes: {why}"))),
            (
                "audit_log",
                self.audit
                    .as_ref()
                    .and_then(|audit| audit.reason())
                    .map(|why| format!("the audit's lines cannot be written: {why}")),
            ),
            ("issuance_log", self.log.trouble().map(|why| format!("the issuance log takes no records: {why}"))),
        ]
    }

    /// For a balancer: what speaks for another server.
    pub fn ready_for_callers(self: &Arc<Self>) -> Ready {
        let this = Arc::clone(self);
        Arc::new(move || together(this.troubles().map(|(part, why)| why.filter(|_| !this.is_shared_with_others(part)))))
    }

    /// Whether that trouble is every server's: the shared data store, and rotations, whose steps are written there first.
    fn is_shared_with_others(&self, part: &str) -> bool {
        self.store.is_shared() && matches!(part, "data_store" | "rotation") && self.store.trouble().is_some()
    }

    /// The same as [`reason`](Self::reason), for who asks on each probe.
    pub fn ready(self: &Arc<Self>) -> Ready {
        let this = Arc::clone(self);
        Arc::new(move || this.reason())
    }

    /// Keeps asking the token, and tells the log when the answer as a whole changes. Runs until dropped.
    pub async fn keep(&self) {
        let (mut was_ready, mut unless_within) = (true, PROBE_INTERVAL);
        loop {
            let token = self.ask_token(unless_within).await;
            let in_trouble = token.is_some();
            let wait = if in_trouble { TROUBLED_PROBE_INTERVAL } else { PROBE_INTERVAL };
            *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
            match self.reason() {
                Some(reason) if was_ready => error!(reason, "server is not ready"),
                None if !was_ready => info!("server is ready again"),
                _ => {}
            }
            was_ready = self.reason().is_none();
            sleep(LEAST_PAUSE).await;
            unless_within = tokio::select! {
                // What is over is over when it has signed again, and not before.
                () = sleep(wait - LEAST_PAUSE) => if in_trouble { Duration::ZERO } else { PROBE_INTERVAL },
                // A caller has found out what the next look would.
                () = self.ca.signed().one_failed() => Duration::ZERO,
            };
        }
    }

    async fn ask_token(&self, unless_within: Duration) -> Option<String> {
        match timeout(PROBE_PATIENCE, self.ca.probe(unless_within)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(describe(&error)),
            Err(_) => Some(format!("it has not answered for {} s", PROBE_PATIENCE.as_secs())),
        }
    }
}

/// Everything that is wrong, in one line.
fn together<const N: usize>(reasons: [Option<String>; N]) -> Option<String> {
    let reasons: Vec<String> = reasons.into_iter().flatten().collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_told_and_none_is_none() {
        let told = |text: &str| Some(text.to_owned());
        assert_eq!(together([None, None]), None);
        assert_eq!(together([None, told("a")]), told("a"));
        assert_eq!(together([told("a"), None, told("b")]), told("a; b"));
    }
}
