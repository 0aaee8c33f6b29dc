//! Servers that say what has changed, and those that lie about it.

use std::time::{Duration, Instant};

use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_lab::scripted_server::{DeltaLie, PushPlay, ScriptedServer, TRUST_DOMAIN, entry};

use super::{Agent, Pace, until};
use ironroot_agent::jwt_svids::RenewalPatience;

fn start(lie: DeltaLie) -> ScriptedServer {
    let server = ScriptedServer::start();
    server.play(|script| script.pushes = PushPlay::Deltas(lie));
    server
}

async fn listening(server: &ScriptedServer) -> Agent {
    let agent = Agent::start_listening(server);
    until("it serves", || agent.ids().len() == 1).await;
    agent
}

#[tokio::test]
async fn what_has_changed_is_served_without_asking_for_it() {
    let server = start(DeltaLie::Honest);
    let agent = listening(&server).await;
    let before = server.asked();
    server.play(|script| script.entries.push(entry("second", "/second", 1)));
    server.push();
    until("the second entry is served", || agent.ids().len() == 2).await;
    server.play(|script| script.entries[1] = entry("second", "/renamed", 2));
    server.push();
    until("under its new name", || agent.ids().contains(&format!("spiffe://{TRUST_DOMAIN}/renamed"))).await;
    server.play(|script| script.entries.truncate(1));
    server.push();
    until("it is gone", || agent.ids().len() == 1).await;
    let serial = agent.serial();
    server.play(|script| script.tainted = true);
    server.push();
    until("the new authority is there", || agent.authorities() == 2).await;
    until("what the tainted one signed is replaced", || agent.serial() != serial).await;
    let asked = server.asked();
    assert_eq!((asked.syncs, asked.bundles, asked.watches), (before.syncs, before.bundles, 1));
}

#[tokio::test]
async fn a_ban_ends_what_is_served_though_the_next_poll_is_far() {
    let server = start(DeltaLie::WrongView);
    let agent = listening(&server).await;
    server.play(|script| script.denial = Some(Reason::AgentBanned));
    server.push();
    until("nothing is served", || agent.ids().is_empty()).await;
}

#[tokio::test]
async fn an_agent_goes_on_from_what_it_holds_after_a_connection_broke() {
    let mut server = start(DeltaLie::Honest);
    let agent = Agent::start_at(
        &server,
        Pace { sync_interval: Duration::from_secs(1), max_age: None, patience: RenewalPatience::default() },
    );
    until("it listens", || server.asked().watches == 1 && agent.ids().len() == 1).await;
    server.stop();
    server.start_again();
    until("it listens again", || server.asked().watches == 2).await;
    let before = server.asked();
    server.play(|script| script.entries.push(entry("second", "/second", 1)));
    server.push();
    until("the second entry is served", || agent.ids().len() == 2).await;
    assert_eq!((server.asked().syncs, server.asked().bundles), (before.syncs, before.bundles));
    server.stop();
    server.play(|script| script.entries.truncate(1));
    server.start_again();
    until("what this server cannot tell is asked for", || agent.ids().len() == 1).await;
    assert!(server.asked().syncs > before.syncs);
}

#[tokio::test]
async fn a_delta_that_is_wrong_is_not_taken_in_and_the_truth_is_asked_for() {
    for lie in [
        DeltaLie::WrongView,
        DeltaLie::NoView,
        DeltaLie::OutOfOrder,
        DeltaLie::Oversized,
        DeltaLie::Amplified,
        DeltaLie::Word,
    ] {
        let server = start(lie);
        let agent = listening(&server).await;
        let (serial, syncs) = (agent.serial(), server.asked().syncs);
        server.play(|script| script.entries.push(entry("second", "/second", 1)));
        server.push();
        until(&format!("{lie:?}: the truth is served"), || agent.ids().len() == 2).await;
        assert!(server.asked().syncs > syncs, "{lie:?}: {:?}", server.asked());
        assert!(agent.serials().contains(&serial.expect("served")), "{lie:?}: what was served goes on");
        agent.stop().await;
    }
}

#[tokio::test]
async fn a_delta_that_comes_twice_changes_nothing_the_second_time() {
    let server = start(DeltaLie::Repeated);
    let agent = Agent::start_at(
        &server,
        Pace { sync_interval: Duration::from_secs(1), max_age: None, patience: RenewalPatience::default() },
    );
    until("it listens", || server.asked().watches == 1 && agent.ids().len() == 1).await;
    server.play(|script| script.entries.push(entry("second", "/second", 1)));
    server.push();
    until("the second entry is served", || agent.ids().len() == 2).await;
    until("the stream is given up and another one opened", || server.asked().watches > 1).await;
    assert_eq!(agent.ids().len(), 2);
}

#[tokio::test]
async fn an_entry_of_another_trust_domain_is_served_to_nobody_and_costs_the_others_nothing() {
    let server = start(DeltaLie::Foreign);
    let agent = listening(&server).await;
    let syncs = server.asked().syncs;
    server.play(|script| script.entries.push(entry("second", "/second", 1)));
    server.push();
    until("the second entry is served", || agent.ids().len() == 2).await;
    assert!(agent.ids().iter().all(|id| id.starts_with(&format!("spiffe://{TRUST_DOMAIN}/"))), "{:?}", agent.ids());
    assert_eq!(server.asked().syncs, syncs, "the view is as it was named");
}

#[tokio::test]
async fn a_server_that_tells_wrong_deltas_without_pause_gets_a_sync_a_second_and_no_more() {
    let server = start(DeltaLie::Flood);
    let agent = listening(&server).await;
    let (syncs, began) = (server.asked().syncs, Instant::now());
    until("it syncs", || server.asked().syncs > syncs + 3).await;
    assert!(began.elapsed() > Duration::from_secs(2), "four syncs within {:?}", began.elapsed());
    agent.stop().await;
}
