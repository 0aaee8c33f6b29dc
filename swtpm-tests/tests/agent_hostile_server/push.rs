//! Servers that tell of changes, or do not, or do it badly.

use std::time::{Duration, Instant};

use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_lab::scripted_server::{BundleLie, PushPlay, ScriptedServer, entry};
use tonic::Code;

use super::{Agent, Pace, on_demand, rare, serving, until};
use ironroot_agent::jwt_svids::RenewalPatience;

#[tokio::test]
async fn a_push_brings_what_is_new_and_a_ban_though_the_next_poll_is_an_hour_away() {
    let server = ScriptedServer::start();
    server.play(|script| script.pushes = PushPlay::Honest);
    let agent = Agent::start_listening(&server);
    until("it serves", || agent.ids().len() == 1).await;
    server.play(|script| script.entries.push(entry("second", "/second", 1)));
    server.push();
    until("the second entry is served", || agent.ids().len() == 2).await;
    server.play(|script| script.denial = Some(Reason::AgentBanned));
    server.push();
    until("nothing is served", || agent.ids().is_empty()).await;
    assert_eq!(server.asked().watches, 1, "one stream is held all the time");
}

#[tokio::test]
async fn an_agent_that_is_told_of_changes_polls_more_rarely_and_as_before_once_it_is_told_no_more() {
    let mut server = ScriptedServer::start();
    server.play(|script| script.pushes = PushPlay::Honest);
    let agent = serving(&server).await;
    let (syncs, began) = (server.asked().syncs, Instant::now());
    until("it polls all the same", || server.asked().syncs > syncs + 1).await;
    assert!(began.elapsed() > Duration::from_secs(1), "two polls, twelve intervals apart: {:?}", began.elapsed());
    server.stop();
    server.play(|script| {
        script.pushes = PushPlay::Absent;
        script.entries.push(entry("second", "/second", 1));
    });
    server.start_again();
    until("a server without pushes is polled", || agent.ids().len() == 2).await;
    let syncs = server.asked().syncs;
    until("it is polled at the interval", || server.asked().syncs > syncs + 5).await;
}

#[tokio::test]
async fn a_server_that_has_no_pushes_is_asked_for_them_once_and_polled() {
    let server = ScriptedServer::start();
    let _agent = serving(&server).await;
    until("many polls", || server.asked().syncs > 20).await;
    assert_eq!(server.asked().watches, 1);
}

#[tokio::test]
async fn a_server_that_refuses_or_breaks_off_its_pushes_is_polled_and_asked_for_them_ever_more_rarely() {
    for play in [PushPlay::Refused(Code::ResourceExhausted), PushPlay::Refused(Code::Internal), PushPlay::Broken] {
        let server = ScriptedServer::start();
        server.play(|script| script.pushes = play);
        let agent = serving(&server).await;
        server.play(|script| script.entries.push(entry("second", "/second", 1)));
        until("the second entry is served", || agent.ids().len() == 2).await;
        until("many polls", || server.asked().syncs > 20).await;
        assert!(server.asked().watches < 10, "{play:?}: {:?}", server.asked());
        agent.stop().await;
    }
}

#[tokio::test]
async fn a_failed_poll_withdraws_nothing_though_the_server_pushes_and_max_age_is_short() {
    let server = ScriptedServer::start();
    server.play(|script| script.pushes = PushPlay::Honest);
    let (sync_interval, max_age) = (Duration::from_secs(1), Some(Duration::from_secs(5)));
    let agent = Agent::start_at(&server, Pace { sync_interval, max_age, patience: RenewalPatience::default() });
    until("it serves", || agent.serial().is_some()).await;
    let (good, bundles) = (agent.serial(), server.asked().bundles);
    server.play(|script| script.bundle = BundleLie::Garbage);
    until("a poll fails", || server.asked().bundles > bundles).await;
    server.play(|script| script.bundle = BundleLie::Honest);
    let syncs = server.asked().syncs;
    until("the next does not", || {
        assert_eq!(agent.serial(), good, "what is valid goes on being served");
        server.asked().syncs > syncs
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_asks_rarely_holds_neither_a_stream_nor_a_connection() {
    let server = ScriptedServer::start();
    server.play(|script| {
        script.pushes = PushPlay::Honest;
        script.entries.push(on_demand("rare"));
    });
    for (minutes, watches, connections) in [(10, 1, 1), (11, 0, 2)] {
        let before = server.asked();
        let agent = Agent::start_at(
            &server,
            Pace {
                sync_interval: Duration::from_secs(60 * minutes),
                max_age: None,
                patience: RenewalPatience::default(),
            },
        );
        until("it serves", || agent.ids().len() == 1).await;
        agent.requests.ask(rare()).await;
        until("it serves what it asked for by the way", || agent.ids().len() == 2).await;
        let asked = server.asked();
        assert_eq!(asked.watches - before.watches, watches, "asked every {minutes} minutes");
        assert_eq!(asked.mutual_connections - before.mutual_connections, connections, "asked every {minutes} minutes");
        agent.stop().await;
    }
}

/// A call that a server never answers costs the sync that makes it five seconds; the back-off makes such syncs few.
const MOST_MUTE_CALLS: u32 = 3;

//= FLT-N2
#[tokio::test]
async fn a_server_that_takes_the_call_for_pushes_and_says_nothing_delays_three_syncs_of_twenty_at_most() {
    let server = ScriptedServer::start();
    server.play(|script| script.pushes = PushPlay::Mute);
    let began = Instant::now();
    let _agent = serving(&server).await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    until("many polls", || server.asked().syncs > 20).await;
    assert!(server.asked().watches <= MOST_MUTE_CALLS, "{:?}", server.asked());
}

#[tokio::test]
async fn a_server_that_pushes_without_pause_gets_a_sync_a_second_and_no_more() {
    let server = ScriptedServer::start();
    server.play(|script| script.pushes = PushPlay::Flood);
    let agent = Agent::start_listening(&server);
    until("it serves", || agent.ids().len() == 1).await;
    let (syncs, began) = (server.asked().syncs, Instant::now());
    until("it syncs", || server.asked().syncs > syncs + 3).await;
    assert!(began.elapsed() > Duration::from_secs(2), "four syncs within {:?}", began.elapsed());
    agent.stop().await;
}
