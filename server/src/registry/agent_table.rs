//! Agents in memory, each with the entries it may serve.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use crate::facts::agent::AgentRecord;
use ironroot_api::SpiffeId;
use tokio::sync::watch;
use tracing::{error, info};

use super::authorized::{AuthorizedView, MAX_ENTRIES_PER_AGENT};
use super::concerns::Reach;
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
    served: Mutex<Served>,
    /// Made when somebody waits for the end of this row. Nothing is sent: the end of the sender is the news.
    end: OnceLock<watch::Sender<()>>,
}

/// What is known of an agent and is in no row.
#[derive(Debug, Default)]
struct Served {
    view: Option<CachedView>,
    heard: Heard,
}

/// What outlasts an agent's row.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    /// How many entries do not fit, as the operator was told last.
    told_left_out: usize,
    /// When it was last heard of, UNIX seconds; 0: not since this process began.
    seen_at: i64,
}

#[derive(Debug)]
struct CachedView {
    entries_revision: u64,
    words: OperatorsWords,
    /// When the same entries have ended and not ended, UNIX seconds.
    valid: Range<i64>,
    view: AuthorizedView,
    reach: Reach,
}

impl AgentSlot {
    /// Changes once, when another row takes this one's place, or none.
    pub fn end(&self) -> watch::Receiver<()> {
        self.end.get_or_init(|| watch::Sender::new(())).subscribe()
    }

    /// What the agent may serve now; `words` are those about its device.
    #[cfg(test)]
    pub fn view(&self, entries: &EntryTable, words: OperatorsWords, now_unix: i64) -> AuthorizedView {
        self.look(entries, words, now_unix).0
    }

    /// What the agent may serve now, and where an entry would be one more of it; `words` are those about its device.
    pub fn look(&self, entries: &EntryTable, words: OperatorsWords, now_unix: i64) -> (AuthorizedView, Reach) {
        if self.record.banned {
            return Default::default();
        }
        let mut served = self.served();
        let is_current = |c: &CachedView| {
            c.entries_revision == entries.revision() && c.words == words && c.valid.contains(&now_unix)
        };
        if let Some(current) = served.view.as_ref().filter(|cached| is_current(cached)) {
            return (current.view.clone(), current.reach.clone());
        }
        let gathered = self.gather(entries, words, now_unix);
        let told_before = std::mem::replace(&mut served.heard.told_left_out, gathered.view.left_out());
        self.tell_left_out(told_before, served.heard.told_left_out);
        let gathered = served.view.insert(gathered);
        (gathered.view.clone(), gathered.reach.clone())
    }

    /// The agent has called.
    pub fn is_heard_of(&self, now_unix: i64) {
        self.served().heard.seen_at = now_unix;
    }

    /// When it last did, UNIX seconds; 0: not since this process began.
    pub fn seen_at(&self) -> i64 {
        self.served().heard.seen_at
    }

    fn served(&self) -> MutexGuard<'_, Served> {
        self.served.lock().expect("no code panics while it holds a view")
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
        let (below, reach) = entries.reached(&self.record.spiffe_id, &words.joined_to(&self.record));
        let (ended, served): (Vec<_>, Vec<_>) = below.into_iter().partition(|s| s.is_expired(now_unix));
        let last_end = ended.iter().map(|stored| stored.expires_at).max();
        let next_end = served.iter().map(|stored| stored.expires_at).filter(|end| *end != 0).min();
        CachedView {
            entries_revision: entries.revision(),
            words,
            valid: last_end.unwrap_or(i64::MIN)..next_end.unwrap_or(i64::MAX),
            view: AuthorizedView::new(served),
            reach,
        }
    }
}

/// All agents of the trust domain.
#[derive(Debug, Default)]
pub(super) struct AgentTable {
    all: BTreeMap<i64, Arc<AgentSlot>>,
    by_id: HashMap<SpiffeId, Arc<AgentSlot>>,
    by_certificate: HashMap<[u8; 32], Arc<AgentSlot>>,
    banned: HashSet<SpiffeId>,
}

