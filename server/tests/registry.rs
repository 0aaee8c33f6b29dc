//! The registry with its store: SPIRE's semantics, and the same answers after a restart.

#[path = "support/grants.rs"]
mod grants;

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;
use ironroot_api::csr::Csr;
use ironroot_api::pb::types;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_attest::SelectorSet;
use ironroot_server::facts::agent::AgentRecord;
use ironroot_server::facts::entry::{EntryError, MAX_DNS_NAMES, MAX_HINT_BYTES, MAX_SELECTORS, RegistrationEntry};
use ironroot_server::node_attestation::{
    AttestedNode, Attestor, JOIN_TOKEN, JoinTokenRefusal, NodeAttestation, Progress,
};
use ironroot_server::registry::{
    AgentFilter, AgentStanding, Created, EntryFilter, MAX_ENTRIES_PER_AGENT, MAX_ENTRIES_PER_PARENT, News, Registry,
    RegistryError,
};
use ironroot_server::store::{Queued, ShownToken, Store, StoreError};
use prost::Message;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use grants::{administrator, at, authenticated, shown};

const NOW: i64 = 1_000;

struct Fixture {
    _directory: TempDir,
    path: PathBuf,
    store: Store,
    registry: Registry,
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("datastore.sqlite3");
        let store = Store::open(&path, &td()).expect("opens");
        let registry = Registry::load(store.clone()).await.expect("loads");
        Self { _directory: directory, path, store, registry }
    }

    async fn restart(&mut self) {
        self.store.close().await;
        self.store = Store::open(&self.path, &td()).expect("opens");
        self.registry = Registry::load(self.store.clone()).await.expect("loads");
    }

    async fn create(&self, entry: types::Entry) -> Arc<RegistrationEntry> {
        match self.registry.create_entry(&administrator(), &entry, NOW).await.answer().await.expect("creates") {
            Created::New(entry) => entry,
            Created::Similar(entry) => panic!("{} is similar", entry.id()),
        }
    }

    /// All are under way at once, in their order.
    async fn create_all(&self, entries: &[types::Entry]) -> Vec<Result<Created, RegistryError>> {
        let mut queued = Vec::new();
        for entry in entries {
            queued.push(self.registry.create_entry(&administrator(), entry, NOW).await);
        }
        futures_util::future::join_all(queued.into_iter().map(Queued::answer)).await
    }

    /// As another server that shares the database stores it.
    async fn attest(&self, agent: AgentRecord) {
        self.store.change(move |tx| tx.put_agent(&agent)).await.map(drop).expect("stored");
    }

    /// Takes `token` out of the table.
    async fn spend(&self, token: &'static str) -> ShownToken {
        self.store.change(move |tx| tx.spend_join_token(token, NOW)).await.expect("answers")
    }

    /// The node of `token`, which attests.
    async fn join(&self, token: &str, serial: &str) -> Result<(), RegistryError> {
        self.registry.attest_agent(&self.shows(token).await, (serial, 2_000), NOW).await.map(drop)
    }

    /// A node that shows `token`, which is good.
    async fn shows(&self, token: &str) -> AttestedNode {
        let devices = self.registry.devices().clone();
        let attestation = NodeAttestation::new(td(), self.store.clone(), devices, vec![Attestor::JoinToken]);
        let key = KeyPair::generate().expect("a key");
        let request = CertificateParams::default().serialize_request(&key).expect("a request");
        let evidence = attestation.read(JOIN_TOKEN, token.as_bytes()).expect("a token");
        let begun = attestation.begin(evidence, Csr::parse(request.der()).expect("honest"), &at(NOW)).await;
        let Ok(Progress::Attested(node)) = begun else { panic!("{begun:?}") };
        *node
    }

    fn served(&self, agent: &SpiffeId, now_unix: i64) -> Vec<String> {
        let view = self.registry.authorized_entries(agent, now_unix);
        let mut paths: Vec<_> = view.iter().map(|e| e.entry().spiffe_id().path().to_owned()).collect();
        paths.sort();
        paths
    }

    fn standing(&self, serial: &str) -> AgentStanding {
        self.registry.agent_standing(&agent_id("a"), serial)
    }
}

fn td() -> TrustDomain {
    TrustDomain::new("td").expect("legal")
}

fn agent_id(name: &str) -> SpiffeId {
    td().id_with_path(&format!("/spire/agent/{name}")).expect("legal")
}

