//! In memory: entries and agents, and which entries an agent may serve. A sync never touches SQL.
//!
//! Changes are decided in a transaction of the store. The tables follow the store's change log: what is on disk is in force
//! here, in the order of commits, whoever wrote it, before whoever asked for it is answered. Readers hold the lock only while
//! they look something up.
//!
//! ```text
//!  change ──► store transaction ──commit──► change log ──► mirror ──► tables (entries · agents) ──► changes(), news_of(agent)
//!  agent, its device's words, now ──► authorized_entries ──► AuthorizedView ──► AuthorizedEntry   (cached until one changes)
//! ```

mod advice;
mod agent_filter;
mod agent_table;
mod agents;
mod authorized;
mod by_selectors;
mod census;
mod concerns;
mod entries;
mod entry_table;
mod exchanged;
mod filter;
mod group;
mod mirror;
#[cfg(test)]
mod model_tests;
mod news;
mod node;
mod one_certificate;
mod places;
pub mod selector_forms;
mod stored_entry;
mod token_aliases;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};

use crate::facts::agent::AgentRecord;
use crate::facts::entry::EntryError;
use crate::facts::page::PageTokenError;
use ironroot_api::{SpiffeId, SpiffeIdError, TrustDomain};
use thiserror::Error;
use tokio::sync::watch;

pub use crate::rights::AgentStanding;
pub use advice::{Dependents, EntryAdvice};
pub use agent_filter::AgentFilter;
pub use agents::{BannedAgent, is_former_name};
pub use authorized::{AuthorizedEntry, AuthorizedView, MAX_ENTRIES_PER_AGENT};
pub use entries::Created;
pub use filter::{EntryFilter, FilterError, SelectorMatch, SetMatch};
pub use news::News;

use crate::devices::{DeviceError, Devices};
use crate::node_attestation::JoinTokenRefusal;
use crate::store::{Store, StoreError};
use agent_table::{AgentSlot, AgentTable};
use concerns::{Concerns, Reach};
use entry_table::EntryTable;
use node::OperatorsWords;

/// Most entries directly below one parent. Agents take no more than that in one answer.
pub const MAX_ENTRIES_PER_PARENT: usize = 20_000;

