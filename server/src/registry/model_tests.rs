//! The tables against a model without any index, over thousands of random changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::facts::agent::AgentRecord;
use crate::facts::entry::{NewEntry, RegistrationEntry};
use crate::facts::page::Page;
use crate::registry::EntryFilter;
use ironroot_api::TrustDomain;
use ironroot_api::pb::types;
use ironroot_attest::SelectorSet;

use super::agent_table::AgentTable;
use super::entry_table::EntryTable;
use super::node::OperatorsWords;

/// xorshift64*: the same sequence each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 33) % limit
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn selectors(&mut self, most: u64) -> SelectorSet {
        let count = 1 + self.below(most);
        (0..count).map(|_| format!("s:{}", self.below(8)).parse().expect("selector")).collect()
    }
}

fn td() -> TrustDomain {
    TrustDomain::new("td").expect("legal")
}

/// IDs of few values, so that parents, loops and aliases meet often.
fn random_entry(random: &mut Random) -> RegistrationEntry {
    let id = |path: String| Some(types::Spiffeid { trust_domain: "td".into(), path });
    let parent = match random.below(10) {
        0..4 => "/spire/server".into(),
        4..6 => format!("/spire/agent/{}", random.below(5)),
        _ => format!("/w/{}", random.below(12)),
    };
    let wire = types::Entry {
        id: format!("e{}", random.below(60)),
        spiffe_id: id(format!("/w/{}", random.below(12))),
        parent_id: id(parent),
        selectors: crate::facts::agent::selectors_to_pb(&random.selectors(3)),
        expires_at: if random.chance(20) { 1 + random.below(50) as i64 } else { 0 },
        hint: random.below(3).to_string(),
        downstream: random.chance(30),
        ..types::Entry::default()
    };
    NewEntry::from_pb(&wire, &td()).expect("legal").register(String::new(), random.below(9) as i64)
}

fn random_agent(random: &mut Random) -> AgentRecord {
    AgentRecord {
        spiffe_id: td().id_with_path(&format!("/spire/agent/{}", random.below(5))).expect("legal"),
        attestation_type: "tpm2".into(),
        serial: "1".into(),
        not_after: 0,
        new_serial: String::new(),
        new_not_after: 0,
        can_reattest: true,
        banned: random.chance(10),
        selectors: if random.chance(10) { SelectorSet::default() } else { random.selectors(6) },
        agent_version: String::new(),
        ek_sha256: None,
    }
}

fn random_filter(random: &mut Random) -> EntryFilter {
    let mut id = |path: &str| {
        let id = td().id_with_path(&format!("{path}{}", random.below(12))).expect("legal");
        random.chance(40).then_some(id)
    };
    EntryFilter {
        spiffe_id: id("/w/"),
        parent_id: id("/w/"),
        hint: random.chance(30).then(|| random.below(3).to_string()),
        downstream: random.chance(30),
        ..EntryFilter::default()
    }
}

/// Lists only; every question is answered by looking at everything.
#[derive(Default)]
struct Model {
    entries: Vec<(i64, RegistrationEntry)>,
    agents: Vec<AgentRecord>,
}

impl Model {
    fn put_entry(&mut self, seq: i64, entry: RegistrationEntry) {
        self.entries.retain(|(_, e)| e.id() != entry.id());
        self.entries.push((seq, entry));
        self.entries.sort_by_key(|(seq, _)| *seq);
    }

    fn put_agent(&mut self, agent: AgentRecord) {
        self.agents.retain(|a| a.spiffe_id != agent.spiffe_id);
        self.agents.push(agent);
    }

