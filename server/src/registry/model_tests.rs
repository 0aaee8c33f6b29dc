//! The tables, and the registry over its life, against a model without any index.

mod model;
mod steps;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;
use ironroot_api::unix_socket::PeerCredentials;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_fuzz::proptest::prelude::*;
use tempfile::TempDir;

use super::agent_table::AgentTable;
use super::concerns::{Concern, Concerns, Reach};
use super::entry_table::EntryTable;
use super::node::OperatorsWords;
use super::{AuthorizedView, Created, EntryFilter, Registry, Tables};
use crate::facts::entry::{NewEntry, RegistrationEntry};
use crate::facts::page::Page;
use crate::node_attestation::Proof;
use crate::rights::Administrator;
use crate::store::Store;
use model::Model;
use steps::{Step, filter, steps};

fn administrator() -> Administrator {
    Administrator::local(PeerCredentials { pid: 1, uid: 0, gid: 0 })
}

fn td() -> TrustDomain {
    TrustDomain::new("td").expect("legal")
}

proptest! {
    #![proptest_config(ironroot_fuzz::cases(40))]
    #[test]
    fn tables_answer_as_a_model_without_indexes_does(
        steps in steps(200),
        // Time goes forth and back: a cached view must not outlive the entries in it.
        times in prop::collection::vec(0..60i64, 200),
        filters in prop::collection::vec((filter(), 1..8i32), 20),
    ) {
        let mut model = Model::default();
        let mut tables = Tables { entries: EntryTable::new(&td()), agents: AgentTable::default() };
        for (number, (step, now_unix)) in steps.into_iter().zip(times).enumerate() {
            take(&mut tables, &mut model, number as i64, step);
            check_views(&model, &tables, now_unix);
            if number % 10 == 0 {
                let (filter, size) = &filters[number / 10];
                check_lists(&model, &tables.entries, filter, *size);
            }
        }
    }
}

fn take(tables: &mut Tables, model: &mut Model, number: i64, step: Step) {
    match step {
        Step::PutEntry(wire) => {
            let created_at = number % 9;
            let entry = NewEntry::from_pb(&wire, &td()).expect("legal").register(String::new(), created_at);
            let seq = model.place_of(entry.id()).unwrap_or(number);
            tables.entries.put(seq, &entry);
            model.put_entry(seq, entry);
        }
        Step::RemoveEntry(id) => {
            tables.entries.remove(&id);
            model.remove_entry(&id);
        }
        Step::PutAgent(agent) => {
            let place: i64 = agent.spiffe_id.path().rsplit('/').next().expect("number").parse().expect("number");
            tables.agents.put(place, agent.clone());
            model.put_agent(agent);
        }
        Step::RemoveAgent(agent) => {
            let id = td().id_with_path(&format!("/spire/agent/{agent}")).expect("legal");
            tables.agents.remove(&id);
            model.agents.retain(|a| a.spiffe_id != id);
        }
    }
}

proptest! {
    #![proptest_config(ironroot_fuzz::cases(60))]
    #[test]
    fn whoever_may_serve_something_else_after_a_change_of_entries_was_woken(steps in steps(120)) {
        let (mut model, concerns) = (Model::default(), Arc::<Concerns>::default());
        let mut tables = Tables { entries: EntryTable::new(&td()), agents: AgentTable::default() };
        for (number, step) in steps.into_iter().enumerate() {
            let id = match &step {
                Step::PutEntry(wire) => wire.id.clone(),
                Step::RemoveEntry(id) => id.clone(),
                Step::PutAgent(_) | Step::RemoveAgent(_) => {
                    take(&mut tables, &mut model, number as i64, step);
                    continue;
                }
            };
            let looks: Vec<_> = model.agents.iter().map(|agent| follow(&tables, &concerns, &agent.spiffe_id)).collect();
            let mut parents: BTreeSet<_> = tables.entries.parent_of(&id).into_iter().collect();
            take(&mut tables, &mut model, number as i64, step);
            parents.extend(tables.entries.parent_of(&id));
            concerns.wake(&parents);
            for (agent, (before, concern)) in model.agents.iter().zip(looks) {
                let now = look(&tables, &agent.spiffe_id).0;
                let is_same = now.count_same(&before) == now.len() && now.len() == before.len();
                prop_assert!(is_same || concern.come().now_or_never().is_some(), "{} at {}", agent.spiffe_id, number);
            }
        }
    }
}

fn look(tables: &Tables, agent: &SpiffeId) -> (AuthorizedView, Reach) {
    tables.agents.slot(agent).expect("in both").look(&tables.entries, OperatorsWords::default(), 0)
}

/// What the agent may serve, and who waits for that to change.
fn follow(tables: &Tables, concerns: &Arc<Concerns>, agent: &SpiffeId) -> (AuthorizedView, Concern) {
    let ((view, reach), mut concern) = (look(tables, agent), concerns.join());
    concern.follow(reach);
    (view, concern)
}

/// Who does the next step, or what happens before it.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Ours,
    Another,
    Restart,
}

