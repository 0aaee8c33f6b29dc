//! What happens to agents: attestation, renewal, ban.

use std::sync::Arc;

use crate::facts::agent::AgentRecord;
use crate::facts::page::{ListPage, Page};
use crate::facts::through::is_through;
use crate::registry::AgentFilter;
use ironroot_api::SpiffeId;

use super::agent_table::standing;
use super::{AgentStanding, Registry, RegistryError, one_certificate, token_aliases};
use crate::devices::{note_attested, refuse_banned};
use crate::node_attestation::{AttestedNode, Enrolment, Proof};
use crate::rights::{Administrator, AuthenticatedAgent, ShownCertificate};
use crate::store::{SLICE, StoreError, Transaction};

impl Registry {
    /// Stores an agent that has just proven itself, spends its join token or notes it with its device, all in one change. Its
    /// certificate (decimal serial, notAfter in UNIX seconds) is the current one from now on, any earlier one is not active any
    /// more. An agent that was banned meanwhile is refused, one whose device was, one whose join token another has spent, and
    /// one whose certificate another agent has. The ID that it had under another `agent_path_template`, which is gone, if it had one.
    pub async fn attest_agent(
        &self,
        node: &AttestedNode,
        (serial, not_after): (&str, i64),
        now_unix: i64,
    ) -> Result<Option<SpiffeId>, RegistryError> {
        self.put_attested(attested(node, serial, not_after), node.proof().clone(), now_unix).await
    }