    /// SPIRE's definition, iterated until nothing is added. Source: spire.md §7.
    fn authorized(&self, agent: &AgentRecord, now_unix: i64) -> BTreeSet<&str> {
        if agent.banned {
            return BTreeSet::new();
        }
        let all = || self.entries.iter().map(|(_, entry)| entry);
        let aliases =
            all().filter(|e| *e.parent_id() == td().server_id() && e.selectors().is_subset_of(&agent.selectors));
        let mut parents: BTreeSet<_> = aliases.map(|e| e.spiffe_id().clone()).collect();
        parents.insert(agent.spiffe_id.clone());
        loop {
            let below = all().filter(|e| parents.contains(e.parent_id())).map(|e| e.spiffe_id().clone());
            let grown: BTreeSet<_> = parents.iter().cloned().chain(below.collect::<Vec<_>>()).collect();
            if grown == parents {
                break;
            }
            parents = grown;
        }
        all()
            .filter(|e| parents.contains(e.parent_id()) && !e.is_expired(now_unix))
            .map(RegistrationEntry::id)
            .collect()
    }
}

#[test]
fn tables_answer_as_a_model_without_indexes_does() {
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut model = Model::default();
    let mut entries = EntryTable::new(td().server_id());
    let mut agents = AgentTable::default();
    for step in 0..4000 {
        match random.below(10) {
            0..5 => {
                let entry = random_entry(&mut random);
                let known = model.entries.iter().find(|(_, e)| e.id() == entry.id()).map(|(seq, _)| *seq);
                let seq = known.unwrap_or(step);
                entries.put(seq, Arc::new(entry.clone()));
                model.put_entry(seq, entry);
            }
            5..8 => {
                let id = format!("e{}", random.below(60));
                entries.remove(&id);
                model.entries.retain(|(_, e)| e.id() != id);
            }
            8 => {
                let agent = random_agent(&mut random);
                let place: i64 = agent.spiffe_id.path().rsplit('/').next().expect("number").parse().expect("number");
                agents.put(place, agent.clone());
                model.put_agent(agent);
            }
            _ => {
                let id = td().id_with_path(&format!("/spire/agent/{}", random.below(5))).expect("legal");
                agents.remove(&id);
                model.agents.retain(|a| a.spiffe_id != id);
            }
        }
        // Time goes forth and back: a cached view must not outlive the entries in it.
        let now_unix = random.below(60) as i64;
        check_views(&model, &entries, &agents, now_unix);
        if step % 10 == 0 {
            check_lists(&model, &entries, &random_filter(&mut random), 1 + random.below(7) as i32);
        }
    }
}

fn check_views(model: &Model, entries: &EntryTable, agents: &AgentTable, now_unix: i64) {
    for agent in &model.agents {
        let view = agents.slot(&agent.spiffe_id).expect("in both").view(entries, OperatorsWords::default(), now_unix);
        let ids: Vec<&str> = view.iter().map(|authorized| authorized.entry().id()).collect();
        let expected = model.authorized(agent, now_unix);
        assert!(ids.is_sorted(), "{ids:?}");
        assert_eq!(ids, expected.iter().copied().collect::<Vec<_>>(), "{} at {now_unix}", agent.spiffe_id);
        for (_, entry) in &model.entries {
            let found = view.find(entry.id());
            assert_eq!(found.is_some(), expected.contains(entry.id()));
            assert!(found.is_none_or(|found| found.entry() == entry), "stale {}", entry.id());
        }
    }
}

fn check_lists(model: &Model, entries: &EntryTable, filter: &EntryFilter, size: i32) {
    let expected: Vec<&RegistrationEntry> =
        model.entries.iter().map(|(_, e)| e).filter(|e| filter.matches(e)).collect();
    assert_eq!(entries.count(filter), expected.len());
    let (mut listed, mut token) = (Vec::new(), String::new());
    loop {
        let page = entries.page(filter, Page::from_pb(size, &token).expect("own token"));
        assert!(page.items.len() <= size as usize);
        listed.extend(page.items);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(listed.iter().map(|e| &**e).collect::<Vec<_>>(), expected);
    for (_, entry) in &model.entries {
        assert_eq!(entries.get(entry.id()).as_deref(), Some(entry));
        assert!(entries.with_spiffe_id(entry.spiffe_id()).any(|e| e == entry));
    }
}