fn entry(path: &str, parent: &str, selectors: &[&str]) -> types::Entry {
    let id = |path: &str| Some(types::Spiffeid { trust_domain: "td".into(), path: path.into() });
    let selector = |text: &&str| {
        let (kind, value) = text.split_once(':').expect("type:value");
        types::Selector { r#type: kind.into(), value: value.into() }
    };
    types::Entry {
        spiffe_id: id(path),
        parent_id: id(parent),
        selectors: selectors.iter().map(selector).collect(),
        ..types::Entry::default()
    }
}

fn agent(name: &str, serial: &str, selectors: &[&str]) -> AgentRecord {
    AgentRecord {
        spiffe_id: agent_id(name),
        attestation_type: "tpm2".into(),
        serial: serial.into(),
        not_after: 2_000,
        new_serial: String::new(),
        new_not_after: 0,
        can_reattest: true,
        banned: false,
        selectors: selectors.iter().map(|s| s.parse().expect("selector")).collect(),
        agent_version: String::new(),
        ek_sha256: Some([9; 32]),
        certificate_sha256: None,
    }
}

#[tokio::test]
async fn a_similar_entry_is_returned_and_nothing_is_stored() {
    let fixture = Fixture::new().await;
    let first = fixture.create(entry("/w", "/p", &["a:1", "a:2"])).await;
    let again = types::Entry { hint: "other".into(), ..entry("/w", "/p", &["a:2", "a:1"]) };
    let outcome =
        fixture.registry.create_entry(&administrator(), &again, NOW + 1).await.answer().await.expect("answers");
    assert!(matches!(outcome, Created::Similar(found) if found == first));
    assert_eq!(fixture.registry.count_entries(&EntryFilter::default()), 1);
    for different in
        [entry("/w2", "/p", &["a:1", "a:2"]), entry("/w", "/p2", &["a:1", "a:2"]), entry("/w", "/p", &["a:1"])]
    {
        fixture.create(different).await;
    }
}

#[tokio::test]
async fn of_many_similar_entries_at_once_one_is_created() {
    let fixture = Fixture::new().await;
    let wire = entry("/w", "/p", &["a:1"]);
    let outcomes = fixture.create_all(&vec![wire; 50]).await;
    let created = outcomes.iter().filter(|o| matches!(o, Ok(Created::New(_)))).count();
    let similar = outcomes.iter().filter(|o| matches!(o, Ok(Created::Similar(_)))).count();
    assert_eq!((created, similar), (1, 49));
}

#[tokio::test]
async fn an_entry_id_belongs_to_one_entry() {
    let fixture = Fixture::new().await;
    fixture.create(types::Entry { id: "mine".into(), ..entry("/w", "/p", &["a:1"]) }).await;
    let taken = types::Entry { id: "mine".into(), ..entry("/w2", "/p", &["a:1"]) };
    assert!(matches!(
        fixture.registry.create_entry(&administrator(), &taken, NOW).await.answer().await,
        Err(RegistryError::EntryIdTaken)
    ));
    let bad = types::Entry { id: "no slash/".into(), ..entry("/w3", "/p", &["a:1"]) };
    let refused = fixture.registry.create_entry(&administrator(), &bad, NOW).await.answer().await;
    assert!(matches!(refused, Err(RegistryError::Entry(EntryError::Id))));
}

#[tokio::test]
async fn an_update_counts_up_and_moves_the_entry_to_its_new_parent() {
    let mut fixture = Fixture::new().await;
    fixture.attest(agent("a", "1", &[])).await;
    fixture.attest(agent("b", "1", &[])).await;
    let stored = fixture.create(entry("/w", "/spire/agent/a", &["a:1"])).await;
    assert_eq!(fixture.served(&agent_id("a"), NOW), ["/w"]);
    let moved = types::Entry { id: stored.id().into(), ..entry("/x", "/spire/agent/b", &["b:1"]) };
    let parent_only = types::EntryMask { parent_id: true, ..Default::default() };
    let updated = fixture
        .registry
        .update_entry(&administrator(), &moved, Some(&parent_only))
        .await
        .answer()
        .await
        .expect("updates");
    assert_eq!((updated.revision_number(), updated.created_at(), updated.spiffe_id().path()), (1, NOW, "/w"));
    assert!(fixture.served(&agent_id("a"), NOW).is_empty());
    assert_eq!(fixture.served(&agent_id("b"), NOW), ["/w"]);
    let updated = fixture.registry.update_entry(&administrator(), &moved, None).await.answer().await.expect("updates");
    assert_eq!((updated.revision_number(), updated.spiffe_id().path()), (2, "/x"));
    fixture.restart().await;
    assert_eq!(fixture.registry.entry(stored.id()), Some(updated));
    let unknown = types::Entry { id: "unknown".into(), ..moved.clone() };
    assert!(matches!(
        fixture.registry.update_entry(&administrator(), &unknown, None).await.answer().await,
        Err(RegistryError::EntryNotFound)
    ));
    let emptied = types::Entry { selectors: vec![], ..moved };
    let refused = fixture.registry.update_entry(&administrator(), &emptied, None).await.answer().await;
    assert!(matches!(refused, Err(RegistryError::Entry(EntryError::NoSelectors))));
}

#[tokio::test]
async fn a_recreated_entry_differs_in_its_creation_time() {
    let fixture = Fixture::new().await;
    let wire = types::Entry { id: "same".into(), ..entry("/w", "/p", &["a:1"]) };
    fixture.create(wire.clone()).await;
    fixture.registry.delete_entry(&administrator(), "same").await.answer().await.expect("deletes");
    assert!(matches!(
        fixture.registry.delete_entry(&administrator(), "same").await.answer().await,
        Err(RegistryError::EntryNotFound)
    ));
    let again = fixture.registry.create_entry(&administrator(), &wire, NOW + 5).await.answer().await.expect("creates");
    assert!(matches!(again, Created::New(entry) if entry.created_at() == NOW + 5 && entry.revision_number() == 0));
}

#[tokio::test]
async fn an_agent_serves_its_children_and_those_of_its_aliases_but_not_the_aliases() {
    let fixture = Fixture::new().await;
    fixture.attest(agent("a", "1", &["tpm2:manufacturer:berlin", "tpm2:key:resident"])).await;
    fixture.attest(agent("b", "1", &["tpm2:manufacturer:paris"])).await;
    fixture.create(entry("/berlin", "/spire/server", &["tpm2:manufacturer:berlin"])).await;
    fixture.create(entry("/berlin-old", "/spire/server", &["tpm2:manufacturer:berlin", "tpm2:fw:1"])).await;
    fixture.create(entry("/direct", "/spire/agent/a", &["unix:uid:1"])).await;
    fixture.create(entry("/by-alias", "/berlin", &["unix:uid:2"])).await;
    fixture.create(entry("/nested", "/by-alias", &["unix:uid:3"])).await;
    fixture.create(entry("/not-matched", "/berlin-old", &["unix:uid:4"])).await;
    fixture.create(entry("/direct", "/nested", &["unix:uid:5"])).await;
    assert_eq!(fixture.served(&agent_id("a"), NOW), ["/by-alias", "/direct", "/direct", "/nested"]);
    assert!(fixture.served(&agent_id("b"), NOW).is_empty());
    assert!(fixture.served(&agent_id("unknown"), NOW).is_empty());
}

#[tokio::test]
async fn what_an_agent_may_serve_follows_its_selectors_and_its_ban() {
    let fixture = Fixture::new().await;
    fixture.create(entry("/group", "/spire/server", &["tpm2:a"])).await;
    let served = fixture.create(entry("/w", "/group", &["unix:uid:1"])).await;
    fixture.attest(agent("a", "1", &["tpm2:a"])).await;
    let authorize = || fixture.registry.authorize_entry(&agent_id("a"), served.id(), NOW);
    assert!(authorize().is_some_and(|authorized| authorized.entry() == *served));
    assert!(fixture.registry.authorize_entry(&agent_id("b"), served.id(), NOW).is_none());
    fixture.attest(agent("a", "2", &["tpm2:b"])).await;
    assert!(authorize().is_none());
    fixture.attest(agent("a", "3", &["tpm2:a"])).await;
    assert!(authorize().is_some());
    fixture.registry.ban_agent(&administrator(), &agent_id("a")).await.expect("bans");
    assert!(authorize().is_none());
}

#[tokio::test]
async fn an_entry_that_has_ended_is_not_served_and_then_pruned() {
    let fixture = Fixture::new().await;
    fixture.attest(agent("a", "1", &[])).await;
    let ending = types::Entry { expires_at: NOW + 10, admin: true, ..entry("/w", "/spire/agent/a", &["a:1"]) };
    let stored = fixture.create(ending).await;
    let id = stored.spiffe_id();
    assert_eq!(fixture.served(&agent_id("a"), NOW + 9), ["/w"]);
    assert!(fixture.registry.is_admin(id, NOW + 9));
    assert!(fixture.served(&agent_id("a"), NOW + 10).is_empty());
    assert!(!fixture.registry.is_admin(id, NOW + 10));
    assert_eq!(fixture.registry.prune_expired_entries(NOW + 9).await.expect("prunes"), 0);
    assert_eq!(fixture.registry.prune_expired_entries(NOW + 10).await.expect("prunes"), 1);
    assert!(fixture.registry.entry(stored.id()).is_none());
}

#[tokio::test]
async fn a_renewed_certificate_counts_from_its_first_use() {
    let mut fixture = Fixture::new().await;
    let a = agent_id("a");
    assert_eq!(fixture.standing("1"), AgentStanding::NotAttested);
    assert!(matches!(
        fixture.registry.renew_agent(&authenticated(&a, 1), "2", 3_000).await,
        Err(RegistryError::AgentNotFound)
    ));
    fixture.attest(agent("a", "1", &[])).await;
    fixture.registry.renew_agent(&authenticated(&a, 1), "2", 3_000).await.expect("renews");
    fixture.restart().await;
    assert_eq!((fixture.standing("1"), fixture.standing("2")), (AgentStanding::Active, AgentStanding::ActivatePending));
    fixture.registry.renew_agent(&authenticated(&a, 1), "3", 4_000).await.expect("renews again: the answer was lost");
    assert_eq!(fixture.standing("2"), AgentStanding::NotActive);
    assert!(matches!(fixture.registry.activate_agent(&shown(&a, 2)).await, Err(RegistryError::NotActive)));
    fixture.registry.activate_agent(&shown(&a, 3)).await.expect("activates");
    fixture.registry.activate_agent(&shown(&a, 3)).await.expect("is active");
    assert_eq!((fixture.standing("1"), fixture.standing("3")), (AgentStanding::NotActive, AgentStanding::Active));
    assert_eq!(fixture.registry.agent(&a).map(|a| (a.not_after, a.new_serial.clone())), Some((4_000, String::new())));
    assert_eq!(fixture.standing(""), AgentStanding::NotActive);
}

#[tokio::test]
async fn a_second_attestation_unseats_the_first_certificate() {
    let fixture = Fixture::new().await;
    fixture.attest(agent("a", "1", &[])).await;
    fixture.registry.renew_agent(&authenticated(&agent_id("a"), 1), "2", 3_000).await.expect("renews");
    fixture.registry.set_agent_version(&authenticated(&agent_id("a"), 1), "0.1.0").await.expect("notes");
    fixture.attest(agent("a", "7", &[])).await;
    for old in ["1", "2"] {
        assert_eq!(fixture.standing(old), AgentStanding::NotActive);
    }
    assert_eq!(fixture.standing("7"), AgentStanding::Active);
    assert_eq!(fixture.registry.count_agents(&AgentFilter::default()), 1);
}

#[tokio::test]
async fn a_certificate_that_was_superseded_while_it_waited_is_not_renewed() {
    let fixture = Fixture::new().await;
    let a = agent_id("a");
    fixture.attest(agent("a", "1", &[])).await;
    let let_in = authenticated(&a, 1);
    fixture.attest(agent("a", "7", &[])).await;
    assert!(matches!(fixture.registry.renew_agent(&let_in, "2", 3_000).await, Err(RegistryError::NotActive)));
    assert_eq!((fixture.standing("2"), fixture.standing("7")), (AgentStanding::NotActive, AgentStanding::Active));
    // Nor one whose successor was used meanwhile.
    let let_in = authenticated(&a, 7);
    fixture.registry.renew_agent(&let_in, "8", 3_000).await.expect("renews");
    fixture.registry.activate_agent(&shown(&a, 8)).await.expect("activates");
    assert!(matches!(fixture.registry.renew_agent(&let_in, "9", 4_000).await, Err(RegistryError::NotActive)));
    assert_eq!(fixture.standing("9"), AgentStanding::NotActive);
}

#[tokio::test]
async fn a_banned_agent_stays_out_until_it_is_deleted() {
    let mut fixture = Fixture::new().await;
    let a = agent_id("a");
    assert!(fixture.registry.ban_agent(&administrator(), &a).await.expect("answers").is_none());
    fixture.attest(agent("a", "1", &[])).await;
    fixture.registry.renew_agent(&authenticated(&a, 1), "2", 3_000).await.expect("renews");
    assert!(fixture.registry.ban_agent(&administrator(), &a).await.expect("bans").is_some());
    fixture.restart().await;
    for serial in ["1", "2", ""] {
        assert_eq!(fixture.standing(serial), AgentStanding::Banned);
    }
    assert!(matches!(
        fixture.registry.renew_agent(&authenticated(&a, 1), "3", 1).await,
        Err(RegistryError::AgentBanned)
    ));
    assert!(matches!(fixture.registry.activate_agent(&shown(&a, 2)).await, Err(RegistryError::AgentBanned)));
    assert!(fixture.registry.delete_agent(&administrator(), &a).await.expect("deletes"));
    assert!(!fixture.registry.delete_agent(&administrator(), &a).await.expect("answers"));
    fixture.attest(agent("a", "4", &[])).await;
    assert_eq!(fixture.standing("4"), AgentStanding::Active);
}

#[tokio::test]
async fn an_agent_that_was_banned_while_it_attested_is_refused() {
    let fixture = Fixture::new().await;
    let by = administrator();
    let token = |at| fixture.registry.create_join_token(&by, "t", at, None, NOW);
    token(NOW + 10).await.expect("made");
    fixture.join("t", "1").await.expect("attests");
    let joined = agent_id("join_token/t");
    assert!(fixture.registry.ban_agent(&administrator(), &joined).await.expect("bans").is_some());
    token(NOW + 10).await.expect("the first one was used");
    assert!(matches!(fixture.join("t", "2").await, Err(RegistryError::AgentBanned)));
    assert_eq!(fixture.registry.agent_standing(&joined, "2"), AgentStanding::Banned);
}

#[tokio::test]
async fn agents_are_pruned_only_when_they_can_come_back() {
    let fixture = Fixture::new().await;
    fixture.attest(agent("old", "1", &[])).await;
    fixture.attest(agent("banned", "1", &[])).await;
    fixture.attest(AgentRecord { can_reattest: false, ..agent("token", "1", &[]) }).await;
    fixture.attest(AgentRecord { not_after: 5_000, ..agent("young", "1", &[]) }).await;
    fixture.attest(agent("renewed", "1", &[])).await;
    fixture.registry.renew_agent(&authenticated(&agent_id("renewed"), 1), "2", 5_000).await.expect("renews");
    fixture.registry.ban_agent(&administrator(), &agent_id("banned")).await.expect("bans");
    assert_eq!(fixture.registry.prune_expired_agents(2_000, false).await.expect("prunes"), 0);
    assert_eq!(fixture.registry.prune_expired_agents(2_001, false).await.expect("prunes"), 1);
    let left = || -> Vec<String> {
        let left = fixture.registry.list_agents(&AgentFilter::default(), 0, "").expect("lists").items;
        left.iter().map(|agent| agent.spiffe_id.path().trim_start_matches("/spire/agent/").to_owned()).collect()
    };
    assert_eq!(left(), ["banned", "token", "young", "renewed"]);
    assert_eq!(fixture.registry.prune_expired_agents(2_001, true).await.expect("prunes"), 1, "asked for with tofu");
    assert_eq!(left(), ["banned", "young", "renewed"]);
}

#[tokio::test]
async fn agents_are_listed_by_what_is_asked() {
    let fixture = Fixture::new().await;
    fixture.attest(agent("a", "1", &["tpm2:x", "tpm2:y"])).await;
    fixture
        .attest(AgentRecord {
            attestation_type: "join_token".into(),
            can_reattest: false,
            not_after: 9,
            ..agent("b", "1", &[])
        })
        .await;
    fixture.registry.ban_agent(&administrator(), &agent_id("b")).await.expect("bans");
    let count = |filter: AgentFilter| fixture.registry.count_agents(&filter);
    assert_eq!(count(AgentFilter { attestation_type: Some("tpm2".into()), ..Default::default() }), 1);
    assert_eq!(count(AgentFilter { banned: Some(true), ..Default::default() }), 1);
    assert_eq!(count(AgentFilter { can_reattest: Some(true), banned: Some(true), ..Default::default() }), 0);
    assert_eq!(count(AgentFilter { expires_before: Some(10), ..Default::default() }), 1);
    let page = fixture.registry.list_agents(&AgentFilter::default(), 1, "").expect("lists");
    assert_eq!(page.items.len(), 1);
    let rest = fixture.registry.list_agents(&AgentFilter::default(), 1, &page.next_page_token).expect("lists");
    assert_eq!((rest.items[0].spiffe_id.clone(), rest.next_page_token), (agent_id("b"), String::new()));
    let forged = fixture.registry.list_agents(&AgentFilter::default(), 1, "'; --");
    assert!(matches!(forged, Err(RegistryError::PageToken(_))));
}

#[tokio::test]
async fn a_join_token_and_its_alias_come_together_or_not_at_all() {
    let fixture = Fixture::new().await;
    let alias = td().id_with_path("/site").expect("legal");
    let create = |token: &'static str, alias: Option<SpiffeId>| {
        let registry = &fixture.registry;
        async move { registry.create_join_token(&administrator(), token, 2_000, alias.as_ref(), NOW).await }
    };
    create("t", Some(alias.clone())).await.expect("creates");
    let token_agent = agent_id("join_token/t");
    let entries = fixture.registry.list_entries(&EntryFilter::default(), 0, "").expect("lists").items;
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].spiffe_id(), entries[0].parent_id()), (&alias, &token_agent));
    let selectors: SelectorSet = [format!("spiffe_id:{token_agent}").parse().expect("selector")].into_iter().collect();
    assert_eq!(*entries[0].selectors(), selectors);
    assert!(matches!(create("t", None).await, Err(RegistryError::TokenTaken)));
    let reserved = create("u", Some(agent_id("x"))).await;
    assert!(matches!(reserved, Err(RegistryError::Entry(EntryError::Reserved))));
    assert_eq!(fixture.store.join_token("u", NOW).await.expect("answers"), ShownToken::Unknown);
    for bad in ["a/b", "..", "", "a b"] {
        assert!(matches!(create(bad, None).await, Err(RegistryError::Token(_))), "{bad:?}");
    }
    // The agent that attests with the token serves what is registered below the alias.
    fixture.attest(AgentRecord { spiffe_id: token_agent.clone(), ..agent("x", "1", &[]) }).await;
    fixture.create(entry("/w", "/site", &["unix:uid:1"])).await;
    assert_eq!(fixture.served(&token_agent, NOW), ["/site", "/w"]);
}