    pub(super) async fn put_attested(
        &self,
        agent: AgentRecord,
        proof: Proof,
        now_unix: i64,
    ) -> Result<Option<SpiffeId>, RegistryError> {
        let put = move |tx: &Transaction<'_>| {
            let known = tx.agent(&agent.spiffe_id)?.map(|(_, known)| known);
            if known.as_ref().is_some_and(|known| known.banned) {
                return Err(RegistryError::AgentBanned);
            }
            if let Some(known) = known.as_ref().filter(|known| known.named_by() != agent.named_by()) {
                let (agent, attestation_type) = (known.spiffe_id.clone(), known.attestation_type.clone());
                return Err(RegistryError::OtherAttestation { agent, attestation_type });
            }
            let former = one_certificate::former(tx, &agent, &proof.other_ids())?;
            // First: what it was called is nobody's then. Where the rest is refused, this is taken back with it.
            former.as_ref().map(|former| tx.remove_agent(&former.spiffe_id)).transpose()?;
            let before = known.as_ref().or(former.as_ref());
            settle(tx, &proof, &agent, before, now_unix)?;
            let agent_version = before.map(|before| before.agent_version.clone()).unwrap_or_default();
            tx.put_agent(&AgentRecord { agent_version, ..agent.clone() })?;
            Ok(former.map(|former| former.spiffe_id))
        };
        self.store.change(put).await
    }

    /// Stores a renewed certificate beside the current one, which stays good until the new one is first used: an agent
    /// that loses the answer is not locked out. Refused where the certificate that was shown is not the current one any more: who was let
    /// pass with it may have waited while the agent attested anew.
    pub async fn renew_agent(
        &self,
        agent: &AuthenticatedAgent,
        serial: &str,
        not_after: i64,
    ) -> Result<(), RegistryError> {
        let (serial, shown) = (serial.to_owned(), agent.serial().to_owned());
        self.change_known_agent(agent.id(), move |agent| match standing(&agent, &shown) {
            AgentStanding::Active => Ok(AgentRecord { new_serial: serial.clone(), new_not_after: not_after, ..agent }),
            AgentStanding::Banned => Err(RegistryError::AgentBanned),
            AgentStanding::NotActive | AgentStanding::ActivatePending | AgentStanding::NotAttested => {
                Err(RegistryError::NotActive)
            }
        })
        .await
    }

    /// Makes the renewed certificate the current one. Good also if it is that already.
    pub async fn activate_agent(&self, shown: &ShownCertificate) -> Result<(), RegistryError> {
        let serial = shown.serial().to_owned();
        self.change_known_agent(shown.id(), move |agent| match standing(&agent, &serial) {
            AgentStanding::Active => Ok(agent),
            AgentStanding::ActivatePending => Ok(AgentRecord {
                serial: agent.new_serial,
                not_after: agent.new_not_after,
                new_serial: String::new(),
                new_not_after: 0,
                ..agent
            }),
            AgentStanding::Banned => Err(RegistryError::AgentBanned),
            AgentStanding::NotActive | AgentStanding::NotAttested => Err(RegistryError::NotActive),
        })
        .await
    }

    /// Shuts the agent out: none of its certificates counts, and it may not attest again until it is deleted. None if there is no such
    /// agent.
    pub async fn ban_agent(&self, _: &Administrator, id: &SpiffeId) -> Result<Option<BannedAgent>, StoreError> {
        let id = id.clone();
        let ban = move |tx: &Transaction<'_>| {
            let Some((_, agent)) = tx.agent(&id)? else { return Ok(None) };
            let banned = BannedAgent { certificate_sha256: agent.certificate_sha256 };
            Ok::<_, StoreError>(tx.ban_agent(&id)?.then_some(banned))
        };
        self.store.change(ban).await
    }

    /// Stores what the agent says it runs; of an agent that was deleted meanwhile nothing.
    pub async fn set_agent_version(&self, agent: &AuthenticatedAgent, version: &str) -> Result<(), StoreError> {
        let id = agent.id();
        if self.agent(id).is_none_or(|agent| agent.agent_version == version) {
            return Ok(());
        }
        let agent_version = version.to_owned();
        let set = move |agent| Ok::<_, Unknown>(AgentRecord { agent_version: agent_version.clone(), ..agent });
        known(self.change_known_agent(id, set).await).map(drop)
    }

    /// Forgets the agent, its ban and the alias of its join token included; it may attest again. False if there is no such
    /// agent.
    pub async fn delete_agent(&self, _: &Administrator, id: &SpiffeId) -> Result<bool, StoreError> {
        let id = id.clone();
        let remove =
            move |tx: &Transaction<'_>| Ok(tx.remove_agent(&id)?.then(|| Some(id.clone())).into_iter().collect());
        let removed = self.remove_agents(remove).await?;
        Ok(removed > 0)
    }

    /// Forgets agents that can attest again (`tofu`: and those that cannot, who attested on first use), are not banned, and whose
    /// certificates all ended before that time; returns how many.
    pub async fn prune_expired_agents(&self, ended_before: i64, tofu: bool) -> Result<usize, StoreError> {
        let ended = move |tx: &Transaction<'_>| tx.remove_agents_ended_before(ended_before, tofu);
        self.remove_agents(move |tx| Ok(ended(tx)?.into_iter().map(Some).collect())).await
    }

    /// Forgets tokens that expired unused, and their aliases, unless an agent lives that joined by an earlier token of that value.
    /// Returns how many tokens.
    pub async fn prune_join_tokens(&self, now_unix: i64) -> Result<usize, StoreError> {
        let trust_domain = self.trust_domain().clone();
        let expired = move |tx: &Transaction<'_>| {
            let agent = |token: String| trust_domain.id_with_path(&format!("/spire/agent/join_token/{token}")).ok();
            Ok(tx.remove_join_tokens_expired_at(now_unix)?.into_iter().map(agent).collect())
        };
        self.remove_agents(expired).await
    }

    /// Removes what `remove` removes the rows of, slice by slice, and the aliases of join tokens that are left without their agents; returns
    /// how many rows. Of a row: the agent, if it names one.
    async fn remove_agents(
        &self,
        remove: impl Fn(&Transaction<'_>) -> Result<Vec<Option<SpiffeId>>, StoreError> + Clone + Send + 'static,
    ) -> Result<usize, StoreError> {
        let remove = move |tx: &Transaction<'_>| {
            let rows = remove(tx)?;
            rows.iter().flatten().try_for_each(|id| token_aliases::remove_orphaned(tx, id))?;
            Ok(rows.len())
        };
        self.store.change_in_slices(SLICE, remove).await
    }

    /// What the certificate with this decimal serial is worth for that agent.
    pub fn agent_standing(&self, id: &SpiffeId, serial: &str) -> AgentStanding {
        let tables = self.shared.read();
        tables.agents.slot(id).map_or(AgentStanding::NotAttested, |slot| standing(&slot.record, serial))
    }

    /// Notes that the agent has called, or that the stream it holds still stands.
    pub fn agent_is_heard_of(&self, id: &SpiffeId, now_unix: i64) {
        self.shared.read().agents.slot(id).into_iter().for_each(|slot| slot.is_heard_of(now_unix));
    }

    /// When that last was, UNIX seconds; 0: not since this server began.
    pub fn agent_seen_at(&self, id: &SpiffeId) -> i64 {
        self.shared.read().agents.slot(id).map_or(0, |slot| slot.seen_at())
    }

    /// Whether the SVID with this decimal serial number was fetched through an agent that is banned now.
    pub fn is_through_banned_agent(&self, serial: &str) -> bool {
        self.shared.read().agents.banned().any(|agent| is_through(serial, agent))
    }

    /// What that certificate is worth.
    pub fn standing_of(&self, shown: &ShownCertificate) -> AgentStanding {
        self.agent_standing(shown.id(), shown.serial())
    }

    /// The agent of that ID, with the selectors that its node has now.
    pub fn agent(&self, id: &SpiffeId) -> Option<Arc<AgentRecord>> {
        self.shared.read().agents.slot(id).map(|slot| self.words(&slot.record).shown(&slot.record))
    }

    /// The agents that are banned.
    pub fn banned_agents(&self) -> Vec<Arc<AgentRecord>> {
        let tables = self.shared.read();
        tables.agents.banned().filter_map(|id| tables.agents.slot(id)).map(|slot| slot.record.clone()).collect()
    }

    /// The agent that attested with the certificate of that TBSCertificate's SHA-256.
    pub fn agent_with_certificate(&self, certificate_sha256: &[u8; 32]) -> Option<Arc<AgentRecord>> {
        let tables = self.shared.read();
        tables.agents.with_certificate(certificate_sha256).map(|slot| self.words(&slot.record).shown(&slot.record))
    }

    /// Whether an agent attested with that certificate.
    pub fn knows_certificate(&self, certificate_sha256: &[u8; 32]) -> bool {
        self.shared.read().agents.with_certificate(certificate_sha256).is_some()
    }

    /// The matching agents of a page, in the order of their first attestation, with the selectors that their nodes have
    /// now. `page_size` and `page_token` as on the wire.
    pub fn list_agents(
        &self,
        filter: &AgentFilter,
        page_size: i32,
        page_token: &str,
    ) -> Result<ListPage<Arc<AgentRecord>>, RegistryError> {
        let page = Page::from_pb(page_size, page_token)?;
        let tables = self.shared.read();
        let shown = tables.agents.behind(page.after).map(|(seq, agent)| (seq, self.words(agent).shown(agent)));
        Ok(page.cut(shown.filter(|(_, agent)| filter.matches(agent))))
    }

    /// How many agents match.
    pub fn count_agents(&self, filter: &AgentFilter) -> usize {
        let tables = self.shared.read();
        let shown = tables.agents.behind(i64::MIN).map(|(_, agent)| self.words(agent).shown(agent));
        shown.filter(|agent| filter.matches(agent)).count()
    }

    async fn change_known_agent<E>(
        &self,
        id: &SpiffeId,
        change: impl Fn(AgentRecord) -> Result<AgentRecord, E> + Send + 'static,
    ) -> Result<(), E>
    where
        E: From<StoreError> + From<Unknown> + Send + 'static,
    {
        let id = id.clone();
        self.change_agent(move |tx| change(tx.agent(&id)?.ok_or(Unknown::Agent)?.1)).await
    }

    /// Stores the row that `decide` gives.
    async fn change_agent<E: From<StoreError> + Send + 'static>(
        &self,
        decide: impl Fn(&Transaction<'_>) -> Result<AgentRecord, E> + Send + 'static,
    ) -> Result<(), E> {
        let write = move |tx: &Transaction<'_>| {
            tx.put_agent(&decide(tx)?)?;
            Ok::<_, E>(())
        };
        self.store.change(write).await
    }
}