/// Why the registry refuses a change.
#[derive(Clone, Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum RegistryError {
    /// No entry of that ID.
    #[error("entry not found")]
    EntryNotFound,
    /// The entry ID asked for belongs to another entry.
    #[error("entry ID is taken by another entry")]
    EntryIdTaken,
    /// The entry would break a bound.
    #[error("invalid entry")]
    Entry(#[from] EntryError),
    /// Its holder would need another trust domain's bundle, and the server has none. Source of the words: SPIRE.
    #[error("unable to find federated bundle \"spiffe://{0}\"")]
    UnknownBundle(TrustDomain),
    /// An agent that serves them all would get more than it takes.
    #[error(
        "{parent} has {MAX_ENTRIES_PER_PARENT} entries below it, the most that one agent takes: put some below another group"
    )]
    ParentFull { parent: SpiffeId },
    /// No agent of that ID.
    #[error("agent is not attested")]
    AgentNotFound,
    /// An operator shut the agent out; it must be deleted before it may attest again.
    #[error("agent is banned")]
    AgentBanned,
    /// The device's certificate is another agent's already.
    #[error(
        "its certificate is that of agent {agent}, which has it with its signature written in another way, another TPM beside it, or attests by \
         another plugin: evict that agent if this is to be the one"
    )]
    CertificateTaken { agent: SpiffeId },
    /// An `agent_path_template` gave the name of an agent that proved itself in another way.
    #[error(
        "agent {agent} is there already and attests by {attestation_type}: evict it if this is to be the one, or let agent_path_template tell the two apart"
    )]
    OtherAttestation { agent: SpiffeId, attestation_type: String },
    /// What was proven counts once, and there is an agent of that ID. Source of the words: SPIRE.
    #[error("attestation data has already been used to attest an agent")]
    AlreadyAttested,
    /// The certificate shown is neither the agent's current nor its renewed one.
    #[error("agent SVID is not active")]
    NotActive,
    /// There is an unused join token of that value.
    #[error("join token is taken")]
    TokenTaken,
    /// The join token cannot be part of an agent's ID.
    #[error("invalid join token")]
    Token(#[source] SpiffeIdError),
    /// The join token that the agent was proven by is not good any more.
    #[error(transparent)]
    JoinToken(#[from] JoinTokenRefusal),
    /// The page token was not made by this server.
    #[error(transparent)]
    PageToken(#[from] PageTokenError),
    /// The agent's device may not attest, or not any more.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Entries and agents: durable in the store, answered from memory.
#[derive(Debug)]
pub struct Registry {
    store: Store,
    devices: Arc<Devices>,
    shared: Arc<Memory>,
}

/// What follows the store.
#[derive(Debug)]
struct Memory {
    tables: RwLock<Tables>,
    /// By how many entries below a parent the changes under way differ from the tables.
    places: Mutex<HashMap<SpiffeId, isize>>,
    changes: watch::Sender<i64>,
    /// What may concern anybody.
    broad: watch::Sender<()>,
    concerns: Arc<Concerns>,
}

#[derive(Debug)]
struct Tables {
    entries: EntryTable,
    agents: AgentTable,
}

impl Registry {
    /// Reads everything the store holds, and follows what becomes of it.
    pub async fn load(store: Store) -> Result<Self, StoreError> {
        let devices = Arc::new(Devices::load(store.clone()).await?);
        let entries = EntryTable::new(store.trust_domain());
        let shared = Arc::new(Memory::new(Tables { entries, agents: AgentTable::default() }));
        store.follow(mirror::follower(&shared)).await?;
        Ok(Self { store, devices, shared })
    }

    /// The fleet: what it says of a device counts for the device's agent at once.
    pub fn devices(&self) -> &Arc<Devices> {
        &self.devices
    }

    /// The trust domain of the data store; no entry or agent of another one is in it.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.store.trust_domain()
    }

    /// The revision of the change log that entries and devices were last followed to.
    pub fn changes(&self) -> watch::Receiver<i64> {
        self.shared.changes.subscribe()
    }

    /// What the agent may serve now: the entries below its ID and below the node aliases that its selectors match,
    /// through any number of parents, without those that have ended. Nothing for an agent that is unknown or banned.
    pub fn authorized_entries(&self, agent: &SpiffeId, now_unix: i64) -> AuthorizedView {
        self.look(agent, now_unix).0
    }

    /// The same, and where an entry would be one more of it.
    fn look(&self, agent: &SpiffeId, now_unix: i64) -> (AuthorizedView, Reach) {
        let tables = self.shared.read();
        let look = |slot: &AgentSlot| slot.look(&tables.entries, self.words(&slot.record), now_unix);
        tables.agents.slot(agent).map(look).unwrap_or_default()
    }

    /// The entry of that ID if it is among those the agent may serve now.
    pub fn authorize_entry(&self, agent: &SpiffeId, entry_id: &str, now_unix: i64) -> Option<AuthorizedEntry> {
        self.authorized_entries(agent, now_unix).find(entry_id).cloned()
    }

    /// What operators say of the agent's device.
    fn words(&self, agent: &AgentRecord) -> OperatorsWords {
        OperatorsWords::of(agent, agent.ek_sha256.and_then(|ek| self.devices.today(&ek)))
    }
}

impl Tables {
    /// Takes the place of what was there; the entries' revision goes on, so that no view of before is taken for one of now,
    /// and what operators were told once stays told.
    fn replace_by(&mut self, new: Tables) {
        let before = std::mem::replace(self, new);
        self.entries.continue_after(before.entries.revision());
        self.agents.continue_after(&before.agents);
    }
}

impl Memory {
    fn new(tables: Tables) -> Self {
        let tables = RwLock::new(tables);
        let (changes, broad) = (watch::Sender::new(0), watch::Sender::new(()));
        Self { tables, places: Mutex::default(), changes, broad, concerns: Arc::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().expect("no code panics while it holds the tables")
    }

    fn apply(&self, change: impl FnOnce(&mut Tables)) {
        change(&mut self.tables.write().expect("no code panics while it holds the tables"));
    }
}