impl AgentTable {
    /// Adds the agent, or replaces its row: what the operator was told of it once is not told again.
    pub fn put(&mut self, seq: i64, agent: AgentRecord) {
        let id = agent.spiffe_id.clone();
        let heard = self.slot(&id).map(|slot| slot.served().heard).unwrap_or_default();
        // One that was deleted and came again has another place.
        self.remove(&id);
        let served = Mutex::new(Served { view: None, heard });
        let slot = Arc::new(AgentSlot { seq, record: Arc::new(agent), served, end: OnceLock::new() });
        self.all.insert(seq, slot.clone());
        if let Some(certificate) = slot.record.certificate_sha256 {
            self.by_certificate.insert(certificate, slot.clone());
        }
        if slot.record.banned {
            self.banned.insert(id.clone());
        }
        self.by_id.insert(id, slot);
    }

    /// Takes over what was heard of the same agents, and told the operator of them, by `before`, which this table replaces.
    pub fn continue_after(&mut self, before: &Self) {
        for (id, slot) in &self.by_id {
            if let Some(before) = before.slot(id) {
                slot.served().heard = before.served().heard;
            }
        }
    }

    /// Removes the agent; nothing happens if there is none of that ID.
    pub fn remove(&mut self, id: &SpiffeId) {
        if let Some(slot) = self.by_id.remove(id) {
            self.banned.remove(id);
            self.all.remove(&slot.seq);
            // Another agent may have its certificate by now: changes come one by one, and it was gone before.
            if let Some(certificate) = &slot.record.certificate_sha256
                && self.by_certificate.get(certificate).is_some_and(|of| Arc::ptr_eq(of, &slot))
            {
                self.by_certificate.remove(certificate);
            }
        }
    }

    /// The agent that attested with that certificate.
    pub fn with_certificate(&self, certificate_sha256: &[u8; 32]) -> Option<&AgentSlot> {
        self.by_certificate.get(certificate_sha256).map(|slot| &**slot)
    }

    /// What is known of the agent, and its place in the order of arrival.
    pub fn slot(&self, id: &SpiffeId) -> Option<&AgentSlot> {
        self.by_id.get(id).map(|slot| &**slot)
    }

    /// Those that an operator or a copied chip shut out.
    pub fn banned(&self) -> impl Iterator<Item = &SpiffeId> {
        self.banned.iter()
    }

    /// The agents behind that place, in order.
    pub fn behind(&self, place: i64) -> impl Iterator<Item = (i64, &Arc<AgentRecord>)> {
        self.all.range((Bound::Excluded(place), Bound::Unbounded)).map(|(seq, slot)| (*seq, &slot.record))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use ironroot_api::TrustDomain;
    use ironroot_api::pb::types;

    use super::*;
    use crate::facts::device::DeviceState;
    use crate::facts::entry::{NewEntry, RegistrationEntry};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn count(&self, told: &str) -> usize {
            String::from_utf8_lossy(&self.0.lock().expect("no panic")).matches(told).count()
        }
    }

    fn agent(serial: usize) -> AgentRecord {
        AgentRecord { serial: serial.to_string(), ..AgentRecord::example("a") }
    }

    /// One more than an agent takes.
    fn too_many_entries() -> EntryTable {
        let td = TrustDomain::new("td").expect("legal");
        let mut entries = EntryTable::new(&td);
        for n in 0..=MAX_ENTRIES_PER_AGENT {
            let parent = agent(0).spiffe_id;
            entries.put(n as i64, &entry(&format!("e{n}"), ["/w", parent.path()], ["unix", "uid:1"], 0));
        }
        entries
    }

