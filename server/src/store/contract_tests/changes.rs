//! What happens in one commit or not at all, and what happens once.

use ironroot_api::TrustDomain;
use ironroot_api::bundle::Bundle;
use ironroot_api::pb::types;

use super::{Fixture, administrator, device, entry, listen, td, told};
use crate::devices::DuplicateSerials;
use crate::facts::agent::AgentRecord;
use crate::facts::device::DeviceState;
use crate::facts::entry::{NewEntry, RegistrationEntry};
use crate::facts::older_state::{Evidence, OlderState};
use crate::federation::{DISSOCIATED_AT_ONCE, DeleteMode, Federation};
use crate::registry::{AgentStanding, Registry};
use crate::store::{Changed, SLICE, ShownToken, StoreError, Transaction};

#[tokio::test]
async fn a_device_is_banned_with_all_its_agents_or_not_at_all() {
    for fixture in Fixture::of_each_engine() {
        let registry = Registry::load(fixture.store.clone()).await.expect("loads");
        let agents = [("a", 1), ("b", 1), ("c", 2)];
        let agents = agents.map(|(name, of)| AgentRecord { ek_sha256: Some([of; 32]), ..AgentRecord::example(name) });
        let devices = registry.devices();
        devices.import(&administrator(), vec![device(1)], DuplicateSerials::Refused, 1).await.expect("imports");
        let all = agents.clone();
        let add = fixture.store.change(move |tx| all.iter().try_for_each(|agent| tx.put_agent(agent).map(drop)));
        add.await.expect("adds");
        let heard = listen(&fixture.store).await;
        told(&heard);
        let standing = |of: &AgentRecord| registry.agent_standing(&of.spiffe_id, "1");
        // As where the disk is full just then.
        fixture.fill_for_agents();
        devices.ban(&administrator(), &[1; 32], 5).await.expect_err("no room");
        assert_eq!(devices.device(&[1; 32]).expect("known").state, DeviceState::Enrolled);
        assert_eq!(agents.each_ref().map(standing), [AgentStanding::Active; 3]);
        assert_eq!(told(&heard), []);
        fixture.free_for_agents();
        let banned = devices.ban(&administrator(), &[1; 32], 5).await.expect("bans");
        let ids = agents.each_ref().map(|agent| agent.spiffe_id.clone());
        assert_eq!((banned.device.state, &banned.agents[..]), (DeviceState::Banned, &ids[..2]));
        let (banned, active) = (AgentStanding::Banned, AgentStanding::Active);
        assert_eq!(agents.each_ref().map(standing), [banned, banned, active], "another chip's agent goes on");
        let [a, b, _] = ids.map(Changed::Agent);
        assert_eq!(told(&heard), [Some(vec![Changed::Device([1; 32]), a, b])], "one commit");
    }
}

//= FLT-S3
#[tokio::test]
async fn of_a_hundred_redemptions_of_one_token_exactly_one_wins() {
    for fixture in Fixture::of_each_engine() {
        let registry = Registry::load(fixture.store.clone()).await.expect("loads");
        registry.create_join_token(&administrator(), "once", 100, None, 0).await.expect("adds");
        let takes = (0..100).map(|_| {
            let store = fixture.store.clone();
            tokio::spawn(async move { store.change(|tx| tx.spend_join_token("once", 99)).await.expect("store works") })
        });
        let taken = futures_util::future::join_all(takes.collect::<Vec<_>>()).await;
        let (won, lost): (Vec<_>, Vec<_>) =
            taken.into_iter().map(|taken| taken.expect("no panic")).partition(|shown| *shown == ShownToken::Good);
        assert_eq!((won.len(), lost), (1, vec![ShownToken::Unknown; 99]));
        assert_eq!(fixture.store.join_token("once", 99).await.expect("store works"), ShownToken::Unknown);
    }
}

/// How many rows the largest commit has in the log behind that revision, and how many all have.
fn logged_behind(fixture: &Fixture, revision: i64) -> (i64, i64) {
    let commits =
        format!("(SELECT count(*) AS rows_of_it FROM changes WHERE revision > {revision} GROUP BY id) AS commits");
    let number = |what: &str| fixture.number(&format!("SELECT coalesce({what}(rows_of_it), 0) FROM {commits}"));
    (number("max"), number("sum"))
}