#[tokio::test]
async fn a_join_token_is_spent_by_the_change_that_stores_its_agent_or_not_at_all() {
    let fixture = Fixture::new().await;
    fixture.registry.create_join_token(&administrator(), "t", 2_000, None, NOW).await.expect("made");
    let good = async || fixture.store.join_token("t", NOW).await.expect("answers") == ShownToken::Good;
    drop(fixture.shows("t").await);
    assert!(good().await, "its node hung up before anything was stored");
    let sql = |text: &str| rusqlite::Connection::open(&fixture.path).expect("opens").execute_batch(text).expect(text);
    // As where the disk is full just then.
    sql("CREATE TRIGGER full BEFORE INSERT ON agents BEGIN SELECT RAISE(ABORT, 'full'); END");
    fixture.join("t", "1").await.expect_err("no room");
    assert!(good().await && fixture.registry.agent(&agent_id("join_token/t")).is_none());
    sql("DROP TRIGGER full");
    fixture.attest(AgentRecord { banned: true, ..agent("join_token/t", "1", &[]) }).await;
    assert!(matches!(fixture.join("t", "1").await, Err(RegistryError::AgentBanned)));
    assert!(good().await, "an agent that is banned has not used it");
    fixture.registry.delete_agent(&administrator(), &agent_id("join_token/t")).await.expect("deletes");
    let too_late = fixture.registry.attest_agent(&fixture.shows("t").await, ("1", 3_000), 2_000).await;
    assert!(matches!(too_late, Err(RegistryError::JoinToken(JoinTokenRefusal::Expired))), "{too_late:?}");
    fixture.join("t", "2").await.expect("attests");
    assert!(!good().await);
}

