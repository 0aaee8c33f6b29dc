//! Agents in memory, each with the entries it may serve.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, OnceLock};

use crate::facts::agent::AgentRecord;
use ironroot_api::SpiffeId;
use tokio::sync::watch;
use tracing::{error, info};

use super::authorized::{AuthorizedView, MAX_ENTRIES_PER_AGENT};
use super::entry_table::EntryTable;
use super::node::OperatorsWords;
use crate::rights::AgentStanding;

/// What `agent`'s row means for the certificate with this decimal serial.
pub(super) fn standing(agent: &AgentRecord, serial: &str) -> AgentStanding {
    if agent.banned || agent.serial.is_empty() {
        AgentStanding::Banned
    } else if agent.serial == serial {
        AgentStanding::Active
    } else if !serial.is_empty() && agent.new_serial == serial {
        AgentStanding::ActivatePending
    } else {
        AgentStanding::NotActive
    }
}

/// An agent's row and, until the next entry change, what it may serve.
#[derive(Debug)]
pub(super) struct AgentSlot {
    seq: i64,
    pub record: Arc<AgentRecord>,
    view: Mutex<Option<CachedView>>,
    /// Made when somebody waits for the end of this row. Nothing is sent: the end of the sender is the news.
    end: OnceLock<watch::Sender<()>>,
}

#[derive(Debug)]
struct CachedView {
    entries_revision: u64,
    words: OperatorsWords,
    /// When the same entries have ended and not ended, UNIX seconds.
    valid: Range<i64>,
    view: AuthorizedView,
}

impl AgentSlot {
    /// Changes once, when another row takes this one's place, or none.
    pub fn end(&self) -> watch::Receiver<()> {
        self.end.get_or_init(|| watch::Sender::new(())).subscribe()
    }

    /// What the agent may serve now; `words` are those about its device.
    pub fn view(&self, entries: &EntryTable, words: OperatorsWords, now_unix: i64) -> AuthorizedView {
        if self.record.banned {
            return AuthorizedView::default();
        }
        let mut cached = self.view.lock().expect("no code panics while it holds a view");
        let is_current = |c: &CachedView| {
            c.entries_revision == entries.revision() && c.words == words && c.valid.contains(&now_unix)
        };
        match &*cached {
            Some(c) if is_current(c) => c.view.clone(),
            before => {
                let left_out_before = before.as_ref().map_or(0, |c| c.view.left_out());
                let gathered = self.gather(entries, words, now_unix);
                self.tell_left_out(left_out_before, gathered.view.left_out());
                cached.insert(gathered).view.clone()
            }
        }
    }

    /// Once for each number.
    fn tell_left_out(&self, before: usize, left_out: usize) {
        if left_out == before {
            return;
        }
        let (agent, limit) = (&self.record.spiffe_id, MAX_ENTRIES_PER_AGENT);
        match left_out {
            0 => info!(%agent, limit, "all entries of this agent fit again"),
            _ => error!(
                %agent,
                left_out,
                limit,
                "this agent's groups have more entries together than one agent takes; the newest are left out: delete some, \
                 or take the device out of a group"
            ),
        }
    }

    fn gather(&self, entries: &EntryTable, words: OperatorsWords, now_unix: i64) -> CachedView {
        let below = entries.below(&self.record.spiffe_id, &words.joined_to(&self.record));
        let (ended, served): (Vec<_>, Vec<_>) = below.into_iter().partition(|s| s.is_expired(now_unix));
        let last_end = ended.iter().map(|stored| stored.expires_at).max();
        let next_end = served.iter().map(|stored| stored.expires_at).filter(|end| *end != 0).min();
        CachedView {
            entries_revision: entries.revision(),
            words,
            valid: last_end.unwrap_or(i64::MIN)..next_end.unwrap_or(i64::MAX),
            view: AuthorizedView::new(served),
        }
    }
}

/// All agents of the trust domain.
#[derive(Debug, Default)]
pub(super) struct AgentTable {
    all: BTreeMap<i64, Arc<AgentSlot>>,
    by_id: HashMap<SpiffeId, Arc<AgentSlot>>,
}

impl AgentTable {
    /// Adds the agent, or replaces its row.
    pub fn put(&mut self, seq: i64, agent: AgentRecord) {
        let id = agent.spiffe_id.clone();
        // One that was deleted and came again has another place.
        self.remove(&id);
        let slot = Arc::new(AgentSlot { seq, record: Arc::new(agent), view: Mutex::new(None), end: OnceLock::new() });
        self.all.insert(seq, slot.clone());
        self.by_id.insert(id, slot);
    }

    /// Removes the agent; nothing happens if there is none of that ID.
    pub fn remove(&mut self, id: &SpiffeId) {
        if let Some(slot) = self.by_id.remove(id) {
            self.all.remove(&slot.seq);
        }
    }

    /// What is known of the agent, and its place in the order of arrival.
    pub fn slot(&self, id: &SpiffeId) -> Option<&AgentSlot> {
        self.by_id.get(id).map(|slot| &**slot)
    }

    /// The agents behind that place, in order.
    pub fn behind(&self, place: i64) -> impl Iterator<Item = (i64, &Arc<AgentRecord>)> {
        self.all.range((Bound::Excluded(place), Bound::Unbounded)).map(|(seq, slot)| (*seq, &slot.record))
    }
}
