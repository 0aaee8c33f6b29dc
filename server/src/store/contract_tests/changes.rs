//! What happens in one commit or not at all, and what happens once.

use super::{Fixture, administrator, device, listen, told};
use crate::devices::DuplicateSerials;
use crate::facts::agent::AgentRecord;
use crate::facts::device::DeviceState;
use crate::registry::{AgentStanding, Registry};
use crate::store::{Changed, ShownToken};

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