#[tokio::test]
async fn of_many_nodes_that_show_one_token_at_once_exactly_one_becomes_an_agent() {
    let fixture = Fixture::new().await;
    fixture.registry.create_join_token(&administrator(), "t", 2_000, None, NOW).await.expect("made");
    let mut nodes = Vec::new();
    for serial in 0..50 {
        nodes.push((fixture.shows("t").await, serial.to_string()));
    }
    let all = nodes.iter().map(|(node, serial)| fixture.registry.attest_agent(node, (serial, 2_000), NOW));
    let outcomes = futures_util::future::join_all(all).await;
    let unknown = |o: &&Result<_, _>| matches!(o, Err(RegistryError::JoinToken(JoinTokenRefusal::Unknown)));
    assert_eq!(outcomes.iter().filter(unknown).count(), 49);
    let winner = outcomes.iter().position(Result::is_ok).expect("one");
    let stored = fixture.registry.agent(&agent_id("join_token/t")).expect("stored");
    assert_eq!(stored.serial, winner.to_string());
}

#[tokio::test]
async fn changes_are_counted_when_they_are_in_force() {
    let fixture = Fixture::new().await;
    let mut changes = fixture.registry.changes();
    let stored = fixture.create(entry("/w", "/p", &["a:1"])).await;
    assert!(changes.has_changed().expect("registry lives"));
    changes.mark_unchanged();
    let _ = fixture.registry.create_entry(&administrator(), &entry("/w", "/p", &["a:1"]), NOW).await.answer().await;
    let _ = fixture.registry.prune_expired_entries(NOW).await;
    assert!(!changes.has_changed().expect("registry lives"), "nothing changed");
    fixture.registry.delete_entry(&administrator(), stored.id()).await.answer().await.expect("deletes");
    assert!(changes.has_changed().expect("registry lives"));
}