fn turns(count: usize) -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![4 => Just(Turn::Ours), 4 => Just(Turn::Another), 1 => Just(Turn::Restart)];
    prop::collection::vec(turn, count)
}

proptest! {
    #![proptest_config(ironroot_fuzz::cases(6))]
    #[test]
    fn the_registry_answers_as_the_model_does_over_restarts_and_behind_another_writer(
        steps in steps(60),
        turns in turns(60),
        times in prop::collection::vec(0..60i64, 60),
        filter in filter(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(async {
            let (mut life, mut model) = (Life::begin().await, Model::default());
            for (number, ((step, turn), now_unix)) in steps.into_iter().zip(turns).zip(times).enumerate() {
                life.take(&mut model, number as i64, step, turn).await;
                for registry in [&life.ours.1, &life.another.1] {
                    check_views(&model, &registry.shared.read(), now_unix);
                    check_lists(&model, &registry.shared.read().entries, &filter, 7);
                }
            }
        });
    }
}

/// Two servers on one database.
struct Life {
    directory: TempDir,
    ours: (Store, Registry),
    another: (Store, Registry),
}

impl Life {
    async fn begin() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let ours = opened(directory.path().join("datastore.sqlite3")).await;
        let link = directory.path().join("link.sqlite3");
        std::os::unix::fs::symlink("datastore.sqlite3", &link).expect("linked");
        Self { ours, another: opened(link).await, directory }
    }

    async fn take(&mut self, model: &mut Model, number: i64, step: Step, turn: Turn) {
        if matches!(turn, Turn::Restart) {
            self.ours.0.close().await;
            self.ours = opened(self.directory.path().join("datastore.sqlite3")).await;
        }
        let (writer, follower) = match turn {
            Turn::Another => (&self.another, &self.ours),
            Turn::Ours | Turn::Restart => (&self.ours, &self.another),
        };
        write(&writer.1, model, number, step).await;
        follower.0.probe().await.expect("follows");
    }
}

async fn opened(path: PathBuf) -> (Store, Registry) {
    let store = Store::open(&path, &td()).expect("opens");
    let registry = Registry::load(store.clone()).await.expect("loads");
    (store, registry)
}

async fn write(registry: &Registry, model: &mut Model, number: i64, step: Step) {
    match step {
        Step::PutEntry(wire) if model.place_of(&wire.id).is_some() => {
            let updated = registry.update_entry(&administrator(), &wire, None).await.answer().await.expect("updates");
            model.put_entry(model.place_of(&wire.id).expect("it is there"), RegistrationEntry::clone(&updated));
        }
        Step::PutEntry(wire) => {
            match registry.create_entry(&administrator(), &wire, number).await.answer().await.expect("creates") {
                Created::New(entry) => model.put_entry(number, RegistrationEntry::clone(&entry)),
                Created::Similar(entry) => assert!(model.place_of(entry.id()).is_some()),
            }
        }
        Step::RemoveEntry(id) => {
            assert_eq!(
                registry.delete_entry(&administrator(), &id).await.answer().await.is_ok(),
                model.place_of(&id).is_some()
            );
            model.remove_entry(&id);
        }
        Step::PutAgent(agent) => {
            let banned_before = model.agents.iter().any(|a| a.spiffe_id == agent.spiffe_id && a.banned);
            assert_eq!(
                registry
                    .put_attested(agent.clone(), Proof::Certificate { sha256: [0; 32], other_ids: Vec::new() }, number)
                    .await
                    .is_err(),
                banned_before
            );
            if !banned_before {
                model.put_agent(agent);
            }
        }
        Step::RemoveAgent(agent) => {
            let id = td().id_with_path(&format!("/spire/agent/{agent}")).expect("legal");
            registry.delete_agent(&administrator(), &id).await.expect("deletes");
            model.agents.retain(|a| a.spiffe_id != id);
        }
    }
}

fn check_views(model: &Model, tables: &Tables, now_unix: i64) {
    for agent in &model.agents {
        let slot = tables.agents.slot(&agent.spiffe_id).expect("in both");
        let view = slot.view(&tables.entries, OperatorsWords::default(), now_unix);
        let ids: Vec<&str> = view.iter().map(|authorized| authorized.id()).collect();
        let expected = model.authorized(agent, now_unix);
        assert!(ids.is_sorted(), "{ids:?}");
        assert_eq!(ids, expected.iter().copied().collect::<Vec<_>>(), "{} at {now_unix}", agent.spiffe_id);
        for (_, entry) in &model.entries {
            let found = view.find(entry.id());
            assert_eq!(found.is_some(), expected.contains(entry.id()));
            assert!(found.is_none_or(|found| found.entry() == *entry), "stale {}", entry.id());
        }
    }
}

fn check_lists(model: &Model, entries: &EntryTable, filter: &EntryFilter, size: i32) {
    let expected = model.matching(filter);
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
        assert_eq!(entries.get(entry.id()).map(|stored| stored.entry()).as_ref(), Some(entry));
        assert!(entries.with_spiffe_id(entry.spiffe_id()).any(|stored| stored.entry() == *entry));
        assert!(entries.children_of(entry.parent_id()).any(|stored| stored.id() == entry.id()));
    }
}