/// An agent as it was when it was shut out: by the time that anybody asks again it may be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BannedAgent {
    /// What it attested by, if it has a certificate: under another ID it is the same agent.
    pub certificate_sha256: Option<[u8; 32]>,
}

/// Why a change that no rule forbids did not happen.
enum Unknown {
    Agent,
    Store(StoreError),
}

impl From<StoreError> for Unknown {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Unknown> for RegistryError {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Agent => Self::AgentNotFound,
            Unknown::Store(error) => Self::Store(error),
        }
    }
}

/// Whether the agent was there.
fn known(outcome: Result<(), Unknown>) -> Result<bool, StoreError> {
    match outcome {
        Ok(()) => Ok(true),
        Err(Unknown::Agent) => Ok(false),
        Err(Unknown::Store(error)) => Err(error),
    }
}

/// Whether `known` is what `node` was called under another `agent_path_template`.
pub fn is_former_name(known: &AgentRecord, node: &AttestedNode) -> bool {
    one_certificate::is_former(known, &attested(node, "", 0), &node.other_ids())
}

/// What each proof changes, or is refused by, when its agent is stored. `known`: what there was under its ID, or the one that it had before.
fn settle(
    tx: &Transaction<'_>,
    proof: &Proof,
    agent: &AgentRecord,
    known: Option<&AgentRecord>,
    now_unix: i64,
) -> Result<(), RegistryError> {
    match proof {
        Proof::JoinToken(token) | Proof::Enrolled(Enrolment::Now(token)) => token.spend(tx, now_unix),
        Proof::Enrolled(Enrolment::Before(refusal)) => {
            let was_let_in = known.is_some_and(|known| known.attestation_type == agent.attestation_type);
            was_let_in.then_some(()).ok_or_else(|| (*refusal).into())
        }
        Proof::Tpm(device) => Ok(note_attested(tx, device, &agent.spiffe_id, now_unix)?),
        Proof::Chip { ek_sha256, other_ids, .. } => {
            refuse_banned(tx, ek_sha256)?;
            one_certificate::refuse_under_another_id(tx, agent, other_ids)
        }
        Proof::Host { first_use: true } if known.is_some() => Err(RegistryError::AlreadyAttested),
        Proof::Host { .. } => Ok(()),
        Proof::Certificate { other_ids, .. } => one_certificate::refuse_under_another_id(tx, agent, other_ids),
        Proof::Svid { serial, .. } => {
            if tx.is_through_banned_agent(serial)? {
                return Err(RegistryError::AgentBanned);
            }
            one_certificate::refuse_under_another_id(tx, agent, &[])
        }
        Proof::All(proofs) => proofs.iter().try_for_each(|proof| settle(tx, proof, agent, known, now_unix)),
    }
}

fn attested(node: &AttestedNode, serial: &str, not_after: i64) -> AgentRecord {
    AgentRecord {
        spiffe_id: node.id().clone(),
        attestation_type: node.attestation_type().to_owned(),
        serial: serial.to_owned(),
        not_after,
        new_serial: String::new(),
        new_not_after: 0,
        can_reattest: node.can_reattest(),
        banned: false,
        selectors: node.selectors().clone(),
        agent_version: String::new(),
        ek_sha256: node.ek_sha256(),
        certificate_sha256: node.certificate_sha256(),
    }
}