#[tokio::test]
async fn news_of_an_agent_come_with_its_entries_and_with_its_own_row_and_not_with_others() {
    let fixture = Fixture::new().await;
    let (one, other) = (agent("1", "1", &["a:1"]), agent("2", "2", &[]));
    fixture.attest(one.clone()).await;
    let waits = |news: &mut News| news.come().now_or_never().is_none();
    let mut news = fixture.registry.news();
    let look = |news: &mut News| news.look(&fixture.registry, &one.spiffe_id, NOW).len();
    assert_eq!(look(&mut news), 0);
    fixture.attest(other.clone()).await;
    assert!(waits(&mut news), "another agent's row");
    fixture.attest(AgentRecord { serial: "3".into(), ..one.clone() }).await;
    assert!(!waits(&mut news), "its own row");
    look(&mut news);
    let before = news.revision();
    fixture.create(entry("/w", "/p", &["b:1"])).await;
    fixture.create(entry("/w", other.spiffe_id.path(), &["b:1"])).await;
    assert!(waits(&mut news) && news.revision() > before, "entries of others");
    fixture.create(entry("/v", one.spiffe_id.path(), &["b:1"])).await;
    assert!(!waits(&mut news), "an entry of its own");
    assert_eq!(look(&mut news), 1);
    let alias = fixture.create(entry("/p", "/spire/server", &["a:1"])).await;
    assert!(!waits(&mut news), "what makes it one of a group");
    assert_eq!(look(&mut news), 2);
    let below = fixture.create(entry("/x", "/w", &["b:1"])).await;
    assert!(!waits(&mut news), "an entry below one of the group's");
    assert_eq!(look(&mut news), 3);
    for (entry, left) in [(below, 2), (alias, 1)] {
        fixture.registry.delete_entry(&administrator(), entry.id()).await.answer().await.expect("deletes");
        assert!(!waits(&mut news), "its end");
        assert_eq!(look(&mut news), left);
    }
    fixture.registry.ban_agent(&administrator(), &one.spiffe_id).await.expect("bans");
    assert!(!waits(&mut news), "its own end");
}

