//! Heads of the issuance log: shown to each agent that asks for them, with each sync and with what is told to have changed, and held
//! against what the agent has kept.
//!
//! SPIRE's agents send no such metadata, and get none.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use ironroot_api::SpiffeId;
use ironroot_api::issuance_head::{self, HEAD_METADATA, IssuanceHead};
use ironroot_shell::clock::wall_unix;
use ironroot_shell::logging::{LineRate, LogLimit};
use ironroot_text::hex::{hex, parse_hex};
use prost::bytes::Bytes;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};
use tracing::{error, warn};

use super::ServerState;
use crate::ca::{CaError, CertificateAuthority, ServerName};
use crate::facts::older_state::Evidence;
use crate::issuance_log::{Head, IssuanceLog};
use crate::rights::AuthenticatedAgent;

/// A head is signed this often at most: what a token does for it is nothing beside what it does for SVIDs.
const INTERVAL: Duration = Duration::from_secs(5);

/// Heads of one agent, and of all agents, that are proven: some signatures each, at a price that any agent could have the server pay with
/// every poll. An agent that keeps another history shows it with the next poll too.
const PROOFS_PER_AGENT: LineRate = LineRate { burst: 2, interval: Duration::from_secs(30) };
const PROOFS_IN_ALL: LineRate = LineRate { burst: 64, interval: Duration::from_millis(20) };

/// Epochs are UNIX seconds, or one more than the one before: the year 9999. Above it nobody's log is.
const LAST_EPOCH: u64 = 253_402_300_799;

/// A head with what proves it, as agents are shown it.
#[derive(Debug)]
pub(super) struct ShownHead {
    place: Place,
    encoded: Vec<u8>,
}

#[cfg(test)]
impl ShownHead {
    pub fn example(place: Place, encoded: Vec<u8>) -> Self {
        Self { place, encoded }
    }
}

/// Where a log is: epoch and sequence number.
type Place = (u64, u64);

/// Which head an agent was shown last over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KnownHead {
    /// It asks for none.
    Unasked,
    /// None yet.
    Nothing,
    /// That one, by it or to it.
    At(Place),
}

impl KnownHead {
    /// `newest`, if the agent asks for heads and was shown another; it was shown this one then.
    pub fn is_shown(&mut self, newest: Option<&ShownHead>) -> Option<Bytes> {
        let newest = newest.filter(|newest| !matches!(*self, Self::Unasked) && *self != Self::At(newest.place))?;
        *self = Self::At(newest.place);
        Some(Bytes::copy_from_slice(&newest.encoded))
    }
}

/// What becomes of a head that an agent keeps; empty if it keeps none.
struct Exchange<'a> {
    /// What it is shown.
    shown: Option<&'a ShownHead>,
    /// Whether its own is held against the log.
    is_looked_at: bool,
}

impl<'a> Exchange<'a> {
    fn of(kept: &[u8], newest: Option<&'a ShownHead>) -> Self {
        let shown = newest.filter(|newest| newest.encoded != kept);
        Self { shown, is_looked_at: !kept.is_empty() && (shown.is_some() || newest.is_none()) }
    }
}

/// The newest signed head.
pub struct Heads {
    log: IssuanceLog,
    /// What heads call this server: its name, and what no other server's data directory says.
    server: String,
    /// With what proves it; none before the first was signed.
    shown: ArcSwapOption<ShownHead>,
    /// What an agent has shown that this log does not have.
    contradicted: watch::Sender<Option<Evidence>>,
    /// Whose heads were proven lately.
    proofs: LogLimit<SpiffeId>,
    /// Whether it was told that heads are too long to be shown.
    told_too_long: OnceLock<()>,
}

impl Heads {
    /// Of the server's log; none is signed before [`keep`](Self::keep). Servers without a name may have one root above them: heads
    /// tell them apart by `log_id`.
    pub fn new(log: IssuanceLog, server: &ServerName, log_id: &str) -> Arc<Self> {
        let (contradicted, _) = watch::channel(None);
        let server = format!("{}#{log_id}", server.as_str());
        Arc::new(Self {
            log,
            server,
            shown: ArcSwapOption::empty(),
            contradicted,
            proofs: proofs(),
            told_too_long: OnceLock::new(),
        })
    }

    /// What is written to.
    pub fn log(&self) -> &IssuanceLog {
        &self.log
    }