    /// An entry below `parent`, all paths of `td`.
    fn entry(id: &str, [path, parent]: [&str; 2], [kind, value]: [&str; 2], expires_at: i64) -> RegistrationEntry {
        let td = TrustDomain::new("td").expect("legal");
        let wire = types::Entry {
            id: id.to_owned(),
            spiffe_id: Some(td.id_with_path(path).expect("legal").to_pb()),
            parent_id: Some(td.id_with_path(parent).expect("legal").to_pb()),
            selectors: vec![types::Selector { r#type: kind.to_owned(), value: value.to_owned() }],
            expires_at,
            ..types::Entry::default()
        };
        NewEntry::from_pb(&wire, &td).expect("legal").register(String::new(), 0)
    }

    #[test]
    fn what_an_agent_may_serve_follows_todays_words_about_its_device_and_the_ends_of_entries() {
        let mut entries = EntryTable::new(&TrustDomain::new("td").expect("legal"));
        let place = ["tpm2", "label:site:rome"];
        entries.put(1, &entry("alias", ["/rome", "/spire/server"], place, 0));
        entries.put(2, &entry("short", ["/w", "/rome"], ["unix", "uid:1"], 50));
        entries.put(3, &entry("long", ["/v", "/rome"], ["unix", "uid:1"], 90));
        let mut agents = AgentTable::default();
        agents.put(1, AgentRecord { ek_sha256: Some([1; 32]), ..agent(1) });
        let slot = agents.slot(&agent(1).spiffe_id).expect("it is there");
        let served = |site: &str, now_unix: i64| {
            let words = OperatorsWords::example("S1", site, DeviceState::Enrolled);
            slot.view(&entries, words, now_unix).iter().map(|entry| entry.id().to_owned()).collect::<Vec<_>>()
        };
        for _ in 0..2 {
            assert!(served("bern", 10).is_empty());
            for (now_unix, expected) in
                [(10, &["long", "short"][..]), (49, &["long", "short"]), (50, &["long"]), (90, &[])]
            {
                assert_eq!(served("rome", now_unix), expected, "at {now_unix}");
            }
        }
        let is_served = |now_unix| served("rome", now_unix).len();
        assert_eq!([90, 10, 50, 49].map(is_served), [0, 2, 1, 2], "a clock that is set back");
    }

    #[test]
    fn when_an_agent_was_seen_outlasts_its_row_and_the_table() {
        let (mut agents, id) = (AgentTable::default(), agent(1).spiffe_id);
        agents.put(1, agent(1));
        assert_eq!(agents.slot(&id).map(AgentSlot::seen_at), Some(0));
        agents.slot(&id).expect("there").is_heard_of(7);
        agents.put(1, agent(2));
        let mut after = AgentTable::default();
        after.put(1, agent(2));
        after.continue_after(&agents);
        assert_eq!([&agents, &after].map(|table| table.slot(&id).map(AgentSlot::seen_at)), [Some(7), Some(7)]);
        agents.remove(&id);
        agents.put(2, agent(1));
        assert_eq!(agents.slot(&id).map(AgentSlot::seen_at), Some(0), "another one of that name");
    }

    #[test]
    fn a_certificate_is_an_agents_by_its_serial_and_a_renewed_one_until_it_is_used() {
        let row = |serial: &str, new_serial: &str| AgentRecord {
            serial: serial.to_owned(),
            new_serial: new_serial.to_owned(),
            ..AgentRecord::example("a")
        };
        for (row, serial, expected) in [
            (row("1", "2"), "1", AgentStanding::Active),
            (row("1", "2"), "2", AgentStanding::ActivatePending),
            (row("1", "2"), "3", AgentStanding::NotActive),
            (row("1", ""), "", AgentStanding::NotActive),
            (row("", "2"), "2", AgentStanding::Banned),
            (row("", ""), "", AgentStanding::Banned),
            (AgentRecord { banned: true, ..row("1", "2") }, "1", AgentStanding::Banned),
            (AgentRecord { banned: true, ..row("1", "2") }, "2", AgentStanding::Banned),
        ] {
            assert_eq!(standing(&row, serial), expected, "{} {} {serial}", row.serial, row.new_serial);
        }
    }

    #[test]
    fn entries_that_do_not_fit_are_told_once_however_often_the_agents_row_is_written() {
        let (mut entries, mut agents, log) = (too_many_entries(), AgentTable::default(), Written::default());
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let look = |entries: &EntryTable, agents: &AgentTable| {
            let slot = agents.slot(&agent(0).spiffe_id).expect("it is there");
            assert_eq!(slot.view(entries, OperatorsWords::default(), 0).left_out(), 1);
        };
        tracing::subscriber::with_default(subscriber, || {
            for serial in 0..3 {
                agents.put(1, agent(serial));
                look(&entries, &agents);
            }
            // All is read again.
            let mut anew = AgentTable::default();
            anew.put(1, agent(3));
            anew.continue_after(&agents);
            look(&entries, &anew);
            assert_eq!(log.count("left_out=1"), 1);
            anew.remove(&agent(0).spiffe_id);
            anew.put(2, agent(4));
            look(&entries, &anew);
            assert_eq!(log.count("left_out=1"), 2, "it was deleted and came again: that is another agent");
            assert_eq!((log.count("fit again"), log.count("ERROR")), (0, 2));
            entries.remove("e0");
            let slot = anew.slot(&agent(0).spiffe_id).expect("it is there");
            assert_eq!(slot.view(&entries, OperatorsWords::default(), 0).left_out(), 0);
            assert_eq!((log.count("fit again"), log.count("ERROR")), (1, 2));
        });
    }
}