#[tokio::test]
async fn everything_is_as_it_was_after_a_restart() {
    let mut fixture = Fixture::new().await;
    for n in 0..30 {
        let wire = types::Entry {
            expires_at: n % 3,
            dns_names: vec![format!("h{n}.test")],
            ..entry(&format!("/w/{n}"), "/p", &["a:1"])
        };
        fixture.create(wire).await;
        fixture.attest(agent(&n.to_string(), &n.to_string(), &["tpm2:a b", "tpm2:c:d"])).await;
    }
    let all = EntryFilter::default();
    let fourth = fixture.registry.list_entries(&all, 0, "").expect("lists").items[3].clone();
    fixture.registry.delete_entry(&administrator(), fourth.id()).await.answer().await.expect("deletes");
    let lists = |registry: &Registry| {
        let entries = registry.list_entries(&all, 0, "").expect("lists").items;
        (entries, registry.list_agents(&AgentFilter::default(), 0, "").expect("lists").items)
    };
    let before = lists(&fixture.registry);
    fixture.restart().await;
    assert_eq!(lists(&fixture.registry), before);
}

//= FLT-S4
#[tokio::test]
async fn a_store_that_fails_changes_nothing_in_memory() {
    let fixture = Fixture::new().await;
    fixture.store.close().await;
    let refused =
        fixture.registry.create_entry(&administrator(), &entry("/w", "/p", &["a:1"]), NOW).await.answer().await;
    assert!(matches!(refused, Err(RegistryError::Store(StoreError::Closed))));
    assert_eq!(fixture.registry.count_entries(&EntryFilter::default()), 0);
}

#[tokio::test]
async fn the_alias_of_a_join_token_ends_with_its_agent_and_other_entries_stay() {
    let mut fixture = Fixture::new().await;
    let alias = td().id_with_path("/group").expect("legal");
    let all = |fixture: &Fixture| fixture.registry.count_entries(&EntryFilter::default());
    for token in ["used", "expired", "kept"] {
        fixture.registry.create_join_token(&administrator(), token, NOW + 10, Some(&alias), NOW).await.expect("adds");
    }
    let joined = |token: &str| AgentRecord {
        attestation_type: "join_token".into(),
        can_reattest: false,
        ek_sha256: None,
        certificate_sha256: None,
        ..agent(&format!("join_token/{token}"), "1", &[])
    };
    for used in ["used", "kept"] {
        assert_eq!(fixture.spend(used).await, ShownToken::Good);
    }
    fixture.attest(joined("used")).await;
    fixture.attest(joined("kept")).await;
    // An operator's own entries below the agent, one of nearly the same shape.
    fixture.create(entry("/workload", "/spire/agent/join_token/used", &["unix:uid:1"])).await;
    let other = "spiffe_id:spiffe://td/spire/agent/join_token/kept";
    fixture.create(entry("/odd", "/spire/agent/join_token/used", &[other])).await;
    assert_eq!(all(&fixture), 5);
    assert!(fixture.registry.delete_agent(&administrator(), &agent_id("join_token/used")).await.expect("deletes"));
    assert_eq!(all(&fixture), 4, "its alias is gone");
    assert_eq!(fixture.registry.prune_join_tokens(NOW + 10).await.expect("prunes"), 1);
    assert_eq!(all(&fixture), 3, "nobody can use the token any more");
    fixture.restart().await;
    assert_eq!(all(&fixture), 3);
    assert_eq!(fixture.registry.agent(&agent_id("join_token/kept")).map(|agent| agent.banned), Some(false));
}