#[tokio::test]
async fn a_sweep_of_many_rows_lets_others_have_their_turn_after_each_slice_and_ends_with_the_last() {
    for fixture in Fixture::of_each_engine() {
        let (many, store, by) = (2 * SLICE + 1, &fixture.store, administrator());
        let registry = Registry::load(store.clone()).await.expect("loads");
        let federation = Federation::load(store.clone()).await.expect("loads");
        let other = TrustDomain::new("other").expect("legal");
        let wire = types::Bundle { trust_domain: other.to_string(), ..Default::default() };
        federation.set_bundle(&by, Bundle::from_pb(&wire).expect("legal")).await.expect("set");
        let add_entries = async |named: &'static str| {
            let add = move |tx: &Transaction<'_>| (0..many).try_for_each(|number| tx.add_entry(&ending(named, number)));
            store.change::<_, StoreError>(add).await.expect("added");
        };
        let add_agents = move |tx: &Transaction<'_>| {
            let agent = |number| AgentRecord {
                not_after: 1,
                can_reattest: true,
                ..AgentRecord::example(&format!("a{number}"))
            };
            (0..many).try_for_each(|number| tx.put_agent(&agent(number)).map(drop))
        };
        store.change::<_, StoreError>(add_agents).await.expect("added");
        let now = || fixture.number("SELECT revision FROM revision");

        add_entries("ended").await;
        let before = now();
        assert_eq!(registry.prune_expired_entries(5).await.expect("swept"), many as usize);
        assert_eq!(logged_behind(&fixture, before), (SLICE, many));
        let before = now();
        assert_eq!(registry.prune_expired_agents(5, false).await.expect("swept"), many as usize);
        assert_eq!(logged_behind(&fixture, before), (SLICE, many));
        add_entries("asking").await;
        let before = now();
        federation.delete_bundle(&by, &other, DeleteMode::Dissociate).await.expect("goes");
        assert_eq!(
            logged_behind(&fixture, before),
            (DISSOCIATED_AT_ONCE, many + 1),
            "the bundle with the last of them"
        );
        assert_eq!(fixture.number("SELECT count(*) FROM entry_federations"), 0);
        registry.prune_expired_entries(5).await.expect("swept");
        federation.set_bundle(&by, Bundle::from_pb(&wire).expect("legal")).await.expect("set");
        add_entries("going").await;
        let before = now();
        federation.delete_bundle(&by, &other, DeleteMode::Delete).await.expect("goes");
        assert_eq!(logged_behind(&fixture, before), (SLICE, many + 1));
        assert_eq!(fixture.number("SELECT (SELECT count(*) FROM entries) + (SELECT count(*) FROM agents)"), 0);
    }
}

/// An entry that asks for another trust domain's bundle and ends soon.
fn ending(named: &str, number: i64) -> RegistrationEntry {
    let id = format!("{named}{number}");
    let wire = types::Entry { expires_at: 5, federates_with: vec!["other".into()], ..entry(&id) };
    NewEntry::from_pb(&wire, &td()).expect("legal").register(id, 1)
}

#[tokio::test]
async fn an_older_state_that_was_settled_stays_noted_until_another_is_noticed() {
    for fixture in Fixture::of_each_engine() {
        let store = &fixture.store;
        let evidence = |logged| Evidence::Log { logged, revision: 1 };
        let noted = async || {
            let read =
                |tx: &Transaction<'_>| Ok((tx.older_state()?, tx.settled_older_state()?.map(|(older, _)| older)));
            store.change::<_, StoreError>(read).await.expect("read")
        };
        let note = async |logged, at| {
            let note = move |tx: &Transaction<'_>| tx.note_older_state(&evidence(logged), at);
            store.change::<_, StoreError>(note).await.expect("noted");
        };
        let settle = || store.change::<_, StoreError>(|tx| tx.settle_older_state());
        settle().await.expect("nothing is there");
        assert_eq!(noted().await, (None, None));
        note(9, 20).await;
        settle().await.expect("nothing is accepted");
        let waiting = OlderState { noticed_at: 20, evidence: evidence(9), accepted_at: None };
        assert_eq!(noted().await, (Some(waiting.clone()), None));
        assert!(store.change::<_, StoreError>(|tx| tx.accept_older_state(30)).await.expect("accepted"));
        let accepted = OlderState { accepted_at: Some(30), ..waiting };
        assert_eq!(noted().await, (Some(accepted.clone()), None), "and no server has begun with it");
        for _ in 0..2 {
            settle().await.expect("settled");
            assert_eq!(noted().await, (None, Some(accepted.clone())));
        }
        assert!(!store.change::<_, StoreError>(|tx| tx.accept_older_state(40)).await.expect("nothing waits"));
        note(12, 50).await;
        let another = OlderState { noticed_at: 50, evidence: evidence(12), accepted_at: None };
        assert_eq!(noted().await, (Some(another), None));
    }
}