    /// Waits until an agent has shown a head of this server's that its log does not have.
    pub async fn contradicted(&self) -> Evidence {
        let mut found = self.contradicted.subscribe();
        loop {
            if let Some(evidence) = found.borrow_and_update().clone() {
                return evidence;
            }
            if found.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// The head to be shown, if one was signed.
    pub(super) fn newest(&self) -> Option<Arc<ShownHead>> {
        self.shown.load_full()
    }

    /// Whether a head that says this would be this server's.
    fn are_of(&self, statement: &IssuanceHead, trust_domain: &str) -> bool {
        statement.server == self.server && statement.trust_domain == trust_domain && statement.epoch <= LAST_EPOCH
    }

    /// Whether a head of `agent`'s that contradicts the log is proven now. What was proven once is told, and needs no other proof.
    fn may_be_proven(&self, agent: &SpiffeId, now: Instant) -> bool {
        self.contradicted.borrow().is_none() && self.proofs.admit(agent.clone(), now).is_some()
    }

    /// Has each new head signed. Runs until dropped.
    pub async fn keep(&self, ca: Arc<CertificateAuthority>) {
        let mut durable = self.log.durable();
        let mut was_signed = true;
        loop {
            let head = *durable.borrow_and_update();
            let signed = self.sign(&ca, head).await;
            match &signed {
                Err(error) if was_signed => {
                    warn!(error = error as &dyn std::error::Error, "the head of the issuance log is not signed");
                }
                _ => {}
            }
            was_signed = signed.is_ok();
            tokio::time::sleep(INTERVAL).await;
            if was_signed && durable.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    async fn sign(&self, ca: &CertificateAuthority, head: Head) -> Result<(), CaError> {
        let statement = IssuanceHead {
            trust_domain: ca.trust_domain().to_string(),
            server: self.server.clone(),
            epoch: head.epoch,
            sequence: head.sequence,
            hash: hex(&head.hash),
            at: wall_unix(),
        };
        let statement = serde_json::to_vec(&statement).expect("texts and numbers are JSON");
        let (signature, chain) = ca.sign_statement(&issuance_head::signed_bytes(&statement)).await?;
        // One that is too long for HTTP/2's headers is not shown at all.
        let encoded = issuance_head::encode(statement, signature, chain);
        if encoded.is_none() && self.told_too_long.set(()).is_ok() {
            warn!(
                "heads of the issuance log are too long to be shown to agents, as they are below keys of ML-DSA: no agent will tell \
                 that the log went back; keep rollback_mark_path on another disk"
            );
        }
        let place = (head.epoch, head.sequence);
        self.shown.store(encoded.map(|encoded| Arc::new(ShownHead { place, encoded })));
        Ok(())
    }
}

impl ServerState {
    /// Answers an agent that asks for the head, and looks at the one that it keeps, also while there is none to show: the token may be away.
    /// Which head the agent knows then.
    pub(super) fn exchange_heads(
        &self,
        agent: &AuthenticatedAgent,
        asked: &MetadataMap,
        answer: &mut MetadataMap,
    ) -> KnownHead {
        let kept = asked.get_bin(HEAD_METADATA).and_then(|kept| kept.to_bytes().ok());
        let Some(kept) = kept else { return KnownHead::Unasked };
        let newest = self.heads.newest();
        let Exchange { shown, is_looked_at } = Exchange::of(&kept, newest.as_deref());
        if let Some(shown) = shown {
            answer.insert_bin(HEAD_METADATA, MetadataValue::from_bytes(&shown.encoded));
        }
        if is_looked_at {
            self.look_at_head(agent, &kept);
        }
        newest.map_or(KnownHead::Nothing, |newest| KnownHead::At(newest.place))
    }

    /// What contradicts is cheap to see, and proven only then. Below the same root others have CAs too, gateways among them: what they say of
    /// this log ends no server.
    fn look_at_head(&self, agent: &AuthenticatedAgent, kept: &[u8]) {
        let Some((statement, head)) = issuance_head::read(kept).ok().and_then(with_head) else { return };
        if !self.heads.are_of(&statement, self.trust_domain.as_str()) || self.heads.log.contradicts(&head) != Some(true)
        {
            return;
        }
        if !self.heads.may_be_proven(agent.id(), Instant::now()) {
            return;
        }
        let bundle = self.ca.bundle();
        let authorities: Vec<_> =
            bundle.borrow().authorities.iter().map(|der| CertificateDer::from(der.clone())).collect();
        match issuance_head::verify_of(kept, &authorities, |signer| self.own.has(signer)) {
            Ok(_) => self.tell_of_other_history(agent, &head),
            Err(why) => {
                let status = Status::invalid_argument(format!("the head that the agent keeps is not ours: {why}"));
                drop(self.audit.refused(agent.caller(), "SyncAuthorizedEntries", agent.id(), status));
            }
        }
    }

    fn tell_of_other_history(&self, agent: &AuthenticatedAgent, head: &Head) {
        let own = *self.heads.log.durable().borrow();
        error!(
            agent = %agent.id(), kept = %head, own = %own,
            "an agent keeps a signed head of the issuance log that this log does not have: this server's state is older, or another one"
        );
        let (agent, shown, epoch) = (agent.id().to_string(), head.sequence, head.epoch);
        let evidence = Evidence::Head { agent, shown, sequence: own.sequence, epoch };
        self.heads.contradicted.send_replace(Some(evidence));
    }
}

fn proofs() -> LogLimit<SpiffeId> {
    LogLimit::new(PROOFS_PER_AGENT, PROOFS_IN_ALL)
}

fn with_head(statement: IssuanceHead) -> Option<(IssuanceHead, Head)> {
    let head = Head { epoch: statement.epoch, sequence: statement.sequence, hash: parse_hex(&statement.hash)? };
    Some((statement, head))
}

impl std::fmt::Debug for Heads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Heads({:?})", self.log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_another_server_without_a_name_and_of_epochs_that_nobody_has_are_not_ours() {
        let directory = tempfile::tempdir().expect("directory");
        let log = IssuanceLog::open(directory.path(), None).expect("opened");
        let heads = Heads::new(log.clone(), &ServerName::default(), "0a");
        let statement = |server: &str, epoch| IssuanceHead {
            trust_domain: "td".to_owned(),
            server: server.to_owned(),
            epoch,
            sequence: 1,
            hash: String::new(),
            at: 0,
        };
        assert!(heads.are_of(&statement("#0a", 1), "td"));
        assert!(!heads.are_of(&statement("#0b", 1), "td") && !heads.are_of(&statement("", 1), "td"));
        assert!(!heads.are_of(&statement("#0a", 1), "other"));
        assert!(!heads.are_of(&statement("#0a", LAST_EPOCH + 1), "td"));
        log.close();
    }

    #[test]
    fn a_head_that_an_agent_keeps_is_looked_at_though_there_is_none_to_show_unless_it_is_the_newest() {
        let newest = ShownHead::example((1, 5), vec![7]);
        let exchanged = |kept: &[u8], newest| {
            let exchange = Exchange::of(kept, newest);
            (exchange.shown.is_some(), exchange.is_looked_at)
        };
        assert_eq!(exchanged(&[7], Some(&newest)), (false, false));
        assert_eq!(exchanged(&[8], Some(&newest)), (true, true));
        assert_eq!(exchanged(&[], Some(&newest)), (true, false));
        assert_eq!(exchanged(&[8], None), (false, true), "the token is away");
        assert_eq!(exchanged(&[], None), (false, false));
    }

    #[test]
    fn a_head_is_shown_once_to_each_who_asks_for_heads() {
        let head = |place| ShownHead { place, encoded: vec![7] };
        let (first, second, anew) = (head((1, 5)), head((1, 6)), head((2, 6)));
        let mut known = KnownHead::Nothing;
        assert_eq!(known.is_shown(None), None);
        for newest in [&first, &second, &anew] {
            assert_eq!(known.is_shown(Some(newest)), Some(Bytes::from_static(&[7])));
            assert_eq!(known.is_shown(Some(newest)), None, "shown already");
        }
        assert_eq!(KnownHead::At((1, 6)).is_shown(Some(&second)), None);
        assert_eq!(KnownHead::Unasked.is_shown(Some(&second)), None);
    }

    #[test]
    fn of_each_agent_so_many_heads_are_proven_and_of_all_agents_so_many() {
        let directory = tempfile::tempdir().expect("directory");
        let log = IssuanceLog::open(directory.path(), None).expect("opened");
        let heads = Heads::new(log.clone(), &ServerName::default(), "0a");
        let agent = |n: u32| SpiffeId::parse(&format!("spiffe://td/spire/agent/x/{n}")).expect("legal");
        let now = Instant::now();
        let proven = |agent: &SpiffeId, now| (0..1000).filter(|_| heads.may_be_proven(agent, now)).count();
        assert_eq!(proven(&agent(0), now), PROOFS_PER_AGENT.burst as usize);
        assert_eq!(proven(&agent(1), now), PROOFS_PER_AGENT.burst as usize, "another is not made to wait");
        assert_eq!(proven(&agent(0), now + PROOFS_PER_AGENT.interval), 1);
        let much_later = now + 100 * PROOFS_PER_AGENT.interval;
        let in_all: usize = (0..1000).map(|n| proven(&agent(n), much_later)).sum();
        assert_eq!(in_all, PROOFS_IN_ALL.burst as usize);
        heads.contradicted.send_replace(Some(Evidence::Log { logged: 2, revision: 1 }));
        assert_eq!(proven(&agent(1), much_later + PROOFS_PER_AGENT.interval), 0, "one proof is enough");
        log.close();
    }
}