#[tokio::test]
async fn what_a_token_that_left_no_agent_was_to_serve_is_not_the_next_ones_of_its_value() {
    let fixture = Fixture::new().await;
    let (by, alias) = (administrator(), td().id_with_path("/group").expect("legal"));
    let token = |alias: Option<&SpiffeId>, now| {
        let (registry, by, alias) = (&fixture.registry, &by, alias.cloned());
        async move { registry.create_join_token(by, "t", now + 10, alias.as_ref(), now).await }
    };
    fixture.create(entry("/w", "/group", &["unix:uid:1"])).await;
    let all = || fixture.registry.count_entries(&EntryFilter::default());
    // Shown too late: it is forgotten with its alias.
    token(Some(&alias), NOW).await.expect("made");
    assert_eq!(fixture.store.join_token("t", NOW + 10).await.expect("answers"), ShownToken::Expired);
    assert_eq!(fixture.registry.prune_join_tokens(NOW + 10).await.expect("prunes"), 1);
    assert_eq!(all(), 1, "the alias is gone");
    // Used up, and no agent came of it: so an earlier version may have left it.
    token(Some(&alias), NOW).await.expect("made");
    assert_eq!(fixture.spend("t").await, ShownToken::Good);
    assert_eq!(all(), 2);
    token(None, NOW).await.expect("made again, for another purpose");
    assert_eq!(all(), 1, "the alias is gone");
    // An agent's own alias stays.
    assert_eq!(fixture.spend("t").await, ShownToken::Good);
    token(Some(&alias), NOW).await.expect("made");
    fixture.join("t", "1").await.expect("attests");
    token(None, NOW).await.expect("made");
    assert_eq!(all(), 2);
    let served = || fixture.registry.authorized_entries(&agent_id("join_token/t"), NOW).len();
    assert_eq!(served(), 2);
    // Also when a token that was made anew beside it is swept out.
    assert_eq!(fixture.registry.prune_join_tokens(NOW + 10).await.expect("prunes"), 1);
    assert_eq!((all(), served()), (2, 2));
}

#[tokio::test]
async fn a_parent_takes_as_many_entries_as_an_agent_takes_and_not_one_more() {
    let fixture = Fixture::new().await;
    let all: Vec<_> =
        (0..=MAX_ENTRIES_PER_PARENT).map(|n| entry(&format!("/w{n}"), "/node", &["unix:uid:1"])).collect();
    // All at once: what is on its way to the disk counts too.
    let outcomes = fixture.create_all(&all).await;
    let refused: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(matches!(refused[..], [RegistryError::ParentFull { .. }]), "{refused:?}");
    assert!(refused[0].to_string().contains("spiffe://td/node has 20000 entries below it"), "{}", refused[0]);
    let elsewhere = fixture.create(entry("/more", "/other", &["unix:uid:1"])).await;
    let moved = types::Entry { id: elsewhere.id().to_owned(), ..entry("/more", "/node", &["unix:uid:1"]) };
    let refused = fixture.registry.update_entry(&administrator(), &moved, None).await.answer().await;
    assert!(matches!(refused, Err(RegistryError::ParentFull { .. })), "moving one there is no way around");
    let first = outcomes[0].as_ref().expect("created");
    let Created::New(first) = first else { panic!("not similar to any") };
    fixture.registry.delete_entry(&administrator(), first.id()).await.answer().await.expect("deletes");
    fixture.registry.update_entry(&administrator(), &moved, None).await.answer().await.expect("there is room again");
}

#[tokio::test]
async fn a_batch_moves_entries_out_of_a_full_parent_and_then_as_many_others_into_it() {
    let fixture = Fixture::new().await;
    let full: Vec<_> =
        (0..MAX_ENTRIES_PER_PARENT).map(|n| entry(&format!("/w{n}"), "/full", &["unix:uid:1"])).collect();
    assert!(fixture.create_all(&full).await.iter().all(Result::is_ok));
    let others = (0..3).map(|n| entry(&format!("/other{n}"), "/elsewhere", &["unix:uid:1"])).collect::<Vec<_>>();
    let others = fixture.create_all(&others).await;
    let listed = fixture.registry.list_entries(&EntryFilter::default(), 3, "").expect("lists").items;
    let to =
        |parent: &str, id: &str, path: &str| types::Entry { id: id.into(), ..entry(path, parent, &["unix:uid:1"]) };
    let out = listed[..2].iter().map(|inside| to("/elsewhere", inside.id(), inside.spiffe_id().path()));
    let into = others.iter().map(|other| match other {
        Ok(Created::New(other)) => to("/full", other.id(), other.spiffe_id().path()),
        other => panic!("{other:?}"),
    });
    let (by, mut batch) = (administrator(), Vec::new());
    for moved in out.chain(into) {
        batch.push(fixture.registry.update_entry(&by, &moved, None).await);
    }
    let outcomes = futures_util::future::join_all(batch.into_iter().map(Queued::answer)).await;
    assert!(outcomes[..4].iter().all(Result::is_ok), "{outcomes:?}");
    assert!(matches!(outcomes[4], Err(RegistryError::ParentFull { .. })), "two went out, and a third came in");
    let again = fixture.create_all(&full[2..3]).await;
    assert!(matches!(again[..], [Ok(Created::Similar(_))]), "what is there already needs no room: {again:?}");
}

#[tokio::test]
async fn what_several_groups_give_an_agent_together_ends_where_one_parents_entries_end() {
    let fixture = Fixture::new().await;
    for group in ["a", "b"] {
        fixture.create(entry(&format!("/group/{group}"), "/spire/server", &[&format!("group:{group}")])).await;
    }
    fixture.attest(agent("a", "1", &["group:a", "group:b"])).await;
    let device = agent_id("a");
    let below = |parent: &'static str, count: usize| {
        (0..count).map(move |n| entry(&format!("{parent}/w{n:05}"), parent, &["unix:uid:1"]))
    };
    let half = MAX_ENTRIES_PER_AGENT / 2;
    let old: Vec<_> = below("/group/a", half).chain(below("/group/b", half)).collect();
    let created = fixture.create_all(&old).await;
    assert!(created.iter().all(Result::is_ok));
    let view = fixture.registry.authorized_entries(&device, NOW);
    assert_eq!((view.len(), view.left_out()), (MAX_ENTRIES_PER_AGENT, 0));
    let Ok(Created::New(newest)) = fixture
        .registry
        .create_entry(&administrator(), &entry("/group/b/new", "/group/b", &["unix:uid:1"]), NOW + 1)
        .await
        .answer()
        .await
    else {
        panic!("its parent has room")
    };
    let view = fixture.registry.authorized_entries(&device, NOW + 1);
    assert_eq!((view.len(), view.left_out()), (MAX_ENTRIES_PER_AGENT, 1));
    assert!(fixture.registry.authorize_entry(&device, newest.id(), NOW + 1).is_none(), "nor is it signed for");
    let Ok(Created::New(first)) = &created[0] else { panic!("new") };
    fixture.registry.delete_entry(&administrator(), first.id()).await.answer().await.expect("deletes");
    let view = fixture.registry.authorized_entries(&device, NOW + 1);
    assert_eq!((view.len(), view.left_out()), (MAX_ENTRIES_PER_AGENT, 0));
    assert!(view.find(newest.id()).is_some(), "there is room now");
}

/// As if each bound had been wider once: what is in the database is read, served and listed; who changes it is told of the bound.
#[tokio::test]
async fn what_was_accepted_before_a_bound_got_tighter_neither_stops_a_start_nor_is_lost() {
    let mut fixture = Fixture::new().await;
    fixture.create(types::Entry { id: "old".into(), ..entry("/old", "/spire/agent/a", &["unix:uid:1"]) }).await;
    let many: Vec<String> = (0..MAX_SELECTORS + 1).map(|number| format!("unix:gid:{number}")).collect();
    let mut wide = vec![format!("unix:path:/{}", "x".repeat(5_000)), "unix:tab:a\tb".to_owned()];
    wide.extend(many);
    let row = fixture.registry.entry("old").expect("created").to_row();
    let terms = OldTerms {
        selectors: wide.clone(),
        dns_names: vec!["Not A Name!".into(); MAX_DNS_NAMES + 1],
        hint: "h".repeat(MAX_HINT_BYTES + 1),
        store_svid: true,
        x509_svid_ttl: u32::MAX,
    };
    fixture.store.close().await;
    let database = rusqlite::Connection::open(&fixture.path).expect("opens");
    let id = format!("id with spaces{}", "x".repeat(300));
    let put = "UPDATE entries SET id = ?1, spiffe_id = 'spiffe://td/spire/reserved', terms = ?2 WHERE id = ?3";
    database.execute(put, (&id, terms.encode_to_vec(), &row.id)).expect("written");
    database
        .execute(
            "INSERT INTO devices (ek_sha256, serial, labels, state, manufacturer, created_at, last_attested_at)
                  VALUES (zeroblob(32), ?1, json_object('site', ?1), 'enrolled', '', 0, 0)",
            ["s\n".repeat(5_000)],
        )
        .expect("written");
    drop(database);
    fixture.restart().await;
    let stored = fixture.registry.entry(&id).expect("it is there");
    assert_eq!((stored.selectors().len(), stored.dns_names().len()), (wide.len(), MAX_DNS_NAMES + 1));
    fixture.attest(agent("a", "1", &[])).await;
    assert_eq!(fixture.served(&agent_id("a"), NOW), ["/spire/reserved"]);
    let listed = fixture.registry.list_entries(&EntryFilter::default(), 10, "").expect("lists").items;
    assert_eq!(listed[0].to_pb().x509_svid_ttl, i32::MAX, "as much as the wire can say");
    assert_eq!(fixture.registry.devices().device(&[0; 32]).expect("known").selectors().len(), 2);
    let change = types::Entry { id: id.clone(), hint: "short".into(), ..Default::default() };
    let mask = types::EntryMask { hint: true, ..Default::default() };
    let refused = fixture.registry.update_entry(&administrator(), &change, Some(&mask)).await.answer().await;
    assert!(matches!(refused, Err(RegistryError::Entry(EntryError::Reserved))), "{refused:?}");
    fixture.registry.delete_entry(&administrator(), &id).await.answer().await.expect("deletes");
}

/// The stored form's fields that this test fills, by the tags that databases have.
#[derive(Clone, PartialEq, prost::Message)]
struct OldTerms {
    #[prost(string, repeated, tag = "1")]
    selectors: Vec<String>,
    #[prost(uint32, tag = "2")]
    x509_svid_ttl: u32,
    #[prost(string, repeated, tag = "7")]
    dns_names: Vec<String>,
    #[prost(bool, tag = "8")]
    store_svid: bool,
    #[prost(string, tag = "9")]
    hint: String,
}
